//! DID documents, as far as a relay needs them (specification: DID, "Representation of AT Protocol in DID documents").

use serde_json::Value;

use crate::{
    crypto::{Curve, PublicKey},
    syntax::{Did, HostName},
};

/// What a relay needs to know of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DidDocument {
    /// Whose document it is.
    pub did: Did,
    /// The first method whose id ends in `#atproto`, if it can be used.
    pub signing_key: Option<PublicKey>,
    /// The host of the first service `#atproto_pds` of type AtprotoPersonalDataServer, if its endpoint is a plain origin.
    pub pds: Option<HostName>,
    /// The first `at://` of alsoKnownAs; not verified.
    pub handle: Option<String>,
}

/// A document that can't be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DidDocError {
    /// Not JSON, or not an object with an `id`.
    #[error("unreadable did document")]
    Unreadable,
    /// Another DID's document.
    #[error("did document is of {found}")]
    WrongDid {
        /// Its `id`, cut to 2,048 bytes.
        found: String,
    },
}

impl DidDocument {
    /// Reads a document and checks that it is `did`'s.
    pub fn parse(json: &[u8], did: &Did) -> Result<DidDocument, DidDocError> {
        let document: Value = serde_json::from_slice(json).map_err(|_| DidDocError::Unreadable)?;
        let id = document["id"].as_str().ok_or(DidDocError::Unreadable)?;
        if id != did.as_str() {
            return Err(DidDocError::WrongDid { found: cut(id).to_owned() });
        }
        Ok(DidDocument {
            did: did.clone(),
            signing_key: items(&document["verificationMethod"])
                .find(|method| is_fragment(&method["id"], did, "#atproto"))
                .and_then(|method| signing_key(method, did)),
            pds: items(&document["service"])
                .find(|service| {
                    is_fragment(&service["id"], did, "#atproto_pds") && service["type"] == "AtprotoPersonalDataServer"
                })
                .and_then(|service| origin(&service["serviceEndpoint"])),
            handle: items(&document["alsoKnownAs"])
                .find_map(|name| name.as_str()?.strip_prefix("at://"))
                .map(str::to_owned),
        })
    }
}

/// The items of an array; of anything else, none.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Whether an id is `fragment` of `did`'s document, written in full or relative to it.
fn is_fragment(id: &Value, did: &Did, fragment: &str) -> bool {
    id.as_str().and_then(|id| id.strip_suffix(fragment)).is_some_and(|base| base.is_empty() || base == did.as_str())
}

fn signing_key(method: &Value, did: &Did) -> Option<PublicKey> {
    if method["controller"] != did.as_str() {
        return None;
    }
    let key = method["publicKeyMultibase"].as_str()?;
    match method["type"].as_str()? {
        "Multikey" => PublicKey::from_multikey(key).ok(),
        "EcdsaSecp256k1VerificationKey2019" => PublicKey::from_legacy_multibase(Curve::K256, key).ok(),
        "EcdsaSecp256r1VerificationKey2019" => PublicKey::from_legacy_multibase(Curve::P256, key).ok(),
        _ => None,
    }
}

/// The host of `https://HOST[:PORT]` or `http://…`; `HostName::parse` refuses whatever follows.
fn origin(endpoint: &Value) -> Option<HostName> {
    let endpoint = endpoint.as_str()?;
    let is_http = endpoint.starts_with("https://") || endpoint.starts_with("http://");
    if is_http { HostName::parse(endpoint).ok() } else { None }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(2_048);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
    const KEY: &str = "zQ3shMaemBTLdyhVoom3WAxBPDWyX2LdAZuH8tYUposBY8Rz6";
    const LEGACY_KEY: &str =
        "zMXNEBMmRXeEcvYuCKgvpKz7BJmS8KrAG5MtNnp7cUzU6v6GKeWdW2AyqPvyWD32ytmkcWLejgdsTKNXUxRWCRDvm";

    fn document() -> Value {
        json!({
            "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
            "id": DID,
            "alsoKnownAs": ["https://example.com", "at://alice.example.com", "at://other.example.com"],
            "verificationMethod": [
                { "id": format!("{DID}#atproto"), "type": "Multikey", "controller": DID, "publicKeyMultibase": KEY },
            ],
            "service": [
                { "id": "#other", "type": "Other", "serviceEndpoint": "https://other.example.com" },
                {
                    "id": "#atproto_pds",
                    "type": "AtprotoPersonalDataServer",
                    "serviceEndpoint": "https://pds.example.com",
                },
            ],
        })
    }

    fn parse(document: &Value) -> Result<DidDocument, DidDocError> {
        DidDocument::parse(document.to_string().as_bytes(), &Did::parse(DID).unwrap())
    }

    fn key() -> PublicKey {
        PublicKey::from_multikey(KEY).unwrap()
    }

    #[test]
    fn a_whole_document() {
        let parsed = parse(&document()).unwrap();
        assert_eq!(parsed.did.as_str(), DID);
        assert_eq!(parsed.signing_key, Some(key()));
        assert_eq!(parsed.pds, Some(HostName::parse("pds.example.com").unwrap()));
        assert_eq!(parsed.handle.as_deref(), Some("alice.example.com"));
    }

    #[test]
    fn a_tombstone_has_nothing() {
        let parsed = parse(&json!({ "id": DID })).unwrap();
        assert_eq!((parsed.signing_key, parsed.pds, parsed.handle), (None, None, None));
    }

    #[test]
    fn documents_that_are_no_use() {
        let did = Did::parse(DID).unwrap();
        for unreadable in ["", "[]", "{}", "null", r#"{"id": 1}"#, r#"{"id": "did:plc"#] {
            assert_eq!(DidDocument::parse(unreadable.as_bytes(), &did), Err(DidDocError::Unreadable), "{unreadable}");
        }
        let found = "did:web:other.example.com".to_owned();
        assert_eq!(parse(&json!({ "id": found })), Err(DidDocError::WrongDid { found }));
        let long = "é".repeat(2_000);
        assert_eq!(parse(&json!({ "id": long })), Err(DidDocError::WrongDid { found: "é".repeat(1_024) }));
    }

    #[test]
    fn signing_keys() {
        let method = |id: &str, kind: &str, controller: &str, key: &str| json!({ "id": id, "type": kind, "controller": controller, "publicKeyMultibase": key });
        let full = format!("{DID}#atproto");
        let other = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
        let p256 = "zDnaewnxPtxoEExytKh3axZVMzn7CpmTfX1zNfX7F9H94fsrp";
        let cases = [
            (vec![method(&full, "Multikey", DID, KEY)], Some(key())),
            (vec![method("#atproto", "Multikey", DID, KEY)], Some(key())),
            (vec![method("#atproto", "Multikey", DID, p256)], Some(PublicKey::from_multikey(p256).unwrap())),
            (vec![method("#atproto", "EcdsaSecp256k1VerificationKey2019", DID, LEGACY_KEY)], Some(key())),
            (vec![method("#atproto", "EcdsaSecp256r1VerificationKey2019", DID, LEGACY_KEY)], None),
            (vec![method("#atproto", "EcdsaSecp256k1VerificationKey2019", DID, KEY)], None),
            (vec![method("#atproto", "Multikey", DID, LEGACY_KEY)], None),
            (vec![method("#atproto", "Multikey", other, KEY)], None),
            (vec![method("#atproto", "JsonWebKey2020", DID, KEY)], None),
            (vec![method("#other", "Multikey", DID, KEY)], None),
            (vec![method(&format!("{other}#atproto"), "Multikey", DID, KEY)], None),
            // The first counts, even if it can't be used.
            (vec![method(&full, "Multikey", DID, "z"), method("#atproto", "Multikey", DID, KEY)], None),
            (vec![json!(7), json!({}), method(&full, "Multikey", DID, KEY)], Some(key())),
        ];
        for (methods, expected) in cases {
            let mut document = document();
            document["verificationMethod"] = Value::from(methods);
            assert_eq!(parse(&document).unwrap().signing_key, expected, "{document}");
        }
    }

    #[test]
    fn endpoints() {
        let cases = [
            ("https://pds.example.com", Some("pds.example.com")),
            ("https://pds.example.com/", Some("pds.example.com")),
            ("https://PDS.example.com:443", Some("pds.example.com")),
            ("https://pds.example.com:8443", Some("pds.example.com:8443")),
            ("http://localhost:37277", Some("localhost:37277")),
            ("https://pds.example.com/xrpc", None),
            ("https://pds.example.com/?a=b", None),
            ("https://pds.example.com?a=b", None),
            ("https://pds.example.com#a", None),
            ("https://user@pds.example.com", None),
            ("https://user:pass@pds.example.com", None),
            ("wss://pds.example.com", None),
            ("pds.example.com", None),
            ("", None),
        ];
        for (endpoint, expected) in cases {
            let mut document = document();
            document["service"][1]["serviceEndpoint"] = Value::from(endpoint);
            let pds = parse(&document).unwrap().pds;
            assert_eq!(pds.as_ref().map(HostName::as_str), expected, "{endpoint}");
        }
        let mut document = document();
        document["service"][1]["serviceEndpoint"] = json!(["https://pds.example.com"]);
        assert_eq!(parse(&document).unwrap().pds, None);
        document["service"] = json!({ "id": "#atproto_pds" });
        assert_eq!(parse(&document).unwrap().pds, None);
    }
}
