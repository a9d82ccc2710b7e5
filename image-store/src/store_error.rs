//! What can go wrong with a store.

use std::io;
use std::path::PathBuf;

use bennu_manifests::model::Digest;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory holds something else.
    #[error("{} is not empty and not a store", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The format file is not readable as such.
    #[error("{} does not describe a store", path.display())]
    Format {
        /// The format file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it in a way that this one does not understand.
    #[error("the store at {} needs what this program does not have: {features}", path.display())]
    Incompatible {
        /// The directory.
        path: PathBuf,
        /// Version or names of features.
        features: String,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] StoreError),
}

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something in the store is not what it was.
    #[error("{} is damaged: {fault}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The store may only be read by this program.
    #[error("the store at {} was written by a newer program and may only be read", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// Another scrub is at work.
    #[error("the store is being scrubbed already")]
    Busy,
    /// A name that no pin can have.
    #[error("'{name}' cannot name a pin")]
    PinName {
        /// The name.
        name: String,
    },
    /// Something that was to be pinned is not there.
    #[error("the store holds neither an image nor a blob {digest}")]
    NothingToPin {
        /// The digest.
        digest: Digest,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the disk, or the quota on it, is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
