//! Payloads that break the rules, one rule at a time.

use std::collections::BTreeMap;

use atproto::{
    cid::Cid,
    event::{self, Action, Event, EventError, Kind, RepoOp, Routed},
    frame::{self, Frame, FrameError},
};
use ipld_core::ipld::Ipld;

use crate::recorded_frames;

const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
type Map = BTreeMap<String, Ipld>;

fn link() -> Ipld {
    Ipld::Link(cid::Cid::try_from(&Cid::of_cbor(b"a").to_bytes()[..]).unwrap())
}

fn map<const N: usize>(entries: [(&str, Ipld); N]) -> Map {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn text(text: &str) -> Ipld {
    Ipld::String(text.to_owned())
}

fn frame(kind: &str, body: &Map) -> Vec<u8> {
    let header = map([("op", Ipld::Integer(1)), ("t", text(kind))]);
    let mut frame = serde_ipld_dagcbor::to_vec(&Ipld::Map(header)).unwrap();
    frame.extend(serde_ipld_dagcbor::to_vec(&Ipld::Map(body.clone())).unwrap());
    frame
}

/// One good body of each kind, with each key that is required.
fn bodies() -> Vec<(Kind, Map)> {
    let common = || [("seq", Ipld::Integer(7)), ("time", text("2026-01-01T00:00:00Z"))];
    let with = |more: Map| map(common()).into_iter().chain(more).collect::<Map>();
    let op = map([("action", text("delete")), ("path", text("a.b.c/d"))]);
    vec![
        (
            Kind::Commit,
            with(map([
                ("repo", text(DID)),
                ("rev", text("3jzfcijpj2z2a")),
                ("since", Ipld::Null),
                ("commit", link()),
                ("tooBig", Ipld::Bool(false)),
                ("rebase", Ipld::Bool(false)),
                ("blocks", Ipld::Bytes(vec![1, 2, 3])),
                ("ops", Ipld::List(vec![Ipld::Map(op)])),
            ])),
        ),
        (
            Kind::Sync,
            with(map([("did", text(DID)), ("rev", text("3jzfcijpj2z2a")), ("blocks", Ipld::Bytes(vec![1, 2, 3]))])),
        ),
        (Kind::Identity, with(map([("did", text(DID))]))),
        (Kind::Account, with(map([("did", text(DID)), ("active", Ipld::Bool(true))]))),
    ]
}

#[test]
fn required_keys() {
    for (kind, body) in bodies() {
        assert!(event::parse(&frame(kind.as_str(), &body)).is_ok(), "{kind:?}");
        for key in body.keys() {
            let mut body = body.clone();
            body.remove(key);
            let error = event::parse(&frame(kind.as_str(), &body)).unwrap_err();
            assert!(matches!(error, EventError::Missing { field } if field == key), "{kind:?} without {key}: {error}");
            let routes = event::route(&frame(kind.as_str(), &body)).is_ok();
            let did_key = if kind == Kind::Commit { "repo" } else { "did" };
            assert_eq!(routes, key != "seq" && key != did_key, "{kind:?} without {key}");
        }
    }
}

#[test]
fn types_of_keys() {
    for (kind, mut body) in bodies() {
        match kind {
            Kind::Commit => drop(body.insert("prevData".to_owned(), link())),
            Kind::Identity => drop(body.insert("handle".to_owned(), text("a.example.com"))),
            Kind::Account => drop(body.insert("status".to_owned(), text("deleted"))),
            Kind::Sync => {}
        }
        assert!(event::parse(&frame(kind.as_str(), &body)).is_ok(), "{kind:?}");
        for key in body.keys() {
            let mut body = body.clone();
            body.insert(key.clone(), Ipld::Map(Map::new()));
            let error = event::parse(&frame(kind.as_str(), &body)).unwrap_err();
            assert_eq!(error, EventError::Invalid { field: field(key) }, "{kind:?}");
        }
    }
}

fn field(key: &str) -> &'static str {
    const FIELDS: [&str; 17] = [
        "active", "blocks", "commit", "did", "handle", "ops", "prevData", "rebase", "repo", "rev", "seq", "since",
        "status", "time", "tooBig", "name", "message",
    ];
    FIELDS.into_iter().find(|field| *field == key).unwrap()
}

#[test]
fn values_of_keys() {
    let (_, commit) = bodies().remove(0);
    let with = |key: &str, value: Ipld| {
        let mut body = commit.clone();
        body.insert(key.to_owned(), value);
        frame("#commit", &body)
    };
    for (seq, valid) in [(0, false), (1, true), ((1 << 53) - 1, true), (1 << 53, false), (-1, false)] {
        let bytes = with("seq", Ipld::Integer(seq));
        assert_eq!(event::route(&bytes).is_ok(), valid, "{seq}");
        assert_eq!(event::parse(&bytes).is_ok(), valid, "{seq}");
    }
    let not_a_did = with("repo", text("alice.example.com"));
    assert_eq!(event::route(&not_a_did), Err(EventError::Invalid { field: "repo" }));
    // A CID that is well formed, but never names a commit: an identity hash.
    let odd = Ipld::Link(cid::Cid::try_from(&[1, 0x71, 0, 1, 7][..]).unwrap());
    assert_eq!(event::parse(&with("commit", odd.clone())).unwrap_err(), EventError::Invalid { field: "commit" });
    assert_eq!(event::parse(&with("prevData", Ipld::Null)), event::parse(&frame("#commit", &commit)));
    // What is not read may be anything canonical.
    for anything in [odd, Ipld::Null, Ipld::Float(1.5), Ipld::Integer(u64::MAX.into()), Ipld::List(vec![link()])] {
        for key in ["blobs", "zzz", ""] {
            let bytes = with(key, anything.clone());
            assert!(event::parse(&bytes).is_ok() && event::route(&bytes).is_ok());
        }
    }
}

#[test]
fn ops_of_a_commit() {
    let (_, commit) = bodies().remove(0);
    let parse_op = |op: Ipld| {
        let mut body = commit.clone();
        body.insert("ops".to_owned(), Ipld::List(vec![op]));
        let bytes = frame("#commit", &body);
        let Event::Commit(commit) = event::parse(&bytes)? else { unreachable!() };
        let RepoOp { action, cid, prev, .. } = commit.ops[0];
        Ok((action, cid, prev))
    };
    let op = |action: &str| map([("action", text(action)), ("path", text("a.b.c/d"))]);
    let a = Cid::of_cbor(b"a");
    for (name, action) in [("create", Action::Create), ("update", Action::Update), ("delete", Action::Delete)] {
        let mut op = op(name);
        assert_eq!(parse_op(Ipld::Map(op.clone())), Ok((action, None, None)));
        op.insert("cid".to_owned(), Ipld::Null);
        op.insert("prev".to_owned(), Ipld::Null);
        assert_eq!(parse_op(Ipld::Map(op.clone())), Ok((action, None, None)));
        op.insert("cid".to_owned(), link());
        op.insert("prev".to_owned(), link());
        assert_eq!(parse_op(Ipld::Map(op)), Ok((action, Some(a), Some(a))));
    }
    assert_eq!(parse_op(Ipld::Map(op("rename"))), Err(EventError::Invalid { field: "ops.action" }));
    assert_eq!(parse_op(Ipld::Null), Err(EventError::Invalid { field: "ops" }));
    for (key, missing) in [("action", "ops.action"), ("path", "ops.path")] {
        let mut op = op("create");
        op.remove(key);
        assert_eq!(parse_op(Ipld::Map(op)), Err(EventError::Missing { field: missing }));
    }
}

#[test]
fn frames_that_are_not_two_canonical_maps() {
    for (name, bytes) in recorded_frames() {
        for end in 0..bytes.len().min(400) {
            assert!(event::route(&bytes[..end]).is_err(), "{name} cut at {end}");
            assert!(event::parse(&bytes[..end]).is_err(), "{name} cut at {end}");
        }
        let more = [&bytes[..], &[0xf6]].concat();
        assert!(matches!(event::route(&more), Err(EventError::Frame(FrameError::Body(_)))), "{name}");
        assert!(event::parse(&more).is_err(), "{name}");
    }
    // An unknown key that is not canonical, far from what is read: a 32-bit float.
    let (_, body) = bodies().remove(2);
    let mut bytes = frame("#identity", &body);
    let body_at = b"\xa2\x61t\x69#identity\x62op\x01".len();
    assert_eq!(bytes[body_at], 0xa3);
    bytes[body_at] = 0xa4;
    bytes.extend(b"\x65zzzzz\xfa\x3f\x80\x00\x00");
    assert!(matches!(event::route(&bytes), Err(EventError::Frame(FrameError::Body(_)))));
    assert!(matches!(event::parse(&bytes), Err(EventError::Frame(FrameError::Body(_)))));
    let too_large = vec![0; frame::FRAME_BYTES_MAX + 1];
    let bytes = too_large.len();
    assert_eq!(event::route(&too_large), Err(EventError::Frame(FrameError::TooLarge { bytes })));
    assert_eq!(frame::parse(&too_large), Err(FrameError::TooLarge { bytes }));
}

#[test]
fn headers() {
    let body = b"\xa1\x63seq\x07";
    let with = |header: &[u8]| [header, body].concat();
    let unknown = with(b"\xa2\x61t\x64#new\x62op\x01");
    assert_eq!(event::route(&unknown), Ok(Routed::Unknown { seq: Some(7) }));
    assert_eq!(frame::parse(&unknown), Ok(Frame::Message { kind: "#new", body }));
    assert_eq!(event::parse(&unknown), Err(EventError::Invalid { field: "t" }));
    assert_eq!(event::route(&with(b"\xa1\x62op\x02")), Ok(Routed::Unknown { seq: None }));
    assert_eq!(frame::parse(&with(b"\xa1\x62op\x21")), Ok(Frame::UnknownOp(-2)));
    let more = with(b"\xa3\x61t\x64#new\x62op\x01\x63zzz\x80");
    assert_eq!(event::route(&more), Ok(Routed::Unknown { seq: Some(7) }), "a header may have more keys");
    for bad in [
        &b"\xa0"[..],
        b"\xa1\x61t\x64#new",
        b"\xa1\x62op\x01",
        b"\xa2\x62op\x01\x61t\x64#new",
        b"\xa1\x62op\x61a",
        b"\x80",
        b"",
    ] {
        assert!(matches!(event::route(&with(bad)), Err(EventError::Frame(FrameError::Header(_)))), "{bad:x?}");
    }
    assert_eq!(event::route(b"\xa2\x61t\x64#new\x62op\x01"), Ok(Routed::Unknown { seq: None }), "not even a body");
}

#[test]
fn errors_and_infos() {
    for message in [None, Some("for people")] {
        let bytes = frame::encode_error("FutureCursor", message);
        assert_eq!(event::route(&bytes), Ok(Routed::Error { error: "FutureCursor", message }));
        let bytes = event::encode_info("OutdatedCursor", message);
        assert_eq!(event::route(&bytes), Ok(Routed::Info { name: "OutdatedCursor", message }));
    }
    assert!(event::route(b"\xa1\x62op\x20\xa0").is_err(), "an error without a name");
    assert!(event::route(b"\xa2\x61t\x65#info\x62op\x01\xa0").is_err(), "an info without a name");
}
