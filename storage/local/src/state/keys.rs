//! The keyspaces and their keys. Frozen.

/// DID → repo.
pub(crate) const REPOS: &str = "repos";
/// DID → seq of the event by which we have taken the account down.
pub(crate) const TAKEDOWNS: &str = "takedowns";
/// Host name → how many repos have it in their state.
pub(crate) const COUNTS: &str = "counts";
/// Host name → row.
pub(crate) const HOSTS: &str = "hosts";
/// Host name → cursor. Apart from the rows, so that a cursor never overwrites a status.
pub(crate) const CURSORS: &str = "cursors";
/// DID → who the account is, two generations.
pub(crate) const IDENTITIES: [&str; 2] = ["identities_0", "identities_1"];
/// Single values.
pub(crate) const META: &str = "meta";

/// In [`META`]: the last seq whose state is in [`REPOS`].
pub(crate) const WATERMARK: &str = "watermark";
/// In [`META`]: how many repos there are.
pub(crate) const REPO_COUNT: &str = "repo_count";
/// In [`META`]: which of [`IDENTITIES`] is the younger, 0 or 1.
pub(crate) const IDENTITIES_YOUNG: &str = "identities_young";
/// In [`META`]: what an operator has decided about hosts at large.
pub(crate) const POLICY: &str = "policy";
