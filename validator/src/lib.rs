//! From raw frames to accepted events: the judge.
//!
//! `rules` and `verdict` are pure: a decoded event, what is known of its account, and the time go in, a verdict comes
//! out. `pipeline` takes lanes from the intake through the rules into the log; `identity` knows who an account is.

pub mod rules;
pub mod verdict;
