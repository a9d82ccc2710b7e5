//! HTTP, in the one file that knows which crate speaks it.
//!
//! Redirects are followed here and not by that crate, because credentials and the choice between HTTP and HTTPS are ours to
//! guard: a header with credentials goes to the origin it was made for and nowhere else, and nothing leads from HTTPS to HTTP.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderValue};
use reqwest::{Method, StatusCode, Url};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may stay silent.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is sent on to another address.
const MAX_REDIRECTS: usize = 5;

/// Speaks HTTP; copies share their connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: reqwest::Client,
}

/// What to ask for.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) url: &'a str,
    pub(super) accept: &'a [&'a str],
    /// The value of `Authorization`; sent to the origin of `url` only.
    pub(super) authorization: Option<&'a str>,
    /// A form to send (`application/x-www-form-urlencoded`); such a request is not sent on to another address.
    pub(super) form: Option<&'a str>,
    /// The bytes that are wanted, where not all are (RFC 9110, section 14.1.2).
    pub(super) range: Option<Range<u64>>,
    /// Whether plain HTTP is allowed to a host, besides loopback.
    pub(super) plain_http: &'a (dyn Fn(&str) -> bool + Sync),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("could not reach {host}")]
    Network {
        host: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("'{address}' is no address that can be asked")]
    Address { address: String },
    #[error("{host} may not be reached over plain HTTP")]
    PlainHttp { host: String },
    #[error("{host} redirects more than {MAX_REDIRECTS} times")]
    Redirects { host: String },
}

/// An answer; its body is read piece by piece.
#[derive(Debug)]
pub(super) struct Response {
    inner: reqwest::Response,
    host: String,
    /// Whether it comes from another origin than the one that was asked.
    from_elsewhere: bool,
}

impl Http {
    /// # Errors
    /// Where the library cannot be set up.
    pub(super) fn new(user_agent: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        // Another part of the program may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .user_agent(user_agent)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(STALL_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
        };
        // A machine without certificate authorities can still use registries over plain HTTP; to any other the handshake fails,
        // because nobody is trusted then.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build())?;
        Ok(Self { client })
    }

    /// Sends a GET, or a form where there is one, and follows redirects.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        let unusable = |address: &str| HttpError::Address { address: super::document::shown(address) };
        let first = Url::parse(request.url).map_err(|_| unusable(request.url))?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let host = authority(&url);
            check_scheme(&first, &url, request.plain_http)?;
            let mut builder = match request.form {
                Some(form) => self
                    .client
                    .request(Method::POST, url.clone())
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.to_owned()),
                None => self.client.request(Method::GET, url.clone()),
            };
            // Digests are of the bytes as they are kept: what is compressed on the way would not be what was asked for.
            builder = builder.header(header::ACCEPT_ENCODING, "identity");
            if !request.accept.is_empty() {
                builder = builder.header(header::ACCEPT, request.accept.join(", "));
            }
            if let Some(Range { start, end }) = &request.range {
                builder = builder.header(header::RANGE, format!("bytes={start}-{}", end - 1));
            }
            let from_elsewhere = url.origin() != first.origin();
            if let Some(value) = request.authorization.filter(|_| !from_elsewhere) {
                let mut value =
                    HeaderValue::from_str(value).map_err(|_| unusable("credentials that are no text"))?;
                // The library does not show it in its logs then.
                value.set_sensitive(true);
                builder = builder.header(header::AUTHORIZATION, value);
            }
            let network = |source: reqwest::Error| HttpError::Network {
                host: host.clone(),
                // The address may carry a signature that nobody else should read in a log.
                source: source.without_url().into(),
            };
            let inner = builder.send().await.map_err(network)?;
            let moved = matches!(inner.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = inner.headers().get(header::LOCATION).filter(|_| moved && request.form.is_none());
            let Some(location) = location else {
                return Ok(Response { inner, host, from_elsewhere });
            };
            let location = location.to_str().map_err(|_| unusable("a redirect that is no text"))?;
            url = url.join(location).map_err(|_| unusable(location))?;
        }
        Err(HttpError::Redirects { host: authority(&first) })
    }
}

/// Refuses what is neither HTTPS nor allowed to be plain; a request that began with TLS never goes on without.
fn check_scheme(first: &Url, url: &Url, plain_http: &(dyn Fn(&str) -> bool + Sync)) -> Result<(), HttpError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(HttpError::Address { address: authority(url) });
    }
    let host = authority(url);
    match url.scheme() {
        "https" => Ok(()),
        "http" if first.scheme() == "http" && (is_loopback(&host) || plain_http(&host)) => Ok(()),
        "http" => Err(HttpError::PlainHttp { host }),
        _ => Err(HttpError::Address { address: super::document::shown(url.as_str()) }),
    }
}

/// Whether `HOST[:PORT]` is this very machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The `HOST[:PORT]` of an address, and whether it is HTTPS.
pub(super) fn host_of(address: &str) -> Option<(String, bool)> {
    let url = Url::parse(address).ok()?;
    Some((authority(&url), url.scheme() == "https"))
}

/// `HOST[:PORT]`, as registries are named.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl Response {
    pub(super) fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// Whether another origin than the one that was asked gave this answer, after a redirect.
    pub(super) fn is_from_elsewhere(&self) -> bool {
        self.from_elsewhere
    }

    /// Whom it comes from, as `HOST[:PORT]`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn is_success(&self) -> bool {
        self.inner.status() == StatusCode::OK
    }

    /// Whether the answer is just the bytes that were asked for.
    pub(super) fn is_range(&self, range: &Range<u64>) -> bool {
        let stated = format!("bytes {}-{}/", range.start, range.end - 1);
        self.inner.status() == StatusCode::PARTIAL_CONTENT
            && self.header("content-range").is_some_and(|text| text.starts_with(&stated))
    }

    /// A header, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// All headers of this name that are text.
    pub(super) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The media type, without parameters, in lower case.
    pub(super) fn media_type(&self) -> Option<String> {
        let value = self.header("content-type")?.split(';').next()?.trim();
        Some(value.to_ascii_lowercase())
    }

    /// The next piece of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        match self.inner.chunk().await {
            Ok(piece) => Ok(piece),
            Err(error) => {
                Err(HttpError::Network { host: self.host.clone(), source: error.without_url().into() })
            }
        }
    }

    /// The whole body, or `None` where it is longer than `limit` bytes.
    pub(super) async fn bytes(mut self, limit: usize) -> Result<Option<Vec<u8>>, HttpError> {
        let mut body = Vec::new();
        while let Some(piece) = self.chunk().await? {
            if body.len() + piece.len() > limit {
                return Ok(None);
            }
            body.extend_from_slice(&piece);
        }
        Ok(Some(body))
    }
}
