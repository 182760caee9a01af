//! Recorded streams, judged from their files.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::{collections::HashMap, fs, path::PathBuf};

use atproto::{
    event::{self, Kind, Routed},
    syntax::{Did, HostName},
};
use serde_json::{Value, json};
use validator::{
    docket::Outcome,
    verdict::Reason,
    verify::{Identities, IdentitiesError, Judge, Judged},
};

/// 2026-11-23: a day after the recording.
const NOW_MICROS: u64 = 1_795_392_000_000_000;

fn frames() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../atproto/testdata/frames")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(frames().join(name)).unwrap()
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

/// The hosts' names in the recording are letters; their addresses are in the documents.
fn host_of(letter: &str) -> HostName {
    let address = match letter {
        "A" => "localhost:37277",
        "B" => "localhost:37991",
        _ => "localhost:1",
    };
    HostName::parse(address).unwrap()
}

fn reason_of(file: &str) -> Option<Reason> {
    match &file[..3] {
        "033" => Some(Reason::BadSignature),
        "042" => Some(Reason::WrongHost),
        "049" => Some(Reason::IdentityNotFound),
        _ => None,
    }
}

#[test]
fn every_recorded_frame_is_judged_as_expected() {
    let mut judge = Judge::new(Identities::parse(&read("dids.json")).unwrap());
    let expected = read_json("expected.json");
    let mut verdicts: HashMap<String, usize> = HashMap::new();
    for frame in expected.as_array().unwrap() {
        let file = frame["file"].as_str().unwrap();
        let verdict = frame["verdict"].as_str().unwrap();
        let bytes = read(file);
        if let (Ok(Routed::Event(route)), Some(entry)) = (event::route(&bytes), frame["identity"].as_u64()) {
            let did = Did::parse(route.did).unwrap();
            judge.identities_mut().put_in_force(&did, usize::try_from(entry).unwrap()).unwrap();
        }
        let judged = judge.judge(&host_of(frame["host"].as_str().unwrap()), &bytes, NOW_MICROS);
        let (word, reason) = match &judged {
            Judged::NotAnEvent { .. } => ("not an event", None),
            Judged::Unreadable(refusal) => ("refuse", Some(refusal.reason)),
            Judged::Event { outcome: Outcome::Refused(refusal), .. } => ("refuse", Some(refusal.reason)),
            Judged::Event { outcome: Outcome::Accepted { discontinuous }, .. } => {
                assert!(!discontinuous, "{file}");
                ("pass", None)
            }
            Judged::Event { outcome: Outcome::Repeat, .. } => ("repeat", None),
        };
        assert_eq!((word, reason), (verdict, reason_of(file)), "{file}: {judged:?}");
        *verdicts.entry(word.to_owned()).or_default() += 1;
    }
    assert_eq!(verdicts["pass"], 43);
    assert_eq!(verdicts["refuse"], 3);
    assert_eq!(verdicts["not an event"], 5);
}

#[test]
fn a_second_pass_over_the_same_stream_is_refused_for_its_seqs() {
    let mut judge = Judge::new(Identities::parse(&read("dids.json")).unwrap());
    let bytes = read("000-pdsA-identity-createAccount_alice.bin");
    let first = judge.judge(&host_of("A"), &bytes, NOW_MICROS);
    assert!(matches!(first, Judged::Event { outcome: Outcome::Accepted { .. }, kind: Kind::Identity, seq: 1, .. }));
    let second = judge.judge(&host_of("A"), &bytes, NOW_MICROS);
    assert!(
        matches!(second, Judged::Event { outcome: Outcome::Refused(refusal), .. } if refusal.reason == Reason::SeqNotRising)
    );
}

#[test]
fn the_last_entry_counts_unless_the_file_names_another() {
    let dids = read_json("dids.json");
    let alice = "did:plc:i6xyieizhw7uvhmmbnsl5jxq";
    let commit = read("002-pdsA-commit-createAccount_alice.bin");
    let with = |account: Value| {
        let file = json!({ alice: account }).to_string();
        match Judge::new(Identities::parse(file.as_bytes()).unwrap()).judge(&host_of("A"), &commit, NOW_MICROS) {
            Judged::Event { outcome, .. } => outcome,
            judged => panic!("{judged:?}"),
        }
    };
    let good = Outcome::Accepted { discontinuous: false };
    let refused = |account: Value| match with(account) {
        Outcome::Refused(refusal) => refusal.reason,
        outcome => panic!("{outcome:?}"),
    };
    let (history, first) = (&dids[alice]["history"], &dids[alice]["history"][0]["didDoc"]);
    assert_eq!(with(first.clone()), good);
    assert_eq!(refused(json!({ "history": history })), Reason::BadSignature);
    assert_eq!(with(json!({ "history": history, "inForce": 1 })), good);
    assert_eq!(refused(Value::Null), Reason::IdentityNotFound);
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let did = "did:plc:i6xyieizhw7uvhmmbnsl5jxq";
    let error = |file: Value| Identities::parse(file.to_string().as_bytes()).unwrap_err();
    assert!(matches!(Identities::parse(b"{").unwrap_err(), IdentitiesError::Json(_)));
    assert!(matches!(error(json!([])), IdentitiesError::NotAnObject));
    assert!(matches!(error(json!({ "alice": {} })), IdentitiesError::Key { .. }));
    assert!(matches!(error(json!({ did: {} })), IdentitiesError::Document { .. }));
    assert!(matches!(error(json!({ did: { "id": "did:plc:x" } })), IdentitiesError::Document { .. }));
    assert!(matches!(error(json!({ did: { "history": [] } })), IdentitiesError::NoEntry { entry: 0, .. }));
    assert!(matches!(error(json!({ did: { "history": [{}] } })), IdentitiesError::Document { .. }));
}
