//! What this program is: its version, and the commit it was built from.

/// The version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit; `debug-build` of a debug build, `unknown` where there was no repository.
pub const COMMIT: &str = env!("MAINSTEM_COMMIT");

/// Both, for people.
pub const LONG: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("MAINSTEM_COMMIT"), ")");
