//! The PLC directory: DID documents over HTTP, in the shapes of the real one.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use atproto::{
    crypto::{Curve, PublicKey},
    syntax::{Did, HostName},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use k256::elliptic_curve::sec1::ToSec1Point;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::listener::{self, Answer, Site, Socket, reply};

/// The directory's contents and its manners.
#[derive(Default)]
pub struct Directory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    documents: HashMap<String, Entry>,
    requests: u64,
    requests_by_did: HashMap<String, u64>,
    fault: Option<Fault>,
}

enum Entry {
    Document(Bytes),
    Tombstone,
}

/// How the directory misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answers everything with this status, such as 429 or 503.
    Status(u16),
    /// It takes this long.
    Delay(Duration),
    /// It never answers.
    Hang,
}

/// The two forms of documents that the directory has given out over the years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Today's: the method's type is Multikey, its id is absolute.
    Multikey,
    /// Until 2023: the curve stands in the method's type, the key is an uncompressed point, the id is relative.
    Legacy,
}

impl Directory {
    /// Serves it on a free port for as long as `tasks` run; gives its URL.
    pub(crate) async fn listen(self: &Arc<Self>, address: Ipv4Addr, tasks: &mut JoinSet<()>) -> io::Result<String> {
        let listener = listener::bind(address, 0).await?;
        let url = format!("http://{}", listener::name_of(&listener)?);
        tasks.spawn(listener::serve(listener, Arc::clone(self)));
        Ok(url)
    }

    /// HTTP requests answered so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// HTTP requests for one account's document.
    pub fn requests_for(&self, did: &str) -> u64 {
        self.state().requests_by_did.get(did).copied().unwrap_or(0)
    }

    /// Makes it misbehave, or behave again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Sets an account's document, whatever it says.
    pub fn put(&self, did: &Did, document: impl Into<Bytes>) {
        self.state().documents.insert(did.to_string(), Entry::Document(document.into()));
    }

    /// The account is gone for ever: 410.
    pub fn tombstone(&self, did: &Did) {
        self.state().documents.insert(did.to_string(), Entry::Tombstone);
    }

    fn look_up(&self, path: &str) -> (StatusCode, &'static str, Bytes) {
        let did = path.trim_start_matches('/');
        let mut state = self.state();
        *state.requests_by_did.entry(did.to_owned()).or_default() += 1;
        let message =
            |status, text: &str| (status, "application/json", Bytes::from(json!({"message": text}).to_string()));
        match state.documents.get(did) {
            Some(Entry::Document(document)) => (StatusCode::OK, "application/did+ld+json", document.clone()),
            Some(Entry::Tombstone) => message(StatusCode::GONE, &format!("DID not available: {did}")),
            None => message(StatusCode::NOT_FOUND, &format!("DID not registered: {did}")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site for Directory {
    type Stream = Infallible;

    async fn answer(&self, request: &Request<()>) -> Answer<Infallible> {
        let fault = {
            let mut state = self.state();
            state.requests += 1;
            state.fault
        };
        match fault {
            None => {}
            Some(Fault::Status(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Answer::Plain(reply(status, "application/json", json!({"message": "fault"}).to_string()));
            }
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Hang) => std::future::pending().await,
        }
        let (status, content_type, body) = match request.uri().path() {
            "/_health" => (StatusCode::OK, "application/json", Bytes::from_static(b"{\"version\":\"simulated\"}")),
            path => self.look_up(path),
        };
        Answer::Plain(reply(status, content_type, body))
    }

    async fn stream(&self, _socket: Socket, stream: Infallible) {
        match stream {}
    }
}

/// A DID document as the directory gives it.
pub fn document(did: &Did, handle: &str, key: &PublicKey, pds: &HostName, form: Form) -> String {
    let (context, id, kind, multibase) = match (form, key.curve()) {
        (Form::Multikey, curve) => {
            let suite = match curve {
                Curve::K256 => "https://w3id.org/security/suites/secp256k1-2019/v1",
                Curve::P256 => "https://w3id.org/security/suites/ecdsa-2019/v1",
            };
            let did_key = key.to_did_key();
            let multibase = did_key.trim_start_matches("did:key:").to_owned();
            (
                json!(["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1", suite]),
                format!("{did}#atproto"),
                "Multikey",
                multibase,
            )
        }
        (Form::Legacy, Curve::K256) => {
            let context = json!(["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/secp256k1-2019/v1"]);
            (context, "#atproto".to_owned(), "EcdsaSecp256k1VerificationKey2019", uncompressed(key))
        }
        (Form::Legacy, Curve::P256) => {
            let context = json!(["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/ecdsa-2019/v1"]);
            (context, "#atproto".to_owned(), "EcdsaSecp256r1VerificationKey2019", uncompressed(key))
        }
    };
    let document: Value = json!({
        "@context": context,
        "id": did.as_str(),
        "alsoKnownAs": [format!("at://{handle}")],
        "verificationMethod": [
            {"id": id, "type": kind, "controller": did.as_str(), "publicKeyMultibase": multibase},
        ],
        "service": [
            {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": format!("http://{pds}")},
        ],
    });
    document.to_string()
}

/// The key as an uncompressed point in base58btc with its multibase `z`, without a multicodec prefix.
fn uncompressed(key: &PublicKey) -> String {
    let compressed = key.to_bytes();
    let point = match key.curve() {
        Curve::K256 => {
            k256::PublicKey::from_sec1_bytes(&compressed).map(|key| key.to_sec1_point(false).as_bytes().to_vec())
        }
        Curve::P256 => {
            p256::PublicKey::from_sec1_bytes(&compressed).map(|key| key.to_sec1_point(false).as_bytes().to_vec())
        }
    };
    let point = point.expect("a public key's own bytes are a point of its curve");
    format!("z{}", bs58::encode(point).into_string())
}

#[cfg(test)]
mod tests {
    use atproto::{crypto::SigningKey, did_doc::DidDocument};

    use super::*;

    #[test]
    fn both_forms_on_both_curves_say_the_same() {
        let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
        let pds = HostName::parse("localhost:2583").unwrap();
        for curve in [Curve::K256, Curve::P256] {
            let key = SigningKey::from_bytes(curve, &[7; 32]).unwrap().public_key();
            for form in [Form::Multikey, Form::Legacy] {
                let document = document(&did, "alice.sim.test", &key, &pds, form);
                let read = DidDocument::parse(document.as_bytes(), &did).unwrap();
                assert_eq!(read.signing_key.as_ref(), Some(&key), "{curve:?} {form:?}");
                assert_eq!(read.pds.as_ref(), Some(&pds));
                assert_eq!(read.handle.as_deref(), Some("alice.sim.test"));
            }
        }
    }
}
