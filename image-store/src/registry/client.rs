//! Asking a registry, by the distribution specification ("Pulling manifests", "Pulling blobs").

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::Digest;
use bytes::Bytes;

use super::auth::{self, BearerChallenge};
use super::document::{self, INDEX_TYPES, MANIFEST_TYPES};
use super::error::{ClientError, RegistryError};
use super::http::{Http, HttpError, Request, Response, is_loopback};
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
    /// The pause before the second try; each further one doubles it.
    pub first_pause: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            plain_http: BTreeSet::new(),
            plain_http_everywhere: false,
            first_pause: Duration::from_millis(500),
        }
    }
}

/// A client of registries; copies share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    options: Arc<ClientOptions>,
    /// Tokens by registry and repository; each is sent to its own registry only.
    tokens: Arc<Mutex<BTreeMap<(String, String), String>>>,
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
    /// A client that knows no credentials.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        let http = Http::new(concat!("bennu/", env!("CARGO_PKG_VERSION"))).map_err(ClientError)?;
        Ok(Self { http, options: Arc::new(options), tokens: Arc::default() })
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
            let response = self.ask(repository, &what, &[], Some(range.clone())).await?;
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

    /// A GET below the repository, with a token where the registry wants one.
    pub(super) async fn get(
        &self,
        repository: &Repository,
        what: &str,
        accept: &[&str],
    ) -> Result<Response, RegistryError> {
        self.ask(repository, what, accept, None).await
    }

    /// The same, for a part of it where `range` says so: the answer is a success also where the server gives the whole.
    async fn ask(
        &self,
        repository: &Repository,
        what: &str,
        accept: &[&str],
        range: Option<Range<u64>>,
    ) -> Result<Response, RegistryError> {
        let url = format!("{}/v2/{}/{what}", self.base(&repository.registry), repository.name);
        let key = (repository.registry.clone(), repository.name.clone());
        let token = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let mut response = self.send(&url, accept, token.as_deref(), range.clone()).await?;
        if response.status() == 401 {
            let challenge = response.headers("www-authenticate").find_map(auth::parse_challenge);
            let Some(challenge) = challenge else {
                return Err(RegistryError::Unauthorized { registry: repository.registry.clone() });
            };
            let token = self.token(repository, &challenge).await?;
            response = self.send(&url, accept, Some(&token), range.clone()).await?;
            self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token);
        }
        let status = response.status();
        if response.is_success() || range.is_some_and(|range| response.is_range(&range)) {
            return Ok(response);
        }
        let what = format!("{}/{} {what}", repository.registry, repository.name);
        Err(match status {
            401 | 403 => RegistryError::Unauthorized { registry: repository.registry.clone() },
            404 | 410 => RegistryError::NotFound { what },
            status => {
                let seconds = response.header("retry-after").and_then(|text| text.parse().ok());
                RegistryError::Status { what, status, retry_after: seconds.map(Duration::from_secs) }
            }
        })
    }

    async fn token(
        &self,
        repository: &Repository,
        challenge: &BearerChallenge,
    ) -> Result<String, RegistryError> {
        let unauthorized = || RegistryError::Unauthorized { registry: repository.registry.clone() };
        // A registry that is spoken to with TLS cannot lead us to a token server without.
        if self.base(&repository.registry).starts_with("https") && !challenge.realm.starts_with("https://") {
            return Err(HttpError::PlainHttp { host: document::shown(&challenge.realm) }.into());
        }
        let response = self.send(&auth::token_url(challenge, &repository.name), &[], None, None).await?;
        if !response.is_success() {
            return match response.status() {
                status @ (429 | 500..) => {
                    let what = format!("a token for {}", repository.registry);
                    Err(RegistryError::Status { what, status, retry_after: None })
                }
                _ => Err(unauthorized()),
            };
        }
        let body = response.bytes(MAX_TOKEN_ANSWER).await?.ok_or_else(unauthorized)?;
        auth::parse_token(&body).ok_or_else(unauthorized)
    }

    async fn send(
        &self,
        url: &str,
        accept: &[&str],
        token: Option<&str>,
        range: Option<Range<u64>>,
    ) -> Result<Response, RegistryError> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let plain_http = |host: &str| self.is_plain(host);
        let request =
            Request { url, accept, authorization: authorization.as_deref(), range, plain_http: &plain_http };
        Ok(self.http.get(&request).await?)
    }

    fn is_plain(&self, host: &str) -> bool {
        self.options.plain_http_everywhere || self.options.plain_http.contains(host)
    }

    /// The beginning of every address of a registry.
    fn base(&self, registry: &str) -> String {
        // The one registry whose name is not the name of its host.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let scheme = if self.is_plain(registry) || is_loopback(registry) { "http" } else { "https" };
        format!("{scheme}://{host}")
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
