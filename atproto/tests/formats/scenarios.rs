//! Messages of the real network (testdata/relay-scenarios, testdata/firehose), as JSON.

use atproto::{car::Car, commit::Commit, crypto::PublicKey};

use crate::{base64, list, read_json};

#[test]
fn commits_of_the_real_network_verify() {
    let mut verified = 0;
    for name in list("relay-scenarios", ".json") {
        let scenario = read_json(&format!("relay-scenarios/{name}"));
        for message in scenario["messages"].as_array().unwrap() {
            let body = &message["frame"]["body"];
            if body["blocks"].is_null() {
                continue;
            }
            let blocks = base64(&body["blocks"]["$bytes"]);
            let car = Car::parse(&blocks).unwrap();
            let commit = Commit::parse(car.get(&car.root()).unwrap()).unwrap();
            assert!(body["rev"] == commit.rev || message["drop"] == true, "{name}");
            let account = scenario["accounts"]
                .as_array()
                .unwrap()
                .iter()
                .find(|account| account["identity"]["did"] == commit.did)
                .unwrap();
            let key = account["identity"]["keys"]["atproto"]["publicKeyMultibase"].as_str().unwrap();
            assert_eq!(commit.verify(&PublicKey::from_multikey(key).unwrap()), Ok(()), "{name} {}", body["seq"]);
            verified += 1;
        }
    }
    assert!(verified > 20, "only {verified} commits");
}

#[test]
fn firehose_commits_are_readable() {
    for name in list("firehose", ".json") {
        let body = read_json(&format!("firehose/{name}"));
        let blocks = base64(&body["blocks"]["$bytes"]);
        let car = Car::parse(&blocks).unwrap();
        assert_eq!(body["commit"]["$link"], car.root().to_string());
        let commit = Commit::parse(car.get(&car.root()).unwrap()).unwrap();
        assert_eq!(body["repo"], commit.did, "{name}");
    }
}
