//! Traffic as an instrument: signed beforehand, the same for everybody, sent at little cost, and timed to the
//! microsecond.
//!
//! [`profile`] says what it is like, [`generate`] makes it, [`folder`] is what lies on disk, [`Player`] sends it;
//! [`stamp`] is how a subscriber, in whatever process and behind whatever relay, knows when a host sent what it reads.

pub mod blocks;
pub mod folder;
pub mod generate;
pub mod latency;
mod player;
pub mod profile;
mod site;
pub mod stamp;

pub use self::{
    folder::Folder,
    player::{Config, Error, Names, Pace, Player, Stats},
};
