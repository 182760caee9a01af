//! What can go wrong at a store, told by what it means for the caller.

/// A store's failure. The retry policy reads the variant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It surely did not happen; the same call may be made again.
    #[error("failed to {what}: it did not happen")]
    Determinate {
        /// The operation: `append to the log`, …
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It may have happened. The caller must look, or end what it serves and start from what is durable.
    #[error("failed to {what}: it may have happened")]
    Indeterminate {
        /// The operation.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
    /// Somebody else owns it by now. What was asked for does not count, and whoever asked ends what it did in the owner's
    /// place, and that alone.
    #[error("failed to {what}: somebody else owns it now")]
    Fenced {
        /// The operation.
        what: &'static str,
    },
    /// Stored data is not what was written. Never served; an operator must act.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// Which data, and what to do.
        what: String,
    },
}
