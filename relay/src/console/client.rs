//! Asks a relay's administration over HTTP, a connection a question.

use std::{fs, io, path::PathBuf, time::Duration};

use bytes::Bytes;
use data_encoding::BASE64;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use runtime::egress::{self, Egress, Policy, Stream};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use url::{Url, form_urlencoded};

use crate::{cli::admin::RelayArgs, config::ADMIN};

/// The time for an answer: more than the relay takes itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);

/// The time for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// The most that an answer may have: a page of a thousand hosts.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No key was given.
    #[error(
        "no password or token is given; name the relay's file with --password-file FILE or --token-file FILE, \
         or set MAINSTEM_ADMIN_PASSWORD_FILE, MAINSTEM_ADMIN_TOKEN_FILE, MAINSTEM_ADMIN_PASSWORD or MAINSTEM_ADMIN_TOKEN"
    )]
    NoKey,
    /// The password's file can't be used.
    #[error("{flag} {} can't be read: {source}", path.display())]
    KeyFile {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{flag} {} is empty", path.display())]
    EmptyKey {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Not a URL of a relay.
    #[error("--url {0:?} is not a relay's address; write it like http://127.0.0.1:2471")]
    Url(String),
    /// Nobody answers.
    #[error(
        "no relay answers at {url} ({why}); is it running? The address is that of its --admin-bind, and --url sets it"
    )]
    Unreachable {
        /// The address.
        url: Url,
        /// Why.
        why: String,
    },
    /// Somebody else answers.
    #[error(
        "what answers at {url} is not a relay's administration ({status}); --url is the address of its --admin-bind, not of its --bind"
    )]
    NotARelay {
        /// The address.
        url: Url,
        /// The HTTP status.
        status: StatusCode,
    },
    /// Administration is off, or the key is wrong.
    #[error("{url} does not let us in: {message}")]
    NotLetIn {
        /// The address.
        url: Url,
        /// The relay's word.
        message: String,
    },
    /// The relay does not do it.
    #[error("{message}")]
    Refused {
        /// The error's name.
        name: String,
        /// The relay's word.
        message: String,
    },
}

/// A relay and the key to it.
pub(super) struct Client {
    url: Url,
    authorization: String,
}

/// A question.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// The path's parts below `/admin`.
    pub(super) path: &'a [&'a str],
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Value>,
}

impl Error {
    /// The program's exit code.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Error::Refused { .. } => 1,
            Error::NoKey | Error::KeyFile { .. } | Error::EmptyKey { .. } | Error::Url(_) => 2,
            Error::Unreachable { .. } | Error::NotARelay { .. } => 3,
            Error::NotLetIn { .. } => 4,
        }
    }
}

impl Client {
    /// From the arguments; reads the key's file.
    pub(super) fn new(args: &RelayArgs) -> Result<Client, Error> {
        let bad = || Error::Url(args.url.clone());
        let text = if args.url.contains("://") { args.url.clone() } else { format!("http://{}", args.url) };
        let url = Url::parse(&text).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(bad());
        }
        Ok(Client { url, authorization: authorization(args)? })
    }

    /// Asks, and gives what the relay answers. An error answer is an [`Error`].
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Value, Error> {
        let unreachable = |why: String| Error::Unreachable { url: self.url.clone(), why };
        let request = self.request(ask).ok_or_else(|| Error::Url(self.url.to_string()))?;
        let stream = self.connect().await.map_err(unreachable)?;
        let answer = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let exchange = async {
                let (head, body) = sender.send_request(request).await?.into_parts();
                Ok((head.status, Limited::new(body, ANSWER_BYTES_MAX).collect().await))
            };
            // The connection moves only while somebody looks after it.
            let mut exchange = std::pin::pin!(exchange);
            tokio::select! {
                answer = &mut exchange => answer,
                ended = connection => {
                    ended?;
                    exchange.await
                }
            }
        };
        let (status, body) = match timeout(ANSWER_WITHIN, answer).await {
            Ok(answer) => answer.map_err(|error: hyper::Error| unreachable(error.to_string()))?,
            Err(_) => return Err(unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        };
        let body = body.map_err(|error| unreachable(error.to_string()))?.to_bytes();
        let answer: Option<Value> = serde_json::from_slice(&body).ok();
        if status.is_success()
            && let Some(answer) = answer
        {
            return Ok(answer);
        }
        let text = |name: &str| answer.as_ref().and_then(|answer| answer[name].as_str()).map(str::to_owned);
        let not_a_relay = || Error::NotARelay { url: self.url.clone(), status };
        let (name, message) = text("error").zip(text("message")).ok_or_else(not_a_relay)?;
        Err(match &*name {
            "AuthenticationRequired" | "TooManyAttempts" | "AdministrationOff" => {
                Error::NotLetIn { url: self.url.clone(), message }
            }
            // Every path asked for here is one of administration's: nobody but a stranger does not know it.
            "NotFound" => not_a_relay(),
            _ => Error::Refused { name, message },
        })
    }

    fn request(&self, ask: Ask<'_>) -> Option<Request<Full<Bytes>>> {
        let mut url = self.url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().push("admin").extend(ask.path);
        let mut target = url.path().to_owned();
        if !ask.query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(ask.query).finish();
            target = format!("{target}?{query}");
        }
        let host = self.url.host_str()?;
        let host = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Request::builder()
            .method(ask.method)
            .uri(target)
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::USER_AGENT, concat!("mainstem-admin/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(ask.body.map(|body| body.to_string()).unwrap_or_default()))
            .ok()
    }

    async fn connect(&self) -> Result<Stream, String> {
        let host = self.url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or(80);
        if self.url.scheme() == "https" {
            let egress = Egress::new(Policy { allow_local: true, ..Policy::default() });
            return egress.connect(host, port, true).await.map_err(|error: egress::Error| error.to_string());
        }
        // Any address: the operator knows where the relay is.
        match timeout(CONNECT_WITHIN, TcpStream::connect((host, port))).await {
            Ok(Ok(stream)) => Ok(Stream::Plain(stream)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {} s", CONNECT_WITHIN.as_secs())),
        }
    }
}

/// The header's value for the key that was given; a token wins.
fn authorization(args: &RelayArgs) -> Result<String, Error> {
    let basic = |password: &str| format!("Basic {}", BASE64.encode(format!("{ADMIN}:{password}").as_bytes()));
    if let Some(token) = args.token.as_deref().filter(|token| !token.is_empty()) {
        return Ok(format!("Bearer {token}"));
    }
    if let Some(path) = &args.token_file {
        let line = first_line("--token-file", path)?;
        let token = line.split_once(':').map_or(&*line, |(_, token)| token.trim());
        return Ok(format!("Bearer {token}"));
    }
    if let Some(password) = args.password.as_deref().filter(|password| !password.is_empty()) {
        return Ok(basic(password));
    }
    match &args.password_file {
        Some(path) => Ok(basic(&first_line("--password-file", path)?)),
        None => Err(Error::NoKey),
    }
}

/// The first line that says something; in a file of tokens, comments do not.
fn first_line(flag: &'static str, path: &PathBuf) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::KeyFile { flag, path: path.clone(), source })?;
    let is_comment = |line: &&str| flag == "--token-file" && line.starts_with('#');
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_comment(line));
    lines.next().map(str::to_owned).ok_or_else(|| Error::EmptyKey { flag, path: path.clone() })
}
