//! Asking a registry, by the distribution specification ("Pulling manifests", "Pulling blobs").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::Digest;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::auth::{self, BearerChallenge, Challenge, Token};
use super::credentials::{self, Credentials};
use super::document::{self, INDEX_TYPES, MANIFEST_TYPES};
use super::error::{ClientError, RegistryError};
use super::http::{Http, HttpError, Request, Response, host_of, is_loopback};
use crate::sha256;

/// The largest manifest, index or configuration, in bytes (the distribution specification asks for at least 4 MiB).
pub const MAX_DOCUMENT: usize = 4 << 20;
/// The largest answer of a token server, in bytes.
const MAX_TOKEN_ANSWER: usize = 64 << 10;
/// How often something is asked before it counts as failed.
pub const MAX_TRIES: u32 = 5;
/// The longest that a server may make us wait with `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How to reach registries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Registries (`HOST[:PORT]`) that are spoken to without TLS. Loopback always may.
    pub plain_http: BTreeSet<String>,
    /// Whether every registry is spoken to without TLS.
    pub plain_http_everywhere: bool,
    /// How to log in, by `HOST[:PORT][/PATH]`; of several that fit a repository the longest counts. They are sent over TLS, to
    /// loopback, and to those of [`ClientOptions::plain_http`], and only to who asks for them: `plain_http_everywhere` lets
    /// none of them out.
    pub credentials: BTreeMap<String, Credentials>,
    /// Token servers (`HOST[:PORT]`) that may see the credentials of a registry of another domain.
    pub token_servers: BTreeSet<String>,
    /// The pause before the second try; each further one doubles it.
    pub first_pause: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            plain_http: BTreeSet::new(),
            plain_http_everywhere: false,
            credentials: BTreeMap::new(),
            token_servers: BTreeSet::new(),
            first_pause: Duration::from_millis(500),
        }
    }
}

/// A client of registries; copies share connections and tokens.
#[derive(Clone)]
pub struct Client {
    http: Http,
    options: Arc<ClientOptions>,
    /// By registry and repository; each is sent to its own registry only.
    authorizations: Arc<Mutex<BTreeMap<(String, String), Authorization>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a registry let us in with.
#[derive(Clone)]
struct Authorization {
    /// The value of the header of this name.
    header: Zeroizing<String>,
    /// When it is not good any more.
    until: Option<Instant>,
}

impl From<Token> for Authorization {
    fn from(token: Token) -> Self {
        let header = Zeroizing::new(format!("Bearer {}", token.text.as_str()));
        Self { header, until: Some(Instant::now() + token.life) }
    }
}

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// `HOST[:PORT]`
    pub registry: String,
    /// As `library/nginx`.
    pub name: String,
}

/// A document as it was served, its digest checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// The media type it was served as.
    pub media_type: String,
}

impl Client {
    /// A client that reaches registries in this way.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let http = Http::new(concat!("bennu/", env!("CARGO_PKG_VERSION"))).map_err(ClientError)?;
        Ok(Self { http, options: Arc::new(options), authorizations: Arc::default() })
    }

    /// The digest that a tag (`latest` where there is none) stands for now. It is computed from the document, not believed from
    /// a header. A reference that has a digest already is asked for by it, and gives it back.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn resolve(&self, image: &UnpinnedRef) -> Result<Digest, RegistryError> {
        let repository = Repository { registry: image.registry.clone(), name: image.repository.clone() };
        match (&image.digest, &image.tag) {
            (Some(digest), _) => self.manifest(&repository, digest).await.map(|_| *digest),
            (None, tag) => {
                let tag = tag.as_deref().unwrap_or("latest");
                let served = self.document(&repository, tag, None).await?;
                document::parse(&served.bytes, Some(&served.media_type))?;
                Ok(sha256::digest(&served.bytes))
            }
        }
    }

    /// The manifest or index with this digest.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Served, RegistryError> {
        self.document(repository, &digest.to_string(), Some(digest)).await
    }

    /// A small blob, whole: `size` bytes with this digest.
    ///
    /// # Errors
    /// [`RegistryError`]
    pub async fn small_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if size > MAX_DOCUMENT as u64 {
            return Err(RegistryError::TooLarge { what: digest.to_string(), limit: MAX_DOCUMENT as u64 });
        }
        self.retrying(|| async {
            let response = self.get(repository, &format!("blobs/{digest}"), &[]).await?;
            let what = || digest.to_string();
            let bytes = response.bytes(size as usize).await?;
            let bytes = bytes.ok_or_else(|| RegistryError::TooLarge { what: what(), limit: size })?;
            let received = bytes.len() as u64;
            if received < size {
                return Err(RegistryError::Truncated { what: what(), expected: size, found: received });
            }
            let found = sha256::digest(&bytes);
            if found == *digest { Ok(bytes) } else { Err(RegistryError::Digest { expected: *digest, found }) }
        })
        .await
    }

    /// Begins to fetch a blob, once; see [`Client::retrying`] for more tries.
    pub(crate) async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob, RegistryError> {
        let response = self.get(repository, &format!("blobs/{digest}"), &[]).await?;
        Ok(Blob { response })
    }

    /// A part of a blob, which is not empty; `None` where the server gives no parts of files. What it gives is checked by nobody
    /// yet.
    pub(crate) async fn blob_range(
        &self,
        repository: &Repository,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, RegistryError> {
        self.retrying(|| async {
            let what = format!("blobs/{digest}");
            let response = self.get_part(repository, &what, &[], Some(range.clone())).await?;
            if !response.is_range(&range) {
                return Ok(None);
            }
            let wanted = range.end - range.start;
            let too_large = || RegistryError::TooLarge { what: digest.to_string(), limit: wanted };
            let limit = usize::try_from(wanted).map_err(|_| too_large())?;
            let bytes = response.bytes(limit).await?.ok_or_else(too_large)?;
            if (bytes.len() as u64) < wanted {
                let found = bytes.len() as u64;
                return Err(RegistryError::Truncated { what: digest.to_string(), expected: wanted, found });
            }
            Ok(Some(Bytes::from(bytes)))
        })
        .await
    }

    pub(super) async fn document(
        &self,
        repository: &Repository,
        reference: &str,
        digest: Option<&Digest>,
    ) -> Result<Served, RegistryError> {
        let accept = [MANIFEST_TYPES, INDEX_TYPES].concat();
        self.retrying(|| async {
            let response = self.get(repository, &format!("manifests/{reference}"), &accept).await?;
            let media_type = response.media_type().unwrap_or_default();
            let what = || format!("{}/{}@{reference}", repository.registry, repository.name);
            let bytes = response
                .bytes(MAX_DOCUMENT)
                .await?
                .ok_or_else(|| RegistryError::TooLarge { what: what(), limit: MAX_DOCUMENT as u64 })?;
            let found = sha256::digest(&bytes);
            if let Some(expected) = digest.filter(|expected| **expected != found) {
                return Err(RegistryError::Digest { expected: *expected, found });
            }
            Ok(Served { bytes, media_type })
        })
        .await
    }

    /// Asks until it works, is refused, or was tried [`MAX_TRIES`] times, with growing pauses.
    pub(crate) async fn retrying<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        let mut tried = 1;
        loop {
            match attempt().await {
                Err(error) if error.is_retryable() && tried < MAX_TRIES => {
                    let pause = self.pause(tried, error.retry_after());
                    tracing::warn!(%error, tried, ?pause, "trying again");
                    tokio::time::sleep(pause).await;
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    /// The pause after so many tries: doubled each time, with up to half of it added by chance, so that many hosts that failed
    /// together do not come back together.
    pub(crate) fn pause(&self, tried: u32, asked: Option<Duration>) -> Duration {
        let base = self.options.first_pause * 2u32.saturating_pow(tried.saturating_sub(1).min(10));
        let base = base.max(asked.unwrap_or_default().min(MAX_RETRY_AFTER));
        let chance = std::hash::RandomState::new().build_hasher().finish();
        base + base.mul_f64((chance % 1024) as f64 / 2048.0)
    }

    /// A GET below the repository, with a token or a password where the registry wants one.
    pub(super) async fn get(
        &self,
        repository: &Repository,
        what: &str,
        accept: &[&str],
    ) -> Result<Response, RegistryError> {
        self.get_part(repository, what, accept, None).await
    }

    /// The same, for a part of it where `range` says so: the answer is a success also where the server gives the whole.
    async fn get_part(
        &self,
        repository: &Repository,
        what: &str,
        accept: &[&str],
        range: Option<Range<u64>>,
    ) -> Result<Response, RegistryError> {
        let url = format!("{}/v2/{}/{what}", self.base(&repository.registry), repository.name);
        let key = (repository.registry.clone(), repository.name.clone());
        let known = {
            let mut all = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, known| known.until.is_none_or(|until| Instant::now() < until));
            all.get(&key).cloned()
        };
        let mut response = self.send(&url, accept, known.as_ref(), range.clone()).await?;
        // What stands behind a redirect has no say in who gets our credentials.
        if response.status() == 401 && !response.is_from_elsewhere() {
            let fresh = self.authorize(repository, &response).await?;
            if known.is_some_and(|known| known.header == fresh.header) {
                return Err(RegistryError::Unauthorized { registry: repository.registry.clone() });
            }
            response = self.send(&url, accept, Some(&fresh), range.clone()).await?;
            if response.status() != 401 {
                self.authorizations.lock().unwrap_or_else(PoisonError::into_inner).insert(key, fresh);
            }
        }
        let status = response.status();
        if response.is_success() || range.is_some_and(|range| response.is_range(&range)) {
            return Ok(response);
        }
        let what = format!("{}/{} {what}", repository.registry, repository.name);
        Err(match status {
            401 | 403 => RegistryError::Unauthorized { registry: response.host().to_owned() },
            404 | 410 => RegistryError::NotFound { what },
            status => {
                let seconds = response.header("retry-after").and_then(|text| text.parse().ok());
                RegistryError::Status { what, status, retry_after: seconds.map(Duration::from_secs) }
            }
        })
    }

    /// What answers the challenge of a registry; the first one that we can answer counts.
    async fn authorize(
        &self,
        repository: &Repository,
        response: &Response,
    ) -> Result<Authorization, RegistryError> {
        let unauthorized = || RegistryError::Unauthorized { registry: repository.registry.clone() };
        let challenges: Vec<_> =
            response.headers("www-authenticate").filter_map(auth::parse_challenge).collect();
        let credentials =
            credentials::find(&self.options.credentials, &repository.registry, &repository.name);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        });
        if let Some(bearer) = bearer {
            return Ok(self.token(repository, bearer, credentials).await?.into());
        }
        let basic =
            credentials.filter(|_| challenges.contains(&Challenge::Basic)).and_then(Credentials::basic);
        let header = basic.ok_or_else(unauthorized)?;
        let registry = &repository.registry;
        if !self.is_private(registry, self.base(registry).starts_with("https")) {
            return Err(kept(registry, registry, "TLS is not used there"));
        }
        Ok(Authorization { header, until: None })
    }

    async fn token(
        &self,
        repository: &Repository,
        challenge: &BearerChallenge,
        credentials: Option<&Credentials>,
    ) -> Result<Token, RegistryError> {
        let registry = &repository.registry;
        let unauthorized = || RegistryError::Unauthorized { registry: registry.clone() };
        let shown = || document::shown(&challenge.realm);
        let (realm, tls) =
            host_of(&challenge.realm).ok_or_else(|| HttpError::Address { address: shown() })?;
        // A registry that is spoken to with TLS cannot lead us to a token server without.
        if self.base(registry).starts_with("https") && !tls {
            return Err(HttpError::PlainHttp { host: shown() }.into());
        }
        if credentials.is_some() {
            let named = |host: &str| self.options.token_servers.contains(host);
            if !credentials::may_see(host_name(registry), &realm, named) {
                return Err(kept(registry, &shown(), "that is another domain; name it as a token server"));
            }
            if !self.is_private(&realm, tls) {
                return Err(kept(registry, &shown(), "TLS is not used there"));
            }
        }
        let url = auth::token_url(challenge, &repository.name);
        let response = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = auth::refresh_form(challenge, &repository.name, token);
                self.ask(&challenge.realm, &[], None, Some(&form), None).await?
            }
            other => {
                let basic = other.and_then(Credentials::basic);
                self.ask(&url, &[], basic.as_ref().map(|basic| basic.as_str()), None, None).await?
            }
        };
        if !response.is_success() {
            return match response.status() {
                status @ (429 | 500..) => {
                    let what = format!("a token for {registry}");
                    Err(RegistryError::Status { what, status, retry_after: None })
                }
                _ => Err(unauthorized()),
            };
        }
        let body = response.bytes(MAX_TOKEN_ANSWER).await?.ok_or_else(unauthorized)?;
        auth::parse_token(&Zeroizing::new(body)).ok_or_else(unauthorized)
    }

    async fn send(
        &self,
        url: &str,
        accept: &[&str],
        authorization: Option<&Authorization>,
        range: Option<Range<u64>>,
    ) -> Result<Response, RegistryError> {
        self.ask(url, accept, authorization.map(|known| known.header.as_str()), None, range).await
    }

    async fn ask(
        &self,
        url: &str,
        accept: &[&str],
        authorization: Option<&str>,
        form: Option<&str>,
        range: Option<Range<u64>>,
    ) -> Result<Response, RegistryError> {
        let plain_http = |host: &str| self.is_plain(host);
        let request = Request { url, accept, authorization, form, range, plain_http: &plain_http };
        Ok(self.http.send(&request).await?)
    }

    /// Whether nobody but `host` reads what is sent to it, or its operator said that this does not matter.
    fn is_private(&self, host: &str, tls: bool) -> bool {
        tls || is_loopback(host) || self.options.plain_http.contains(host)
    }

    fn is_plain(&self, host: &str) -> bool {
        self.options.plain_http_everywhere || self.options.plain_http.contains(host)
    }

    /// The beginning of every address of a registry.
    fn base(&self, registry: &str) -> String {
        let host = host_name(registry);
        let scheme = if self.is_plain(registry) || is_loopback(registry) { "http" } else { "https" };
        format!("{scheme}://{host}")
    }
}

/// Where a registry is; one has a name that is not the name of its host.
fn host_name(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// Credentials that stay here.
fn kept(registry: &str, realm: &str, why: &str) -> RegistryError {
    RegistryError::Insecure {
        reason: format!("the credentials for {registry} are not sent to {realm}: {why}"),
    }
}

/// The bytes of a blob as they come; nothing about them is checked here.
#[derive(Debug)]
pub(crate) struct Blob {
    response: Response,
}

impl Blob {
    /// The next piece; `None` at the end of what the registry sends.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        Ok(self.response.chunk().await?)
    }
}
