//! From raw frames to accepted events: the judge.
//!
//! `rules` and `verdict` are pure: a decoded event, what is known of its account, and the time go in, a verdict comes
//! out. `docket` is a lane's order of business, pure too; `announcement` makes the events that are our own. `accounts` is
//! how operators' commands come in. `pipeline` takes lanes from the intake through both into the log;
//! `identity` knows who an account is; `status` asks hosts how their accounts are. `verify` judges recorded frames with no
//! network.

pub mod accounts;
mod announcement;
pub mod docket;
mod finding;
mod following;
pub mod identity;
mod metrics;
pub mod pipeline;
pub mod places;
mod refreshes;
pub mod rules;
pub mod status;
pub mod verdict;
pub mod verify;

pub use accounts::{AccountError, Accounts};
pub use pipeline::{Config, Error, Parts, Validator};
