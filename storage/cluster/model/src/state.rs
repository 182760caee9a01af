use std::collections::{BTreeMap, VecDeque};

/// How many accounts the lane under test has.
pub(crate) const DIDS: usize = 2;

/// An account's number.
pub(crate) type Did = u8;

/// A place in a log.
pub(crate) type Offset = u8;

/// What a command does to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// Nothing of it is served any more.
    Takedown,
    /// The end of that.
    Restore,
}

/// A record of `raw`; its offset is its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Raw {
    /// An event of a host. Like `#account`, it has nothing but its epoch and seq to tell that it came before.
    Frame {
        /// The account.
        did: Did,
        /// The host's epoch, from 1.
        epoch: u8,
        /// The host's seq, from 1.
        seq: u8,
        /// Which event it is: the host's how manieth, whatever the crawler took its epoch and seq for.
        id: u8,
    },
    /// What an operator wants.
    Command {
        /// The account.
        did: Did,
        /// What to do.
        change: Change,
    },
}

/// What came out: an accepted frame, or a command that changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// A frame.
    Frame {
        /// The account.
        did: Did,
        /// Which event it is.
        id: u8,
    },
    /// A command.
    Command {
        /// The account.
        did: Did,
        /// Its position in `raw`, which tells it from all others.
        position: Offset,
        /// What it did.
        change: Change,
    },
}

impl Event {
    pub(crate) fn did(self) -> Did {
        match self {
            Event::Frame { did, .. } | Event::Command { did, .. } => did,
        }
    }
}

/// What is known of an account after its last event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Repo {
    /// Epoch and seq of the last accepted frame.
    pub last: (u8, u8),
    /// Whether we have taken it down.
    pub down: bool,
}

/// A record of `verified`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// A validator has taken the lane over; this record's offset is the claim.
    Claim,
    /// An event that was judged good.
    Event {
        /// The claim it was written under.
        claim: Option<Offset>,
        /// The position in `raw` that it settles.
        position: Offset,
        /// What came out.
        event: Event,
        /// The account's state after it.
        repo: Repo,
    },
}

/// An account's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) repo: Repo,
    /// The offset of the record that it is of, and the cell's timestamp.
    pub(crate) at: Option<Offset>,
}

/// What a lane's consumer group has committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Committed {
    /// The next position in `raw`.
    pub(crate) position: Offset,
    /// The repair point: rows of records before this offset are in, and all that they settle is before `position`.
    pub(crate) repair: Offset,
    /// The claim in force before the repair point.
    pub(crate) claim: Option<Offset>,
}

/// What the sequencer keeps in `sequencer-state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    pub(crate) next_seq: u8,
    /// By lane.
    pub(crate) next: [Offset; 2],
    /// By lane.
    pub(crate) claim: [Option<Offset>; 2],
}

impl Default for Progress {
    fn default() -> Progress {
        Progress { next_seq: 1, next: [0; 2], claim: [None; 2] }
    }
}

/// A frame with its seq, in `firehose`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Published {
    pub(crate) seq: u8,
    pub(crate) event: Event,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum LanePhase {
    #[default]
    Idle,
    /// The group had given it the lane, and has given it to the other before it knew what to do.
    Given,
    /// Its claim is in the log.
    Claimed,
    Working,
    /// It saw a hole.
    Fenced,
}

/// A valid record, or one that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Landed {
    pub(crate) offset: Offset,
    pub(crate) claim: Option<Offset>,
    pub(crate) position: Offset,
    pub(crate) event: Event,
    pub(crate) repo: Repo,
}

/// A validator and what it has in memory of the lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Validator {
    pub(crate) phase: LanePhase,
    pub(crate) claim: Option<Offset>,
    /// The offset that its next record must get.
    pub(crate) expected: Offset,
    /// The next position to read.
    pub(crate) next: Offset,
    pub(crate) cache: [Option<Repo>; DIDS],
    pub(crate) parked: Vec<Offset>,
    /// In the log, and the row not yet written.
    pub(crate) landed: VecDeque<Landed>,
    /// Valid records, of it or of owners before it, that settle what it has not covered; their rows are in.
    pub(crate) kept: Vec<Landed>,
    /// How often it has committed.
    pub(crate) commits: u8,
    /// On its way when its sender ended.
    pub(crate) late: VecDeque<Record>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum LeadPhase {
    #[default]
    Idle,
    /// It is about to fence those before it.
    Given,
    /// Those before it are fenced.
    Initialised,
    Working,
    /// Another is newer.
    Fenced,
}

/// A sequencer and what it has in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sequencer {
    pub(crate) phase: LeadPhase,
    /// Its producer's epoch.
    pub(crate) epoch: u8,
    pub(crate) progress: Progress,
    /// Frames are out that the saved state knows nothing of.
    pub(crate) unsaved: bool,
}

/// A crawler and what it has in memory of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Crawler {
    pub(crate) running: bool,
    /// Whether its connection is of after the host's reset.
    pub(crate) after_reset: bool,
    pub(crate) epoch: u8,
    /// The next seq to read.
    pub(crate) next: u8,
    /// Sent, and not yet acknowledged.
    pub(crate) flight: VecDeque<Raw>,
}

/// A host's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cursor {
    pub(crate) epoch: u8,
    /// All of the epoch up to this seq is known to be in `raw`.
    pub(crate) seq: u8,
}

/// The host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    /// It counts its events anew, and has forgotten those before.
    pub(crate) has_reset: bool,
    /// How many events it has made, in all.
    pub(crate) made: u8,
}

/// Everything, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    // === what lasts ===
    pub(crate) raw: Vec<Raw>,
    /// The lane under test.
    pub(crate) verified: Vec<Record>,
    pub(crate) firehose: Vec<Published>,
    pub(crate) rows: [Row; DIDS],
    pub(crate) committed: Committed,
    pub(crate) saved: Progress,
    /// The epoch of the newest transactional producer.
    pub(crate) producer: u8,
    pub(crate) cursor: Cursor,
    pub(crate) host: Host,

    // === whom the groups have given what ===
    pub(crate) owner: usize,
    pub(crate) leader: usize,
    pub(crate) crawls: usize,

    // === who is there ===
    pub(crate) validators: Vec<Validator>,
    pub(crate) sequencers: Vec<Sequencer>,
    pub(crate) crawlers: Vec<Crawler>,

    /// What may still go wrong.
    pub(crate) faults: crate::Faults,
}

/// The valid records of a lane: those written under the latest claim before them.
pub(crate) fn valid(verified: &[Record]) -> impl Iterator<Item = Landed> + '_ {
    valid_after(verified, 0, None)
}

/// Those from an offset on, where this claim was in force before it.
pub(crate) fn valid_after(
    verified: &[Record],
    from: Offset,
    claim: Option<Offset>,
) -> impl Iterator<Item = Landed> + '_ {
    let mut in_force = claim;
    verified.iter().zip(0..).skip(usize::from(from)).filter_map(move |(record, offset)| match *record {
        Record::Claim => {
            in_force = Some(offset);
            None
        }
        Record::Event { claim, position, event, repo } => {
            (claim == in_force).then_some(Landed { offset, claim, position, event, repo })
        }
    })
}

/// The states that a lane's valid records end in.
pub(crate) fn ends(verified: &[Record]) -> BTreeMap<Did, (Offset, Repo)> {
    valid(verified).map(|landed| (landed.event.did(), (landed.offset, landed.repo))).collect()
}

pub(crate) fn offset(at: usize) -> Offset {
    Offset::try_from(at).expect("the bounds keep logs short")
}
