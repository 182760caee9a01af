//! Compares what hosts have sent with what a relay's subscribers received.
//!
//! [`Truth`] is what was sent, [`Received`] what one subscriber got, [`Judge`] compares. An event is recognised by its
//! [`digest`], which leaves out the seq: a relay may change nothing else.
//!
//! What must hold: nothing lost, nothing repeated, nothing altered, each account's events of one host in that host's
//! order, seq rising without a gap, and one seq never used for two frames, in one reading or across readings.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use atproto::{
    crypto::sha256,
    event::{Kind, Route, Routed, route},
    syntax::{Did, HostName},
};
use tokio::time::Instant;

/// SHA-256 of a frame without the bytes of its seq: the same for what a host sent and what the relay made of it.
pub type Digest = [u8; 32];

/// The digest of a frame that carries a seq, and where it does.
pub fn digest(frame: &[u8], route: &Route<'_>) -> Digest {
    let mut bytes = Vec::with_capacity(frame.len());
    bytes.extend_from_slice(&frame[..route.seq_slot.start as usize]);
    bytes.extend_from_slice(&frame[route.seq_slot.end as usize..]);
    sha256(&bytes)
}

/// What the hosts have sent, in the order in which each sent it.
#[derive(Clone, Debug)]
pub struct Truth {
    hosts: Vec<HostName>,
    events: Vec<Sent>,
}

/// An event as its host sent it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Which of [`Truth::hosts`].
    pub host: usize,
    /// The host's seq.
    pub seq: u64,
    /// Whose event it is.
    pub did: Did,
    /// Its kind.
    pub kind: Kind,
    /// [`digest`] of the frame.
    pub digest: Digest,
    /// What a relay must do with it.
    pub expect: Expect,
    /// When it was noted: as it was made, or later.
    pub at: Instant,
}

/// What a relay must do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Pass it on, once.
    Pass,
    /// Never pass it on.
    Refuse,
    /// Either is right, for it depends on what the relay knows when it reads it.
    Either,
}

impl Truth {
    /// Nothing sent yet.
    pub fn new(hosts: Vec<HostName>) -> Truth {
        Truth { hosts, events: Vec::new() }
    }

    /// Takes note of an event.
    pub fn sent(&mut self, host: usize, seq: u64, did: &Did, kind: Kind, frame: &[u8], expect: Expect) {
        let digest = match route(frame) {
            Ok(Routed::Event(route)) => digest(frame, &route),
            // Not an event at all; nothing a relay gives out can be it.
            Ok(Routed::Info { .. } | Routed::Error { .. } | Routed::Unknown { .. }) | Err(_) => sha256(frame),
        };
        self.events.push(Sent { host, seq, did: did.clone(), kind, digest, expect, at: Instant::now() });
    }

    /// All of it but the first `events`.
    pub fn after(&self, events: usize) -> Truth {
        Truth { hosts: self.hosts.clone(), events: self.events.get(events..).unwrap_or_default().to_vec() }
    }

    /// The hosts.
    pub fn hosts(&self) -> &[HostName] {
        &self.hosts
    }

    /// All events.
    pub fn events(&self) -> &[Sent] {
        &self.events
    }

    /// How many events a relay must pass on.
    pub fn to_pass(&self) -> usize {
        self.events.iter().filter(|sent| sent.expect == Expect::Pass).count()
    }
}

/// An event as a subscriber received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The relay's seq.
    pub seq: u64,
    /// Whose event it is.
    pub did: Box<str>,
    /// Its kind.
    pub kind: Kind,
    /// [`digest`] of the frame.
    pub digest: Digest,
}

impl Received {
    /// Reads a frame; `None` if it is not an event.
    pub fn read(frame: &[u8]) -> Option<Received> {
        match route(frame) {
            Ok(Routed::Event(route)) => Some(Received {
                seq: route.seq,
                did: route.did.into(),
                kind: route.kind,
                digest: digest(frame, &route),
            }),
            Ok(Routed::Info { .. } | Routed::Error { .. } | Routed::Unknown { .. }) | Err(_) => None,
        }
    }
}

/// What a reading should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All that was sent.
    Whole,
    /// Some run of it: what is not there is not lost.
    Part,
}

/// Compares readings with the truth, and with each other.
pub struct Judge {
    truth: Truth,
    by_digest: HashMap<Digest, Twins>,
    /// What each seq has been used for, over all readings.
    seqs: BTreeMap<u64, Digest>,
}

/// Events with the same digest; all but the first are repeats that a host sent.
struct Twins {
    first: usize,
    to_pass: u32,
    may_pass: u32,
}

impl Judge {
    /// A judge who knows what was sent.
    pub fn new(truth: Truth) -> Judge {
        let mut by_digest: HashMap<Digest, Twins> = HashMap::with_capacity(truth.events.len());
        for (index, sent) in truth.events.iter().enumerate() {
            let twins = by_digest.entry(sent.digest).or_insert(Twins { first: index, to_pass: 0, may_pass: 0 });
            match sent.expect {
                Expect::Pass => {
                    twins.to_pass += 1;
                    twins.may_pass += 1;
                }
                Expect::Either => twins.may_pass += 1,
                Expect::Refuse => {}
            }
        }
        Judge { truth, by_digest, seqs: BTreeMap::new() }
    }

    /// Judges what one subscriber received, in the order in which it did.
    pub fn reading(&mut self, received: &[Received], extent: Extent) -> Report {
        let mut report = Report { sent: self.truth.events.len(), received: received.len(), faults: BTreeMap::new() };
        let mut counts: HashMap<Digest, u32> = HashMap::with_capacity(received.len());
        // Per host and account, how far in the truth its events have come.
        let mut reached: HashMap<(usize, &str), usize> = HashMap::new();
        let mut last_seq = None;
        for got in received {
            match last_seq {
                Some(last) if got.seq <= last => {
                    report.add(Fault::SeqFell, || format!("{} after {last}: {}", got.seq, got))
                }
                Some(last) if got.seq > last + 1 => {
                    report.add(Fault::SeqGap, || format!("{} after {last}: {}", got.seq, got))
                }
                Some(_) | None => {}
            }
            last_seq = Some(got.seq);
            if *self.seqs.entry(got.seq).or_insert(got.digest) != got.digest {
                report.add(Fault::SeqReused, || got.to_string());
            }
            let Some(twins) = self.by_digest.get(&got.digest) else {
                report.add(Fault::NeverSent, || got.to_string());
                continue;
            };
            let sent = &self.truth.events[twins.first];
            let count = counts.entry(got.digest).or_default();
            *count += 1;
            if twins.may_pass == 0 {
                report.add(Fault::ShouldBeRefused, || got.to_string());
            } else if *count > twins.may_pass {
                report.add(Fault::Repeated, || got.to_string());
            } else if *count == 1 {
                let reached = reached.entry((sent.host, sent.did.as_str())).or_insert(twins.first);
                if twins.first < *reached {
                    report.add(Fault::OutOfOrder, || got.to_string());
                }
                *reached = twins.first.max(*reached);
            }
        }
        if extent == Extent::Whole {
            for sent in &self.truth.events {
                let twins = &self.by_digest[&sent.digest];
                if sent.expect == Expect::Pass && counts.get(&sent.digest).copied().unwrap_or(0) < twins.to_pass {
                    let host = &self.truth.hosts[sent.host];
                    report.add(Fault::Lost, || {
                        format!("{} of {}, seq {} at {host}", sent.kind.as_str(), sent.did, sent.seq)
                    });
                }
            }
        }
        report
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, seq {}", self.kind.as_str(), self.did, self.seq)
    }
}

/// What can be wrong with a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A host sent it, the rules allow it, it is not there.
    Lost,
    /// It came more often than it was sent.
    Repeated,
    /// No host sent these bytes.
    NeverSent,
    /// The rules forbid it.
    ShouldBeRefused,
    /// It came after a later event of its account.
    OutOfOrder,
    /// Its seq is not above the one before.
    SeqFell,
    /// Seqs were left out.
    SeqGap,
    /// Its seq has been used for another frame, now or in an earlier reading.
    SeqReused,
}

impl Fault {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Lost => "lost",
            Fault::Repeated => "repeated",
            Fault::NeverSent => "never sent by a host",
            Fault::ShouldBeRefused => "passed on against the rules",
            Fault::OutOfOrder => "out of order",
            Fault::SeqFell => "seq did not rise",
            Fault::SeqGap => "gap in seq",
            Fault::SeqReused => "seq used twice",
        }
    }
}

/// What a judge found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Events the hosts sent.
    pub sent: usize,
    /// Events the subscriber received.
    pub received: usize,
    /// How often each fault occurred, with the first few.
    pub faults: BTreeMap<Fault, Examples>,
}

/// A count and its first examples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examples {
    /// How many there are.
    pub count: usize,
    /// The first of them, described.
    pub first: Vec<String>,
}

const EXAMPLES_MAX: usize = 5;

impl Report {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// How often a fault occurred.
    pub fn count(&self, fault: Fault) -> usize {
        self.faults.get(&fault).map_or(0, |examples| examples.count)
    }

    fn add(&mut self, fault: Fault, describe: impl FnOnce() -> String) {
        let examples = self.faults.entry(fault).or_default();
        examples.count += 1;
        if examples.first.len() < EXAMPLES_MAX {
            examples.first.push(describe());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent, {} received", self.sent, self.received)?;
        if self.is_clean() {
            write!(f, ": all there, once, in order")?;
        }
        for (fault, examples) in &self.faults {
            write!(f, "\n  {}: {}", fault.as_str(), examples.count)?;
            for example in &examples.first {
                write!(f, "\n    {example}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use atproto::event::{Event, IdentityEvent};

    use super::*;

    fn frame(did: &str, seq: u64, time: &str) -> Vec<u8> {
        Event::Identity(IdentityEvent { seq, did, time, handle: None }).encode()
    }

    fn received(did: &str, seq: u64, time: &str) -> Received {
        Received::read(&frame(did, seq, time)).unwrap()
    }

    /// Two accounts on one host, three events each; the last must be refused.
    fn judge() -> Judge {
        let mut truth = Truth::new(vec![HostName::parse("localhost:1").unwrap()]);
        for (seq, (did, time)) in
            [("did:a:a", "1"), ("did:a:b", "1"), ("did:a:a", "2"), ("did:a:b", "2"), ("did:a:a", "3"), ("did:a:b", "3")]
                .into_iter()
                .enumerate()
        {
            let expect = if seq == 5 { Expect::Refuse } else { Expect::Pass };
            let seq = seq as u64 + 1;
            truth.sent(0, seq, &Did::parse(did).unwrap(), Kind::Identity, &frame(did, seq, time), expect);
        }
        Judge::new(truth)
    }

    fn good() -> Vec<Received> {
        [("did:a:b", "1"), ("did:a:a", "1"), ("did:a:a", "2"), ("did:a:b", "2"), ("did:a:a", "3")]
            .into_iter()
            .enumerate()
            .map(|(at, (did, time))| received(did, 100 + at as u64, time))
            .collect()
    }

    #[test]
    fn another_order_of_accounts_and_another_seq_are_fine() {
        let report = judge().reading(&good(), Extent::Whole);
        assert!(report.is_clean(), "{report}");
    }

    #[test]
    fn each_fault_is_found_and_named() {
        type Spoil = fn(&mut Vec<Received>);
        let table: [(Spoil, &[Fault]); 9] = [
            (|got| drop(got.pop()), &[Fault::Lost]),
            (|got| drop(got.remove(1)), &[Fault::Lost, Fault::SeqGap]),
            (|got| got.push(received("did:a:a", 105, "3")), &[Fault::Repeated]),
            (|got| got.push(received("did:a:a", 105, "4")), &[Fault::NeverSent]),
            (|got| got.push(received("did:a:b", 105, "3")), &[Fault::ShouldBeRefused]),
            (|got| got.swap(3, 4), &[Fault::SeqFell, Fault::SeqGap]),
            (
                |got| {
                    got[1] = received("did:a:a", 101, "2");
                    got[2] = received("did:a:a", 102, "1");
                },
                &[Fault::OutOfOrder],
            ),
            (|got| got[4].seq = 103, &[Fault::SeqFell, Fault::SeqReused]),
            (|got| got[4].seq = 200, &[Fault::SeqGap]),
        ];
        for (number, (spoil, faults)) in table.into_iter().enumerate() {
            let mut got = good();
            spoil(&mut got);
            let report = judge().reading(&got, Extent::Whole);
            assert_eq!(report.faults.keys().copied().collect::<Vec<_>>(), faults, "row {number}: {report}");
        }
    }

    #[test]
    fn a_seq_that_means_another_frame_in_the_next_reading_is_found() {
        let mut judge = judge();
        assert!(judge.reading(&good()[..3], Extent::Part).is_clean());
        let mut again = good();
        again.swap(1, 2);
        (again[1].seq, again[2].seq) = (101, 102);
        assert_eq!(judge.reading(&again, Extent::Whole).count(Fault::SeqReused), 2);
    }

    #[test]
    fn a_part_of_it_is_not_a_loss() {
        assert!(judge().reading(&good()[1..3], Extent::Part).is_clean());
    }
}
