//! `mainstem verify`: judges recorded frames as the relay would, and says what it finds.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use atproto::{
    did_doc::DidDocument,
    event::{self, Routed},
    syntax::{Did, HostName, SyntaxError},
};
use http::StatusCode;
use runtime::{
    clock::Clock,
    egress::{self, Egress, Policy},
};
use serde_json::{Map, Value};
use url::Url;
use validator::{
    docket::Outcome,
    verify::{Identities, IdentitiesError, Judge, Judged},
};

use crate::cli::VerifyArgs;

/// A DID document's bytes.
const DOCUMENT_BYTES_MAX: usize = 256 << 10;

/// The time for one document.
const FETCH_MAX: Duration = Duration::from_secs(10);

/// The host of accounts that name none.
const NO_HOST: &str = "unknown.invalid";

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `--identities` can't be used.
    #[error("--identities {}", path.display())]
    Identities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentitiesError,
    },
    /// What the directories sent can't be used.
    #[error("failed to use what the directories sent")]
    Fetched(#[from] IdentitiesError),
    /// `--host` is no host.
    #[error("--host {value:?}")]
    Host {
        /// What was given.
        value: String,
        /// What is wrong with it.
        #[source]
        source: SyntaxError,
    },
    /// `--plc-url` is no URL.
    #[error("--plc-url {value:?} is not a URL")]
    PlcUrl {
        /// What was given.
        value: String,
    },
    /// A directory gave no answer.
    #[error("failed to fetch the identity of {did}; with --identities FILE nobody has to be asked")]
    Fetch {
        /// Whose.
        did: Did,
        /// Why.
        #[source]
        source: egress::Error,
    },
    /// A directory gave an answer of no meaning.
    #[error("asked for the identity of {did}, was answered {status}")]
    Answer {
        /// Whose.
        did: Did,
        /// The answer's status.
        status: StatusCode,
    },
}

/// Judges the files in their order; one line each. The exit code is 1 if one is refused.
pub async fn run(args: &VerifyArgs) -> Result<ExitCode, Error> {
    let host = args.host.as_deref().map(parse_host).transpose()?;
    let frames: Vec<(&Path, Vec<u8>)> =
        args.files.iter().map(|path| Ok((path.as_path(), read(path)?))).collect::<Result<_, Error>>()?;
    let documents = match &args.identities {
        Some(path) => read(path)?,
        None => Value::Object(fetch_all(args, &frames).await?).to_string().into_bytes(),
    };
    let identities = Identities::parse(&documents).map_err(|source| match &args.identities {
        Some(path) => Error::Identities { path: path.clone(), source },
        None => Error::Fetched(source),
    })?;
    // Parsed a second time, for who is on which host.
    let documents: Value = serde_json::from_slice(&documents).map_err(IdentitiesError::from)?;

    let clock = Clock::system();
    let mut judge = Judge::new(identities);
    let mut refused = 0;
    for (path, frame) in &frames {
        let of = host.clone().or_else(|| host_of(frame, &documents));
        let of = of.unwrap_or_else(|| HostName::parse(NO_HOST).expect("it is a host's name"));
        let judged = judge.judge(&of, frame, clock.now_micros());
        refused += usize::from(is_refused(&judged));
        println!("{}: {}", path.display(), line(&judged));
    }
    println!("{} frames, {refused} refused", frames.len());
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn parse_host(value: &str) -> Result<HostName, Error> {
    HostName::parse(value).map_err(|source| Error::Host { value: value.to_owned(), source })
}

fn is_refused(judged: &Judged) -> bool {
    match judged {
        Judged::Unreadable(_) | Judged::Event { outcome: Outcome::Refused(_), .. } => true,
        Judged::NotAnEvent { .. } | Judged::Event { outcome: Outcome::Accepted { .. } | Outcome::Repeat, .. } => false,
    }
}

fn line(judged: &Judged) -> String {
    match judged {
        Judged::NotAnEvent { what } => format!("not an event: {what}"),
        Judged::Unreadable(refusal) => format!("refused: {}: {refusal}", refusal.reason),
        Judged::Event { kind, did, seq, outcome } => {
            let input = format!("({} of {did}, seq {seq})", kind.as_str());
            match outcome {
                Outcome::Accepted { discontinuous: false } => format!("accepted {input}"),
                Outcome::Accepted { discontinuous: true } => format!("accepted, discontinuous {input}"),
                Outcome::Repeat => format!("a repeat {input}"),
                Outcome::Refused(refusal) => format!("refused: {} {input}: {refusal}", refusal.reason),
            }
        }
    }
}

/// The host that the account names, where none was given: then the host is not what is judged.
fn host_of(frame: &[u8], documents: &Value) -> Option<HostName> {
    let did = Did::parse(did_of(frame)?).ok()?;
    let account = documents.get(did.as_str())?;
    let document = match account.get("history").and_then(Value::as_array) {
        Some(history) => {
            let last = history.len().checked_sub(1)?;
            let in_force = account.get("inForce").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            history.get(in_force.unwrap_or(last))?.get("didDoc")?
        }
        None => account,
    };
    DidDocument::parse(document.to_string().as_bytes(), &did).ok()?.pds
}

fn did_of(frame: &[u8]) -> Option<&str> {
    match event::route(frame) {
        Ok(Routed::Event(route)) => Some(route.did),
        Ok(Routed::Info { .. } | Routed::Error { .. } | Routed::Unknown { .. }) | Err(_) => None,
    }
}

/// The documents of all accounts in the frames, as a file of identities has them.
async fn fetch_all(args: &VerifyArgs, frames: &[(&Path, Vec<u8>)]) -> Result<Map<String, Value>, Error> {
    let plc: Url = args.plc_url.parse().map_err(|_| Error::PlcUrl { value: args.plc_url.clone() })?;
    let egress = Egress::new(Policy { allow_local: args.dev, ..Policy::default() });
    let dids: BTreeSet<&str> = frames.iter().filter_map(|(_, frame)| did_of(frame)).collect();
    let mut documents = Map::new();
    for did in dids {
        let Ok(did) = Did::parse(did) else { continue };
        if let Some(document) = fetch(&egress, &plc, &did).await? {
            documents.insert(did.to_string(), document);
        }
    }
    Ok(documents)
}

/// One document; `None` where there certainly is none, null for a tombstone.
async fn fetch(egress: &Egress, plc: &Url, did: &Did) -> Result<Option<Value>, Error> {
    let url = match did.as_str().strip_prefix("did:web:") {
        Some(host) => Url::parse(&format!("https://{host}/.well-known/did.json")).ok(),
        None => plc.join(&format!("/{did}")).ok(),
    };
    let Some(url) = url else { return Ok(None) };
    let answer = egress.get(&url, DOCUMENT_BYTES_MAX, FETCH_MAX).await;
    let answer = answer.map_err(|source| Error::Fetch { did: did.clone(), source })?;
    match answer.status {
        StatusCode::OK => Ok(serde_json::from_slice(&answer.body).ok()),
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::GONE => Ok(Some(Value::Null)),
        status => Err(Error::Answer { did: did.clone(), status }),
    }
}
