//! Why an input was refused: the closed set of reasons, what one refusal says, and the counts by host.
//!
//! The word of a reason is the same in the metric's label, the log's field, the admin JSON and the test fixtures. Where
//! several apply, the one that stands first in the protocol's table of checks is given.
//!
//! [`Refusals`] is kept in memory only: its counts are at least once, and start anew with the process.

mod ledger;
mod reason;
mod window;

use std::{borrow::Cow, fmt};

use atproto::{
    event::EventError,
    frame::{FRAME_BYTES_MAX, FrameError},
};

pub use self::{
    ledger::{Example, Input, Refusals, Refused, RefusedHost, TEXT_BYTES_MAX},
    reason::Reason,
};

/// That one input is refused: why, and for the person who has to mend it, what came and what would have been right.
///
/// Made on refusal only, so that what passes pays nothing for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What was found, as a fragment: `a rev that is 12 min 3 s ahead of our clock`.
    pub came: Cow<'static, str>,
    /// What would have passed, as a fragment: `a rev at most 5 min ahead`.
    pub expected: Cow<'static, str>,
    /// The rev that the input gives itself, where it gives one.
    pub rev: Option<Box<str>>,
    /// The record path in question, where it is about one.
    pub path: Option<Box<str>>,
}

impl Refusal {
    /// A refusal of an input as a whole.
    pub fn new(reason: Reason, came: impl Into<Cow<'static, str>>, expected: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { reason, came: came.into(), expected: expected.into(), rev: None, path: None }
    }

    /// The same, about this record path.
    pub fn at_path(self, path: &str) -> Refusal {
        Refusal { path: Some(cut(path).into()), ..self }
    }

    /// The same, of an input that gives itself this rev.
    pub fn with_rev(self, rev: &str) -> Refusal {
        Refusal { rev: Some(cut(rev).into()), ..self }
    }
}

// What the crawler and the validator find alike.
impl Refusal {
    /// Row 1 of the table: a message that can't be read.
    pub fn unreadable(error: &EventError) -> Refusal {
        match error {
            EventError::Frame(FrameError::TooLarge { bytes }) => Refusal::too_large(*bytes as u64),
            EventError::Frame(FrameError::Header(source)) => Refusal::new(
                Reason::BadHeader,
                format!("a header with {source}"),
                "a map with op and t in canonical DAG-CBOR",
            ),
            EventError::Frame(FrameError::Body(source)) => {
                Refusal::new(Reason::BadPayload, format!("a payload with {source}"), "one map in canonical DAG-CBOR")
            }
            EventError::Missing { field } => {
                Refusal::new(Reason::BadPayload, format!("no {field}"), "all fields that the lexicon requires")
            }
            EventError::Invalid { field } => Refusal::new(
                Reason::BadPayload,
                format!("an invalid {field}"),
                "the type and form that the lexicon gives it",
            ),
        }
    }

    /// A message over the limit of one, whatever is in it.
    pub fn too_large(bytes: u64) -> Refusal {
        Refusal::new(Reason::FrameTooLarge, format!("a message of {bytes} bytes"), format!("at most {FRAME_BYTES_MAX}"))
    }

    /// An event of somebody whose name is no DID.
    pub fn not_a_did(text: &str) -> Refusal {
        Refusal::new(Reason::BadPayload, format!("{:?} as the account", cut(text)), "a DID")
    }

    /// Row 2: a seq that is not above the last one of the connection.
    pub fn seq_not_rising(seq: u64, last: u64) -> Refusal {
        Refusal::new(Reason::SeqNotRising, format!("seq {seq}"), format!("a seq above {last}, the last one"))
    }
}

/// What came and what was expected; the reason is shown beside it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path:?}: ")?;
        }
        write!(f, "{}; expected {}", self.came, self.expected)
    }
}

/// At most the first [`TEXT_BYTES_MAX`] bytes, cut between characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
