//! The AT Protocol's formats: bytes in, values out.
//!
//! This crate owns what the protocol's bytes mean: identifiers, DAG-CBOR, stream frames and events, CAR files, the
//! Merkle search tree, signed commits, keys and DID documents. It owns no task, clock, socket, log or metric, so
//! everything in it is a function of its arguments and can be tested with a table.
//!
//! What must hold: no input makes any function here panic, recurse without bound, or allocate more than a small
//! multiple of the input's size. Values borrow from the input where they can.

pub mod car;
pub mod cbor;
pub mod cid;
pub mod commit;
pub mod crypto;
pub mod did_doc;
pub mod event;
pub mod frame;
pub mod mst;
pub mod record;
pub mod syntax;
