//! Real documents (testdata/did-docs).

use atproto::{
    crypto::Curve,
    did_doc::DidDocument,
    syntax::{Did, HostName},
};

use crate::read;

fn parse(name: &str, did: &str) -> DidDocument {
    DidDocument::parse(&read(&format!("did-docs/{name}")), &Did::parse(did).unwrap()).unwrap()
}

#[test]
fn real_documents() {
    for name in ["did_plc_doc.json", "did_plc_doc_legacy.json"] {
        let document = parse(name, "did:plc:ewvi7nxzyoun6zhxrhs64oiz");
        assert_eq!(document.handle.as_deref(), Some("atproto.com"));
        assert_eq!(document.pds, Some(HostName::parse("bsky.social").unwrap()));
        assert_eq!(document.signing_key.map(|key| key.curve()), Some(Curve::K256), "{name}");
    }
    let document = parse("did_web_doc.json", "did:web:discover.bsky.social");
    assert_eq!((document.handle, document.pds, document.signing_key), (None, None, None));
}
