//! The opening handshake, both ends, over hyper's HTTP/1.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::deflate;

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes kept of a refusal's body.
const REFUSAL_BYTES_MAX: usize = 4 * 1024;

/// A client's request.
#[derive(Clone, Debug)]
pub struct Request {
    /// `host` or `host:port`, for the Host header.
    pub authority: String,
    /// `/path?query`.
    pub target: String,
    /// User-Agent and what else is to be said.
    pub headers: HeaderMap,
    /// Whether to offer permessage-deflate.
    pub deflate: bool,
}

/// A connection after the handshake.
#[derive(Debug)]
pub struct Socket<S> {
    /// The stream.
    pub stream: S,
    /// What was read of it past the handshake: the first bytes for the decoder.
    pub read: Bytes,
    /// Whether permessage-deflate was agreed on.
    pub deflate: bool,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server answered with another status than 101.
    #[error("the server answered {status}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// Its headers: Location, Retry-After.
        headers: Box<HeaderMap>,
        /// The beginning of the body.
        body: Bytes,
    },
    /// A 101 that is not an answer to our key, or takes up what we did not offer.
    #[error("the server's upgrade is wrong: {0}")]
    BadUpgrade(&'static str),
    /// The connection broke off, or the answer is not HTTP.
    #[error("no answer that is HTTP")]
    Http(#[from] hyper::Error),
    /// The request can't be said in HTTP.
    #[error("invalid request")]
    Request(#[from] http::Error),
    /// It took too long.
    #[error("no handshake within {limit:?}")]
    Timeout {
        /// The time there was.
        limit: Duration,
    },
}

/// Asks for a WebSocket on a fresh connection. Redirects are not followed: they are a refusal like any other status.
pub async fn connect<S>(stream: S, request: Request, limit: Duration) -> Result<Socket<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::time::timeout(limit, ask(stream, request)).await.unwrap_or(Err(HandshakeError::Timeout { limit }))
}

async fn ask<S>(stream: S, request: Request) -> Result<Socket<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let key = generate_key();
    let mut asked = http::Request::get(request.target)
        .header(header::HOST, request.authority)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .body(Empty::<Bytes>::new())?;
    asked.headers_mut().extend(request.headers);
    if request.deflate {
        asked.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(deflate::OFFER));
    }

    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender.send_request(asked).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (head, body) = response.into_parts();
            let body = Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(HandshakeError::Refused { status: head.status, headers: Box::new(head.headers), body });
        }
        let deflate = check_upgrade(response.headers(), &key, request.deflate)?;
        Ok((hyper::upgrade::on(response).await?, deflate))
    };
    // hyper's connection moves only while it is polled. It ends with the upgrade, or when `answer` drops the sender.
    let connection = connection.with_upgrades();
    tokio::pin!(answer, connection);
    let (upgraded, deflate) = tokio::select! {
        answer = answer.as_mut() => answer?,
        ended = connection => {
            // Whatever is still to come is in hyper's channels now.
            if let Err(error) = ended {
                return Err(error.into());
            }
            answer.await?
        }
    };
    let parts =
        upgraded.downcast::<TokioIo<S>>().map_err(|_| HandshakeError::BadUpgrade("not the stream that was given"))?;
    Ok(Socket { stream: parts.io.into_inner(), read: parts.read_buf, deflate })
}

/// Gives whether permessage-deflate is agreed on.
fn check_upgrade(headers: &HeaderMap, key: &str, offered: bool) -> Result<bool, HandshakeError> {
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return Err(HandshakeError::BadUpgrade("no Upgrade: websocket"));
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(HandshakeError::BadUpgrade("no Connection: Upgrade"));
    }
    let accept = headers.get(header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(HandshakeError::BadUpgrade("wrong Sec-WebSocket-Accept"));
    }
    let deflate = deflate::agreed(headers).map_err(HandshakeError::BadUpgrade)?;
    if deflate && !offered {
        return Err(HandshakeError::BadUpgrade("an extension that was not offered"));
    }
    if headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        return Err(HandshakeError::BadUpgrade("a subprotocol that was not offered"));
    }
    Ok(deflate)
}

/// What a server answers to a request for its WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// 101 with these headers; then take the socket by `hyper::upgrade::on(request)`.
    Accept(HeaderMap),
    /// 405: not a GET.
    WrongMethod,
    /// 426 with `Upgrade: websocket`: no upgrade to a WebSocket asked for, or another version than 13.
    Required,
    /// 400: no key of 16 bytes.
    BadKey,
}

/// Judges a client's request for a WebSocket (RFC 6455, section 4.2.1). Its extensions are a matter of their own:
/// [`agree`](super::agree).
pub fn accept(method: &Method, headers: &HeaderMap) -> Upgrade {
    if method != Method::GET {
        return Upgrade::WrongMethod;
    }
    let asked = has_token(headers, &header::UPGRADE, "websocket") && has_token(headers, &header::CONNECTION, "upgrade");
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    if !asked || version != Some(b"13") {
        return Upgrade::Required;
    }
    // 16 bytes in base64.
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24) else {
        return Upgrade::BadKey;
    };
    let accept = derive_accept_key(key.as_bytes());
    let accept = HeaderValue::try_from(accept).expect("base64 can stand in a header");
    let mut answer = HeaderMap::new();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Upgrade::Accept(answer)
}

/// Whether a header is a list that has this token, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}
