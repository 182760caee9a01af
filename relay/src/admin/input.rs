//! What requests say: the path, the query and the body, each with an error that tells what to write.

use atproto::syntax::{Did, HostName};
use axum::body::Bytes;
use serde::de::DeserializeOwned;

use super::error::Error;
use crate::{app::App, xrpc::params::Params};

/// Known names that are told where an unknown one is asked for.
const NEAR_MAX: usize = 3;

/// How alike two names must be, from 0 to 1.
const NEAR_MIN: f64 = 0.87;

/// A host's name in the path.
pub(super) fn hostname(text: &str) -> Result<HostName, Error> {
    HostName::parse(text).map_err(|error| Error::invalid(format!("{text:?} is not a host: {error}")))
}

/// A DID in the path.
pub(super) fn did(text: &str) -> Result<Did, Error> {
    Did::parse(text).map_err(|error| Error::invalid(format!("{text:?} is not a DID: {error}")))
}

/// A host that is known.
pub(super) fn known_host(app: &App, text: &str) -> Result<crawler::HostView, Error> {
    let hostname = hostname(text)?;
    match app.hosts.host(&hostname) {
        Some(host) => Ok(host),
        None => {
            let known = app.hosts.hosts();
            let near = near(hostname.as_str(), known.iter().map(|host| host.name.as_str()));
            Err(Error::HostNotFound { hostname, near })
        }
    }
}

/// The body, where none is the same as `{}`.
pub(super) fn body<T: DeserializeOwned>(body: &Bytes, example: &str) -> Result<T, Error> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Error::invalid(format!("the body must be JSON like {example}: {error}")))
}

/// The query, where only these parameters are known: a mistyped filter must not show everything.
pub(super) fn only(params: &Params, known: &[&str]) -> Result<(), Error> {
    match params.names().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(unknown) if known.is_empty() => Err(Error::invalid(format!("unknown parameter {unknown}; there is none"))),
        Some(unknown) => Err(Error::invalid(format!("unknown parameter {unknown}; there is {}", known.join(", ")))),
    }
}

/// The parameter `limit`.
pub(super) fn limit(params: &Params, default: usize, max: usize) -> Result<usize, Error> {
    params.limit(default, max).map_err(Error::invalid)
}

/// A parameter that is a number.
pub(super) fn number(params: &Params, name: &str) -> Result<Option<u64>, Error> {
    let parse = |text: &str| text.parse().map_err(|_| Error::invalid(format!("{name} must be a whole number")));
    params.get(name).map(parse).transpose()
}

/// The names most like `name`.
fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let alike = |other: &str| match other.split('.').any(|label| label == name) {
        true => 1.0,
        false => strsim::jaro_winkler(name, other),
    };
    let mut near: Vec<_> =
        known.map(|known| (alike(known), known)).filter(|(likeness, _)| *likeness >= NEAR_MIN).collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.into_iter().take(NEAR_MAX).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_like_it() {
        let known =
            ["pds.example.com", "pds2.example.com", "morel.us-east.host.bsky.network", "other.org", "localhost:2583"];
        for (name, expected) in [
            ("pds.exmaple.com", &["pds.example.com", "pds2.example.com"][..]),
            ("morel", &["morel.us-east.host.bsky.network"]),
            ("localhost:2584", &["localhost:2583"]),
            ("nothing-like-it.net", &[]),
        ] {
            assert_eq!(near(name, known.into_iter()), expected, "{name}");
        }
    }
}
