//! A record of `raw`: a frame as its host sent it, or an operator's command.
//!
//! ```text
//!   frame    0 version │ 1 kind 0 │ 2 event's kind │ 3 · │ 4 host length u16 │ 6 DID length u16 │ 8 host epoch u32
//!            │ 12 seq's start u32 │ 16 seq's end u32 │ 20 ···· │ 24 upstream seq │ 32 received at │ 40 host │ DID │ frame
//!   command  0 version │ 1 kind 1 │ 2 action │ 3 · │ 4 DID length u16 │ 6 ·· │ 8 received at │ 16 id, 16 bytes │ 32 DID
//! ```

use std::sync::Arc;

use atproto::{
    event::Kind,
    frame::SeqSlot,
    syntax::{Did, HostName},
};
use bytes::Bytes;
use storage::intake::{Action, Command, CommandReceipt, RawFrame, Receipts, Work};

use super::{Malformed, len_of, split, split_did, u16_at, u32_at, u64_at};

const VERSION: u8 = 1;
const FRAME: u8 = 0;
const COMMAND: u8 = 1;
const FRAME_HEAD_BYTES: usize = 40;
const COMMAND_HEAD_BYTES: usize = 32;
const KINDS: [Kind; 4] = [Kind::Commit, Kind::Sync, Kind::Identity, Kind::Account];
const ACTIONS: [Action; 2] = [Action::Takedown, Action::Restore];

/// What tells one command from all others: random.
pub(crate) type CommandId = [u8; 16];

/// Appends a frame's record.
pub(crate) fn write_frame(out: &mut Vec<u8>, frame: &RawFrame) {
    let (host, did) = (frame.host.as_str().as_bytes(), frame.did.as_str().as_bytes());
    out.reserve(FRAME_HEAD_BYTES + host.len() + did.len() + frame.bytes.len());
    let kind = match frame.kind {
        Kind::Commit => 0,
        Kind::Sync => 1,
        Kind::Identity => 2,
        Kind::Account => 3,
    };
    out.extend([VERSION, FRAME, kind, 0]);
    out.extend(len_of(host));
    out.extend(len_of(did));
    out.extend(frame.host_epoch.to_le_bytes());
    out.extend(frame.seq_slot.start.to_le_bytes());
    out.extend(frame.seq_slot.end.to_le_bytes());
    out.extend([0; 4]);
    out.extend(frame.upstream_seq.to_le_bytes());
    out.extend(frame.received_at_micros.to_le_bytes());
    out.extend_from_slice(host);
    out.extend_from_slice(did);
    out.extend_from_slice(&frame.bytes);
}

/// Appends a command's record.
pub(crate) fn write_command(out: &mut Vec<u8>, command: &Command, id: &CommandId) {
    let did = command.did.as_str().as_bytes();
    let action = match command.action {
        Action::Takedown => 0,
        Action::Restore => 1,
    };
    out.extend([VERSION, COMMAND, action, 0]);
    out.extend(len_of(did));
    out.extend([0; 2]);
    out.extend(command.received_at_micros.to_le_bytes());
    out.extend(id);
    out.extend_from_slice(did);
}

/// A record, to be judged once it is known who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// An event.
    Frame(Frame),
    /// What an operator wants.
    Command(Order),
}

/// A frame as it came: [`RawFrame`] without who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    host: HostName,
    host_epoch: u32,
    upstream_seq: u64,
    received_at_micros: u64,
    did: Did,
    kind: Kind,
    seq_slot: SeqSlot,
    bytes: Bytes,
}

/// A command as it was given: [`Command`] without who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Which one.
    pub(crate) id: CommandId,
    /// The account.
    pub(crate) did: Did,
    action: Action,
    received_at_micros: u64,
}

impl Frame {
    /// What a lane is given.
    pub(crate) fn into_work(self, receipts: Arc<dyn Receipts>) -> Work {
        let Frame { host, host_epoch, upstream_seq, received_at_micros, did, kind, seq_slot, bytes } = self;
        Work::Frame(RawFrame {
            host,
            host_epoch,
            upstream_seq,
            received_at_micros,
            did,
            kind,
            seq_slot,
            bytes,
            receipts,
        })
    }
}

impl Order {
    /// What a lane is given.
    pub(crate) fn into_work(self, receipt: Arc<dyn CommandReceipt>) -> Work {
        let Order { did, action, received_at_micros, .. } = self;
        Work::Command(Command { did, action, received_at_micros, receipt })
    }
}

impl Record {
    /// The record that is exactly these bytes. A frame's are copied, so that nothing holds on to Kafka's buffers.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
        let record = match bytes {
            [VERSION, FRAME, ..] => decode_frame(bytes).map(Record::Frame),
            [VERSION, COMMAND, ..] => decode_command(bytes).map(Record::Command),
            _ => None,
        };
        record.ok_or(Malformed { what: "a record of raw" })
    }
}

fn decode_frame(bytes: &[u8]) -> Option<Frame> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD_BYTES)?;
    let (host, rest) = split(rest, u16_at(head, 4))?;
    let host = HostName::parse(std::str::from_utf8(host).ok()?).ok()?;
    let (did, frame) = split_did(rest, u16_at(head, 6))?;
    let seq_slot = SeqSlot { start: u32_at(head, 12), end: u32_at(head, 16) };
    let in_frame = seq_slot.start < seq_slot.end && seq_slot.end as usize <= frame.len();
    in_frame.then_some(())?;
    Some(Frame {
        host,
        host_epoch: u32_at(head, 8),
        upstream_seq: u64_at(head, 24),
        received_at_micros: u64_at(head, 32),
        did,
        kind: *KINDS.get(usize::from(head[2]))?,
        seq_slot,
        bytes: Bytes::copy_from_slice(frame),
    })
}

fn decode_command(bytes: &[u8]) -> Option<Order> {
    let (head, rest) = bytes.split_at_checked(COMMAND_HEAD_BYTES)?;
    let (did, rest) = split_did(rest, u16_at(head, 4))?;
    rest.is_empty().then_some(())?;
    let action = *ACTIONS.get(usize::from(head[2]))?;
    let id = head[16..32].try_into().ok()?;
    Some(Order { id, did, action, received_at_micros: u64_at(head, 8) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::{conformance::sample, intake::Declined, repos::RepoState};

    use super::*;

    struct Nobody;

    impl Receipts for Nobody {
        fn taken(&self, _upstream_seq: u64) {}
    }

    impl CommandReceipt for Nobody {
        fn settled(&self, _result: Result<RepoState, Declined>) {}
    }

    fn frame(number: u64, kind: Kind, host_epoch: u32, len: usize) -> RawFrame {
        let did = sample::did(number);
        let (bytes, seq_slot) = sample::frame(&did, number, len);
        let (host, receipts) = (sample::host(number % 10_000), Arc::new(Nobody));
        let (upstream_seq, received_at_micros) = (number, number / 3);
        RawFrame { host, host_epoch, upstream_seq, received_at_micros, did, kind, seq_slot, bytes, receipts }
    }

    proptest! {
        #[test]
        fn a_frame_survives_its_encoding(number in any::<u64>(), kind in 0_usize..4, epoch in any::<u32>(), len in 0_usize..500) {
            let sent = frame(number, KINDS[kind], epoch, len);
            let mut bytes = Vec::new();
            write_frame(&mut bytes, &sent);
            let Ok(Record::Frame(frame)) = Record::decode(&bytes) else { panic!("not a frame") };
            let Work::Frame(got) = frame.into_work(Arc::new(Nobody)) else { panic!("not a frame") };
            prop_assert_eq!(
                (got.host, got.host_epoch, got.upstream_seq, got.received_at_micros, got.did, got.kind, got.bytes),
                (sent.host, sent.host_epoch, sent.upstream_seq, sent.received_at_micros, sent.did, sent.kind, sent.bytes)
            );
            prop_assert_eq!((got.seq_slot.start, got.seq_slot.end), (sent.seq_slot.start, sent.seq_slot.end));
        }

        #[test]
        fn a_command_survives_its_encoding(number in any::<u64>(), id in any::<CommandId>(), action in 0_usize..2) {
            let (did, action, receipt) = (sample::did(number), ACTIONS[action], Arc::new(Nobody));
            let mut bytes = Vec::new();
            let command = Command { did: did.clone(), action, received_at_micros: number, receipt };
            write_command(&mut bytes, &command, &id);
            let order = Order { id, did, action, received_at_micros: number };
            prop_assert_eq!(Record::decode(&bytes), Ok(Record::Command(order)));
            bytes.push(0);
            prop_assert!(Record::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in 0..2 {
                let mut record = vec![VERSION, kind];
                record.extend(&bytes);
                let _ = Record::decode(&record);
            }
            let _ = Record::decode(&bytes);
        }
    }

    #[test]
    fn frozen_bytes() {
        let (host, did) = (HostName::parse("a.example").unwrap(), Did::parse("did:web:b.example").unwrap());
        let sent = RawFrame {
            host,
            host_epoch: 2,
            upstream_seq: 3,
            received_at_micros: 4,
            did: did.clone(),
            kind: Kind::Identity,
            seq_slot: SeqSlot { start: 1, end: 2 },
            bytes: Bytes::from_static(b"xyz"),
            receipts: Arc::new(Nobody),
        };
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &sent);
        let mut expected = vec![1, 0, 2, 0, 9, 0, 17, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"a.exampledid:web:b.examplexyz");
        assert_eq!(bytes, expected);

        let command = Command { did, action: Action::Restore, received_at_micros: 5, receipt: Arc::new(Nobody) };
        let mut bytes = Vec::new();
        write_command(&mut bytes, &command, &[7; 16]);
        let mut expected = vec![1, 1, 1, 0, 17, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([7; 16]);
        expected.extend(b"did:web:b.example");
        assert_eq!(bytes, expected);
    }
}
