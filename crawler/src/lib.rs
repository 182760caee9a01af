//! Sockets in: reads the firehose of every host and hands its events to the Intake.
//!
//! This crate owns which hosts are read, when they are tried again, and how far each has been read. It parses only what
//! routing needs; whether an event is true is the validator's business. What must hold:
//! 1. a host's saved cursor covers nothing that is not durably taken (`cursor`);
//! 2. a host is never given up, and never tried in a hot loop (`host`, `schedule`);
//! 3. nothing a host sends ends more than its own connection, and most of it not even that (`session`);
//! 4. when the Intake is full, sockets are not read but for a little, in which pings are seen (`inbox`);
//! 5. over a rate a host is read more slowly, and nothing is dropped (`throttle`);
//! 6. what strangers ask for is bounded, in hosts a day, in looks and in memory (`quota`);
//! 7. where several processes share the hosts, each reads those it is given, and no other (`assign`, `follow`).

mod assign;
mod crawler;
mod cursor;
mod discover;
mod elsewhere;
mod follow;
mod following;
mod host;
mod inbox;
mod keepalive;
mod live;
mod metrics;
mod operator;
mod order;
mod origin;
mod quota;
mod schedule;
mod session;
mod throttle;

pub use assign::{Ours, Steps};
pub use crawler::{Added, Config, Crawler, Error, Handle, Parts, Start};
pub use cursor::{LowWater, Tally};
pub use discover::{BootstrapError, CrawlRequestError};
pub use host::{Action, End, Input, Machine, Phase, Timing};
pub use keepalive::{Due, Keepalive, Patience};
pub use live::{BannedBy, HostView, LastEnd, Throttled};
pub use metrics::Metrics;
pub use operator::{CrawlRequestsView, Rewound};
pub use order::{Order, Place};
pub use quota::{Quota, Scope, Spent};
pub use schedule::Pacer;
pub use throttle::{Held, Rate, Throttle};
