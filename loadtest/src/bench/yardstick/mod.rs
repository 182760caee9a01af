//! What the machine itself takes, measured in the same run as the relay: the least that could be.
//!
//! What must hold: nothing here is the relay's code, so that a yardstick doesn't shrink or grow with it.

mod bare;
mod cpu_time;
mod disk;
mod loopback;
mod sockets;

pub use self::{
    bare::{Bare, Signatures},
    disk::{Append, Fsync, FsyncWatch},
    loopback::Loopback,
    sockets::Sockets,
};
