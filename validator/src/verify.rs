//! Judges recorded frames in order, as one stream for each host, by identities from a file. Pure.
//!
//! The file is a JSON object from DID to what is known of the account:
//!
//! ```json
//! {
//!   "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa": { "id": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "verificationMethod": [], "service": [] },
//!   "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb": { "history": [ { "didDoc": { } }, { "didDoc": { } } ], "inForce": 0 },
//!   "did:plc:cccccccccccccccccccccccc": null
//! }
//! ```
//!
//! A DID document; or its history, of which the entry `inForce` counts (the last one, where that key is missing); or null
//! for a tombstone. An account that is not in the file has no identity. There is nobody to ask anew, so every answer is
//! taken as fresh.

use std::{collections::HashMap, sync::Arc};

use atproto::{
    did_doc::{DidDocError, DidDocument},
    event::{self, Kind, Routed},
    syntax::{Did, HostName, SyntaxError},
};
use serde_json::{Map, Value};
use storage::repos::RepoState;

use crate::{
    docket::{Evidence, Outcome},
    identity::{Absence, Identity},
    pipeline,
    rules::{Origin, Room},
    verdict::{Accept, Refusal, Verdict},
};

/// The accounts that a stream may speak of.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    by_did: HashMap<Did, History>,
}

#[derive(Clone, Debug)]
struct History {
    entries: Vec<Identity>,
    in_force: usize,
}

/// Why a file of identities can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// Not JSON.
    #[error("not json")]
    Json(#[from] serde_json::Error),
    /// Not an object.
    #[error("not an object from did to document")]
    NotAnObject,
    /// A key that is not a DID.
    #[error("key {key:?}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: SyntaxError,
    },
    /// A document that can't be used.
    #[error("document of {did}")]
    Document {
        /// Whose.
        did: Did,
        /// What is wrong with it.
        #[source]
        source: DidDocError,
    },
    /// `inForce` names no entry, or there is none.
    #[error("{did} has no entry {entry}")]
    NoEntry {
        /// Whose.
        did: Did,
        /// Which one was asked for.
        entry: usize,
    },
}

/// What a frame turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// Not an event of an account: `#info`, an error, something unknown.
    NotAnEvent {
        /// What it is, for people.
        what: String,
    },
    /// Not readable far enough to say whose it is.
    Unreadable(Refusal),
    /// An event.
    Event {
        /// Its kind.
        kind: Kind,
        /// Its account.
        did: Did,
        /// The host's seq.
        seq: u64,
        /// What became of it.
        outcome: Outcome,
    },
}

/// Judges a stream.
#[derive(Debug, Default)]
pub struct Judge {
    identities: Identities,
    states: HashMap<Did, RepoState>,
    last_seqs: HashMap<HostName, u64>,
}

// === impl Identities ===

impl Identities {
    /// Reads a file; its form is in the module's documentation.
    pub fn parse(json: &[u8]) -> Result<Identities, IdentitiesError> {
        let Value::Object(accounts) = serde_json::from_slice(json)? else { return Err(IdentitiesError::NotAnObject) };
        let mut by_did = HashMap::with_capacity(accounts.len());
        for (key, account) in accounts {
            let did = Did::parse(&key).map_err(|source| IdentitiesError::Key { key, source })?;
            let history = History::read(&did, &account)?;
            by_did.insert(did, history);
        }
        Ok(Identities { by_did })
    }

    /// Puts another entry of an account's history in force: the directory's answer has changed.
    pub fn put_in_force(&mut self, did: &Did, entry: usize) -> Result<(), IdentitiesError> {
        match self.by_did.get_mut(did) {
            Some(history) if entry < history.entries.len() => {
                history.in_force = entry;
                Ok(())
            }
            Some(_) | None => Err(IdentitiesError::NoEntry { did: did.clone(), entry }),
        }
    }

    fn get(&self, did: &Did) -> Identity {
        let known = self.by_did.get(did).and_then(|history| history.entries.get(history.in_force));
        known.cloned().unwrap_or(Identity { known: Err(Absence::NotFound), fetched_at_micros: 0 })
    }
}

impl History {
    fn read(did: &Did, account: &Value) -> Result<History, IdentitiesError> {
        let unreadable = || IdentitiesError::Document { did: did.clone(), source: DidDocError::Unreadable };
        let entry = |document: Option<&Value>| {
            let known = match document {
                Some(Value::Null) => Err(Absence::Tombstoned),
                Some(document) => {
                    let json = serde_json::to_vec(document)?;
                    let document = DidDocument::parse(&json, did);
                    Ok(Arc::new(document.map_err(|source| IdentitiesError::Document { did: did.clone(), source })?))
                }
                None => return Err(unreadable()),
            };
            Ok(Identity { known, fetched_at_micros: 0 })
        };
        let Some(history) = account.get("history") else {
            return Ok(History { entries: vec![entry(Some(account))?], in_force: 0 });
        };
        let history = history.as_array().ok_or_else(unreadable)?;
        let entries: Vec<Identity> = history
            .iter()
            .map(|of| entry(of.as_object().and_then(|of: &Map<_, _>| of.get("didDoc"))))
            .collect::<Result<_, _>>()?;
        let in_force = match account.get("inForce") {
            None => entries.len().saturating_sub(1),
            Some(entry) => entry.as_u64().and_then(|entry| usize::try_from(entry).ok()).ok_or_else(unreadable)?,
        };
        if in_force >= entries.len() {
            return Err(IdentitiesError::NoEntry { did: did.clone(), entry: in_force });
        }
        Ok(History { entries, in_force })
    }
}

// === impl Judge ===

impl Judge {
    /// A judge that has seen nothing yet.
    pub fn new(identities: Identities) -> Judge {
        Judge { identities, ..Judge::default() }
    }

    /// The identities, to put others in force.
    pub fn identities_mut(&mut self) -> &mut Identities {
        &mut self.identities
    }

    /// Judges the next frame of a host's stream.
    pub fn judge(&mut self, host: &HostName, frame: &[u8], now_micros: u64) -> Judged {
        let route = match event::route(frame) {
            Ok(Routed::Event(route)) => route,
            Ok(Routed::Info { name, message }) => return not_an_event("#info", name, message),
            Ok(Routed::Error { error, message }) => return not_an_event("error", error, message),
            Ok(Routed::Unknown { .. }) => return Judged::NotAnEvent { what: "unknown kind".to_owned() },
            Err(error) => return Judged::Unreadable(Refusal::unreadable(&error)),
        };
        let Ok(did) = Did::parse(route.did) else { return Judged::Unreadable(Refusal::not_a_did(route.did)) };
        let last = self.last_seqs.insert(host.clone(), route.seq);
        let outcome = match last {
            Some(last) if route.seq <= last => {
                self.last_seqs.insert(host.clone(), last);
                Outcome::Refused(Refusal::seq_not_rising(route.seq, last))
            }
            Some(_) | None => self.judge_event(host, &did, route.seq, frame, now_micros),
        };
        Judged::Event { kind: route.kind, did, seq: route.seq, outcome }
    }

    fn judge_event(&mut self, host: &HostName, did: &Did, seq: u64, frame: &[u8], now_micros: u64) -> Outcome {
        let identity = self.identities.get(did);
        let evidence = Evidence {
            now_micros,
            state: self.states.get(did),
            identity: &identity,
            identity_is_fresh: true,
            status_is_fresh: true,
            room: Room::Free,
        };
        match pipeline::judge(frame, &Origin { host, host_epoch: 0, upstream_seq: seq }, &evidence) {
            Verdict::Accept(Accept { state, discontinuous }) => {
                self.states.insert(did.clone(), state);
                Outcome::Accepted { discontinuous }
            }
            Verdict::Repeat => Outcome::Repeat,
            Verdict::Refuse(refusal) | Verdict::RefreshIdentity(refusal) | Verdict::AskStatus(refusal) => {
                Outcome::Refused(refusal)
            }
        }
    }
}

fn not_an_event(kind: &str, name: &str, message: Option<&str>) -> Judged {
    let what = match message {
        Some(message) => format!("{kind} {name}: {message}"),
        None => format!("{kind} {name}"),
    };
    Judged::NotAnEvent { what }
}
