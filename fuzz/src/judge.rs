//! A whole frame before the judge: routing, decoding, every rule.

use std::sync::LazyLock;

use atproto::syntax::HostName;
use validator::{
    docket::Outcome,
    verdict::{Reason, Refusal},
    verify::{Identities, Judge, Judged},
};

/// The accounts of the recorded frames.
static ACCOUNTS: LazyLock<Identities> = LazyLock::new(|| {
    let json = include_bytes!("../../atproto/testdata/frames/dids.json");
    Identities::parse(json).expect("the recording's accounts can be read")
});

/// The recording's hosts.
static HOSTS: LazyLock<[HostName; 2]> = LazyLock::new(|| {
    ["localhost:37277", "localhost:37991"].map(|host| HostName::parse(host).expect("the recording's hosts have names"))
});

/// After all revs of the recording.
const NOW_MICROS: u64 = 1_900_000_000_000_000;

/// A frame, judged as each host's first, and once more.
pub fn judge(bytes: &[u8]) {
    for host in &*HOSTS {
        let mut judge = Judge::new(ACCOUNTS.clone());
        let first = judge.judge(host, bytes, NOW_MICROS);
        match &first {
            Judged::NotAnEvent { .. } | Judged::Event { outcome: Outcome::Accepted { .. }, .. } => {}
            Judged::Unreadable(refusal) | Judged::Event { outcome: Outcome::Refused(refusal), .. } => explains(refusal),
            Judged::Event { outcome: Outcome::Repeat, .. } => panic!("a first event that is a repeat"),
        }
        match judge.judge(host, bytes, NOW_MICROS) {
            Judged::Event { outcome: Outcome::Refused(refusal), .. } => {
                assert_eq!(refusal.reason, Reason::SeqNotRising, "a seq twice on one connection");
            }
            second => assert_eq!(second, first, "what is no event changes when it comes again"),
        }
    }
}

fn explains(refusal: &Refusal) {
    for text in [&refusal.came, &refusal.expected] {
        assert!(!text.is_empty() && text.len() < 1_000, "{text:?}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}
