//! The relay's log as it is on the disk, and ledgers compared with it.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use atproto::event::{Routed, route};
use bytes::Bytes;
use loadtest::{
    follower::{Shard, ledger::Entry},
    judge::Received,
};
use prometheus::Registry;
use storage::{lane::LaneCount, seq::Seq};

/// All that a log holds.
pub(crate) struct Log {
    /// In the log's order.
    pub(crate) events: Vec<Logged>,
}

/// One event of it.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) entry: Entry,
    pub(crate) frame: Bytes,
}

impl Log {
    /// Reads the segment files of a relay that has ended.
    pub(crate) async fn read(data_dir: &Path) -> Log {
        const PIECE_BYTES: usize = 4 << 20;
        let lanes = LaneCount(NonZeroU32::new(16).unwrap());
        let config = storage_local::Config::new(data_dir, lanes, Arc::new(|| 0), Registry::new());
        let opened = storage_local::open(storage_local::Config { window: None, ..config }).unwrap();
        let log = opened.stores().log;
        let mut after = Seq(log.window().borrow().first.0 - 1);
        let mut events = Vec::new();
        loop {
            let piece = log.read(after, PIECE_BYTES).await.unwrap();
            let Some(last) = piece.last() else { break };
            after = last.seq;
            events.extend(
                piece
                    .into_iter()
                    .map(|event| Logged { entry: Entry::of(event.seq.0, &event.frame), frame: event.frame }),
            );
        }
        opened.close().await.unwrap();
        Log { events }
    }

    /// What the judge needs of it.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.events.iter().filter_map(|event| Received::read(&event.frame)).collect()
    }

    /// The entries that a complete ledger must hold that begins with `first`: of all accounts, or of a shard.
    pub(crate) fn from(&self, first: u64, shard: Option<Shard>) -> impl Iterator<Item = Entry> {
        let held = move |event: &&Logged| shard.is_none_or(|shard| shard.holds(did_of(&event.frame)));
        let events = self.events.iter().filter(held).map(|event| event.entry);
        events.skip_while(move |entry| entry.seq < first)
    }
}

fn did_of(frame: &[u8]) -> &str {
    match route(frame) {
        Ok(Routed::Event(route)) => route.did,
        other => panic!("not an event: {other:?}"),
    }
}

/// Where a ledger is not what it must be: the first difference, in words.
pub(crate) fn difference(ledger: &[Entry], expected: impl Iterator<Item = Entry>) -> Option<String> {
    let mut ledger = ledger.iter().copied();
    let mut last = None;
    for expected in expected {
        let seq = expected.seq;
        match ledger.next() {
            Some(got) if got == expected => last = Some(seq),
            Some(got) if got.seq == seq => return Some(format!("the bytes of {seq} are not the log's")),
            Some(got) if Some(got.seq) <= last => return Some(format!("{} comes again after {last:?}", got.seq)),
            Some(got) => return Some(format!("{} comes after {last:?} instead of {seq}", got.seq)),
            None => return Some(format!("it ends with {last:?}, and {seq} is missing")),
        }
    }
    ledger.next().map(|more| format!("{} comes after the log's end", more.seq))
}

#[test]
fn a_ledger_differs_by_what_is_missing_comes_twice_or_is_altered() {
    let log = [Entry::of(3, b"three"), Entry::of(4, b"four"), Entry::of(6, b"six")];
    let against = |ledger: &[Entry]| difference(ledger, log.iter().copied()).unwrap_or_default();
    assert_eq!(against(&log), "");
    assert_eq!(against(&log[..2]), "it ends with Some(4), and 6 is missing");
    assert_eq!(against(&[log[0], log[2]]), "6 comes after Some(3) instead of 4");
    assert_eq!(against(&[log[0], log[1], log[1], log[2]]), "4 comes again after Some(4)");
    assert_eq!(against(&[log[0], log[1], log[2], log[0]]), "3 comes after the log's end");
    assert_eq!(against(&[log[0], Entry::of(4, b"for"), log[2]]), "the bytes of 4 are not the log's");
}
