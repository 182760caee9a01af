//! Query parameters of XRPC methods: read by name, with the lexicons' bounds.

use std::{borrow::Cow, convert::Infallible};

use atproto::syntax::{Did, HostName};
use axum::extract::FromRequestParts;
use http::request::Parts;
use url::form_urlencoded;

use super::error::Error;

/// The query of a request, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Decodes a query string. Unknown parameters are kept and ignored.
    pub(crate) fn parse(query: &str) -> Params {
        Params(form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The names of all parameters.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The account in `did`, which is required.
    pub(crate) fn did(&self) -> Result<Did, Error> {
        let text = self.required("did")?;
        Did::parse(text).map_err(|error| Error::invalid(format!("did: {error}")))
    }

    /// The host in `hostname`, which is required.
    pub(crate) fn hostname(&self) -> Result<HostName, Error> {
        parse_hostname(self.required("hostname")?)
    }

    /// `limit`, from 1 to `max`.
    pub(crate) fn limit(&self, default: usize, max: usize) -> Result<usize, Error> {
        let Some(text) = self.get("limit") else { return Ok(default) };
        match text.parse() {
            Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
            Ok(_) | Err(_) => Err(Error::invalid(format!("limit must be an integer from 1 to {max}"))),
        }
    }

    /// A parameter that must be there and not be empty.
    fn required(&self, name: &str) -> Result<&str, Error> {
        let missing = || Error::invalid(format!("parameter {name} is required"));
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    }
}

/// A host's name as a caller wrote it.
pub(crate) fn parse_hostname(text: &str) -> Result<HostName, Error> {
    HostName::parse(text).map_err(|error| Error::invalid(format!("hostname: {error}")))
}

/// A value for a query string.
pub(crate) fn encode(value: &str) -> Cow<'_, str> {
    Cow::Owned(form_urlencoded::byte_serialize(value.as_bytes()).collect())
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, Infallible> {
        Ok(Params::parse(parts.uri.query().unwrap_or_default()))
    }
}
