//! The interoperability suites: lists of what is valid and what is not.

use std::fs;

use atproto::syntax::{Datetime, Did, Handle, HostName, Nsid, RecordKey, RepoPath, SyntaxError, Tid};

use crate::testdata;

fn check_suite(name: &str, parse: impl Fn(&str) -> Result<String, SyntaxError>) {
    for (file, valid) in [("syntax_valid", true), ("syntax_invalid", false), ("parse_invalid", false)]
        .map(|(f, v)| (format!("{name}_{f}.txt"), v))
    {
        let path = testdata("syntax").join(&file);
        if file.contains("parse") && !path.exists() {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(lines.len() > 3, "{file} is short");
        for line in lines {
            match parse(line) {
                Ok(written) => assert!(valid && written == line, "{file}: {line:?} passed as {written:?}"),
                Err(error) => assert!(!valid, "{file}: {line:?}: {error}"),
            }
        }
    }
}

#[test]
fn did_suite() {
    check_suite("did", |text| Did::parse(text).map(|did| did.to_string()));
}

#[test]
fn handle_suite() {
    check_suite("handle", |text| Handle::parse(text).map(|handle| handle.to_string()));
}

#[test]
fn nsid_suite() {
    check_suite("nsid", |text| Nsid::parse(text).map(|nsid| nsid.to_string()));
}

#[test]
fn record_key_suite() {
    check_suite("recordkey", |text| RecordKey::parse(text).map(|rkey| rkey.to_string()));
}

#[test]
fn tid_suite() {
    check_suite("tid", |text| Tid::parse(text).map(|tid| tid.to_string()));
}

#[test]
fn datetime_suite() {
    check_suite("datetime", |text| Datetime::parse(text).map(|datetime| datetime.to_string()));
}

#[test]
fn did_lengths_methods_and_lanes() {
    assert_eq!(Did::parse("did:web:example.com").unwrap().method(), "web");
    assert!(Did::check(&format!("did:plc:{}", "a".repeat(2_040))).is_ok());
    assert!(Did::check(&format!("did:plc:{}", "a".repeat(2_041))).is_err());
    // Frozen: `printf did:plc:ewvi7nxzyoun6zhxrhs64oiz | sha256sum | cut -c1-16`.
    assert_eq!(Did::lane_hash("did:plc:ewvi7nxzyoun6zhxrhs64oiz"), 0x099e_4ea9_6cd6_2c05);
}

#[test]
fn repo_paths() {
    let path = RepoPath::parse("app.bsky.feed.post/3jui7kd54zh2y").unwrap();
    assert_eq!((path.collection, path.rkey), ("app.bsky.feed.post", "3jui7kd54zh2y"));
    for bad in
        ["", "/", "app.bsky.feed.post", "app.bsky.feed.post/", "/a", "app.bsky.feed.post/a/b", "post/a", "a.b.c/.."]
    {
        assert!(RepoPath::parse(bad).is_err(), "{bad}");
    }
    let long = format!(
        "{}.{}/{}",
        ["a".repeat(63), "b".repeat(63), "c".repeat(63)].join("."),
        "d".repeat(63),
        "e".repeat(512)
    );
    assert!(RepoPath::parse(&long).is_ok(), "both parts at their longest are within 1,024 bytes");
}

#[test]
fn tids_are_numbers_in_order() {
    let texts = ["2222222222222", "2222222222223", "222222222222z", "3jzfcijpj2z2a", "7zzzzzzzzzzzz", "jzzzzzzzzzzzz"];
    let tids = texts.map(|text| Tid::parse(text).unwrap());
    assert!(tids.is_sorted());
    for (tid, text) in tids.into_iter().zip(texts) {
        assert_eq!(Tid::from_u64(tid.to_u64()), tid);
        assert_eq!(tid.to_string(), text);
    }
    let tid = Tid::from_micros(1_700_000_000_123_456, 1_023);
    assert_eq!(tid.micros(), 1_700_000_000_123_456);
    assert_eq!(Tid::parse(&tid.to_string()), Ok(tid));
    assert_eq!(tids[0].to_u64(), 0);
    assert_eq!(tids[5].to_u64(), u64::MAX);
}

#[test]
fn host_names() {
    let valid = [
        ("pds.example.com", "pds.example.com", "pds.example.com", None, false),
        ("PDS.Example.COM", "pds.example.com", "pds.example.com", None, false),
        ("https://pds.example.com", "pds.example.com", "pds.example.com", None, false),
        ("HTTPS://pds.example.com/", "pds.example.com", "pds.example.com", None, false),
        ("wss://pds.example.com:443/", "pds.example.com", "pds.example.com", None, false),
        ("pds.example.com:443", "pds.example.com", "pds.example.com", None, false),
        ("http://pds.example.com:80", "pds.example.com", "pds.example.com", None, false),
        ("http://pds.example.com:443", "pds.example.com", "pds.example.com", None, false),
        ("pds.example.com:80", "pds.example.com:80", "pds.example.com", Some(80), false),
        ("https://pds.example.com:80", "pds.example.com:80", "pds.example.com", Some(80), false),
        ("http://localhost:37277", "localhost:37277", "localhost", Some(37277), true),
        ("ws://localhost:37277/", "localhost:37277", "localhost", Some(37277), true),
        ("a.localhost", "a.localhost", "a.localhost", None, true),
        ("notlocalhost", "notlocalhost", "notlocalhost", None, false),
        ("127.0.0.1:2583", "127.0.0.1:2583", "127.0.0.1", Some(2583), true),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3", None, true),
        ("172.31.0.1", "172.31.0.1", "172.31.0.1", None, true),
        ("192.168.0.1", "192.168.0.1", "192.168.0.1", None, true),
        ("169.254.169.254", "169.254.169.254", "169.254.169.254", None, true),
        ("8.8.8.8", "8.8.8.8", "8.8.8.8", None, false),
        ("[::1]:2583", "[::1]:2583", "::1", Some(2583), true),
        ("http://[0:0:0:0:0:0:0:1]", "[::1]", "::1", None, true),
        ("[::ffff:127.0.0.1]", "[::ffff:127.0.0.1]", "::ffff:127.0.0.1", None, true),
        ("[FD00::1]:443", "[fd00::1]", "fd00::1", None, true),
        ("[2606:4700::1]:8443", "[2606:4700::1]:8443", "2606:4700::1", Some(8443), false),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example", None, false),
    ];
    for (text, name, host, port, is_local) in valid {
        let parsed = HostName::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            (parsed.as_str(), parsed.host(), parsed.port(), parsed.is_local()),
            (name, host, port, is_local),
            "{text}"
        );
        assert_eq!(HostName::parse(parsed.as_str()), Ok(parsed), "{text} stays what it is");
    }
    let long = format!("{}.com", "a.".repeat(125));
    let invalid = [
        "",
        "/",
        "https://",
        "https:///",
        ":443",
        "pds.example.com:",
        "pds.example.com:0",
        "pds.example.com:65536",
        "pds.example.com:+80",
        "pds.example.com:80:80",
        "pds.example.com/xrpc",
        "https://pds.example.com/xrpc",
        "https://pds.example.com//",
        "pds.example.com/",
        "https://pds.example.com?a",
        "https://pds.example.com#a",
        "https://user@pds.example.com",
        "user:pass@pds.example.com",
        "ftp://pds.example.com",
        "file:///etc/passwd",
        "pds..example.com",
        ".example.com",
        "example.com.",
        "-a.example.com",
        "a-.example.com",
        "a_b.example.com",
        "bücher.example",
        "pds.example.com ",
        " pds.example.com",
        "a b",
        "a%2eb",
        "127.1",
        "1.2.3",
        "0x7f.0.0.1",
        "0x7f000001",
        "2130706433",
        "127.0.0.1.",
        "256.1.1.1",
        "01.2.3.4",
        "::1",
        "[::1",
        "::1]",
        "[::1]2583",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[]",
        &long,
    ];
    for text in invalid {
        assert!(HostName::parse(text).is_err(), "{text:?} passed as {:?}", HostName::parse(text));
    }
}
