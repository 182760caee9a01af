use atproto::{
    cid::Cid,
    event::{CommitEvent, Event, IdentityEvent, encode_info},
    frame::encode_error,
};

use super::*;

const ALICE: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const BOB: &str = "did:plc:44ybard66vv44zksje25o7dz";

const SETTLE: Duration = Duration::from_secs(5);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn commit_of(did: &str, seq: u64, rev: &str, blocks: &[u8]) -> Vec<u8> {
    Event::Commit(CommitEvent {
        seq,
        repo: did,
        time: "2026-01-02T03:04:05Z",
        rev,
        since: None,
        commit: Cid::of_cbor(rev.as_bytes()),
        too_big: false,
        rebase: false,
        blocks,
        ops: Vec::new(),
        prev_data: None,
    })
    .encode()
}

fn commit(did: &str, seq: u64, rev: &str) -> Vec<u8> {
    commit_of(did, seq, rev, b"blocks")
}

fn identity(did: &str, seq: u64, time: &str) -> Vec<u8> {
    Event::Identity(IdentityEvent { seq, did, time, handle: Some("h.test") }).encode()
}

/// Both streams are there: ours from the beginning on, theirs from second 1 on.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(SETTLE, 1 << 20);
    ledger.connected(Side::Ours, s(0));
    ledger.connected(Side::Theirs, s(1));
    ledger
}

fn of(lacks: &Lacks) -> Vec<(&str, Counts)> {
    lacks.iter().map(|(did, lack)| (did.as_str(), lack.events)).collect()
}

#[test]
fn what_comes_on_both_is_whole_whatever_seqs_and_order() {
    let mut ledger = ledger();
    for (at, frame) in [(20, commit(ALICE, 1, "a")), (21, identity(BOB, 2, "t")), (22, commit(BOB, 3, "a"))] {
        ledger.message(Side::Ours, s(at), &frame).unwrap();
    }
    assert_eq!(ledger.waiting(), 3);
    for (at, frame) in [(22, commit(BOB, 900, "a")), (23, commit(ALICE, 901, "a")), (24, identity(BOB, 905, "t"))] {
        ledger.message(Side::Theirs, s(at), &frame).unwrap();
    }
    assert_eq!(ledger.waiting(), 0);
    let findings = ledger.close(s(60));
    assert!(findings.is_whole(), "{findings:?}");
    assert_eq!(findings.both, Counts { commit: 2, identity: 1, ..Counts::default() });
    assert_eq!((findings.ours.seqs, findings.theirs.seqs), (Some((1, 3)), Some((900, 905))));
    assert_eq!(findings.judged(), Some((s(6), s(55))));
}

#[test]
fn what_lacks_is_known_by_account_and_kind_on_each_side() {
    let mut ledger = ledger();
    for (n, frame) in
        [commit(ALICE, 1, "a"), commit(ALICE, 2, "b"), identity(ALICE, 3, "t"), commit(BOB, 4, "a")].iter().enumerate()
    {
        ledger.message(Side::Ours, s(20 + n as u64), frame).unwrap();
    }
    ledger.message(Side::Theirs, s(30), &commit(BOB, 7, "b")).unwrap();
    let findings = ledger.close(s(60));
    let alice = Counts { commit: 2, identity: 1, ..Counts::default() };
    let bob = Counts { commit: 1, ..Counts::default() };
    assert_eq!(of(findings.lacks(Side::Theirs)), [(BOB, bob), (ALICE, alice)]);
    assert_eq!(of(findings.lacks(Side::Ours)), [(BOB, bob)]);
    assert!(!findings.is_whole());
    let example = &findings.lacks(Side::Ours)[BOB].example;
    assert_eq!((example.kind, &*example.version, example.seq), (Kind::Commit, "b", 7));
}

#[test]
fn what_lies_at_the_edges_does_not_lack() {
    for (at, place) in [(3, Place::Begin), (5, Place::Begin), (6, Place::Judged), (55, Place::Judged), (56, Place::End)]
    {
        let mut ledger = ledger();
        ledger.message(Side::Ours, s(at), &commit(ALICE, 1, "a")).unwrap();
        let findings = ledger.close(s(60));
        let NotJudged { begin, end, gap } = findings.not_judged;
        let lacks = findings.lacks(Side::Theirs).len() as u64;
        let expected = match place {
            Place::Begin => [1, 0, 0, 0],
            Place::Judged => [0, 1, 0, 0],
            Place::End => [0, 0, 1, 0],
            Place::Break => [0, 0, 0, 1],
        };
        assert_eq!([begin, lacks, end, gap], expected, "{at}");
    }
    let mut ledger = Ledger::new(SETTLE, 1 << 20);
    ledger.connected(Side::Ours, s(0));
    ledger.message(Side::Ours, s(30), &commit(ALICE, 1, "a")).unwrap();
    let findings = ledger.close(s(60));
    assert_eq!((findings.span, findings.judged(), findings.not_judged.begin), (None, None, 1));
    // Too short a time for anything to be judged.
    assert_eq!(self::ledger().close(s(11)).judged(), None);
}

#[test]
fn an_event_at_the_edge_of_one_stream_is_found_on_the_other() {
    let mut ledger = ledger();
    ledger.message(Side::Ours, s(2), &commit(ALICE, 1, "a")).unwrap();
    ledger.message(Side::Theirs, s(40), &commit(ALICE, 9, "a")).unwrap();
    let findings = ledger.close(s(60));
    assert!(findings.is_whole() && findings.both.commit == 1);
    assert_eq!(findings.not_judged, NotJudged::default());
}

#[test]
fn a_repeat_counts_as_one_and_never_as_missing() {
    let mut ledger = ledger();
    let frames = [commit(ALICE, 1, "a"), commit(ALICE, 2, "a"), commit_of(ALICE, 3, "a", b"other")];
    for (n, frame) in frames.iter().enumerate() {
        ledger.message(Side::Ours, s(20 + n as u64), frame).unwrap();
    }
    ledger.message(Side::Theirs, s(30), &commit(ALICE, 9, "a")).unwrap();
    ledger.message(Side::Theirs, s(31), &commit(ALICE, 10, "a")).unwrap();
    ledger.message(Side::Ours, s(32), &commit(ALICE, 4, "a")).unwrap();
    let findings = ledger.close(s(60));
    assert!(findings.is_whole(), "{findings:?}");
    assert_eq!((findings.ours.repeats, findings.ours.contradictions), (3, 1));
    assert_eq!((findings.theirs.repeats, findings.theirs.contradictions), (1, 0));
    assert_eq!((findings.both.total(), findings.ours.events.total()), (1, 4));
}

#[test]
fn what_differs_is_named_with_both_seqs() {
    let mut ledger = ledger();
    ledger.message(Side::Theirs, s(20), &commit_of(ALICE, 9, "a", b"one")).unwrap();
    ledger.message(Side::Ours, s(21), &commit_of(ALICE, 1, "a", b"other")).unwrap();
    let findings = ledger.close(s(60));
    let [difference] = &findings.differences.first[..] else { panic!("{findings:?}") };
    assert_eq!((difference.event.seq, difference.their_seq), (1, 9));
    assert_eq!((&*difference.event.did, &difference.parts[..]), (ALICE, &["blocks"][..]));
    assert_eq!(findings.differences.events.commit, 1);
    assert!(findings.ours_lacks.is_empty() && !findings.is_whole());
}

#[test]
fn delays_are_known_each_way_and_not_measured_after_a_break() {
    let mut ledger = ledger();
    for n in 0..100 {
        let rev = n.to_string();
        ledger.message(Side::Ours, s(20), &commit(ALICE, 1 + n, &rev)).unwrap();
        ledger.message(Side::Theirs, s(20) + ms(n + 1), &commit(ALICE, 901 + n, &rev)).unwrap();
    }
    ledger.message(Side::Theirs, s(30), &commit(BOB, 1_001, "a")).unwrap();
    ledger.message(Side::Ours, s(32), &commit(BOB, 101, "a")).unwrap();
    ledger.message(Side::Theirs, s(40), &commit(BOB, 1_002, "b")).unwrap();
    ledger.lost(Side::Ours, s(40), "why".to_owned());
    ledger.connected(Side::Ours, s(44));
    ledger.message(Side::Ours, s(44), &commit(BOB, 102, "b")).unwrap();
    let Delays { ours, theirs } = ledger.close(s(60)).delays;
    assert_eq!((theirs.count(), theirs.max()), (100, Some(ms(100))));
    let p50 = theirs.quantile(0.5).unwrap();
    assert!(p50 >= ms(50) && p50 < ms(52), "{p50:?}");
    assert_eq!((ours.count(), ours.max()), (1, Some(s(2))));
}

#[test]
fn a_gap_that_can_not_be_filled_is_not_judged() {
    for (outdated, expected) in [(false, (1, 0)), (true, (0, 1))] {
        let mut ledger = ledger();
        ledger.message(Side::Theirs, s(20), &commit(BOB, 1, "a")).unwrap();
        ledger.message(Side::Ours, s(20), &commit(BOB, 1, "a")).unwrap();
        ledger.message(Side::Theirs, s(28), &encode_error("ConsumerTooSlow", None)).unwrap();
        ledger.lost(Side::Theirs, s(28), "the server closed".to_owned());
        ledger.message(Side::Ours, s(30), &commit(ALICE, 2, "a")).unwrap();
        ledger.connected(Side::Theirs, s(32));
        if outdated {
            ledger.message(Side::Theirs, s(32), &encode_info("OutdatedCursor", None)).unwrap();
        }
        // The server says our last event again.
        ledger.message(Side::Theirs, s(32), &commit(BOB, 1, "a")).unwrap();
        let findings = ledger.close(s(60));
        assert_eq!((findings.lacks(Side::Theirs).len(), findings.not_judged.gap), expected, "{outdated}");
        assert_eq!(findings.theirs.repeats, 0);
        let gap = &findings.theirs.presence.breaks()[0];
        assert_eq!((gap.filled, &*gap.why), (!outdated, "ConsumerTooSlow: the server closed"));
    }
}

#[test]
fn a_server_that_counts_anew_is_read_from_live() {
    let mut ledger = ledger();
    ledger.message(Side::Theirs, s(20), &commit(BOB, 500, "a")).unwrap();
    ledger.lost(Side::Theirs, s(21), "why".to_owned());
    ledger.connected(Side::Theirs, s(22));
    assert_eq!(ledger.stream(Side::Theirs).presence.cursor(), Some(500));
    ledger.message(Side::Theirs, s(22), &encode_error("FutureCursor", None)).unwrap();
    ledger.lost(Side::Theirs, s(22), "the server closed".to_owned());
    assert_eq!(ledger.stream(Side::Theirs).presence.cursor(), None);
    ledger.connected(Side::Theirs, s(23));
    ledger.message(Side::Theirs, s(30), &commit(BOB, 3, "b")).unwrap();
    ledger.message(Side::Ours, s(21), &commit(ALICE, 1, "a")).unwrap();
    let findings = ledger.close(s(60));
    assert_eq!((findings.lacks(Side::Ours)[BOB].events.commit, findings.not_judged.gap), (2, 1));
}

#[test]
fn memory_is_bounded_and_what_is_settled_goes_first() {
    let one = ENTRY_BYTES + 400;
    let mut ledger = Ledger::new(SETTLE, 100 * one);
    ledger.connected(Side::Ours, s(0));
    ledger.connected(Side::Theirs, s(0));
    // All comes on both: it goes on for ever.
    for n in 0..10_000 {
        let (at, rev) = (s(10 + n), n.to_string());
        ledger.message(Side::Ours, at, &commit(ALICE, 1 + n, &rev)).unwrap();
        ledger.message(Side::Theirs, at, &commit(ALICE, 1 + n, &rev)).unwrap();
        assert!(ledger.bytes <= ledger.bytes_max);
        assert_eq!(ledger.entries.len(), ledger.settled.len());
    }
    // Nothing of theirs comes any more.
    let mut held = 0;
    let full = (10_000..).find_map(|n| {
        held += 1;
        ledger.message(Side::Ours, s(20_000), &commit(ALICE, 1 + n, &n.to_string())).err()
    });
    assert_eq!(full, Some(Full));
    assert!(held > 50 && ledger.settled.is_empty() && ledger.bytes <= ledger.bytes_max, "{held} {ledger:?}");
    let findings = ledger.close(s(20_010));
    assert_eq!((findings.lacks(Side::Theirs)[ALICE].events.commit, findings.forgotten), (held - 1, 10_000));
}

#[test]
fn what_is_not_settled_yet_is_not_forgotten() {
    let mut ledger = Ledger::new(SETTLE, 10 * (ENTRY_BYTES + 400));
    ledger.connected(Side::Ours, s(0));
    ledger.connected(Side::Theirs, s(0));
    let all = (0..1_000).try_for_each(|n| {
        ledger.message(Side::Ours, s(10), &commit(ALICE, 1 + n, &n.to_string()))?;
        ledger.message(Side::Theirs, s(10), &commit(ALICE, 1 + n, &n.to_string()))
    });
    assert_eq!((all, ledger.close(s(60)).forgotten), (Err(Full), 0));
}

#[test]
fn what_can_not_be_read_is_counted_and_the_first_named() {
    let mut ledger = ledger();
    ledger.message(Side::Ours, s(20), b"\xff").unwrap();
    ledger.too_large(Side::Ours, 6_000_000);
    let findings = ledger.close(s(60));
    assert_eq!((findings.ours.unreadable, findings.theirs.unreadable), (2, 0));
    assert_eq!(findings.ours.unreadable_first.as_deref(), Some("unreadable header"));
}
