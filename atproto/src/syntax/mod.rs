//! Identifiers and other strings with a grammar (specification: DID, Handle, NSID, TID, Record Key, Lexicon datetime).
//!
//! Each type can only be made by its `parse`, so whoever holds one need not check again.

mod datetime;
mod did;
mod handle;
mod host_name;
mod nsid;
mod repo_path;
mod rkey;
mod tid;

pub use datetime::Datetime;
pub use did::Did;
pub use handle::Handle;
pub use host_name::HostName;
pub use nsid::Nsid;
pub use repo_path::RepoPath;
pub use rkey::RecordKey;
pub use tid::Tid;

/// Whether `text` is a DNS label: 1 to 63 letters, digits and hyphens, no hyphen at an end.
fn is_label(text: impl AsRef<[u8]>) -> bool {
    let text = text.as_ref();
    (1..=63).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && text.first() != Some(&b'-')
        && text.last() != Some(&b'-')
}

/// A string that does not follow its grammar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {why}")]
pub struct SyntaxError {
    /// Which grammar: `DID`, `TID`, …
    pub what: &'static str,
    /// Which of its rules is broken.
    pub why: &'static str,
}
