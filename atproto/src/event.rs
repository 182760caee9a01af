//! The events of `com.atproto.sync.subscribeRepos`, borrowed from their frames.
//!
//! Parsing checks types, required keys and the DID's syntax. Whether an event is true is the validator's business.

use crate::{
    cbor::{CborError, Kind as Item, Reader, Writer},
    cid::Cid,
    frame::{self, ErrorBody, FrameError, Header, SeqSlot},
    syntax::Did,
};

/// Kinds of events that carry a seq and a DID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `#commit`
    Commit,
    /// `#sync`
    Sync,
    /// `#identity`
    Identity,
    /// `#account`
    Account,
}

impl Kind {
    /// The header's `t`, with its `#`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Commit => "#commit",
            Kind::Sync => "#sync",
            Kind::Identity => "#identity",
            Kind::Account => "#account",
        }
    }
}

/// What routing needs of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed<'a> {
    /// An event of an account.
    Event(Route<'a>),
    /// `#info`.
    Info {
        /// `OutdatedCursor`, …
        name: &'a str,
        /// For people.
        message: Option<&'a str>,
    },
    /// An error frame; the server closes after it.
    Error {
        /// `FutureCursor`, `ConsumerTooSlow`, …
        error: &'a str,
        /// For people.
        message: Option<&'a str>,
    },
    /// An unknown `op` or `t`: to be ignored. The seq if there is a readable one.
    Unknown {
        /// The payload's seq.
        seq: Option<u64>,
    },
}

/// Whose event it is and where its seq stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// The kind.
    pub kind: Kind,
    /// The account: `repo` of a commit, `did` of the others. Syntax checked.
    pub did: &'a str,
    /// The sender's seq, 1 ≤ seq < 2^53.
    pub seq: u64,
    /// Where the seq stands.
    pub seq_slot: SeqSlot,
}

/// An event, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// `#commit`
    Commit(CommitEvent<'a>),
    /// `#sync`
    Sync(SyncEvent<'a>),
    /// `#identity`
    Identity(IdentityEvent<'a>),
    /// `#account`
    Account(AccountEvent<'a>),
}

/// `#commit`: a repo has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account's DID.
    pub repo: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// The rev the commit claims; not checked to be a TID.
    pub rev: &'a str,
    /// The rev before; `None` for null. The key is required.
    pub since: Option<&'a str>,
    /// The commit block's CID.
    pub commit: Cid,
    /// Must be false today.
    pub too_big: bool,
    /// Must be false today.
    pub rebase: bool,
    /// A CAR.
    pub blocks: &'a [u8],
    /// What changed.
    pub ops: Vec<RepoOp<'a>>,
    /// The MST root before; absent on a repo's first commit.
    pub prev_data: Option<Cid>,
}

/// One change of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoOp<'a> {
    /// create, update or delete.
    pub action: Action,
    /// `collection/rkey`; not checked.
    pub path: &'a str,
    /// The new record; null on delete.
    pub cid: Option<Cid>,
    /// The record before; update and delete only.
    pub prev: Option<Cid>,
}

/// What an op does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A record that was not there.
    Create,
    /// A record that was there.
    Update,
    /// It is gone.
    Delete,
}

/// `#sync`: the repo's state, without what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account.
    pub did: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// The rev the commit claims; not checked.
    pub rev: &'a str,
    /// A CAR with the commit block.
    pub blocks: &'a [u8],
}

/// `#identity`: the DID document or handle may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account.
    pub did: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// The handle, unverified.
    pub handle: Option<&'a str>,
}

/// `#account`: the account's status at the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountEvent<'a> {
    /// The sender's seq.
    pub seq: u64,
    /// The account.
    pub did: &'a str,
    /// When, by the sender's clock; informal.
    pub time: &'a str,
    /// Whether content may be served.
    pub active: bool,
    /// `takendown`, `suspended`, `deleted`, `deactivated`, `desynchronized`, `throttled`, or unknown.
    pub status: Option<&'a str>,
}

/// A payload that is not what its kind asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The frame itself can't be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A required key is missing.
    #[error("no {field}")]
    Missing {
        /// The key.
        field: &'static str,
    },
    /// A field has the wrong type or value.
    #[error("invalid {field}")]
    Invalid {
        /// The key.
        field: &'static str,
    },
}

/// Reads what routing needs, borrowing, in one pass over the payload's keys. Always checks that the frame is two
/// canonical maps, the DID's syntax and the seq's range. Does not check other fields.
pub fn route(frame: &[u8]) -> Result<Routed<'_>, EventError> {
    let (header, mut reader) = frame::read_header(frame)?;
    let kind = match header {
        Header::Message { kind } => kind,
        Header::Error => {
            let ErrorBody { error, message } = frame::read_error(&mut reader).map_err(FrameError::Body)?;
            return Ok(Routed::Error { error, message });
        }
        Header::UnknownOp(_) => return Ok(Routed::Unknown { seq: None }),
    };
    match Kind::parse(kind) {
        Some(kind) => route_event(kind, reader).map(Routed::Event),
        None if kind == INFO => route_info(reader),
        None => Ok(Routed::Unknown { seq: readable_seq(reader) }),
    }
}

/// Decodes a frame that [`route`] said is an event. Always checks all that [`route`] does, and the types of all fields.
pub fn parse(frame: &[u8]) -> Result<Event<'_>, EventError> {
    let (header, mut reader) = frame::read_header(frame)?;
    let kind = match header {
        Header::Message { kind } => Kind::parse(kind),
        Header::Error | Header::UnknownOp(_) => None,
    };
    let event = match kind.ok_or(EventError::Invalid { field: "t" })? {
        Kind::Commit => Event::Commit(CommitEvent::read(&mut reader)?),
        Kind::Sync => Event::Sync(SyncEvent::read(&mut reader)?),
        Kind::Identity => Event::Identity(IdentityEvent::read(&mut reader)?),
        Kind::Account => Event::Account(AccountEvent::read(&mut reader)?),
    };
    reader.finish().map_err(body)?;
    Ok(event)
}

impl Event<'_> {
    /// The whole frame, header included, in canonical form.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Event::Commit(event) => event.encode(),
            Event::Sync(event) => event.encode(),
            Event::Identity(event) => event.encode(),
            Event::Account(event) => event.encode(),
        }
    }
}

/// An `#info` frame.
pub fn encode_info(name: &str, message: Option<&str>) -> Vec<u8> {
    let mut frame = Writer::new();
    frame::write_header(&mut frame, INFO);
    frame.map(1 + usize::from(message.is_some()));
    write_text(&mut frame, "name", name);
    if let Some(message) = message {
        write_text(&mut frame, "message", message);
    }
    frame.into_bytes()
}

const INFO: &str = "#info";

impl Kind {
    fn parse(text: &str) -> Option<Kind> {
        [Kind::Commit, Kind::Sync, Kind::Identity, Kind::Account].into_iter().find(|kind| kind.as_str() == text)
    }

    /// The key of the account.
    fn did_field(self) -> &'static str {
        match self {
            Kind::Commit => "repo",
            Kind::Sync | Kind::Identity | Kind::Account => "did",
        }
    }
}

// === Routing ===

fn route_event<'a>(kind: Kind, mut reader: Reader<'a>) -> Result<Route<'a>, EventError> {
    let did_field = kind.did_field();
    let (mut did, mut seq) = (None, None);
    let mut keys = reader.map().map_err(body)?;
    while let Some(key) = keys.next_key(&mut reader).map_err(body)? {
        if key == "seq" {
            let start = reader.offset();
            let value = read_seq(&mut reader)?;
            seq = Some((value, SeqSlot { start: offset(start), end: offset(reader.offset()) }));
        } else if key == did_field {
            did = Some(read_did(&mut reader, did_field)?);
        } else {
            reader.skip().map_err(body)?;
        }
    }
    reader.finish().map_err(body)?;
    let (seq, seq_slot) = seq.ok_or(EventError::Missing { field: "seq" })?;
    Ok(Route { kind, did: did.ok_or(EventError::Missing { field: did_field })?, seq, seq_slot })
}

fn route_info(mut reader: Reader<'_>) -> Result<Routed<'_>, EventError> {
    let (mut name, mut message) = (None, None);
    let mut keys = reader.map().map_err(body)?;
    while let Some(key) = keys.next_key(&mut reader).map_err(body)? {
        match key {
            "name" => name = Some(read_text(&mut reader, "name")?),
            "message" => message = read_optional_text(&mut reader, "message")?,
            _ => reader.skip().map_err(body)?,
        }
    }
    reader.finish().map_err(body)?;
    Ok(Routed::Info { name: name.ok_or(EventError::Missing { field: "name" })?, message })
}

/// The seq of a payload that nothing is known of.
fn readable_seq(mut reader: Reader<'_>) -> Option<u64> {
    let mut keys = reader.map().ok()?;
    while let Some(key) = keys.next_key(&mut reader).ok()? {
        if key == "seq" {
            return read_seq(&mut reader).ok();
        }
        reader.skip().ok()?;
    }
    None
}

fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a frame has at most FRAME_BYTES_MAX bytes")
}

// === Events ===

impl<'a> CommitEvent<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<CommitEvent<'a>, EventError> {
        let (mut ops, mut rev, mut seq, mut repo, mut time, mut since) = (None, None, None, None, None, None);
        let (mut blocks, mut commit, mut rebase, mut too_big, mut prev_data) = (None, None, None, None, None);
        let mut keys = reader.map().map_err(body)?;
        while let Some(key) = keys.next_key(reader).map_err(body)? {
            match key {
                "ops" => ops = Some(read_ops(reader)?),
                "rev" => rev = Some(read_text(reader, "rev")?),
                "seq" => seq = Some(read_seq(reader)?),
                "repo" => repo = Some(read_did(reader, "repo")?),
                "time" => time = Some(read_text(reader, "time")?),
                "since" => since = Some(read_optional_text(reader, "since")?),
                "blocks" => blocks = Some(read_bytes(reader, "blocks")?),
                "commit" => commit = Some(read_cid(reader, "commit")?),
                "rebase" => rebase = Some(read_bool(reader, "rebase")?),
                "tooBig" => too_big = Some(read_bool(reader, "tooBig")?),
                "prevData" => prev_data = read_optional_cid(reader, "prevData")?,
                // `blobs` among them, which nobody fills any more.
                _ => reader.skip().map_err(body)?,
            }
        }
        let missing = |field| EventError::Missing { field };
        Ok(CommitEvent {
            seq: seq.ok_or(missing("seq"))?,
            repo: repo.ok_or(missing("repo"))?,
            time: time.ok_or(missing("time"))?,
            rev: rev.ok_or(missing("rev"))?,
            since: since.ok_or(missing("since"))?,
            commit: commit.ok_or(missing("commit"))?,
            too_big: too_big.ok_or(missing("tooBig"))?,
            rebase: rebase.ok_or(missing("rebase"))?,
            blocks: blocks.ok_or(missing("blocks"))?,
            ops: ops.ok_or(missing("ops"))?,
            prev_data,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut frame = Writer::with_capacity(512 + self.blocks.len() + 192 * self.ops.len());
        frame::write_header(&mut frame, Kind::Commit.as_str());
        frame.map(11 + usize::from(self.prev_data.is_some()));
        frame.text("ops");
        frame.array(self.ops.len());
        for op in &self.ops {
            op.write(&mut frame);
        }
        write_text(&mut frame, "rev", self.rev);
        frame.text("seq");
        frame.unsigned(self.seq);
        write_text(&mut frame, "repo", self.repo);
        write_text(&mut frame, "time", self.time);
        frame.text("blobs");
        frame.array(0);
        frame.text("since");
        match self.since {
            Some(since) => frame.text(since),
            None => frame.null(),
        }
        frame.text("blocks");
        frame.bytes(self.blocks);
        frame.text("commit");
        frame.cid(&self.commit);
        frame.text("rebase");
        frame.bool(self.rebase);
        frame.text("tooBig");
        frame.bool(self.too_big);
        if let Some(prev_data) = &self.prev_data {
            frame.text("prevData");
            frame.cid(prev_data);
        }
        frame.into_bytes()
    }
}

impl<'a> RepoOp<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<RepoOp<'a>, EventError> {
        let (mut cid, mut path, mut prev, mut action) = (None, None, None, None);
        expect(reader, Item::Map, "ops")?;
        let mut keys = reader.map().map_err(body)?;
        while let Some(key) = keys.next_key(reader).map_err(body)? {
            match key {
                // Required by the lexicon, null on delete; a missing key says no less.
                "cid" => cid = read_optional_cid(reader, "ops.cid")?,
                "path" => path = Some(read_text(reader, "ops.path")?),
                "prev" => prev = read_optional_cid(reader, "ops.prev")?,
                "action" => {
                    let name = read_text(reader, "ops.action")?;
                    action = Some(Action::parse(name).ok_or(EventError::Invalid { field: "ops.action" })?);
                }
                _ => reader.skip().map_err(body)?,
            }
        }
        let missing = |field| EventError::Missing { field };
        Ok(RepoOp { action: action.ok_or(missing("ops.action"))?, path: path.ok_or(missing("ops.path"))?, cid, prev })
    }

    fn write(&self, frame: &mut Writer) {
        frame.map(3 + usize::from(self.prev.is_some()));
        frame.text("cid");
        frame.cid_or_null(self.cid.as_ref());
        write_text(frame, "path", self.path);
        if let Some(prev) = &self.prev {
            frame.text("prev");
            frame.cid(prev);
        }
        write_text(frame, "action", self.action.as_str());
    }
}

impl Action {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }

    fn parse(text: &str) -> Option<Action> {
        [Action::Create, Action::Update, Action::Delete].into_iter().find(|action| action.as_str() == text)
    }
}

impl<'a> SyncEvent<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<SyncEvent<'a>, EventError> {
        let (mut did, mut rev, mut seq, mut time, mut blocks) = (None, None, None, None, None);
        let mut keys = reader.map().map_err(body)?;
        while let Some(key) = keys.next_key(reader).map_err(body)? {
            match key {
                "did" => did = Some(read_did(reader, "did")?),
                "rev" => rev = Some(read_text(reader, "rev")?),
                "seq" => seq = Some(read_seq(reader)?),
                "time" => time = Some(read_text(reader, "time")?),
                "blocks" => blocks = Some(read_bytes(reader, "blocks")?),
                _ => reader.skip().map_err(body)?,
            }
        }
        let missing = |field| EventError::Missing { field };
        Ok(SyncEvent {
            seq: seq.ok_or(missing("seq"))?,
            did: did.ok_or(missing("did"))?,
            time: time.ok_or(missing("time"))?,
            rev: rev.ok_or(missing("rev"))?,
            blocks: blocks.ok_or(missing("blocks"))?,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut frame = Writer::with_capacity(256 + self.blocks.len());
        frame::write_header(&mut frame, Kind::Sync.as_str());
        frame.map(5);
        write_text(&mut frame, "did", self.did);
        write_text(&mut frame, "rev", self.rev);
        frame.text("seq");
        frame.unsigned(self.seq);
        write_text(&mut frame, "time", self.time);
        frame.text("blocks");
        frame.bytes(self.blocks);
        frame.into_bytes()
    }
}

impl<'a> IdentityEvent<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<IdentityEvent<'a>, EventError> {
        let (mut did, mut seq, mut time, mut handle) = (None, None, None, None);
        let mut keys = reader.map().map_err(body)?;
        while let Some(key) = keys.next_key(reader).map_err(body)? {
            match key {
                "did" => did = Some(read_did(reader, "did")?),
                "seq" => seq = Some(read_seq(reader)?),
                "time" => time = Some(read_text(reader, "time")?),
                "handle" => handle = read_optional_text(reader, "handle")?,
                _ => reader.skip().map_err(body)?,
            }
        }
        let missing = |field| EventError::Missing { field };
        Ok(IdentityEvent {
            seq: seq.ok_or(missing("seq"))?,
            did: did.ok_or(missing("did"))?,
            time: time.ok_or(missing("time"))?,
            handle,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut frame = Writer::with_capacity(256);
        frame::write_header(&mut frame, Kind::Identity.as_str());
        frame.map(3 + usize::from(self.handle.is_some()));
        write_text(&mut frame, "did", self.did);
        frame.text("seq");
        frame.unsigned(self.seq);
        write_text(&mut frame, "time", self.time);
        if let Some(handle) = self.handle {
            write_text(&mut frame, "handle", handle);
        }
        frame.into_bytes()
    }
}

impl<'a> AccountEvent<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<AccountEvent<'a>, EventError> {
        let (mut did, mut seq, mut time, mut active, mut status) = (None, None, None, None, None);
        let mut keys = reader.map().map_err(body)?;
        while let Some(key) = keys.next_key(reader).map_err(body)? {
            match key {
                "did" => did = Some(read_did(reader, "did")?),
                "seq" => seq = Some(read_seq(reader)?),
                "time" => time = Some(read_text(reader, "time")?),
                "active" => active = Some(read_bool(reader, "active")?),
                "status" => status = read_optional_text(reader, "status")?,
                _ => reader.skip().map_err(body)?,
            }
        }
        let missing = |field| EventError::Missing { field };
        Ok(AccountEvent {
            seq: seq.ok_or(missing("seq"))?,
            did: did.ok_or(missing("did"))?,
            time: time.ok_or(missing("time"))?,
            active: active.ok_or(missing("active"))?,
            status,
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut frame = Writer::with_capacity(256);
        frame::write_header(&mut frame, Kind::Account.as_str());
        frame.map(4 + usize::from(self.status.is_some()));
        write_text(&mut frame, "did", self.did);
        frame.text("seq");
        frame.unsigned(self.seq);
        write_text(&mut frame, "time", self.time);
        frame.text("active");
        frame.bool(self.active);
        if let Some(status) = self.status {
            write_text(&mut frame, "status", status);
        }
        frame.into_bytes()
    }
}

// === Fields ===

/// Seqs are 53-bit numbers, so that JavaScript can hold them.
const SEQ_END: u64 = 1 << 53;

fn body(error: CborError) -> EventError {
    EventError::Frame(FrameError::Body(error))
}

/// Tells a field of the wrong type from bytes that are no CBOR at all.
fn expect(reader: &Reader<'_>, kind: Item, field: &'static str) -> Result<(), EventError> {
    if reader.peek().map_err(body)? == kind { Ok(()) } else { Err(EventError::Invalid { field }) }
}

fn read_seq(reader: &mut Reader<'_>) -> Result<u64, EventError> {
    expect(reader, Item::Unsigned, "seq")?;
    let seq = reader.unsigned().map_err(body)?;
    if (1..SEQ_END).contains(&seq) { Ok(seq) } else { Err(EventError::Invalid { field: "seq" }) }
}

fn read_did<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, EventError> {
    let did = read_text(reader, field)?;
    Did::check(did).map_err(|_| EventError::Invalid { field })?;
    Ok(did)
}

fn read_text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a str, EventError> {
    expect(reader, Item::Text, field)?;
    reader.text().map_err(body)
}

fn read_optional_text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Option<&'a str>, EventError> {
    if reader.null() { Ok(None) } else { read_text(reader, field).map(Some) }
}

fn read_bytes<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], EventError> {
    expect(reader, Item::Bytes, field)?;
    reader.bytes().map_err(body)
}

fn read_bool(reader: &mut Reader<'_>, field: &'static str) -> Result<bool, EventError> {
    expect(reader, Item::Bool, field)?;
    reader.bool().map_err(body)
}

fn read_cid(reader: &mut Reader<'_>, field: &'static str) -> Result<Cid, EventError> {
    expect(reader, Item::Link, field)?;
    Cid::from_bytes(reader.link().map_err(body)?).map_err(|_| EventError::Invalid { field })
}

fn read_optional_cid(reader: &mut Reader<'_>, field: &'static str) -> Result<Option<Cid>, EventError> {
    if reader.null() { Ok(None) } else { read_cid(reader, field).map(Some) }
}

fn read_ops<'a>(reader: &mut Reader<'a>) -> Result<Vec<RepoOp<'a>>, EventError> {
    /// A commit may have no more; memory for more than that is taken only as they are read.
    const OPS_EXPECTED_MAX: usize = 200;

    expect(reader, Item::Array, "ops")?;
    let mut items = reader.array().map_err(body)?;
    let mut ops = Vec::with_capacity(items.left().min(OPS_EXPECTED_MAX));
    while items.more(reader) {
        ops.push(RepoOp::read(reader)?);
    }
    Ok(ops)
}

fn write_text(frame: &mut Writer, key: &str, value: &str) {
    frame.text(key);
    frame.text(value);
}
