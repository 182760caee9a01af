//! One event as one line. Pure.

use std::fmt::Write;

use atproto::{
    cbor::{self, CborError},
    event::{self, Action, Event, EventError, Routed},
    frame::{self, Frame},
};
use serde_json::{Value, json};

/// An event that can't be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Not an event of a known form.
    #[error(transparent)]
    Event(#[from] EventError),
    /// Not CBOR.
    #[error(transparent)]
    Cbor(#[from] CborError),
}

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const BLUE: &str = "\x1b[34m";
const OFF: &str = "\x1b[0m";

/// Ops shown of one commit.
const OPS_MAX: usize = 8;

/// The whole payload as a JSON object, with the kind as `kind`.
pub(super) fn json(bytes: &[u8]) -> Result<String, Error> {
    let (kind, mut value) = match frame::parse(bytes).map_err(EventError::from)? {
        Frame::Message { kind, body } => (kind, cbor::to_json(body)?),
        Frame::Error { error, message } => ("error", json!({ "error": error, "message": message })),
        Frame::UnknownOp(op) => ("unknown", json!({ "op": op })),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("kind".to_owned(), Value::from(kind));
    }
    Ok(value.to_string())
}

/// What a person wants to see of it.
pub(super) fn text(bytes: &[u8], color: bool) -> Result<String, Error> {
    let paint = |code: &'static str| if color { code } else { "" };
    let (dim, bold, off) = (paint(DIM), paint(BOLD), paint(OFF));
    let mut line = String::new();
    let mut head = |seq: u64, time: &str, hue: &'static str, kind: &str, did: &str| {
        let time = time.get(11..19).unwrap_or("");
        let _ =
            write!(line, "{dim}{seq:>10} {}{off} {}{kind:<8}{off} {bold}{}{off}", clean(time), paint(hue), clean(did));
    };
    let rest = match event::route(bytes)? {
        Routed::Info { name, message } => {
            return Ok(format!("{}info{off} {} {}", paint(YELLOW), clean(name), clean(message.unwrap_or_default())));
        }
        Routed::Error { error, message } => {
            return Ok(format!("{}error{off} {} {}", paint(RED), clean(error), clean(message.unwrap_or_default())));
        }
        Routed::Unknown { seq } => return Ok(format!("unknown message {seq:?}")),
        Routed::Event(_) => match event::parse(bytes)? {
            Event::Commit(commit) => {
                head(commit.seq, commit.time, GREEN, "commit", commit.repo);
                let mut rest = String::new();
                for op in commit.ops.iter().take(OPS_MAX) {
                    let (hue, sign) = match op.action {
                        Action::Create => (GREEN, '+'),
                        Action::Update => (YELLOW, '~'),
                        Action::Delete => (RED, '-'),
                    };
                    let _ = write!(rest, " {}{sign}{}{off}", paint(hue), clean(op.path));
                }
                if commit.ops.len() > OPS_MAX {
                    let _ = write!(rest, " {dim}and {} more{off}", commit.ops.len() - OPS_MAX);
                }
                if commit.ops.is_empty() {
                    let _ = write!(rest, " {dim}(no ops){off}");
                }
                rest
            }
            Event::Sync(sync) => {
                head(sync.seq, sync.time, BLUE, "sync", sync.did);
                format!(" {dim}rev {}{off}", clean(sync.rev))
            }
            Event::Identity(identity) => {
                head(identity.seq, identity.time, BLUE, "identity", identity.did);
                identity.handle.map_or_else(String::new, |handle| format!(" @{}", clean(handle)))
            }
            Event::Account(account) => {
                head(account.seq, account.time, YELLOW, "account", account.did);
                let status = account.status.unwrap_or(if account.active { "active" } else { "inactive" });
                format!(" {}", clean(status))
            }
        },
    };
    line.push_str(&rest);
    Ok(line)
}

/// A text of others' without what would steer a terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use atproto::event::{AccountEvent, encode_info};

    use super::*;

    #[test]
    fn lines_for_people_and_for_programs() {
        let event = Event::Account(AccountEvent {
            seq: 7,
            did: "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            time: "2026-01-02T03:04:05.678Z",
            active: false,
            status: Some("gone\x1b[31m"),
        });
        let line = text(&event.encode(), false).unwrap();
        assert_eq!(line, "         7 03:04:05 account  did:plc:ewvi7nxzyoun6zhxrhs64oiz gone\u{fffd}[31m");
        let value: Value = serde_json::from_str(&json(&event.encode()).unwrap()).unwrap();
        assert_eq!(value["kind"], "#account");
        assert_eq!(value["seq"], 7);
        assert_eq!(text(&encode_info("OutdatedCursor", Some("gone")), false).unwrap(), "info OutdatedCursor gone");
        assert_eq!(
            json(&frame::encode_error("FutureCursor", None)).unwrap(),
            r#"{"error":"FutureCursor","kind":"error","message":null}"#
        );
    }
}
