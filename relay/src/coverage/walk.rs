//! How far a peer's repos have been looked through, and which of them are missing here. Pure.

use std::collections::VecDeque;

use atproto::syntax::Did;

/// Repos that are named, the last that were found.
const NAMES_MAX: usize = 100;

/// A longer cursor is none.
const CURSOR_BYTES_MAX: usize = 1 << 10;

/// A walk through a peer's repos, a few pages a round, that begins anew when it is through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    cursor: Option<String>,
    /// How often it has come to the end.
    pub laps: u64,
    /// Repos that were looked up.
    pub looked: u64,
    /// Of them, those that were not known here.
    pub missing: u64,
    names: VecDeque<MissingRepo>,
}

/// A repo that the peer has and that was not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRepo {
    /// Whose it is.
    pub did: Did,
    /// When it was looked up, microseconds since the Unix epoch.
    pub at_micros: u64,
}

/// What comes after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The next one.
    Page,
    /// It was the last one.
    End,
    /// The peer's cursor does not move, or is no cursor; the walk begins anew.
    Stuck,
}

impl Walk {
    /// Where the next page begins.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// A page was looked through; `cursor` is what it names for the next.
    pub fn turned(&mut self, cursor: Option<String>) -> Next {
        match cursor {
            None => {
                self.cursor = None;
                self.laps += 1;
                Next::End
            }
            Some(bad) if bad.len() > CURSOR_BYTES_MAX || self.cursor.as_ref() == Some(&bad) => {
                self.cursor = None;
                Next::Stuck
            }
            Some(next) => {
                self.cursor = Some(next);
                Next::Page
            }
        }
    }

    /// The peer does not take our cursor.
    pub fn begin_anew(&mut self) {
        self.cursor = None;
    }

    /// A repo that is active there was looked up here.
    pub fn looked_up(&mut self, did: Did, known: bool, now_micros: u64) {
        self.looked += 1;
        if known {
            return;
        }
        self.missing += 1;
        self.names.retain(|named| named.did != did);
        self.names.push_back(MissingRepo { did, at_micros: now_micros });
        if self.names.len() > NAMES_MAX {
            self.names.pop_front();
        }
    }

    /// A repo that was missing has become known.
    pub fn found(&mut self, did: &Did) {
        self.names.retain(|named| named.did != *did);
    }

    /// Some of the repos that are missing, the last that were found first.
    pub fn names(&self) -> Vec<MissingRepo> {
        self.names.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(n: u64) -> Did {
        Did::parse(&format!("did:plc:{n}")).unwrap()
    }

    fn names(walk: &Walk) -> Vec<String> {
        walk.names().iter().map(|named| named.did.to_string()).collect()
    }

    #[test]
    fn it_goes_round_and_does_not_stand_still() {
        let mut walk = Walk::default();
        let long = "x".repeat(2_000);
        for (cursor, next, at) in [
            (Some("a"), Next::Page, Some("a")),
            (Some("b"), Next::Page, Some("b")),
            (Some("b"), Next::Stuck, None),
            (Some(&long), Next::Stuck, None),
            (Some("a"), Next::Page, Some("a")),
            (None, Next::End, None),
            (None, Next::End, None),
        ] {
            assert_eq!(walk.turned(cursor.map(str::to_owned)), next);
            assert_eq!(walk.cursor(), at);
        }
        assert_eq!(walk.laps, 2);
        walk.turned(Some("a".to_owned()));
        walk.begin_anew();
        assert_eq!((walk.cursor(), walk.laps), (None, 2));
    }

    #[test]
    fn the_last_missing_ones_are_named_once_and_until_they_are_found() {
        let mut walk = Walk::default();
        walk.looked_up(did(1), true, 5);
        for n in [2, 3, 2] {
            walk.looked_up(did(n), false, n);
        }
        assert_eq!((walk.looked, walk.missing), (4, 3));
        assert_eq!(names(&walk), ["did:plc:2", "did:plc:3"]);
        walk.found(&did(2));
        assert_eq!((names(&walk), walk.missing), (vec!["did:plc:3".to_owned()], 3));
        (10..200).for_each(|n| walk.looked_up(did(n), false, n));
        assert_eq!((names(&walk).len(), &*names(&walk)[0], &*names(&walk)[99]), (100, "did:plc:199", "did:plc:100"));
    }
}
