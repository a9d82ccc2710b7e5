//! Asking a registry, by the distribution specification ("Pulling manifests", "Pulling blobs").

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::Digest;
use bytes::Bytes;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::document::{self, INDEX_TYPES, MANIFEST_TYPES};
use super::error::{ClientError, RegistryError};
use super::http::{Http, Request, Response, is_loopback};
use super::login::Authorization;
use super::mirror::{Marks, Place};
use super::options::ClientOptions;
use super::retry;
use crate::budget::Budget;
use crate::sha256;

/// The largest manifest, index or configuration, in bytes (the distribution specification asks for at least 4 MiB).
pub const MAX_DOCUMENT: usize = 4 << 20;
/// A client of registries; copies share connections and tokens.
#[derive(Clone)]
pub struct Client {
    http: Http,
    pub(super) options: Arc<ClientOptions>,
    /// By registry and repository; each is sent to its own registry only.
    authorizations: Arc<Mutex<BTreeMap<(String, String), Authorization>>>,
    /// The mirrors that are passed over.
    pub(super) marks: Arc<Mutex<Marks>>,
    budget: Budget,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.options).finish_non_exhaustive()
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
        let http = Http::new(&options).map_err(|(registry, source)| match registry {
            Some(registry) => ClientError::Tls { registry, source },
            None => ClientError::Http(source),
        })?;
        Ok(Self {
            http,
            budget: Budget::new(options.layers_at_once),
            options: Arc::new(options),
            authorizations: Arc::default(),
            marks: Arc::default(),
        })
    }

    /// What all pulls of this client share.
    pub(crate) fn budget(&self) -> Budget {
        self.budget.clone()
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
                let served = self.document(&repository, tag, None, None).await?;
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
        self.typed_manifest(repository, digest, None).await
    }

    /// The same, with this media type where one is expected. Only mirrors are held to it here: what the registry itself serves is
    /// for the caller to judge.
    pub(crate) async fn typed_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        expected_type: Option<&str>,
    ) -> Result<Served, RegistryError> {
        self.document(repository, &digest.to_string(), Some(digest), expected_type).await
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
        self.anywhere(repository, async |place| {
            let response = self.get(&place, &format!("blobs/{digest}"), &[]).await?;
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

    /// A part of a blob, which is not empty; `None` where the server gives no parts of files. What it gives is checked by nobody
    /// yet.
    pub(crate) async fn blob_range(
        &self,
        repository: &Repository,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, RegistryError> {
        self.anywhere(repository, async |place| {
            let what = format!("blobs/{digest}");
            let response = self.get_part(&place, &what, &[], Some(range.clone())).await?;
            if !response.is_range(&range) {
                // The next place may give parts.
                return if place.mirror.is_some() { Err(RegistryError::NotFound { what }) } else { Ok(None) };
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
        expected_type: Option<&str>,
    ) -> Result<Served, RegistryError> {
        let accept = [MANIFEST_TYPES, INDEX_TYPES].concat();
        let attempt = async |place: Place| {
            let response = self.get(&place, &format!("manifests/{reference}"), &accept).await?;
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
            if place.mirror.is_some() {
                // A digest says nothing about the type that bytes are served as, and the next place may know better.
                document::check_type(expected_type, &media_type)?;
                document::parse(&bytes, Some(&media_type))?;
            }
            Ok(Served { bytes, media_type })
        };
        match digest {
            Some(_) => self.anywhere(repository, attempt).await,
            // What a tag means only the registry itself may say.
            None => self.retrying(|| attempt(Place::own(repository))).await,
        }
    }

    /// A GET below the repository, with a token or a password where the registry wants one.
    pub(super) async fn get(
        &self,
        place: &Place,
        what: &str,
        accept: &[&str],
    ) -> Result<Response, RegistryError> {
        self.get_part(place, what, accept, None).await
    }

    /// The same, for a part of it where `range` says so: the answer is a success also where the server gives the whole.
    pub(super) async fn get_part(
        &self,
        place: &Place,
        what: &str,
        accept: &[&str],
        range: Option<Range<u64>>,
    ) -> Result<Response, RegistryError> {
        let repository = &place.repository;
        let asked = self.get_from(repository, what, accept, range);
        if place.mirror.is_none() {
            return asked.await;
        }
        let late = |late: Elapsed| {
            Err(RegistryError::Network { host: repository.registry.clone(), source: late.into() })
        };
        timeout(self.options.patience.mirror, asked).await.unwrap_or_else(late)
    }

    async fn get_from(
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
        let request = Request { url: &url, accept, range: range.clone(), ..Request::default() };
        let authorization = known.as_ref().map(|known| known.header.as_str());
        let mut response = self.ask(Request { authorization, ..request.clone() }).await?;
        // What stands behind a redirect has no say in who gets our credentials.
        if response.status() == 401 && !response.is_from_elsewhere() {
            let fresh = self.authorize(repository, &response).await?;
            if known.is_some_and(|known| known.header == fresh.header) {
                return Err(RegistryError::Unauthorized { registry: repository.registry.clone() });
            }
            response = self.ask(Request { authorization: Some(&fresh.header), ..request }).await?;
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
            status => RegistryError::Status { what, status, retry_after: retry::asked_of(&response) },
        })
    }

    pub(super) async fn ask(&self, request: Request<'_>) -> Result<Response, RegistryError> {
        Ok(self.http.send(&request, &|host| self.is_plain(host)).await?)
    }

    /// Whether nobody but `host` reads what is sent to it, or its operator said that this does not matter.
    pub(super) fn is_private(&self, host: &str, tls: bool) -> bool {
        tls || is_loopback(host) || self.options.plain_http.contains(host)
    }

    fn is_plain(&self, host: &str) -> bool {
        self.options.plain_http_everywhere || self.options.plain_http.contains(host)
    }

    /// The beginning of every address of a registry.
    pub(super) fn base(&self, registry: &str) -> String {
        let host = host_name(registry);
        let loopback = is_loopback(registry) && !self.options.tls.contains_key(registry);
        let scheme = if self.is_plain(registry) || loopback { "http" } else { "https" };
        format!("{scheme}://{host}")
    }
}

/// Where a registry is; one has a name that is not the name of its host.
pub(super) fn host_name(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}
