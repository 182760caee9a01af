//! The formats against recorded traffic, the protocol's interoperability vectors, other implementations, and noise.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod car;
mod cbor;
mod cid;
mod commit;
mod crypto;
mod did_doc;
mod event;
mod noise;
mod record;
mod recorded;
mod scenarios;
mod syntax;

use std::{fs, path::PathBuf};

use serde_json::Value;

fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(path)
}

fn read(path: &str) -> Vec<u8> {
    fs::read(testdata(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// The names of the files in a folder of the test data that end in `suffix`, sorted.
fn list(folder: &str, suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(testdata(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(suffix))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no {suffix} in {folder}");
    names
}

/// The recorded frames: name and bytes.
fn recorded_frames() -> Vec<(String, Vec<u8>)> {
    let names = list("frames", ".bin").into_iter();
    names.map(|name| (name.clone(), read(&format!("frames/{name}")))).collect()
}

/// Base64 without padding, as the protocol's JSON has it; the suites pad some.
fn base64(text: &Value) -> Vec<u8> {
    data_encoding::BASE64_NOPAD.decode(text.as_str().unwrap().trim_end_matches('=').as_bytes()).unwrap()
}
