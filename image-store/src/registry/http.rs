//! HTTP, in the one file that knows which crate speaks it.
//!
//! Redirects are followed here and not by that crate, because credentials and the choice between HTTP and HTTPS are ours to
//! guard: a header with credentials goes to the origin it was made for and nowhere else, and nothing leads from HTTPS to HTTP.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{self, HeaderValue};
use reqwest::{Certificate, ClientBuilder, Identity, Method, Proxy, StatusCode, Url};
use tokio::time::Instant;

use super::options::{ClientOptions, Patience};
use super::proxy::Proxies;
use super::reach::{self, Forbidden};
use super::tls::Tls;

/// How often a request is sent on to another address.
const MAX_REDIRECTS: usize = 5;

/// Speaks HTTP; copies share their connections.
#[derive(Debug, Clone)]
pub(super) struct Http {
    /// For those that were named to us.
    named: reqwest::Client,
    /// For those that others lead us to.
    strangers: reqwest::Client,
    /// For registries with a TLS of their own, by `HOST[:PORT]`.
    own: Arc<BTreeMap<String, reqwest::Client>>,
    patience: Patience,
}

/// What to ask for.
#[derive(Clone, Default)]
pub(super) struct Request<'a> {
    pub(super) url: &'a str,
    /// The host that led to `url`, where nobody named it to us.
    pub(super) led_by: Option<&'a str>,
    pub(super) accept: &'a [&'a str],
    /// The value of `Authorization`; sent to the origin of `url` only.
    pub(super) authorization: Option<&'a str>,
    /// A form to send (`application/x-www-form-urlencoded`); such a request is not sent on to another address.
    pub(super) form: Option<&'a str>,
    /// The bytes that are wanted, where not all are (RFC 9110, section 14.1.2).
    pub(super) range: Option<Range<u64>>,
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
    #[error("{host} is no host that a registry may lead to")]
    Forbidden { host: String },
    #[error("the certificate of {host} is not believed: {fault}")]
    Certificate { host: String, fault: String },
    #[error("{host} redirects more than {MAX_REDIRECTS} times")]
    Redirects { host: String },
}

/// Less came than a server is waited for.
#[derive(Debug, thiserror::Error)]
#[error("{bytes} bytes came in {waited:?}")]
struct TooSlow {
    bytes: u64,
    waited: Duration,
}

/// An answer; its body is read piece by piece.
#[derive(Debug)]
pub(super) struct Response {
    inner: reqwest::Response,
    pace: Pace,
    host: String,
    /// Whether it comes from another origin than the one that was asked.
    from_elsewhere: bool,
}

/// Why there is no [`Http`], and for which registry where it is about one.
pub(super) type NotSetUp = (Option<String>, Box<dyn Error + Send + Sync>);

impl Http {
    /// # Errors
    /// Where the library cannot be set up, or does not take a certificate or key.
    pub(super) fn new(options: &ClientOptions) -> Result<Self, NotSetUp> {
        // Another part of the program may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let proxied = |builder: ClientBuilder| {
            let proxies = options.proxies.clone();
            let proxy = move |url: &Url| {
                let port = url.port_or_known_default().unwrap_or_default();
                let found = proxies.of(url.scheme() == "https", url.host_str()?, port)?;
                Url::parse(found).ok()
            };
            if options.proxies.is_empty() { builder } else { builder.proxy(Proxy::custom(proxy)) }
        };
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("bennu/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(options.patience.connect)
                .read_timeout(options.patience.silence)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy();
            proxied(builder)
        };
        let strangers = || builder().dns_resolver(Strangers { proxies: options.proxies.clone() });
        let set_up = |error: reqwest::Error| (None, error.into());
        let mut own = BTreeMap::new();
        for (registry, tls) in &options.tls {
            let of_registry = |error: Box<dyn Error + Send + Sync>| (Some(registry.clone()), error);
            let address = format!("https://{}", super::client::host_name(registry));
            let (key, _) = host_of(&address).ok_or_else(|| of_registry("this is no HOST[:PORT]".into()))?;
            own.insert(key, with_tls(builder, tls).map_err(|error| of_registry(error.into()))?);
        }
        Ok(Self {
            named: built(builder).map_err(set_up)?,
            strangers: built(strangers).map_err(set_up)?,
            own: Arc::new(own),
            patience: options.patience,
        })
    }

    /// What speaks to `authority`, to which somebody else leads where it is not `named`.
    fn client(&self, authority: &str, named: bool) -> &reqwest::Client {
        let usual = if named { &self.named } else { &self.strangers };
        self.own.get(authority).unwrap_or(usual)
    }

    /// Sends a GET, or a form where there is one, and follows redirects.
    /// `plain_http` says whether a host may be spoken to without TLS; loopback always may.
    pub(super) async fn send(
        &self,
        request: &Request<'_>,
        plain_http: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<Response, HttpError> {
        let unusable = |address: &str| HttpError::Address { address: super::document::shown(address) };
        let first = Url::parse(request.url).map_err(|_| unusable(request.url))?;
        let from = request.led_by.or(first.host_str()).unwrap_or_default();
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let host = authority(&url);
            check_scheme(&first, &url, plain_http)?;
            let named = url.host_str() == Some(from);
            if !named && !reach::may_lead(from, url.host_str().unwrap_or_default()) {
                return Err(HttpError::Forbidden { host });
            }
            let client = self.client(&host, named);
            let mut builder = match request.form {
                Some(form) => client
                    .request(Method::POST, url.clone())
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.to_owned()),
                None => client.request(Method::GET, url.clone()),
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
            let inner = builder.send().await.map_err(|error| failed(&host, error))?;
            let moved = matches!(inner.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = inner.headers().get(header::LOCATION).filter(|_| moved && request.form.is_none());
            let Some(location) = location else {
                let pace = Pace { patience: self.patience, waited: Duration::ZERO, bytes: 0 };
                return Ok(Response { inner, pace, host, from_elsewhere });
            };
            let location = location.to_str().map_err(|_| unusable("a redirect that is no text"))?;
            url = url.join(location).map_err(|_| unusable(location))?;
        }
        Err(HttpError::Redirects { host: authority(&first) })
    }
}

/// A client with the authorities of the system. A machine that has none can still use registries over plain HTTP; to any other the
/// handshake fails, because nobody is trusted then.
fn built(builder: impl Fn() -> ClientBuilder) -> reqwest::Result<reqwest::Client> {
    builder().build().or_else(|_| builder().tls_certs_only([]).build())
}

fn with_tls(builder: impl Fn() -> ClientBuilder, tls: &Tls) -> reqwest::Result<reqwest::Client> {
    let identity = tls.identity().map(Identity::from_pem).transpose()?;
    let with_identity = || match &identity {
        Some(identity) => builder().identity(identity.clone()),
        None => builder(),
    };
    if tls.authorities().is_empty() {
        return built(with_identity);
    }
    let authorities = tls.authorities().iter().map(|der| Certificate::from_der(der));
    with_identity().tls_certs_only(authorities.collect::<Result<Vec<_>, _>>()?).build()
}

/// Looks names up for those that a registry leads to.
struct Strangers {
    proxies: Proxies,
}

impl Resolve for Strangers {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let is_proxy = self.proxies.is_at(&name);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let fit = if is_proxy { found } else { reach::fit(name, found)? };
            Ok(Box::new(fit.into_iter()) as Addrs)
        })
    }
}

/// Why nothing came from `host`.
fn failed(host: &str, error: reqwest::Error) -> HttpError {
    if is_forbidden(&error) {
        return HttpError::Forbidden { host: host.to_owned() };
    }
    // It will be the same one the next time.
    if let Some(fault @ rustls::Error::InvalidCertificate(_)) = of_tls(&error) {
        return HttpError::Certificate { host: host.to_owned(), fault: fault.to_string() };
    }
    // The address may carry a signature that nobody else should read in a log.
    HttpError::Network { host: host.to_owned(), source: error.without_url().into() }
}

fn is_forbidden(error: &(dyn Error + 'static)) -> bool {
    error.is::<Forbidden>() || error.source().is_some_and(is_forbidden)
}

/// What TLS says. An error of the system that holds another one is not its source, but what it holds.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let held = held.and_then(|held| of_tls(held));
    error.downcast_ref().or(held).or_else(|| of_tls(error.source()?))
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
        // As somebody may have written it who likes to be exact.
        "http" if first.scheme() == "http" && url.port().is_none() && plain_http(&format!("{host}:80")) => {
            Ok(())
        }
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

/// The host of an address that we have made ourselves, without its port.
pub(super) fn host_part(base: &str) -> &str {
    let authority = base.split_once("://").map_or(base, |(_, rest)| rest);
    match authority.rfind(']') {
        Some(bracket) => &authority[..=bracket],
        None => authority.split(':').next().unwrap_or_default(),
    }
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
        let begun = Instant::now();
        let piece = self.inner.chunk().await.map_err(|error| failed(&self.host, error))?;
        self.pace
            .came(piece.as_ref().map_or(0, Bytes::len) as u64, begun.elapsed())
            .map_err(|slow| HttpError::Network { host: self.host.clone(), source: slow.into() })?;
        Ok(piece)
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

/// How fast a body comes, over the time that it was waited for.
#[derive(Debug)]
struct Pace {
    patience: Patience,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// So many bytes came after they were waited for so long.
    fn came(&mut self, bytes: u64, waited: Duration) -> Result<(), TooSlow> {
        self.bytes += bytes;
        self.waited += waited;
        if self.waited < self.patience.silence {
            return Ok(());
        }
        let Self { bytes, waited, .. } = *self;
        (self.bytes, self.waited) = (0, Duration::ZERO);
        let enough = u128::from(bytes) * 1000 >= u128::from(self.patience.slowest) * waited.as_millis();
        if enough { Ok(()) } else { Err(TooSlow { bytes, waited }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_too_slow_by_the_time_that_it_was_waited_for() {
        let second = Duration::from_secs(1);
        let patience = Patience { silence: 10 * second, slowest: 100, ..Patience::default() };
        let pace = || Pace { patience, waited: Duration::ZERO, bytes: 0 };
        let came = |pieces: &[(u64, u64)]| {
            let mut pace = pace();
            pieces.iter().all(|(bytes, seconds)| pace.came(*bytes, *seconds as u32 * second).is_ok())
        };
        assert!(came(&[(1, 9), (999, 1)]), "fast enough on average");
        assert!(!came(&[(1, 9), (998, 1)]), "one byte too few");
        assert!(came(&[(1, 0); 1000]), "nobody waited");
        assert!(!came(&[(1_000_000, 10), (1, 10)]), "it became slow");
    }
}
