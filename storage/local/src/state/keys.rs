//! The keyspaces and their keys. Frozen.

/// DID → repo.
pub(crate) const REPOS: &str = "repos";
/// Host name → how many repos have it in their state.
pub(crate) const COUNTS: &str = "counts";
/// Host name → row.
pub(crate) const HOSTS: &str = "hosts";
/// Host name → cursor. Apart from the rows, so that a cursor never overwrites a status.
pub(crate) const CURSORS: &str = "cursors";
/// Single values.
pub(crate) const META: &str = "meta";

/// In [`META`]: the last seq whose state is in [`REPOS`].
pub(crate) const WATERMARK: &str = "watermark";
/// In [`META`]: how many repos there are.
pub(crate) const REPO_COUNT: &str = "repo_count";
