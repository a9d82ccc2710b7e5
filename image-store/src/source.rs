//! Where a pull gets the parts of an image from: documents by their digest, and the bytes of blobs.
//!
//! A source is a stranger. What it gives is checked here, once, for all kinds of sources: a document has the digest that was
//! asked for, and a blob the size and the digest of its descriptor.

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bennu_manifests::model::{Digest, ImageRef};
use bytes::Bytes;

use crate::budget::Budget;
use crate::registry::document::{self, Descriptor};
use crate::registry::{Client, MAX_DOCUMENT, Referrer, RegistryError, Repository, Served};
use crate::sha256::{self, Sha256};

/// The bytes that are read from a file at once.
const FILE_PIECE: usize = 256 << 10;

/// Files that hold images: a layout directory, an archive, a bundle. Its functions block, and are called from threads that may.
/// Nothing that they give needs to be checked by them.
pub trait Archive: Send + Sync {
    /// The manifest or index with this digest and the media type that the archive has it as; `None` where it is not there.
    ///
    /// # Errors
    /// Where the files cannot be read.
    fn document(&self, digest: &Digest) -> io::Result<Option<Served>>;

    /// The bytes of the configuration or layer with this digest, from the first; `None` where it is not there. No more than
    /// the size of its descriptor is read.
    ///
    /// # Errors
    /// Where the files cannot be read.
    fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>>;
}

/// Where to pull from.
#[derive(Clone)]
#[non_exhaustive]
pub enum Source {
    /// A repository of a registry, and its mirrors.
    Registry {
        /// Asks it.
        client: Client,
        /// The repository.
        repository: Repository,
    },
    /// Files, which need no tokens and are not asked twice.
    Archive(Arc<dyn Archive>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { repository, .. } => f.debug_tuple("Registry").field(repository).finish(),
            Self::Archive(_) => f.write_str("Archive"),
        }
    }
}

/// Why a source did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The registry failed, or what came is not what was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The archive does not have it.
    #[error("the archive has no {digest}")]
    Missing {
        /// What was asked for.
        digest: Digest,
    },
    /// The archive cannot be read.
    #[error("could not read {digest} from the archive")]
    Read {
        /// What was asked for.
        digest: Digest,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_retryable())
    }
}

impl Source {
    /// The repository that `image` names.
    pub fn registry(client: &Client, image: &ImageRef) -> Self {
        let repository = Repository { registry: image.registry.clone(), name: image.repository.clone() };
        Self::Registry { client: client.clone(), repository }
    }

    /// The manifest or index with this digest, and with this media type where one is expected.
    pub(crate) async fn document(
        &self,
        digest: &Digest,
        expected_type: Option<&str>,
    ) -> Result<Served, SourceError> {
        let served = match self {
            Self::Registry { client, repository } => {
                client.typed_manifest(repository, digest, expected_type).await?
            }
            Self::Archive(archive) => {
                let wanted = *digest;
                let served = reading(archive, wanted, move |archive| archive.document(&wanted)).await?;
                checked(&served.bytes, digest)?;
                served
            }
        };
        document::check_type(expected_type, &served.media_type).map_err(RegistryError::from)?;
        Ok(served)
    }

    /// What refers to a manifest and may be of the artifact type `kind`; nothing where the source knows of nothing.
    pub(crate) async fn referrers(&self, subject: &Digest, kind: &str) -> Result<Vec<Referrer>, SourceError> {
        match self {
            Self::Registry { client, repository } => {
                Ok(client.helpful_referrers(repository, subject, kind).await?)
            }
            Self::Archive(_) => Ok(Vec::new()),
        }
    }

    /// A configuration, whole.
    pub(crate) async fn small_blob(&self, wanted: &Descriptor) -> Result<Vec<u8>, SourceError> {
        match self {
            Self::Registry { client, repository } => {
                Ok(client.small_blob(repository, &wanted.digest, wanted.size).await?)
            }
            Self::Archive(_) => {
                if wanted.size > MAX_DOCUMENT as u64 {
                    let what = wanted.digest.to_string();
                    return Err(RegistryError::TooLarge { what, limit: MAX_DOCUMENT as u64 }.into());
                }
                let mut download = self.download(wanted);
                let mut bytes = Vec::new();
                while let Some(piece) = download.next().await? {
                    bytes.extend_from_slice(&piece);
                }
                Ok(bytes)
            }
        }
    }

    /// What pulls from it share.
    pub(crate) fn budget(&self) -> Budget {
        match self {
            Self::Registry { client, .. } => client.budget(),
            Self::Archive(_) => Budget::default(),
        }
    }

    /// Bytes of a blob; `None` where the source gives no parts. What comes is checked by nobody yet.
    pub(crate) async fn range(
        &self,
        wanted: &Descriptor,
        range: Range<u64>,
    ) -> Result<Option<Bytes>, SourceError> {
        match self {
            Self::Registry { client, repository } => {
                Ok(client.blob_range(repository, &wanted.digest, range).await?)
            }
            Self::Archive(_) => Ok(None),
        }
    }

    /// Begins to fetch a blob. Nothing is asked before its first piece is.
    pub(crate) fn download<'a>(&'a self, wanted: &'a Descriptor) -> Download<'a> {
        Download { source: self, wanted, from: None, received: 0, hash: Some(Sha256::new()) }
    }
}

/// A blob on its way: never more bytes than its descriptor says, and its end is only reported where the digest fits.
pub(crate) struct Download<'a> {
    source: &'a Source,
    wanted: &'a Descriptor,
    from: Option<Pieces>,
    received: u64,
    /// `None` once the end was reported.
    hash: Option<Sha256>,
}

/// What brings the bytes.
enum Pieces {
    Registry(Box<crate::registry::Blob>),
    Archive(Option<Box<dyn Read + Send>>),
}

impl Download<'_> {
    /// The next piece, which is not empty; `None` only after all bytes have come and their digest fits.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if self.hash.is_none() {
            return Ok(None);
        }
        let what = || self.wanted.digest.to_string();
        let size = self.wanted.size;
        let Some(piece) = self.piece().await? else {
            if self.received < size {
                return Err(
                    RegistryError::Truncated { what: what(), expected: size, found: self.received }.into()
                );
            }
            let found = self.hash.take().expect("looked at above").finish();
            let expected = self.wanted.digest;
            if found != expected {
                return Err(RegistryError::Digest { expected, found }.into());
            }
            return Ok(None);
        };
        self.received += piece.len() as u64;
        if self.received > size {
            return Err(RegistryError::TooLarge { what: what(), limit: size }.into());
        }
        self.hash.as_mut().expect("looked at above").update(&piece);
        Ok(Some(piece))
    }

    /// Whether what came is wrong, if it is wrong, by the fault of somebody who is not asked any more: the same download may give
    /// something else then.
    pub(crate) fn blame(&mut self) -> bool {
        match &mut self.from {
            Some(Pieces::Registry(blob)) => blob.blame(),
            _ => false,
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, SourceError> {
        let wanted = self.wanted;
        if self.from.is_none() {
            self.from = Some(match self.source {
                Source::Registry { client, repository } => {
                    Pieces::Registry(Box::new(client.blob(repository, &wanted.digest, wanted.size)))
                }
                Source::Archive(archive) => {
                    let digest = wanted.digest;
                    let reader = reading(archive, digest, move |archive| archive.blob(&digest)).await?;
                    // One byte more than announced, so that there being more is noticed.
                    Pieces::Archive(Some(Box::new(reader.take(wanted.size.saturating_add(1)))))
                }
            });
        }
        match self.from.as_mut().expect("made above") {
            Pieces::Registry(blob) => Ok(blob.next().await?),
            Pieces::Archive(reader) => {
                let failed = |source| SourceError::Read { digest: wanted.digest, source };
                let Some(mut reading) = reader.take() else { return Ok(None) };
                let (reading, piece) = blocking(move || {
                    let mut piece = Vec::with_capacity(FILE_PIECE);
                    (&mut reading).take(FILE_PIECE as u64).read_to_end(&mut piece)?;
                    Ok((reading, piece))
                })
                .await
                .map_err(failed)?;
                *reader = Some(reading);
                Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
            }
        }
    }
}

/// Refuses bytes that are not those that were asked for.
fn checked(bytes: &[u8], expected: &Digest) -> Result<(), RegistryError> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(RegistryError::TooLarge { what: expected.to_string(), limit: MAX_DOCUMENT as u64 });
    }
    let found = sha256::digest(bytes);
    if found == *expected { Ok(()) } else { Err(RegistryError::Digest { expected: *expected, found }) }
}

async fn reading<T: Send + 'static>(
    archive: &Arc<dyn Archive>,
    digest: Digest,
    read: impl FnOnce(&dyn Archive) -> io::Result<Option<T>> + Send + 'static,
) -> Result<T, SourceError> {
    let archive = archive.clone();
    let found = blocking(move || read(&*archive)).await;
    found.map_err(|source| SourceError::Read { digest, source })?.ok_or(SourceError::Missing { digest })
}

/// Runs what may block on a thread that may.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
