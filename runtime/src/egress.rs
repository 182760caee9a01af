//! Connections that leave the process, for hosts whose names strangers chose.
//!
//! A name is resolved, every address it has is judged, and the connection goes to the very address that was judged, so
//! that a second DNS answer can't lead elsewhere. Where [`Policy::allow_local`] is off, only public addresses are
//! reached, and only over TLS. Redirects are never followed here: who follows one makes a new call, which is checked
//! like any other.

mod address;
mod stream;

use std::{
    error::Error as StdError,
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{
            CertificateDer, ServerName,
            pem::{self, PemObject},
        },
    },
};
use url::Url;

/// An authority's certificate.
pub type Certificate = CertificateDer<'static>;

pub use address::Class;
pub use stream::Stream;

/// The program's page, named in the User-Agent.
const HOMEPAGE: &str = "https://github.com/mainstem/mainstem";

/// Addresses tried of one name; a name may have hundreds.
const ADDRESSES_MAX: usize = 4;

/// The kernel asks a silent peer after this time whether it is there, so that a dead one frees its socket.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// An answer's head may take this many bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What may be reached, and how we present ourselves.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Loopback and private addresses may be reached too, without TLS. For development.
    pub allow_local: bool,
    /// Whom to write to about this relay: an address of mail or a page; in the User-Agent.
    pub contact: Option<String>,
    /// Certificates that are trusted beside those of the public authorities: a private network's own.
    pub extra_roots: Vec<Certificate>,
    /// Addresses of names for which DNS is not asked. For networks without one, and for tests.
    pub fixed_names: Vec<(String, IpAddr)>,
    /// The time for resolving a name, and again for connecting with TLS.
    pub connect_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            allow_local: false,
            contact: None,
            extra_roots: Vec::new(),
            fixed_names: Vec::new(),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Why nothing was reached, or no answer came. Cheap to clone, for those who wait for the same answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The policy forbids all addresses of the host.
    #[error("address {address} of {host} is {class}, which is not allowed")]
    AddressRefused {
        /// The host.
        host: String,
        /// The first address that was refused.
        address: IpAddr,
        /// What kind it is.
        class: Class,
    },
    /// Plain text over the public Internet.
    #[error("{host} is not local, so it is reached over TLS only")]
    PlainRefused {
        /// The host.
        host: String,
    },
    /// The name does not resolve.
    #[error("{host} does not resolve")]
    Resolve {
        /// The host.
        host: String,
        /// The resolver's word.
        #[source]
        source: Arc<io::Error>,
    },
    /// The host's name has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// No address took the connection; the last one's error.
    #[error("no connection to {address}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// TLS failed: a wrong or expired certificate, no common version.
    #[error("no TLS with {host}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: Arc<io::Error>,
    },
    /// It took too long.
    #[error("no answer within {limit:?}")]
    Timeout {
        /// The time there was.
        limit: Duration,
    },
    /// Not a URL that can be fetched: not http or https, without a host, with credentials.
    #[error("can't fetch {url}")]
    BadUrl {
        /// The URL.
        url: String,
    },
    /// The answer's body is over the limit.
    #[error("answer of over {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The answer is not HTTP, or broke off.
    #[error("broken answer")]
    Http(#[source] Arc<dyn StdError + Send + Sync>),
}

/// An HTTP answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status, whatever it is; a redirect is not followed.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body, within the limit that was asked for.
    pub body: Bytes,
}

/// Makes connections within a policy. Cheap to clone; clones share the pool of idle HTTP connections.
#[derive(Clone)]
pub struct Egress {
    dialer: Dialer,
    client: Client<Dialer, Empty<Bytes>>,
}

impl Egress {
    /// With no connections yet.
    pub fn new(policy: Policy) -> Egress {
        let dialer = Dialer(Arc::new(DialerInner {
            tls: TlsConnector::from(Arc::new(tls_config(&policy.extra_roots))),
            user_agent: user_agent(policy.contact.as_deref()),
            policy,
        }));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(16)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(dialer.clone());
        Egress { dialer, client }
    }

    /// The User-Agent header's value, for requests that are made over [`Egress::connect`].
    pub fn user_agent(&self) -> &str {
        &self.dialer.0.user_agent
    }

    /// What may be reached.
    pub fn policy(&self) -> &Policy {
        &self.dialer.0.policy
    }

    /// Connects to a name or an IP literal (IPv6 without brackets). Without TLS only what is local is reached, and only
    /// where the policy allows it.
    pub async fn connect(&self, host: &str, port: u16, tls: bool) -> Result<Stream, Error> {
        self.dialer.connect(host, port, tls).await
    }

    /// Fetches a URL with GET, the whole of it within `limit`; keeps the connection for the next call to that origin.
    pub async fn get(&self, url: &Url, bytes_max: usize, limit: Duration) -> Result<Response, Error> {
        let bad = || Error::BadUrl { url: url.to_string() };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !url.username().is_empty() {
            return Err(bad());
        }
        let mut target = url.clone();
        target.set_fragment(None);
        let request = Request::get(target.as_str())
            .header(header::USER_AGENT, self.user_agent())
            .header(header::ACCEPT, "application/json, */*;q=0.5")
            .body(Empty::new())
            .map_err(|_| bad())?;
        let answer = async {
            let response = self.client.request(request).await.map_err(unwrap_dial_error)?;
            let (head, body) = response.into_parts();
            // Who says beforehand that it is too long need not be read to the limit.
            if hyper::body::Body::size_hint(&body).lower() > bytes_max as u64 {
                return Err(Error::TooLarge { bytes_max });
            }
            let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    Error::TooLarge { bytes_max }
                } else {
                    Error::Http(error.into())
                }
            })?;
            Ok(Response { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        timeout(limit, answer).await.unwrap_or(Err(Error::Timeout { limit }))
    }
}

/// The connecting half, which the HTTP client also calls.
#[derive(Clone)]
struct Dialer(Arc<DialerInner>);

struct DialerInner {
    policy: Policy,
    tls: TlsConnector,
    user_agent: String,
}

impl Dialer {
    async fn connect(&self, host: &str, port: u16, tls: bool) -> Result<Stream, Error> {
        let limit = self.0.policy.connect_timeout;
        let late = |_| Error::Timeout { limit };
        let fixed = self.0.policy.fixed_names.iter().filter(|(name, _)| name.eq_ignore_ascii_case(host));
        let fixed: Vec<SocketAddr> = fixed.map(|(_, address)| SocketAddr::new(*address, port)).collect();
        let addresses = match fixed.is_empty() {
            true => timeout(limit, resolve(host, port)).await.map_err(late)??,
            false => fixed,
        };
        let allowed = self.judge(host, tls, addresses)?;
        timeout(limit, async {
            let tcp = dial(&allowed, limit).await?;
            // Pings and handshakes are small, and nothing here gains from waiting for more.
            let _ = tcp.set_nodelay(true);
            let _ = SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
            if !tls {
                return Ok(Stream::Plain(tcp));
            }
            let fail = |source| Error::Tls { host: host.to_owned(), source: Arc::new(source) };
            let name = ServerName::try_from(host.to_owned()).map_err(|error| fail(io::Error::other(error)))?;
            let stream = self.0.tls.connect(name, tcp).await.map_err(fail)?;
            Ok(Stream::Tls(Box::new(stream)))
        })
        .await
        .map_err(late)?
    }

    /// Keeps the addresses that the policy allows. Mixed answers lose the others.
    fn judge(&self, host: &str, tls: bool, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            let class = Class::of(address.ip());
            let error = match class {
                Class::Public if tls => None,
                Class::Public => Some(Error::PlainRefused { host: host.to_owned() }),
                Class::Loopback | Class::Private if self.0.policy.allow_local => None,
                Class::Loopback | Class::Private | Class::Special => {
                    Some(Error::AddressRefused { host: host.to_owned(), address: address.ip(), class })
                }
            };
            match error {
                None => allowed.push(address),
                Some(error) => refused = refused.or(Some(error)),
            }
        }
        if allowed.is_empty() {
            return Err(refused.unwrap_or(Error::NoAddress { host: host.to_owned() }));
        }
        allowed.truncate(ADDRESSES_MAX);
        Ok(allowed)
    }
}

impl tower::Service<Uri> for Dialer {
    type Response = stream::Pooled;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<stream::Pooled, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let tls = uri.scheme_str() == Some("https");
            let host = uri.host().ok_or_else(|| Error::BadUrl { url: uri.to_string() })?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
            Ok(stream::Pooled::new(dialer.connect(host, port, tls).await?))
        })
    }
}

/// All addresses of a name, or the address that the name is. `localhost` and names under it are loopback without
/// asking anybody (RFC 6761).
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(both.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    match lookup_host((host, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(source) => Err(Error::Resolve { host: host.to_owned(), source: Arc::new(source) }),
    }
}

/// Tries one address after the other, none of them for all of `limit` while there are others.
async fn dial(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Error> {
    let mut last = None;
    let each = limit / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    for &address in addresses {
        let result = match timeout(each, TcpStream::connect(address)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match result {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Some(Error::Connect { address, source: Arc::new(source) }),
        }
    }
    Err(last.expect("judge leaves at least one address"))
}

fn tls_config(extra_roots: &[Certificate]) -> ClientConfig {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Whoever gives certificates has had them checked by `read_certificates`.
    roots.add_parsable_certificates(extra_roots.iter().cloned());
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Why a file of certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// It can't be read, or is not PEM.
    #[error("not a file of PEM certificates")]
    Pem(#[source] pem::Error),
    /// A certificate in it can't be trusted as an authority's.
    #[error("certificate {number} can't be used")]
    Unusable {
        /// Which one, from 1.
        number: usize,
        /// Why.
        #[source]
        source: tokio_rustls::rustls::Error,
    },
    /// It holds none.
    #[error("no certificate in it")]
    Empty,
}

/// Reads a file of PEM certificates, for [`Policy::extra_roots`]. Blocks.
pub fn read_certificates(path: &Path) -> Result<Vec<Certificate>, CertificatesError> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(CertificatesError::Pem)? {
        let certificate = certificate.map_err(CertificatesError::Pem)?;
        let number = certificates.len() + 1;
        let unusable = |source| CertificatesError::Unusable { number, source };
        RootCertStore::empty().add(certificate.clone()).map_err(unusable)?;
        certificates.push(certificate);
    }
    match certificates.is_empty() {
        true => Err(CertificatesError::Empty),
        false => Ok(certificates),
    }
}

/// `Mainstem/VERSION (+HOMEPAGE; contact CONTACT)`; what can't stand in a header is left out of the contact.
fn user_agent(contact: Option<&str>) -> String {
    let mut agent = format!("Mainstem/{} (+{HOMEPAGE}", env!("CARGO_PKG_VERSION"));
    if let Some(contact) = contact {
        let visible: String = contact.chars().filter(|c| matches!(c, ' '..='~') && !matches!(c, '(' | ')')).collect();
        let _ = write!(agent, "; contact {visible}");
    }
    agent.push(')');
    agent
}

/// What the dialer said, where the client's error comes from it.
fn unwrap_dial_error(error: hyper_util::client::legacy::Error) -> Error {
    let mut source: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return ours.clone();
        }
        source = error.source();
    }
    Error::Http(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_answer_loses_what_is_not_allowed() {
        let (public, private, loopback, metadata) = ("1.1.1.1", "10.0.0.1", "127.0.0.1", "169.254.169.254");
        // Whether local ones are allowed, TLS, what the name resolves to, what is left.
        let table: [(bool, bool, &[&str], &[&str]); 9] = [
            (false, true, &[private, public, loopback], &[public]),
            (false, true, &[metadata, public], &[public]),
            (false, true, &[private, loopback, metadata], &[]),
            (false, false, &[private, public], &[]),
            (true, true, &[private, public, metadata, loopback], &[private, public, loopback]),
            (true, false, &[private, public, metadata, loopback], &[private, loopback]),
            (true, false, &[metadata], &[]),
            (true, true, &[public, public, public, public, public, private], &[public; 4]),
            (false, true, &[], &[]),
        ];
        for (allow_local, tls, resolved, left) in table {
            let egress = Egress::new(Policy { allow_local, ..Policy::default() });
            let addresses = |texts: &[&str]| {
                texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect::<Vec<_>>()
            };
            let judged = egress.dialer.judge("pds.example.com", tls, addresses(resolved));
            let case = format!("{allow_local} {tls} {resolved:?}");
            match judged {
                Ok(allowed) => assert_eq!(allowed, addresses(left), "{case}"),
                Err(error) => assert!(left.is_empty(), "{case}: {error}"),
            }
        }
    }
}
