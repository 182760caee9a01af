//! XRPC errors: a status and `{error, message}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use runtime::chain::Chain;
use serde_json::json;

use crate::fanout::roster::NoSeat;

/// What a method answers where it can't do what is asked. The names are the lexicons'.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter or the body is wrong.
    #[error("{0}")]
    InvalidRequest(String),
    /// The host is not known here.
    #[error("host is not known to this relay")]
    HostNotFound,
    /// The host is banned by the operator.
    #[error("host is banned")]
    HostBanned,
    /// The account is not known here, or is deleted.
    #[error("repo is not known to this relay")]
    RepoNotFound,
    /// The account is taken down.
    #[error("repo has been taken down")]
    RepoTakendown,
    /// The account is suspended.
    #[error("repo has been suspended")]
    RepoSuspended,
    /// The account is switched off.
    #[error("repo has been deactivated")]
    RepoDeactivated,
    /// No such method.
    #[error("method is not implemented")]
    MethodNotImplemented,
    /// No such path.
    #[error("nothing is here")]
    NotFound,
    /// The wrong HTTP method; the right one is named.
    #[error("this method is called with {allow}")]
    MethodNotAllowed {
        /// The right one.
        allow: &'static str,
    },
    /// The stream is asked for without an upgrade.
    #[error("this is a WebSocket stream; connect with a WebSocket client")]
    UpgradeRequired,
    /// The request, or what it asks for, takes too long.
    #[error("the request took too long")]
    Timeout,
    /// Too many calls.
    #[error("too many requests; try again later")]
    RateLimitExceeded {
        /// In how many seconds it may be tried again.
        retry_after_s: u64,
    },
    /// Requests to be crawled are not taken.
    #[error("this relay takes no requests to be crawled; write to its operator")]
    CrawlRequestsOff,
    /// As many hosts were added by requests as may be.
    #[error("{why}")]
    QuotaSpent {
        /// Which quota.
        why: String,
        /// In how many seconds it may be tried again.
        retry_after_s: u64,
    },
    /// As many hosts are relayed as may be.
    #[error("this relay takes no more hosts")]
    TooManyHosts,
    /// There is no place for another subscriber.
    #[error("no place for another subscriber; try again later")]
    Full,
    /// The caller's address has as many subscribers as it may have.
    #[error(
        "your address has {max} subscribers here, as many as one may have; close one, or ask the operator for a token"
    )]
    AddressFull {
        /// How many.
        max: usize,
    },
    /// The caller's token has as many subscribers as it may have.
    #[error("your token has {max} subscribers here, as many as it may have; close one first")]
    TokenFull {
        /// How many.
        max: usize,
    },
    /// The caller's token is not known.
    #[error("the token is not known here; use the one the operator gave you, or none")]
    WrongToken,
    /// The log's end can't be learned now, and without it not whether a cursor is in the future.
    #[error("your cursor is past what this node has seen so far; try again later")]
    EndUnknown,
    /// A fault of ours.
    #[error("internal error")]
    Internal,
}

impl Error {
    /// A parameter is wrong.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::InvalidRequest(message.into())
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Error::InvalidRequest(_)
            | Error::HostNotFound
            | Error::HostBanned
            | Error::RepoNotFound
            | Error::RepoTakendown
            | Error::RepoSuspended
            | Error::RepoDeactivated => StatusCode::BAD_REQUEST,
            Error::MethodNotImplemented => StatusCode::NOT_IMPLEMENTED,
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Error::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Error::Timeout => StatusCode::REQUEST_TIMEOUT,
            Error::RateLimitExceeded { .. }
            | Error::QuotaSpent { .. }
            | Error::AddressFull { .. }
            | Error::TokenFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::WrongToken => StatusCode::UNAUTHORIZED,
            Error::CrawlRequestsOff => StatusCode::FORBIDDEN,
            Error::TooManyHosts | Error::Full | Error::EndUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error's name.
    pub fn name(&self) -> &'static str {
        match self {
            Error::InvalidRequest(_) | Error::MethodNotAllowed { .. } | Error::UpgradeRequired => "InvalidRequest",
            Error::HostNotFound => "HostNotFound",
            Error::HostBanned => "HostBanned",
            Error::RepoNotFound => "RepoNotFound",
            Error::RepoTakendown => "RepoTakendown",
            Error::RepoSuspended => "RepoSuspended",
            Error::RepoDeactivated => "RepoDeactivated",
            Error::MethodNotImplemented => "MethodNotImplemented",
            Error::NotFound => "NotFound",
            Error::Timeout => "RequestTimeout",
            Error::RateLimitExceeded { .. }
            | Error::QuotaSpent { .. }
            | Error::AddressFull { .. }
            | Error::TokenFull { .. } => "RateLimitExceeded",
            Error::WrongToken => "AuthenticationRequired",
            Error::CrawlRequestsOff => "CrawlRequestsNotAccepted",
            Error::TooManyHosts | Error::Full | Error::EndUnknown => "NotEnoughResources",
            Error::Internal => "InternalServerError",
        }
    }
}

impl From<storage::error::Error> for Error {
    fn from(error: storage::error::Error) -> Error {
        tracing::warn!(error = %Chain(&error), "a method failed at the store");
        Error::Internal
    }
}

impl From<NoSeat> for Error {
    fn from(no_seat: NoSeat) -> Error {
        match no_seat {
            NoSeat::Full => Error::Full,
            NoSeat::AddressFull { max } => Error::AddressFull { max },
            NoSeat::TokenFull { max } => Error::TokenFull { max },
        }
    }
}

impl From<crawler::Error> for Error {
    fn from(error: crawler::Error) -> Error {
        match error {
            crawler::Error::UnknownHost(_) => Error::HostNotFound,
            crawler::Error::Full { .. } => Error::TooManyHosts,
            crawler::Error::RewindAhead { .. } | crawler::Error::TooManyBans { .. } => {
                Error::InvalidRequest(error.to_string())
            }
            crawler::Error::Store { .. } | crawler::Error::Metrics(_) => {
                tracing::warn!(error = %Chain(&error), "failed to change a host");
                Error::Internal
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.name(), "message": self.to_string() }));
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        match self {
            Error::MethodNotAllowed { allow } => {
                headers.insert(header::ALLOW, http::HeaderValue::from_static(allow));
            }
            Error::UpgradeRequired => {
                headers.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
            }
            Error::RateLimitExceeded { retry_after_s } | Error::QuotaSpent { retry_after_s, .. } => {
                headers.insert(header::RETRY_AFTER, http::HeaderValue::from(retry_after_s));
            }
            Error::WrongToken => {
                headers.insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
            }
            Error::EndUnknown => {
                headers.insert(header::RETRY_AFTER, http::HeaderValue::from(1));
            }
            Error::Full | Error::AddressFull { .. } | Error::TokenFull { .. } => {
                headers.insert(header::RETRY_AFTER, http::HeaderValue::from(30));
            }
            Error::InvalidRequest(_)
            | Error::HostNotFound
            | Error::HostBanned
            | Error::RepoNotFound
            | Error::RepoTakendown
            | Error::RepoSuspended
            | Error::RepoDeactivated
            | Error::MethodNotImplemented
            | Error::NotFound
            | Error::CrawlRequestsOff
            | Error::TooManyHosts
            | Error::Timeout
            | Error::Internal => {}
        }
        response
    }
}
