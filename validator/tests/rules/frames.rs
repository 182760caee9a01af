//! What others have recorded: our two hosts on loopback, and messages of the real network.

use std::{collections::HashMap, fs, path::PathBuf};

use atproto::{
    cid::Cid,
    crypto::PublicKey,
    did_doc::DidDocument,
    event::{self, AccountEvent, Action, CommitEvent, Event, IdentityEvent, RepoOp, Routed, SyncEvent},
    syntax::{Did, HostName},
};
use data_encoding::BASE64_NOPAD;
use serde_json::Value;
use storage::repos::RepoState;
use validator::{
    rules::{Context, Room, judge},
    verdict::{Reason, Verdict},
};

use crate::world::{NOW_MICROS, assert_refused};

fn read(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../atproto/testdata").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&read(name)).unwrap()
}

/// The states of the accounts in a stream that is judged from its beginning.
#[derive(Default)]
struct Judge {
    states: HashMap<String, RepoState>,
}

impl Judge {
    fn judge(&mut self, event: &Event<'_>, host: &HostName, identity: &DidDocument) -> Verdict {
        let (Event::Commit(CommitEvent { repo: did, seq, .. })
        | Event::Sync(SyncEvent { did, seq, .. })
        | Event::Identity(IdentityEvent { did, seq, .. })
        | Event::Account(AccountEvent { did, seq, .. })) = event;
        let context = Context {
            host,
            host_epoch: 1,
            upstream_seq: *seq,
            now_micros: NOW_MICROS + 10_000_000_000_000,
            state: self.states.get(*did),
            identity,
            identity_fetched_at_micros: 0,
            identity_is_fresh: true,
            status_is_fresh: true,
            room: Room::Free,
        };
        let verdict = judge(event, &context);
        if let Verdict::Accept(accept) = &verdict {
            assert!(!accept.discontinuous, "{did} {seq}");
            self.states.insert((*did).to_owned(), accept.state.clone());
        }
        verdict
    }
}

/// The refusals that the recording has, by the number of the frame.
fn reason(file: &str) -> Reason {
    match &file[..3] {
        "033" => Reason::BadSignature,
        "042" => Reason::WrongHost,
        _ => panic!("{file} is not to be refused"),
    }
}

#[test]
fn recorded_frames_are_judged_as_expected() {
    let dids = read_json("frames/dids.json");
    let identity = |did: &str, entry: usize| {
        let document = &dids[did]["history"][entry]["didDoc"];
        let document = serde_json::to_vec(document).unwrap();
        DidDocument::parse(&document, &Did::parse(did).unwrap()).unwrap()
    };
    // A and B are where carol was first, and where she moved.
    let carol = "did:plc:amtclm32zixkahv26pyilvqo";
    let hosts = HashMap::from([("A", identity(carol, 0).pds.unwrap()), ("B", identity(carol, 1).pds.unwrap())]);

    let mut judge = Judge::default();
    let (mut passed, mut refused) = (0, 0);
    for frame in read_json("frames/expected.json").as_array().unwrap() {
        let file = frame["file"].as_str().unwrap();
        // 049's account has no document in the recording.
        let (Some(host), Some(entry)) = (hosts.get(frame["host"].as_str().unwrap()), frame["identity"].as_u64()) else {
            continue;
        };
        let bytes = read(&format!("frames/{file}"));
        let Routed::Event(route) = event::route(&bytes).unwrap() else { panic!("{file}") };
        let event = event::parse(&bytes).unwrap();
        if file.starts_with("033") {
            // Nothing announces the new key: with the former document still cached it verifies.
            let former = identity(route.did, 0);
            let verdict = Judge { states: judge.states.clone() }.judge(&event, host, &former);
            assert!(matches!(verdict, Verdict::Accept(_)), "{file}: {verdict:?}");
        }
        let verdict = judge.judge(&event, host, &identity(route.did, entry as usize));
        if frame["verdict"] == "pass" {
            assert!(matches!(verdict, Verdict::Accept(_)), "{file}: {verdict:?}");
            passed += 1;
        } else {
            assert_refused(&verdict, reason(file), file);
            refused += 1;
        }
        // Once more, as after a reconnect.
        if frame["verdict"] == "pass" {
            assert_eq!(judge.judge(&event, host, &identity(route.did, entry as usize)), Verdict::Repeat, "{file}");
        }
    }
    assert_eq!((passed, refused), (43, 2));
}

// === Messages of the real network, as JSON ===

fn link(value: &Value) -> Option<Cid> {
    value["$link"].as_str().map(|text| Cid::parse(text).unwrap())
}

fn blocks(body: &Value) -> Vec<u8> {
    let text = body["blocks"]["$bytes"].as_str().unwrap_or_default().trim_end_matches('=');
    BASE64_NOPAD.decode(text.as_bytes()).unwrap()
}

fn event<'a>(kind: &str, body: &'a Value, blocks: &'a [u8]) -> Event<'a> {
    let text = |key: &str| body[key].as_str().unwrap();
    let seq = body["seq"].as_u64().unwrap();
    let time = text("time");
    let op = |op: &'a Value| RepoOp {
        action: match op["action"].as_str().unwrap() {
            "create" => Action::Create,
            "update" => Action::Update,
            "delete" => Action::Delete,
            other => panic!("action {other}"),
        },
        path: op["path"].as_str().unwrap(),
        cid: link(&op["cid"]),
        prev: link(&op["prev"]),
    };
    match kind {
        "#commit" => Event::Commit(CommitEvent {
            seq,
            repo: text("repo"),
            time,
            rev: text("rev"),
            since: body["since"].as_str(),
            commit: link(&body["commit"]).unwrap(),
            too_big: false,
            rebase: false,
            blocks,
            ops: body["ops"].as_array().unwrap().iter().map(op).collect(),
            prev_data: link(&body["prevData"]),
        }),
        "#sync" => Event::Sync(SyncEvent { seq, did: text("did"), time, rev: text("rev"), blocks }),
        "#identity" => Event::Identity(IdentityEvent { seq, did: text("did"), time, handle: body["handle"].as_str() }),
        "#account" => Event::Account(AccountEvent {
            seq,
            did: text("did"),
            time,
            active: body["active"].as_bool().unwrap(),
            status: body["status"].as_str(),
        }),
        other => panic!("kind {other}"),
    }
}

/// The scenarios of another relay's tests, as far as they ask for what a host must send today.
#[test]
fn messages_of_the_real_network() {
    for name in ["account_lifecycle", "post_lifecycle", "rev_ordering"] {
        let scenario = read_json(&format!("relay-scenarios/{name}.json"));
        assert_eq!(scenario["lenient"], false, "{name}");
        let identities: HashMap<&str, DidDocument> = scenario["accounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|account| {
                let account = &account["identity"];
                let did = account["did"].as_str().unwrap();
                let key = account["keys"]["atproto"]["publicKeyMultibase"].as_str().unwrap();
                let pds = account["services"]["atproto_pds"]["url"].as_str().unwrap();
                let identity = DidDocument {
                    did: Did::parse(did).unwrap(),
                    signing_key: Some(PublicKey::from_multikey(key).unwrap()),
                    pds: Some(HostName::parse(pds).unwrap()),
                    handle: None,
                };
                (did, identity)
            })
            .collect();
        let mut judge = Judge::default();
        for message in scenario["messages"].as_array().unwrap() {
            let body = &message["frame"]["body"];
            let blocks = blocks(body);
            let event = event(message["frame"]["header"]["t"].as_str().unwrap(), body, &blocks);
            let did = body["repo"].as_str().or(body["did"].as_str()).unwrap();
            let identity = &identities[did];
            let verdict = judge.judge(&event, identity.pds.as_ref().unwrap(), identity);
            let is_dropped = match verdict {
                Verdict::Accept(_) => false,
                Verdict::Refuse(_) | Verdict::Repeat => true,
                Verdict::RefreshIdentity(_) | Verdict::AskStatus(_) => panic!("{name}: {verdict:?}"),
            };
            assert_eq!(message["drop"], is_dropped, "{name} {}: {verdict:?}", body["seq"]);
        }
    }
}
