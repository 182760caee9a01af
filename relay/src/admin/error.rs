//! What administration answers where it can't do what is asked: a status and `{error, message}`, in words that say what
//! to do.

use atproto::syntax::{Did, HostName};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use runtime::chain::Chain;
use serde_json::json;
use storage::hosts::Domain;

/// Why something is not done. The names stand in the OpenAPI document.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The path, the query or the body is wrong.
    #[error("{0}")]
    InvalidRequest(String),
    /// Neither password nor token, or a wrong one.
    #[error("{0}")]
    AuthenticationRequired(&'static str),
    /// Too many wrong ones from this address.
    #[error("too many wrong passwords or tokens from this address; try again in {retry_after_s} s")]
    TooManyAttempts {
        /// When the next one is looked at.
        retry_after_s: u64,
    },
    /// A page of another origin has a browser ask.
    #[error("changes are not taken from pages of another origin")]
    ForeignOrigin,
    /// Administration has neither password nor tokens.
    #[error("administration is off; start the relay with --admin-password-file or --admin-token-file")]
    Off,
    /// No such path.
    #[error("nothing is here; /admin/openapi.json lists what there is")]
    NotFound,
    /// Not with this method; the header `allow` names the right ones.
    #[error("this path does not take this method; the header allow names those it takes")]
    MethodNotAllowed,
    /// The host is not known here.
    #[error("host {hostname} is not known to this relay{}", maybe(near))]
    HostNotFound {
        /// What was asked for.
        hostname: HostName,
        /// Known names like it.
        near: Vec<String>,
    },
    /// The account is not known here.
    #[error("account {did} is not known to this relay: no event of it was ever accepted")]
    AccountNotFound {
        /// What was asked for.
        did: Did,
    },
    /// Nothing can be done about an account that we have seen no event of, and whose identity names no host.
    #[error("nothing can be done about {did}: {why}")]
    AccountDeclined {
        /// What was asked for.
        did: Did,
        /// Why not.
        why: String,
    },
    /// The domain is not banned.
    #[error("domain {domain} is not banned; mainstem admin domains list, or /admin/domain-bans, tells which are")]
    DomainNotBanned {
        /// What was asked for.
        domain: Domain,
    },
    /// A host can be rewound to what was read of it, not beyond.
    #[error("{}", ahead(*to, *cursor))]
    RewindAhead {
        /// The seq that was asked for.
        to: u64,
        /// How far the host is read.
        cursor: Option<u64>,
    },
    /// No such subscriber is connected.
    #[error("subscriber {id} is not connected")]
    SubscriberNotFound {
        /// What was asked for.
        id: u64,
    },
    /// Who knows did not answer.
    #[error("no answer about {did} within {within_s} s; the directory may be down: see /metrics and the log")]
    NoAnswer {
        /// What was asked for.
        did: Did,
        /// How long it was waited for.
        within_s: u64,
    },
    /// It took too long.
    #[error("no end is known yet; a change goes on, and may still be made")]
    Timeout,
    /// As many hosts are known as may be.
    #[error("{limit} hosts are known, which is the limit")]
    TooManyHosts {
        /// The limit.
        limit: usize,
    },
    /// As many domains are banned as may be.
    #[error("{limit} domains are banned, which is the limit")]
    TooManyBans {
        /// The limit.
        limit: usize,
    },
    /// The change could not be recorded beforehand, and was not made.
    #[error("the change was not made, because the record of changes (admin.jsonl) can't be written; see the log")]
    NotRecorded,
    /// A fault of ours.
    #[error("internal error; see the log")]
    Internal,
}

/// How far a host can be rewound.
fn ahead(to: u64, cursor: Option<u64>) -> String {
    match cursor {
        Some(cursor) => {
            format!("the host is read up to seq {cursor}; it can't be rewound to {to}, which is ahead of that")
        }
        None => "the host was never read; there is nothing to rewind".to_owned(),
    }
}

/// `; did you mean A or B?`
fn maybe(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

impl Error {
    /// Something in the request is wrong.
    pub(super) fn invalid(message: impl ToString) -> Error {
        Error::InvalidRequest(message.to_string())
    }

    /// The HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Error::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Error::AuthenticationRequired(_) => StatusCode::UNAUTHORIZED,
            Error::ForeignOrigin => StatusCode::FORBIDDEN,
            Error::Off
            | Error::NotFound
            | Error::HostNotFound { .. }
            | Error::AccountNotFound { .. }
            | Error::DomainNotBanned { .. }
            | Error::SubscriberNotFound { .. } => StatusCode::NOT_FOUND,
            Error::AccountDeclined { .. } | Error::RewindAhead { .. } => StatusCode::CONFLICT,
            Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Error::TooManyAttempts { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::NoAnswer { .. } | Error::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Error::TooManyHosts { .. } | Error::TooManyBans { .. } | Error::NotRecorded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error's name.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Error::InvalidRequest(_) => "InvalidRequest",
            Error::AuthenticationRequired(_) => "AuthenticationRequired",
            Error::TooManyAttempts { .. } => "TooManyAttempts",
            Error::ForeignOrigin => "ForeignOrigin",
            Error::Off => "AdministrationOff",
            Error::NotFound => "NotFound",
            Error::MethodNotAllowed => "MethodNotAllowed",
            Error::HostNotFound { .. } => "HostNotFound",
            Error::AccountNotFound { .. } => "AccountNotFound",
            Error::DomainNotBanned { .. } => "DomainNotBanned",
            Error::RewindAhead { .. } => "RewindAhead",
            Error::AccountDeclined { .. } => "AccountDeclined",
            Error::SubscriberNotFound { .. } => "SubscriberNotFound",
            Error::NoAnswer { .. } => "NoAnswer",
            Error::Timeout => "Timeout",
            Error::TooManyHosts { .. } => "TooManyHosts",
            Error::TooManyBans { .. } => "TooManyBans",
            Error::NotRecorded => "NotRecorded",
            Error::Internal => "InternalError",
        }
    }
}

impl From<storage::error::Error> for Error {
    fn from(error: storage::error::Error) -> Error {
        tracing::warn!(error = %Chain(&error), "administration failed at the store");
        Error::Internal
    }
}

impl From<crawler::Error> for Error {
    fn from(error: crawler::Error) -> Error {
        match error {
            crawler::Error::Full { limit } => Error::TooManyHosts { limit },
            crawler::Error::TooManyBans { limit } => Error::TooManyBans { limit },
            crawler::Error::RewindAhead { to, cursor } => Error::RewindAhead { to, cursor },
            crawler::Error::UnknownHost(hostname) => Error::HostNotFound { hostname, near: Vec::new() },
            crawler::Error::Store { .. } | crawler::Error::Metrics(_) => {
                tracing::warn!(error = %Chain(&error), "administration failed at the crawler");
                Error::Internal
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.name(), "message": self.to_string() }));
        let mut response = (self.status(), body).into_response();
        match self {
            Error::AuthenticationRequired(_) => {
                let challenge = HeaderValue::from_static("Basic realm=\"mainstem\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            Error::TooManyAttempts { retry_after_s } => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            Error::InvalidRequest(_)
            | Error::ForeignOrigin
            | Error::Off
            | Error::NotFound
            | Error::MethodNotAllowed
            | Error::HostNotFound { .. }
            | Error::AccountNotFound { .. }
            | Error::AccountDeclined { .. }
            | Error::DomainNotBanned { .. }
            | Error::RewindAhead { .. }
            | Error::SubscriberNotFound { .. }
            | Error::NoAnswer { .. }
            | Error::Timeout
            | Error::TooManyHosts { .. }
            | Error::TooManyBans { .. }
            | Error::NotRecorded
            | Error::Internal => {}
        }
        response
    }
}
