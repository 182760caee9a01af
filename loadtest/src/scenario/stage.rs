//! Plays one kind on a host of its own: right events of two accounts, one on each curve, and the kind's between them.

use atproto::{
    crypto::Curve,
    event::{AccountEvent, Event, IdentityEvent, Kind as EventKind},
    syntax::Did,
};
use runtime::clock::Clock;

use super::{
    author::{self, Author},
    catalogue::{Expectation, Forge, Kind},
    draft::Draft,
};
use crate::{
    judge::{Digest, Expect, Received},
    network::{Form, Network, document},
};

/// Both curves: each is an account.
const CURVES: [Curve; 2] = [Curve::K256, Curve::P256];

/// A kind, its host and its accounts.
pub struct Stage<'n> {
    kind: &'static Kind,
    network: &'n Network,
    clock: Clock,
    /// The kind's host: what is wrong comes from here.
    host: usize,
    /// Where its accounts live: here, unless the kind is about a host that is not theirs.
    home: usize,
    authors: Vec<Author>,
    extras: usize,
    sent: Vec<Option<Digest>>,
}

/// What was played of a kind.
#[derive(Clone, Debug)]
pub struct Played {
    /// The kind.
    pub kind: &'static Kind,
    /// Its host.
    pub host: usize,
    /// Its events, by which they would be recognised if they came out; `None` for what can't come out as it is, or
    /// has before.
    pub sent: Vec<Option<Digest>>,
}

impl<'n> Stage<'n> {
    /// Announces the accounts. `neighbour` is the host of those that do not live on the kind's own.
    pub fn open(kind: &'static Kind, network: &'n Network, host: usize, neighbour: usize, clock: Clock) -> Stage<'n> {
        let home = if kind.forge.lives_elsewhere() { neighbour } else { host };
        let mut stage = Stage { kind, network, clock, host, home, authors: Vec::new(), extras: 0, sent: Vec::new() };
        for curve in CURVES {
            let author = Author::new(&format!("{} on {curve:?}", kind.name), curve, stage.clock.clone());
            stage.put_document(&author);
            stage.authors.push(author);
            let who = stage.authors.len() - 1;
            stage.tell_identity(who);
            stage.tell_status(who, true);
            let first = stage.authors[who].draft(&[]);
            stage.pass(who, first);
        }
        stage
    }

    /// How many accounts take turns.
    pub fn accounts(&self) -> usize {
        self.authors.len()
    }

    /// A right commit, the kind's own event, and another right commit, by the account `who`.
    pub fn play(&mut self, who: usize, round: usize) {
        self.pass_usual(who);
        match self.kind.forge {
            Forge::Commit(_) | Forge::Frame(_) => {
                // What is sent has the seq and the time that the network gives it.
                let kind = self.kind;
                let author = &mut self.authors[who];
                let did = author.did.clone();
                let frame = |seq, time: &str| kind.commit_frame(author, round, seq, time).expect("it is a commit");
                let sent = send_subject(self.network, self.host, kind, &did, EventKind::Commit, frame);
                self.sent.push(sent);
            }
            Forge::Sync(spoil) => {
                let mut sync = self.authors[who].sync();
                spoil(&mut sync, &self.authors[who], round);
                if self.kind.expect == Expectation::Pass {
                    self.authors[who].adopt_sync(&sync);
                }
                self.subject(who, EventKind::Sync, |seq, time| sync.encode(seq, time));
            }
            Forge::Stranger(kind) => {
                let author = &mut self.authors[who];
                let (draft, sync, did) = (author.usual(), author.sync(), author.did.clone());
                self.subject(who, kind, |seq, time| match kind {
                    EventKind::Commit => draft.encode(seq, time),
                    EventKind::Sync => sync.encode(seq, time),
                    EventKind::Identity => identity(&did, seq, time),
                    EventKind::Account => account(&did, seq, time, Some("deactivated")),
                });
            }
            Forge::Scene(scene) => scene(self, who, round),
        }
        self.pass_usual(who);
    }

    /// What was played.
    pub fn close(self) -> Played {
        Played { kind: self.kind, host: self.host, sent: self.sent }
    }

    // === For scenes ===

    pub(super) fn author(&mut self, who: usize) -> &mut Author {
        &mut self.authors[who]
    }

    /// An account that nobody has heard of, on the same host; without a document.
    pub(super) fn newcomer(&mut self, who: usize) -> usize {
        self.extras += 1;
        let label = format!("{} newcomer {}", self.kind.name, self.extras);
        self.authors.push(Author::new(&label, CURVES[who % CURVES.len()], self.clock.clone()));
        self.authors.len() - 1
    }

    /// The newcomer has done its part.
    pub(super) fn forget_newcomer(&mut self) {
        self.authors.truncate(CURVES.len());
    }

    /// Puts the account's document into the directory, after `change`.
    pub(super) fn document(&mut self, who: usize, change: impl FnOnce(String) -> String) {
        let author = &self.authors[who];
        let good = self.good_document(author);
        self.network.directory().put(&author.did, change(good));
    }

    /// The account is gone for ever.
    pub(super) fn tombstone(&mut self, who: usize) {
        self.network.directory().tombstone(&self.authors[who].did);
    }

    /// Its host says that the account is not active, whoever asks.
    pub(super) fn say_inactive(&mut self, who: usize) {
        let author = &self.authors[who];
        if let Some(head) = &author.head {
            self.network.show_account(self.home, &author.did, head.rev, head.commit, Some("deactivated"));
        }
    }

    /// `#account`, a right one.
    pub(super) fn tell_status(&mut self, who: usize, active: bool) {
        let did = self.authors[who].did.clone();
        let status = (!active).then_some("deactivated");
        self.send(who, EventKind::Account, Expect::Pass, |seq, time| account(&did, seq, time, status));
    }

    /// `#identity`, a right one.
    pub(super) fn tell_identity(&mut self, who: usize) {
        let did = self.authors[who].did.clone();
        self.send(who, EventKind::Identity, Expect::Pass, |seq, time| identity(&did, seq, time));
    }

    /// A right commit, not the kind's own.
    pub(super) fn pass_usual(&mut self, who: usize) {
        let draft = self.authors[who].usual();
        self.pass(who, draft);
    }

    pub(super) fn pass(&mut self, who: usize, draft: Draft) {
        self.authors[who].adopt(&draft);
        self.send(who, EventKind::Commit, Expect::Pass, |seq, time| draft.encode(seq, time));
    }

    /// The kind's own event.
    pub(super) fn subject(&mut self, who: usize, kind: EventKind, build: impl FnOnce(u64, &str) -> Vec<u8>) {
        let did = self.authors[who].did.clone();
        self.sent.push(send_subject(self.network, self.host, self.kind, &did, kind, build));
    }

    /// The kind's own event: a commit with nothing wrong in itself.
    pub(super) fn subject_usual(&mut self, who: usize) {
        let draft = self.author(who).usual();
        self.subject(who, EventKind::Commit, |seq, time| draft.encode(seq, time));
    }

    /// The kind's own event: a right commit, after which the account goes on.
    pub(super) fn subject_adopted(&mut self, who: usize, draft: Draft) {
        self.authors[who].adopt(&draft);
        self.subject(who, EventKind::Commit, |seq, time| draft.encode(seq, time));
    }

    /// The kind's own event: a commit that is right but for the bytes of one record.
    pub(super) fn subject_record(&mut self, who: usize, record: Vec<u8>) {
        let author = &mut self.authors[who];
        let path = author.new_path();
        let draft = author.draft(&[(&path, Some(record))]);
        self.subject(who, EventKind::Commit, |seq, time| draft.encode(seq, time));
    }

    /// A right commit, and the kind's own event: the same once more.
    pub(super) fn subject_again(&mut self, who: usize) {
        let draft = self.authors[who].usual();
        let mut told = String::new();
        self.authors[who].adopt(&draft);
        self.send(who, EventKind::Commit, Expect::Pass, |seq, time| {
            told = time.to_owned();
            draft.encode(seq, time)
        });
        self.send(who, EventKind::Commit, Expect::Refuse, |seq, _| draft.encode(seq, &told));
        self.sent.push(None);
    }

    fn send(&mut self, who: usize, kind: EventKind, expect: Expect, build: impl FnOnce(u64, &str) -> Vec<u8>) {
        self.network.send_raw(self.home, &self.authors[who].did, kind, expect, build);
    }

    fn put_document(&self, author: &Author) {
        self.network.directory().put(&author.did, self.good_document(author));
    }

    fn good_document(&self, author: &Author) -> String {
        let host = &self.network.hosts()[self.home];
        document(&author.did, "someone.sim.test", &author.key.public_key(), host, Form::Multikey)
    }
}

/// Sends a kind's own event, and gives what it would be recognised by.
fn send_subject(
    network: &Network,
    host: usize,
    kind: &Kind,
    did: &Did,
    event: EventKind,
    build: impl FnOnce(u64, &str) -> Vec<u8>,
) -> Option<Digest> {
    let expect = match kind.expect {
        Expectation::Pass | Expectation::PassDiscontinuous => Expect::Pass,
        Expectation::Refuse(_) | Expectation::Ignore => Expect::Refuse,
    };
    let mut digest = None;
    network.send_raw(host, did, event, expect, |seq, time| {
        let frame = build(seq, time);
        digest = Received::read(&frame).map(|received| received.digest);
        frame
    });
    digest
}

fn identity(did: &Did, seq: u64, time: &str) -> Vec<u8> {
    Event::Identity(IdentityEvent { seq, did: did.as_str(), time, handle: None }).encode()
}

fn account(did: &Did, seq: u64, time: &str, status: Option<&str>) -> Vec<u8> {
    Event::Account(AccountEvent { seq, did: did.as_str(), time, active: status.is_none(), status }).encode()
}

/// A key of another account, on the same curve.
pub(super) fn another_key(author: &Author) -> atproto::crypto::SigningKey {
    author::key("somebody else", author.key.public_key().curve())
}
