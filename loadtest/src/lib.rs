//! A simulated network for a relay to crawl, and the instruments to judge and measure the relay from outside.
//!
//! [`network`] is hosts, a PLC directory and accounts that sign real commits; [`traffic`] says when a frame was sent;
//! [`subscriber`] reads a relay's stream and reconnects, [`follower`] keeps every frame's hash through cuts and kills,
//! [`crowd`] is thousands of lean readers; [`lan`] is a network whose cables can be pulled; [`judge`] compares what was sent with what arrived; [`scenario`] is all that
//! must be refused or is easily refused by mistake; [`relay_process`] runs the `mainstem` program as a child,
//! [`cluster`] many of its processes over Kafka and CQL, which [`chaos`] breaks; [`mod@bench`] measures what an event costs it, [`cold_start`]
//! how it comes to know many accounts.
//!
//! What must hold: nothing here knows the relay's code, only its sockets and its command line; what a relay is judged
//! by is made with `atproto`'s encoders and sent with another WebSocket implementation than the relay's own.

pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod cold_start;
pub mod crowd;
pub mod follower;
pub mod judge;
pub mod lan;
pub mod network;
pub mod relay_process;
pub mod scenario;
pub mod subscriber;
pub mod traffic;
