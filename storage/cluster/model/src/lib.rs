//! The cluster backend's protocol as a model: every interleaving of its steps with crashes, zombies and repeats, within
//! bounds, is visited, and what must hold is checked in each state. `docs/cluster.md` tells the protocol and why it holds;
//! the names of steps are the same there, here and in `storage-cluster`.
//!
//! - `steps`: what can be left out, to see that it is needed.
//! - `state`: the logs, the rows, and what each process has in memory.
//! - `validator`, `sequencer`, `crawler`: what each role may do next.
//! - `properties`: what must hold.
//! - `protocol`: all of it as a [`stateright::Model`], and the bounds.
//!
//! Topics are logs that only grow: a reader may be as slow as it likes, so a record that comes later is the same as one
//! that is read later. That is why a lane's `raw` may be given as a whole from the start, and why one lane with everything
//! that can happen to it stands for all, beside another whose log is given.
//!
//! Not in the model: time (a process may stand still at any point for as long as it likes, which is what a zombie is), a
//! broker's loss (a record that was acknowledged stays, which Kafka promises with three replicas, two of them in sync),
//! trimming, and bytes.

mod crawler;
mod properties;
mod protocol;
mod sequencer;
mod state;
mod steps;
mod validator;

pub use crawler::Act as CrawlerAct;
pub use protocol::{Action, Bounds, Faults, Protocol};
pub use sequencer::Act as SequencerAct;
pub use state::{Change, Event, Raw, Record, Repo, State};
pub use steps::Step;
pub use validator::Act as ValidatorAct;
