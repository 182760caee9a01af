//! The table of kinds.

use std::fmt;

use atproto::{
    cbor::Writer,
    cid::Cid,
    crypto::Curve,
    event::{Action, Kind as EventKind},
    mst::EMPTY,
    syntax::Tid,
};

use super::{
    author::{self, Author, post},
    bytes::{
        COMMIT_HEADER, Hand, depth_bomb, entry, keys, record_with_odd_links, replaced, with_header_entry, with_high_s,
        with_payload_entry,
    },
    draft::{Draft, Step, SyncDraft, signed, signed_with, with_signature},
    stage::{Stage, another_key},
};
use crate::network::SEQ_GAP_MAX;

/// Something that a host may send, right or wrong.
pub struct Kind {
    /// What it is, for people.
    pub name: &'static str,
    /// What a relay must do with it.
    pub expect: Expectation,
    pub(super) forge: Forge,
}

/// What a relay must do with a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Refuse it, with this word for a reason.
    Refuse(&'static str),
    /// Pass it on.
    Pass,
    /// Pass it on, and count it as discontinuous.
    PassDiscontinuous,
    /// Do nothing: neither pass it on nor count it as refused.
    Ignore,
}

/// How a kind is made.
#[derive(Clone, Copy)]
pub(super) enum Forge {
    /// A right `#commit`, changed before it is encoded. The number is the round.
    Commit(fn(&mut Draft, &Author, usize)),
    /// A right `#sync`, changed before it is encoded.
    Sync(fn(&mut SyncDraft, &Author, usize)),
    /// The bytes of a right `#commit`'s frame, changed.
    Frame(fn(Vec<u8>, usize) -> Vec<u8>),
    /// A right event of an account that lives on another host.
    Stranger(EventKind),
    /// What takes more than one event.
    Scene(fn(&mut Stage<'_>, usize, usize)),
}

impl Kind {
    /// The kind's frame as a commit of `author`, where it is a single commit. Where the kind is right, the author goes
    /// on from it.
    pub fn commit_frame(&self, author: &mut Author, round: usize, seq: u64, time: &str) -> Option<Vec<u8>> {
        let (draft, frame) = match self.forge {
            Forge::Commit(spoil) => {
                let mut draft = author.usual();
                spoil(&mut draft, author, round);
                let frame = draft.encode(seq, time);
                (draft, frame)
            }
            Forge::Frame(spoil) => {
                let draft = author.usual();
                let frame = spoil(draft.encode(seq, time), round);
                (draft, frame)
            }
            Forge::Sync(_) | Forge::Stranger(_) | Forge::Scene(_) => return None,
        };
        if self.expect == Pass {
            author.adopt(&draft);
        }
        Some(frame)
    }
}

impl Forge {
    pub(super) fn lives_elsewhere(self) -> bool {
        matches!(self, Forge::Stranger(_))
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.expect)
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expectation::Refuse(reason) => f.write_str(reason),
            Expectation::Pass => f.write_str("passes"),
            Expectation::PassDiscontinuous => f.write_str("passes, discontinuous"),
            Expectation::Ignore => f.write_str("ignored"),
        }
    }
}

use Expectation::{Ignore, Pass, PassDiscontinuous, Refuse};

const fn kind(name: &'static str, expect: Expectation, forge: Forge) -> Kind {
    Kind { name, expect, forge }
}

const fn commit(name: &'static str, expect: Expectation, spoil: fn(&mut Draft, &Author, usize)) -> Kind {
    kind(name, expect, Forge::Commit(spoil))
}

const fn sync(name: &'static str, expect: Expectation, spoil: fn(&mut SyncDraft, &Author, usize)) -> Kind {
    kind(name, expect, Forge::Sync(spoil))
}

const fn frame(name: &'static str, expect: Expectation, spoil: fn(Vec<u8>, usize) -> Vec<u8>) -> Kind {
    kind(name, expect, Forge::Frame(spoil))
}

const fn scene(name: &'static str, expect: Expectation, scene: fn(&mut Stage<'_>, usize, usize)) -> Kind {
    kind(name, expect, Forge::Scene(scene))
}

const fn stranger(name: &'static str, event: EventKind) -> Kind {
    kind(name, Refuse("wrong_host"), Forge::Stranger(event))
}

/// All kinds, in the order of the protocol's table of checks.
pub static KINDS: &[Kind] = &[
    // === Frames ===
    frame("frame over 5 MiB", Refuse("frame_too_large"), |frame, _| {
        let mut big = Writer::new();
        big.bytes(&vec![7; 5 * 1024 * 1024]);
        with_payload_entry(&frame, &big.into_bytes())
    }),
    frame("garbage header", Refuse("bad_header"), |frame, round| match round % 4 {
        0 => Vec::new(),
        1 => b"\xff not cbor".to_vec(),
        2 => frame[1..].to_vec(),
        // Integers are in their shortest form.
        _ => replaced(&frame, b"\x62op\x01", b"\x62op\x18\x01"),
    }),
    frame("header without t", Refuse("bad_header"), |frame, _| replaced(&frame, COMMIT_HEADER, b"\xa1\x62op\x01")),
    frame("depth bomb in the header", Refuse("bad_header"), |frame, _| with_header_entry(&frame, &depth_bomb())),
    frame("garbage payload", Refuse("bad_payload"), |frame, round| match round % 4 {
        0 => COMMIT_HEADER.to_vec(),
        1 => [COMMIT_HEADER, b"\xff\xff"].concat(),
        2 => frame[..frame.len() - 1].to_vec(),
        _ => [&frame[..], b"\x00"].concat(),
    }),
    frame("payload without seq", Refuse("bad_payload"), |frame, _| replaced(&frame, b"\x63seq", b"\x63sez")),
    frame("payload with a field of another type", Refuse("bad_payload"), |frame, _| {
        replaced(&frame, b"\x66tooBig\xf4", b"\x66tooBig\x00")
    }),
    frame("payload with keys out of order", Refuse("bad_payload"), |frame, _| {
        let (one, two) = (b"\x66rebase\xf4".as_slice(), b"\x66tooBig\xf4".as_slice());
        replaced(&frame, &[one, two].concat(), &[two, one].concat())
    }),
    frame("depth bomb in the payload", Refuse("bad_payload"), |frame, _| with_payload_entry(&frame, &depth_bomb())),
    scene("upstream seq that goes back", Refuse("seq_not_rising"), |stage, who, round| {
        let draft = stage.author(who).usual();
        // Below the last one, however many seqs the host has left out since.
        let back = SEQ_GAP_MAX + 1 + round as u64;
        stage.subject(who, EventKind::Commit, |seq, time| draft.encode(seq.saturating_sub(back).max(1), time));
    }),
    frame("unknown type", Ignore, |frame, _| replaced(&frame, b"\x67#commit", b"\x67#future")),
    frame("unknown op", Ignore, |frame, round| {
        replaced(&frame, b"\x62op\x01", if round % 2 == 0 { b"\x62op\x02" } else { b"\x62op\x21" })
    }),
    // === Accounts and hosts ===
    scene("account that the directory does not know", Refuse("identity_not_found"), |stage, who, _| {
        let who = stage.newcomer(who);
        stage.subject_usual(who);
        stage.forget_newcomer();
    }),
    scene("account that is tombstoned", Refuse("identity_not_found"), |stage, who, _| {
        let who = stage.newcomer(who);
        stage.tombstone(who);
        stage.subject_usual(who);
        stage.forget_newcomer();
    }),
    scene("document without a key", Refuse("no_signing_key"), |stage, who, _| {
        let who = stage.newcomer(who);
        stage.document(who, |document| document.replace("#atproto\"", "#other\""));
        stage.subject_usual(who);
        stage.forget_newcomer();
    }),
    scene("document without a PDS", Refuse("no_pds"), |stage, who, _| {
        let who = stage.newcomer(who);
        stage.document(who, |document| document.replace("#atproto_pds", "#other"));
        stage.subject_usual(who);
        stage.forget_newcomer();
    }),
    stranger("#commit from a host that is not the account's", EventKind::Commit),
    stranger("#sync from a host that is not the account's", EventKind::Sync),
    stranger("#account from a host that is not the account's", EventKind::Account),
    stranger("#identity from a host that is not the account's", EventKind::Identity),
    scene("commit from an inactive account", Refuse("account_inactive"), |stage, who, _| {
        stage.say_inactive(who);
        stage.tell_status(who, false);
        stage.subject_usual(who);
        stage.tell_status(who, true);
    }),
    // === Sizes ===
    commit("blocks over 2 MB", Refuse("blocks_too_large"), |draft, _, _| {
        let block = vec![7; 2_000_000];
        draft.extra.push((Cid::of_cbor(&block), block));
    }),
    commit("201 ops", Refuse("too_many_ops"), |draft, _, _| {
        let step = draft.steps[0].clone();
        let more = (draft.steps.len()..201).map(|n| Step { path: format!("com.example.thing/{n}"), ..step.clone() });
        draft.steps.extend(more);
    }),
    scene("record over its limit", Refuse("record_too_large"), |stage, who, _| {
        stage.subject_record(who, post(&"x".repeat(1_048_576)));
    }),
    commit("tooBig", Refuse("too_big"), |draft, _, _| draft.too_big = true),
    commit("rebase", Refuse("rebase"), |draft, _, _| draft.rebase = true),
    // === Revs ===
    commit("rev that is not a TID", Refuse("bad_rev"), |draft, author, round| {
        let revs = ["", "not-a-tid", "3jzfcijpj2z2a2", "zzzzzzzzzzzzz"];
        draft.put_rev(revs[round % revs.len()].to_owned(), &author.did, &author.key);
    }),
    commit("rev that is old", Refuse("stale_rev"), |draft, author, round| {
        let last = last_rev(author);
        let old = Tid::from_micros(last.micros() - 1 - round as u64, 0);
        draft.put_rev(old.to_string(), &author.did, &author.key);
    }),
    commit("rev of the last commit, on another", Refuse("stale_rev"), |draft, author, _| {
        draft.put_rev(last_rev(author).to_string(), &author.did, &author.key);
    }),
    commit("rev in the future", Refuse("future_rev"), |draft, author, round| {
        // Of what is far ahead only the last is beyond any clock's mistake.
        let ahead = [400, 3_600, 86_400, 3_000_000_000][round % 4] * 1_000_000;
        draft.put_rev(Tid::from_micros(author.now_micros() + ahead, 0).to_string(), &author.did, &author.key);
    }),
    // === The CAR and the commit in it ===
    commit("CAR that can't be read", Refuse("bad_car"), |draft, _, round| {
        let car = draft.car();
        draft.car = Some(match round % 4 {
            0 => Vec::new(),
            1 => car[..car.len() - 1].to_vec(),
            2 => b"\x0anot a car!".to_vec(),
            _ => {
                let bomb = depth_bomb();
                // A varint of three bytes holds any length up to 2^21.
                let len = [(bomb.len() as u8) | 0x80, ((bomb.len() >> 7) as u8) | 0x80, (bomb.len() >> 14) as u8];
                [&len[..], &bomb].concat()
            }
        });
    }),
    commit("block that does not hash to its CID", Refuse("wrong_block_hash"), |draft, _, round| match round % 3 {
        0 => flip_last(&mut draft.nodes[0].1),
        1 => flip_last(&mut draft.records[0].1),
        _ => draft.extra.push((Cid::of_cbor(b"one"), b"another".to_vec())),
    }),
    commit("cycle of nodes", Refuse("wrong_block_hash"), |draft, author, _| {
        // A node that is its own subtree can't be hashed, so its CID has to lie.
        let claimed = Cid::of_cbor(b"the node itself");
        let mut hand = Hand::default();
        let (low, between, _) = three_keys(1);
        let below = hand.node(Some(claimed), &[]);
        hand.node(None, &[(&low, Some(below)), (&between, None)]);
        let mut nodes = hand.into_nodes();
        nodes[0].0 = claimed;
        draft.put_tree(nodes, &author.did, &author.key);
    }),
    commit("commit field that is not the CAR's root", Refuse("root_mismatch"), |draft, _, _| draft.commit = draft.data),
    commit("missing root", Refuse("root_mismatch"), |draft, _, _| {
        draft.root = Cid::of_cbor(b"elsewhere");
        draft.commit = draft.root;
        let blocks = draft.nodes.iter().chain(&draft.records);
        draft.car = Some(atproto::car::write(draft.root, blocks.map(|(cid, block)| (*cid, &block[..]))));
    }),
    commit("commit block that is no commit", Refuse("bad_commit"), |draft, author, round| match round % 4 {
        0 => draft.put_commit(draft.records[0].1.clone()),
        1 => draft.put_commit(replaced(&draft.commit_block, b"\x67version\x03", b"\x67version\x02")),
        2 => {
            let without = replaced(&draft.commit_block, b"\x64prev\xf6", b"");
            draft.put_commit([&[without[0] - 1], &without[1..]].concat());
        }
        _ => {
            let bomb = [b"\x69depthBomb", &depth_bomb()[..]].concat();
            draft.put_commit(signed_with(author.did.as_str(), &draft.rev, draft.data, &author.key, &bomb));
        }
    }),
    commit("wrong DID in the commit", Refuse("commit_did_mismatch"), |draft, author, _| {
        draft.sign(&author::did("somebody else"), &author.key);
    }),
    commit("rev that differs from the commit's", Refuse("commit_rev_mismatch"), |draft, _, _| {
        let rev = Tid::parse(&draft.rev).map_or(0, Tid::micros);
        draft.rev = Tid::from_micros(rev + 1, 0).to_string();
    }),
    // === Signatures ===
    commit("high S", Refuse("high_s"), |draft, author, _| {
        let curve = author.key.public_key().curve();
        draft.put_commit(with_signature(&draft.commit_block, |sig| with_high_s(curve, sig)));
    }),
    commit("bad signature", Refuse("bad_signature"), |draft, _, round| {
        draft.put_commit(with_signature(&draft.commit_block, |mut sig| {
            match round % 4 {
                0 => sig[0] ^= 1,
                // The last byte of S: it stays low.
                1 => sig[63] ^= 1,
                2 => sig.fill(0),
                _ => sig[..32].fill(0xff),
            }
            sig
        }));
    }),
    commit("signature of something else", Refuse("bad_signature"), |draft, author, _| {
        let other = signed(author.did.as_str(), &draft.rev, EMPTY, &author.key);
        let stolen: [u8; 64] = other_signature(&other);
        draft.put_commit(with_signature(&draft.commit_block, |_| stolen));
    }),
    commit("wrong key", Refuse("bad_signature"), |draft, author, round| {
        let key = if round % 2 == 0 {
            another_key(author)
        } else {
            let other = match author.key.public_key().curve() {
                Curve::K256 => Curve::P256,
                Curve::P256 => Curve::K256,
            };
            author::key("somebody else", other)
        };
        draft.sign(&author.did, &key);
    }),
    // === Ops and records ===
    commit("bad path", Refuse("bad_path"), |draft, _, round| {
        let paths = ["", "app.bsky.feed.post", "app.bsky.feed.post/a/b", "app.bsky.feed.post/a b"];
        draft.steps[0].path = paths[round % paths.len()].to_owned();
    }),
    commit("op that does not fit its action", Refuse("bad_op"), |draft, _, round| match round % 4 {
        0 => draft.steps[0].prev = draft.steps[1].cid,
        1 => draft.steps[2].prev = None,
        2 => draft.steps[3].cid = draft.steps[0].cid,
        _ => draft.steps[0].cid = None,
    }),
    commit("key twice in the ops", Refuse("bad_op"), |draft, _, _| draft.steps.push(draft.steps[0].clone())),
    commit("missing record", Refuse("missing_record"), |draft, _, _| drop(draft.records.remove(0))),
    commit("op with the CID of a record that is not there", Refuse("missing_record"), |draft, _, _| {
        draft.steps[0].cid = Some(Cid::of_cbor(b"not a record"));
    }),
    scene("record that is not well-formed", Refuse("bad_record"), |stage, who, round| {
        let record = match round % 4 {
            0 => b"\xff not cbor".to_vec(),
            1 => [&post("one")[..], b"\x00"].concat(),
            // A number that is not in its shortest form.
            2 => b"\xa1\x61a\x18\x01".to_vec(),
            _ => b"\xa2\x61b\x01\x61a\x02".to_vec(),
        };
        stage.subject_record(who, record);
    }),
    scene("depth bomb in a record", Refuse("bad_record"), |stage, who, round| {
        let bomb = depth_bomb();
        // Just over what is allowed, and far over it.
        let bomb = if round % 2 == 0 { bomb } else { bomb[bomb.len() - 34..].to_vec() };
        stage.subject_record(who, [b"\xa1\x61a", &bomb[..]].concat());
    }),
    // === The tree ===
    commit("missing block", Refuse("missing_mst_block"), |draft, _, _| drop(draft.nodes.remove(0))),
    commit("op with the CID of another record", Refuse("op_mismatch"), |draft, _, _| {
        draft.steps[0].cid = draft.steps[1].cid;
    }),
    commit("op added that creates", Refuse("op_mismatch"), |draft, _, _| {
        // With the whole tree there, what is not in it certainly is not.
        draft.put_all_nodes();
        let step = Step { path: "app.bsky.feed.post/3madded".to_owned(), ..draft.steps[0].clone() };
        draft.steps.push(step);
    }),
    commit("op added that deletes", Refuse("prev_data_mismatch"), |draft, _, _| {
        draft.put_all_nodes();
        let (path, prev) = ("app.bsky.feed.post/3madded".to_owned(), Some(Cid::of_cbor(b"never there")));
        draft.steps.push(Step { action: Action::Delete, path, cid: None, prev });
    }),
    commit("op left out", Refuse("prev_data_mismatch"), |draft, _, round| {
        draft.put_all_nodes();
        draft.steps.remove(round % draft.steps.len());
    }),
    commit("wrong op prev", Refuse("prev_data_mismatch"), |draft, _, round| {
        let at = 2 + round % 2;
        draft.steps[at].prev = Some(Cid::of_cbor(b"never there"));
    }),
    commit("no prevData", Refuse("prev_data_mismatch"), |draft, _, _| draft.prev_data = None),
    commit("wrong prevData", Refuse("prev_data_mismatch"), |draft, _, round| {
        draft.prev_data = Some(if round % 2 == 0 { draft.data } else { EMPTY });
    }),
    commit("MST with wrong layers", Refuse("bad_mst"), |draft, author, round| {
        let mut hand = Hand::default();
        if round % 2 == 0 {
            let (low, between, high) = three_keys(1);
            hand.node(None, &[(&low, None), (&between, None), (&high, None)]);
        } else {
            // A leaf two layers below its parent, with no node between.
            let (low, between, high) = three_keys(2);
            let leaf = hand.node(None, &[(&between, None)]);
            hand.node(None, &[(&low, Some(leaf)), (&high, None)]);
        }
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST with unsorted keys", Refuse("bad_mst"), |draft, author, round| {
        let (low, between, high) = three_keys(1);
        let mut hand = Hand::default();
        if round % 2 == 0 {
            hand.node(None, &[(&high, None), (&low, None)]);
        } else {
            let leaf = hand.node(None, &[(&between, None)]);
            hand.node(Some(leaf), &[(&low, None), (&high, None)]);
        }
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST with a key twice", Refuse("bad_mst"), |draft, author, round| {
        let (low, between, high) = three_keys(1);
        let mut hand = Hand::default();
        if round % 2 == 0 {
            hand.node(None, &[(&low, None), (&low, None), (&high, None)]);
        } else {
            let leaf = hand.node(None, &[(&between, None)]);
            hand.node(Some(leaf), &[(&low, Some(leaf)), (&high, None)]);
        }
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST whose prefix lengths lie", Refuse("bad_mst"), |draft, author, round| {
        let keys = keys(0, 2);
        let (first, second) = (&keys[0], &keys[1]);
        let shared = first.bytes().zip(second.bytes()).take_while(|(a, b)| a == b).count();
        let mut hand = Hand::default();
        hand.raw_node(match round % 4 {
            0 => vec![entry(3, first)],
            1 => vec![entry(0, first), entry(first.len() + 1, "x")],
            2 => vec![entry(0, first), entry(shared - 1, &second[shared - 1..])],
            _ => vec![entry(0, first), entry(usize::from(u16::MAX), &second[shared..])],
        });
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST with one node in many places", Refuse("bad_mst"), |draft, author, _| {
        let keys = keys(2, 40);
        let mut hand = Hand::default();
        let shared = hand.node(Some(Cid::of_cbor(b"deeper")), &[]);
        let entries: Vec<(&str, Option<Cid>)> = keys.iter().map(|key| (key.as_str(), Some(shared))).collect();
        hand.node(Some(shared), &entries);
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST of 10,000 nodes below each other", Refuse("bad_mst"), |draft, author, _| {
        let mut hand = Hand::default();
        let mut chain = Cid::of_cbor(b"the ground");
        for _ in 0..10_000 {
            chain = hand.node(Some(chain), &[]);
        }
        hand.node(Some(chain), &[(&keys(4, 1)[0], None)]);
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST node of 100,000 entries", Refuse("bad_mst"), |draft, author, round| {
        let mut hand = Hand::default();
        if round % 2 == 0 {
            // As many as 2 MB hold.
            let keys = keys(0, 24_000);
            let entries: Vec<(&str, Option<Cid>)> = keys.iter().map(|key| (key.as_str(), None)).collect();
            hand.node(None, &entries);
        } else {
            hand.block(b"\xa2\x61e\x9a\x00\x01\x86\xa0".to_vec());
        }
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST node that is a depth bomb", Refuse("bad_mst"), |draft, author, _| {
        let mut hand = Hand::default();
        hand.block(depth_bomb());
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST with a root without keys", Refuse("bad_mst"), |draft, author, _| {
        let mut hand = Hand::default();
        let leaf = hand.node(None, &[(&keys(0, 1)[0], None)]);
        hand.node(Some(leaf), &[]);
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    commit("MST with a key that is no path", Refuse("bad_mst"), |draft, author, round| {
        let bad = ["", "no-slash", "a/b/c", "a/\u{e4}"];
        let mut hand = Hand::default();
        hand.node(None, &[(bad[round % bad.len()], None)]);
        draft.put_tree(hand.into_nodes(), &author.did, &author.key);
    }),
    // === #sync ===
    sync("#sync with a bad signature", Refuse("bad_signature"), |sync, author, round| {
        let block = if round % 2 == 0 {
            with_signature(&sync.commit_block, |mut sig| {
                sig[5] ^= 1;
                sig
            })
        } else {
            signed(author.did.as_str(), &sync.rev, sync.data, &another_key(author))
        };
        sync.put_commit(block);
    }),
    sync("#sync that rolls back", Refuse("sync_rollback"), |sync, author, round| {
        let old = Tid::from_micros(last_rev(author).micros() - 1 - round as u64, 0);
        *sync = SyncDraft::new(&author.did, old, sync.data, &author.key);
    }),
    sync("#sync with extra blocks", Refuse("extra_blocks"), |sync, _, _| {
        sync.extra.push((Cid::of_cbor(b"extra"), b"extra".to_vec()));
    }),
    sync("#sync over 10,000 bytes", Refuse("blocks_too_large"), |sync, _, _| {
        sync.extra.push((Cid::of_cbor(&[7; 10_000]), vec![7; 10_000]));
    }),
    sync("#sync with a rev in the future", Refuse("future_rev"), |sync, author, _| {
        let ahead = Tid::from_micros(author.now_micros() + 3_600_000_000, 0);
        *sync = SyncDraft::new(&author.did, ahead, sync.data, &author.key);
    }),
    sync("#sync of another DID's commit", Refuse("commit_did_mismatch"), |sync, author, _| {
        let block = signed(author::did("somebody else").as_str(), &sync.rev, sync.data, &author.key);
        sync.put_commit(block);
    }),
    // === Right, and easily refused by mistake ===
    commit("extra blocks that nothing refers to", Pass, |draft, _, round| {
        for n in 0..=round {
            let block = format!("extra {n} of {}", draft.rev).into_bytes();
            draft.extra.push((Cid::of_cbor(&block), block));
        }
        draft.extra.push(draft.records[0].clone());
    }),
    scene("empty commit", Pass, |stage, who, _| {
        let draft = stage.author(who).draft(&[]);
        stage.subject_adopted(who, draft);
    }),
    scene("create and delete of one key in one commit", Pass, |stage, who, _| {
        let author = stage.author(who);
        let (gone, stays) = (author.new_path(), author.new_path());
        let draft = author.draft(&[(&gone, Some(post("gone"))), (&stays, Some(post("stays"))), (&gone, None)]);
        stage.subject_adopted(who, draft);
    }),
    scene("two ops on one path", Pass, |stage, who, round| {
        let author = stage.author(who);
        let (new, old) = (author.new_path(), author.old_path(5));
        let text = |text: &str| Some(post(&format!("{text} of {new}")));
        let writes = match round % 3 {
            0 => [(&new, text("one")), (&new, text("two"))],
            1 => [(&old, text("one")), (&old, text("two"))],
            _ => [(&old, None), (&old, text("again"))],
        };
        let writes = writes.map(|(path, record)| (path.as_str(), record));
        let draft = author.draft(&writes);
        stage.subject_adopted(who, draft);
    }),
    scene("first commit without prevData", Pass, |stage, who, _| {
        let who = stage.newcomer(who);
        stage.document(who, |document| document);
        let draft = stage.author(who).usual();
        stage.subject_adopted(who, draft);
        stage.pass_usual(who);
        stage.forget_newcomer();
    }),
    scene("commit of an account from the middle of its life", Pass, |stage, who, _| {
        let who = stage.newcomer(who);
        stage.document(who, |document| document);
        let author = stage.author(who);
        let unheard = author.usual();
        author.adopt(&unheard);
        let draft = author.usual();
        stage.subject_adopted(who, draft);
        stage.pass_usual(who);
        stage.forget_newcomer();
    }),
    scene("discontinuous commit", PassDiscontinuous, |stage, who, _| {
        let author = stage.author(who);
        let lost = author.usual();
        author.adopt(&lost);
        let draft = author.usual();
        stage.subject_adopted(who, draft);
    }),
    frame("unknown fields in the payload", Pass, |frame, round| match round % 2 {
        0 => with_payload_entry(&frame, b"\xa2\x61a\x18\x2a\x61b\x82\xf6\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"),
        // The first op, a create, has three entries.
        _ => {
            let frame = replaced(&frame, b"\xa3\x63cid", b"\xa4\x63cid");
            replaced(&frame, b"\x66action\x66create", b"\x66action\x66create\x67unknown\xf5")
        }
    }),
    frame("unknown fields in the header", Pass, |frame, _| with_header_entry(&frame, b"\x65value")),
    commit("unknown fields in the commit", Pass, |draft, author, _| {
        let block = signed_with(author.did.as_str(), &draft.rev, draft.data, &author.key, b"\x69extension\x82\x01\xf6");
        draft.put_commit(block);
    }),
    scene("odd hash types inside records", Pass, |stage, who, _| {
        let author = stage.author(who);
        let path = author.new_path();
        let draft = author.draft(&[(&path, Some(record_with_odd_links(&path)))]);
        stage.subject_adopted(who, draft);
    }),
    scene("record under two paths", Pass, |stage, who, _| {
        let author = stage.author(who);
        let (one, two) = (author.new_path(), author.new_path());
        let record = post(&one);
        let draft = author.draft(&[(&one, Some(record.clone())), (&two, Some(record))]);
        stage.subject_adopted(who, draft);
    }),
    scene("all records deleted, and one written again", Pass, |stage, who, _| {
        let author = stage.author(who);
        let paths: Vec<String> = author.records.keys().cloned().collect();
        let writes: Vec<(&str, Option<Vec<u8>>)> = paths.iter().map(|path| (path.as_str(), None)).collect();
        let draft = author.draft(&writes);
        stage.subject_adopted(who, draft);
        let author = stage.author(who);
        let paths: Vec<String> = (0..12).map(|_| author.new_path()).collect();
        let writes: Vec<(&str, Option<Vec<u8>>)> = paths.iter().map(|path| (path.as_str(), Some(post(path)))).collect();
        let draft = author.draft(&writes);
        stage.pass(who, draft);
    }),
    sync("#sync of a new state", Pass, |_, _, _| {}),
    scene("#sync of the state that is known", Pass, |stage, who, _| {
        let sync = stage.author(who).sync_of_head();
        stage.subject(who, EventKind::Sync, |seq, time| sync.encode(seq, time));
    }),
    scene("commit that is sent again with a new seq", Ignore, |stage, who, _| stage.subject_again(who)),
];

fn last_rev(author: &Author) -> Tid {
    author.head.as_ref().expect("what has been announced has a head").rev
}

fn flip_last(block: &mut [u8]) {
    if let Some(last) = block.last_mut() {
        *last ^= 1;
    }
}

fn other_signature(block: &[u8]) -> [u8; 64] {
    let commit = atproto::commit::Commit::parse(block).expect("a commit of ours can be read");
    commit.sig.try_into().expect("a signature of ours has 64 bytes")
}

/// Two keys of a layer with one of layer 0 between them, rising.
fn three_keys(of_layer: u32) -> (String, String, String) {
    let (upper, ground) = (keys(of_layer, 20), keys(0, 200));
    let found = upper.windows(2).find_map(|pair| {
        let between = ground.iter().find(|key| **key > pair[0] && **key < pair[1])?;
        Some((pair[0].clone(), between.clone(), pair[1].clone()))
    });
    found.expect("three of four keys are of layer 0, so some stand between any two others")
}
