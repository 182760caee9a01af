//! Who may administer: the user `admin` with the password (HTTP Basic), and whoever has a token (Bearer).
//!
//! All secrets are compared in a time that tells nothing of them. Wrong ones are logged, and limited by address
//! ([`super::attempts`]). Who sends none is only asked for one.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use data_encoding::BASE64;
use http::{HeaderMap, header};
use runtime::http::Peer;
use tokio::time::Instant;
use tracing::warn;

use super::{attempts::Attempts, error::Error, metrics::Metrics};
use crate::config::{ADMIN, Password, Token};

/// The keys to administration. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keys {
    inner: Arc<Inner>,
}

struct Inner {
    password: Option<Password>,
    tokens: Vec<Token>,
    attempts: Mutex<Attempts>,
    metrics: Metrics,
}

/// Who asks: `admin`, or a token's name. An extension of every request that was let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who(pub(super) Arc<str>);

impl Keys {
    /// None where there is neither password nor token.
    pub(super) fn new(password: Option<Password>, tokens: Vec<Token>, metrics: Metrics) -> Option<Keys> {
        (password.is_some() || !tokens.is_empty())
            .then(|| Keys { inner: Arc::new(Inner { password, tokens, attempts: Mutex::default(), metrics }) })
    }
}

/// Lets a request pass that proves who asks, and says so to what comes after.
pub(super) async fn require(State(keys): State<Keys>, mut request: Request, next: Next) -> Result<Response, Error> {
    let address = request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.addr.ip());
    let who = keys.inner.let_in(request.headers(), address)?;
    if !request.method().is_safe() && is_foreign(request.headers()) {
        return Err(Error::ForeignOrigin);
    }
    request.extensions_mut().insert(who);
    Ok(next.run(request).await)
}

impl Inner {
    fn let_in(&self, headers: &HeaderMap, address: IpAddr) -> Result<Who, Error> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(Error::AuthenticationRequired(
                "give the user admin and the password of --admin-password-file (HTTP Basic), or a token of \
                 --admin-token-file (Authorization: Bearer …)",
            ));
        };
        let now = Instant::now();
        {
            let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(wait) = attempts.wait(now, address) {
                return Err(Error::TooManyAttempts { retry_after_s: wait.as_secs() + 1 });
            }
        }
        if let Some(who) = value.to_str().ok().and_then(|value| self.who(value)) {
            return Ok(who);
        }
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).failed(now, address);
        self.metrics.attempts_failed.inc();
        warn!(%address, "a wrong password or token for administration");
        Err(Error::AuthenticationRequired("the password or the token is wrong; the user is admin"))
    }

    /// Whom the header's value proves.
    fn who(&self, value: &str) -> Option<Who> {
        let (scheme, given) = value.split_once(' ')?;
        let given = given.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            // All are compared, whichever is found.
            let found = self
                .tokens
                .iter()
                .fold(None, |found, token| if token.secret.is(given.as_bytes()) { Some(token) } else { found });
            return found.map(|token| Who(token.name.as_str().into()));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let credentials = BASE64.decode(given.as_bytes()).ok()?;
            let given = credentials.strip_prefix(ADMIN.as_bytes())?.strip_prefix(b":")?;
            return self.password.as_ref()?.is(given).then(|| Who(ADMIN.into()));
        }
        None
    }
}

/// Whether a browser asks on behalf of another origin's page, with the credentials it remembers for ours.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    authority.is_none() || authority != headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use prometheus::Registry;

    use super::*;

    fn keys(password: Option<&str>, tokens: &[(&str, &str)]) -> Option<Keys> {
        let tokens = tokens
            .iter()
            .map(|(name, secret)| Token { name: (*name).to_owned(), secret: Password::new(secret).unwrap() })
            .collect();
        Keys::new(password.and_then(Password::new), tokens, Metrics::register(&Registry::new()).unwrap())
    }

    #[test]
    fn without_a_key_there_is_no_door() {
        assert!(keys(None, &[]).is_none());
    }

    #[test]
    fn who_is_known_by_what() {
        let keys = keys(Some("s3cret:ä"), &[("alice", "0123456789abcdef"), ("bob", "fedcba9876543210")]).unwrap();
        let basic = |credentials: &str| format!("Basic {}", BASE64.encode(credentials.as_bytes()));
        for (value, expected) in [
            (basic("admin:s3cret:ä"), Some("admin")),
            (basic("admin:s3cret:ä").replace("Basic", "basic"), Some("admin")),
            (basic("admin:"), None),
            (basic("admin:s3cret"), None),
            (basic("root:s3cret:ä"), None),
            (basic("admin"), None),
            (basic("admin:0123456789abcdef"), None),
            (basic("admin:s3cret:ä").replace("Basic", "Bearer"), None),
            ("Basic ???".to_owned(), None),
            ("Basic".to_owned(), None),
            ("Bearer 0123456789abcdef".to_owned(), Some("alice")),
            ("bearer  fedcba9876543210 ".to_owned(), Some("bob")),
            ("Bearer 0123456789abcde".to_owned(), None),
            ("Bearer ".to_owned(), None),
            ("Bearer s3cret:ä".to_owned(), None),
        ] {
            let who = keys.inner.who(&value);
            assert_eq!(who.as_ref().map(|who| &*who.0), expected, "{value}");
        }
        let tokens_only = super::tests::keys(None, &[("alice", "0123456789abcdef")]).unwrap();
        assert_eq!(tokens_only.inner.who(&basic("admin:")), None);
    }

    #[test]
    fn who_guesses_is_no_longer_listened_to() {
        let keys = keys(Some("right"), &[]).unwrap();
        let headers = |password: &str| {
            let value = format!("Basic {}", BASE64.encode(format!("admin:{password}").as_bytes()));
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap())])
        };
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut wrong = 0;
        // Some are forgiven while this runs.
        while !matches!(keys.inner.let_in(&headers("right"), guesser), Err(Error::TooManyAttempts { .. })) {
            assert!(matches!(keys.inner.let_in(&headers("x"), guesser), Err(Error::AuthenticationRequired(_))));
            wrong += 1;
            assert!(wrong < 100);
        }
        assert!(wrong >= 10);
        assert_eq!(keys.inner.metrics.attempts_failed.get(), wrong);
        assert!(keys.inner.let_in(&headers("right"), other).is_ok());
        // Who gives nothing is not guessing.
        let without = keys.inner.let_in(&HeaderMap::new(), guesser);
        assert!(matches!(without, Err(Error::AuthenticationRequired(_))));
    }

    #[test]
    fn a_browser_lends_its_password_to_our_pages_only() {
        let foreign = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            is_foreign(&headers.collect())
        };
        assert!(!foreign(&[("host", "127.0.0.1:2471")]));
        assert!(!foreign(&[("host", "127.0.0.1:2471"), ("origin", "http://127.0.0.1:2471")]));
        assert!(foreign(&[("host", "127.0.0.1:2471"), ("origin", "https://evil.example.com")]));
        assert!(foreign(&[("host", "127.0.0.1:2471"), ("origin", "null")]));
    }
}
