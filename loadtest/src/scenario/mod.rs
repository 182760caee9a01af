//! Every wrong thing that a relay must refuse, and every right one that is easily refused by mistake, as data.
//!
//! [`catalogue`] is the table: a name, what is expected, and how it is forged. `author` is an account that writes both
//! right and wrong; `draft` its events in parts; `bytes` what no encoder makes; [`stage`] plays a kind among right
//! events of the same account.
//!
//! What must hold: what is wrong differs from what is right in one thing only, unless its name says otherwise; each
//! kind has a host of its own, so that what the relay counts against that host is that kind's.

mod author;
mod bytes;
pub mod catalogue;
mod draft;
pub mod stage;

pub use self::{
    author::Author,
    catalogue::{Expectation, KINDS, Kind},
    draft::{Draft, Step, SyncDraft},
    stage::{Played, Stage},
};
