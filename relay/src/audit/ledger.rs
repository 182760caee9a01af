//! What came on each of two streams, and what did not. Pure; times are since the audit began.
//!
//! An event waits here from when it came on one stream until it comes on the other; then it is kept for a while so that a
//! repeat is known as one.
//!
//! What must hold: no event counts twice, what lies at the edges ([`presence`](super::presence)) never counts as missing,
//! and memory has a bound in bytes whatever the streams do. Where it is reached, what was found on both streams is
//! forgotten, the oldest first and never before it is settled; where that is not enough the audit ends, by [`Full`].

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    time::Duration,
};

use atproto::event::Kind;
use loadtest::traffic::latency::Latencies;
use serde::Serialize;

use super::{
    fingerprint::{Content, Fingerprint, Key, Message},
    presence::{Place, Presence, Span},
};

/// One of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that is audited.
    Ours,
    /// The one that it is held against.
    Theirs,
}

/// How many events of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// `#commit`
    pub commit: u64,
    /// `#sync`
    pub sync: u64,
    /// `#identity`
    pub identity: u64,
    /// `#account`
    pub account: u64,
}

/// What one stream brought.
#[derive(Debug, Default)]
pub struct Stream {
    /// When it was there.
    pub presence: Presence,
    /// Its events, repeats included.
    pub events: Counts,
    /// Bytes of all messages.
    pub bytes: u64,
    /// The first and the last seq.
    pub seqs: Option<(u64, u64)>,
    /// Events that had come on this stream before.
    pub repeats: u64,
    /// Of them, those that say something else than before.
    pub contradictions: u64,
    /// Messages that could not be read, or were too large to be.
    pub unreadable: u64,
    /// What was wrong with the first of them.
    pub unreadable_first: Option<String>,
    /// Why the last connection ended, or was none.
    pub lost_last: Option<String>,
    /// The last error frame since the last connection.
    said: Option<String>,
}

/// An event by what people find it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its kind.
    pub kind: Kind,
    /// Whose it is.
    pub did: String,
    /// Its rev, or its time.
    pub version: String,
    /// Its seq on the stream that has it.
    pub seq: u64,
}

/// An event that says one thing on one stream and another on the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The event, with our seq.
    pub event: Example,
    /// Their seq.
    pub their_seq: u64,
    /// What differs.
    pub parts: Vec<&'static str>,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// How much.
    pub events: Counts,
    /// The first of it.
    pub first: Vec<Difference>,
}

/// How much later events came on one stream than on the other.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    /// On ours, where they came first on theirs.
    pub ours: Latencies,
    /// On theirs, where they came first on ours.
    pub theirs: Latencies,
}

/// What a stream lacks of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// How much.
    pub events: Counts,
    /// One of it.
    pub example: Example,
}

/// What a stream lacks, by account.
pub type Lacks = BTreeMap<String, Lack>;

/// Events that came on one stream alone and are not judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotJudged {
    /// They may have come on the other before we were there.
    pub begin: u64,
    /// They may come on the other yet.
    pub end: u64,
    /// The other was not there.
    pub gap: u64,
}

/// All that was found.
#[derive(Debug)]
pub struct Findings {
    /// Our stream.
    pub ours: Stream,
    /// The other one.
    pub theirs: Stream,
    /// The time that was audited; `None` where the streams were never there together.
    pub span: Option<Span>,
    /// Events that came on both.
    pub both: Counts,
    /// Of them, those that differ.
    pub differences: Differences,
    /// How long after each other they came.
    pub delays: Delays,
    /// What ours lacks.
    pub ours_lacks: Lacks,
    /// What theirs lacks.
    pub theirs_lacks: Lacks,
    /// What is left.
    pub not_judged: NotJudged,
    /// Events of both streams that were forgotten for want of memory: a repeat of one would count as missing.
    pub forgotten: u64,
}

/// There is no memory for another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory for events that came on one stream alone is full")]
pub struct Full;

/// Keeps the account of two streams.
#[derive(Debug)]
pub struct Ledger {
    settle: Duration,
    bytes_max: usize,
    bytes: usize,
    entries: BTreeMap<Key, Entry>,
    /// What came on both, the oldest first, and when that was known.
    settled: VecDeque<(Key, Duration)>,
    waiting: u64,
    ours: Stream,
    theirs: Stream,
    both: Counts,
    differences: Differences,
    delays: Delays,
    forgotten: u64,
}

/// An event.
#[derive(Debug)]
struct Entry {
    content: Content,
    /// On one stream; `None` when it came on both.
    alone: Option<Box<Alone>>,
}

/// An event that came on one stream and not on the other.
#[derive(Debug)]
struct Alone {
    side: Side,
    at: Duration,
    /// Whether the stream was catching up, so that the delay tells of our connection.
    late: bool,
    kind: Kind,
    seq: u64,
    did: Box<str>,
    version: Box<str>,
}

/// An entry's share of a tree whose nodes may be half empty, and its place in the queue, which may be half empty too.
const ENTRY_BYTES: usize = 2 * (mem::size_of::<(Key, Entry)>() + mem::size_of::<(Key, Duration)>());

/// What an allocation takes beside what it holds.
const ALLOCATION_BYTES: usize = 16;

/// Differences that are kept.
const DIFFERENCES_MAX: usize = 20;

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Ours => Side::Theirs,
            Side::Theirs => Side::Ours,
        }
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Theirs => "theirs",
        }
    }
}

impl Counts {
    /// One more.
    pub fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Commit => self.commit += 1,
            Kind::Sync => self.sync += 1,
            Kind::Identity => self.identity += 1,
            Kind::Account => self.account += 1,
        }
    }

    /// As many more as others are.
    pub fn add_all(&mut self, others: &Counts) {
        self.commit += others.commit;
        self.sync += others.sync;
        self.identity += others.identity;
        self.account += others.account;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.commit + self.sync + self.identity + self.account
    }
}

impl Ledger {
    /// An empty one, which allows events to be `settle` later on one stream, and takes `bytes_max` at most.
    pub fn new(settle: Duration, bytes_max: usize) -> Ledger {
        Ledger {
            settle,
            bytes_max,
            bytes: 0,
            entries: BTreeMap::new(),
            settled: VecDeque::new(),
            waiting: 0,
            ours: Stream::default(),
            theirs: Stream::default(),
            both: Counts::default(),
            differences: Differences::default(),
            delays: Delays::default(),
            forgotten: 0,
        }
    }

    /// One of the streams.
    pub fn stream(&self, side: Side) -> &Stream {
        match side {
            Side::Ours => &self.ours,
            Side::Theirs => &self.theirs,
        }
    }

    fn stream_mut(&mut self, side: Side) -> &mut Stream {
        match side {
            Side::Ours => &mut self.ours,
            Side::Theirs => &mut self.theirs,
        }
    }

    /// When both streams were there.
    pub fn begin(&self) -> Option<Duration> {
        Some(self.ours.presence.since()?.max(self.theirs.presence.since()?))
    }

    /// Events that came on one stream alone so far.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// A stream is there.
    pub fn connected(&mut self, side: Side, at: Duration) {
        let stream = self.stream_mut(side);
        stream.said = None;
        stream.presence.connected(at);
    }

    /// A stream is not there any more, or can't be reached.
    pub fn lost(&mut self, side: Side, at: Duration, why: String) {
        let stream = self.stream_mut(side);
        let why = match stream.said.take() {
            Some(said) => format!("{said}: {why}"),
            None => why,
        };
        stream.lost_last = Some(why.clone());
        stream.presence.lost(at, why);
    }

    /// A message came that was too large to be taken.
    pub fn too_large(&mut self, side: Side, bytes: u64) {
        self.stream_mut(side).unreadable(|| format!("a message of {bytes} bytes"));
    }

    /// A message came.
    pub fn message(&mut self, side: Side, at: Duration, frame: &[u8]) -> Result<(), Full> {
        let stream = self.stream_mut(side);
        stream.bytes += frame.len() as u64;
        match Message::read(frame) {
            Message::Event { seq, fingerprint } => {
                if !stream.presence.came(seq) {
                    return Ok(());
                }
                let first = stream.seqs.map_or(seq, |(first, _)| first);
                stream.seqs = Some((first, seq));
                match fingerprint {
                    Ok(fingerprint) => return self.event(side, at, seq, &fingerprint),
                    Err(error) => stream.unreadable(|| format!("seq {seq}: {error}")),
                }
            }
            Message::Info("OutdatedCursor") => stream.presence.outdated(),
            Message::Error(name) => {
                if name == "FutureCursor" {
                    stream.presence.began_anew();
                }
                stream.said = Some(name.chars().take(100).collect());
            }
            Message::Info(_) | Message::Unknown { .. } => {}
            Message::Unreadable(error) => stream.unreadable(|| error.to_string()),
        }
        Ok(())
    }

    fn event(&mut self, side: Side, at: Duration, seq: u64, event: &Fingerprint<'_>) -> Result<(), Full> {
        let settle = self.settle;
        let late = self.stream(side).presence.catches_up(at, settle);
        let Some(entry) = self.entries.get_mut(&event.key) else {
            let alone =
                Alone { side, at, late, kind: event.kind, seq, did: event.did.into(), version: event.version.into() };
            self.make_room(at, ENTRY_BYTES + alone.bytes())?;
            self.bytes += ENTRY_BYTES + alone.bytes();
            self.waiting += 1;
            self.entries.insert(event.key, Entry { content: event.content, alone: Some(Box::new(alone)) });
            self.stream_mut(side).events.add(event.kind);
            return Ok(());
        };
        let parts = entry.content.differing(event.kind, &event.content);
        let alone = entry.alone.take_if(|alone| alone.side != side);
        let stream = self.stream_mut(side);
        stream.events.add(event.kind);
        let Some(alone) = alone else {
            stream.repeats += 1;
            stream.contradictions += u64::from(!parts.is_empty());
            return Ok(());
        };
        self.bytes -= alone.bytes();
        self.waiting -= 1;
        self.both.add(event.kind);
        self.settled.push_back((event.key, at));
        if !(alone.late || late) {
            let delay = u64::try_from(at.saturating_sub(alone.at).as_micros()).unwrap_or(u64::MAX);
            match side {
                Side::Ours => self.delays.ours.record(delay),
                Side::Theirs => self.delays.theirs.record(delay),
            }
        }
        if !parts.is_empty() {
            let (our_seq, their_seq) = match side {
                Side::Ours => (seq, alone.seq),
                Side::Theirs => (alone.seq, seq),
            };
            self.differences.events.add(event.kind);
            if self.differences.first.len() < DIFFERENCES_MAX {
                let event = Example { seq: our_seq, ..alone.example() };
                self.differences.first.push(Difference { event, their_seq, parts });
            }
        }
        Ok(())
    }

    /// Forgets what is settled where there is no room for so many bytes.
    fn make_room(&mut self, now: Duration, bytes: usize) -> Result<(), Full> {
        while self.bytes + bytes > self.bytes_max {
            let (key, _) = self.settled.pop_front_if(|(_, at)| *at + self.settle < now).ok_or(Full)?;
            self.entries.remove(&key);
            self.bytes -= ENTRY_BYTES;
            self.forgotten += 1;
        }
        Ok(())
    }

    /// Judges what came on one stream alone.
    pub fn close(self, end: Duration) -> Findings {
        let span = self.begin().map(|begin| Span { begin, end, settle: self.settle });
        let mut not_judged = NotJudged::default();
        let (mut ours_lacks, mut theirs_lacks) = (Lacks::new(), Lacks::new());
        for alone in self.entries.into_values().filter_map(|entry| entry.alone) {
            let (lacks, other) = match alone.side {
                Side::Ours => (&mut theirs_lacks, &self.theirs),
                Side::Theirs => (&mut ours_lacks, &self.ours),
            };
            match span.map_or(Place::Begin, |span| other.presence.place(alone.at, span)) {
                Place::Judged => {
                    let lack = lacks
                        .entry(alone.did.to_string())
                        .or_insert_with(|| Lack { events: Counts::default(), example: alone.example() });
                    lack.events.add(alone.kind);
                }
                Place::Begin => not_judged.begin += 1,
                Place::End => not_judged.end += 1,
                Place::Break => not_judged.gap += 1,
            }
        }
        Findings {
            ours: self.ours,
            theirs: self.theirs,
            span,
            both: self.both,
            differences: self.differences,
            delays: self.delays,
            ours_lacks,
            theirs_lacks,
            not_judged,
            forgotten: self.forgotten,
        }
    }
}

impl Stream {
    fn unreadable(&mut self, why: impl FnOnce() -> String) {
        self.unreadable += 1;
        self.unreadable_first.get_or_insert_with(why);
    }
}

impl Alone {
    fn bytes(&self) -> usize {
        mem::size_of::<Alone>() + self.did.len() + self.version.len() + 3 * ALLOCATION_BYTES
    }

    fn example(&self) -> Example {
        Example { kind: self.kind, did: self.did.to_string(), version: self.version.to_string(), seq: self.seq }
    }
}

impl Findings {
    /// What was judged: from when to when, of what came on one stream.
    pub fn judged(&self) -> Option<(Duration, Duration)> {
        let Span { begin, end, settle } = self.span?;
        let (from, to) = (begin + settle, end.checked_sub(settle)?);
        (from < to).then_some((from, to))
    }

    /// What a stream lacks.
    pub fn lacks(&self, side: Side) -> &Lacks {
        match side {
            Side::Ours => &self.ours_lacks,
            Side::Theirs => &self.theirs_lacks,
        }
    }

    /// Whether neither lacks anything and nothing differs.
    pub fn is_whole(&self) -> bool {
        self.ours_lacks.is_empty() && self.theirs_lacks.is_empty() && self.differences.events.total() == 0
    }
}

#[cfg(test)]
mod tests;
