//! Why an image did not come.

use std::io;

use bennu_manifests::model::Digest;

use crate::fault::Fault;
use crate::record::RecordFault;
use crate::registry::RegistryError;
use crate::registry::document::DocumentError;
use crate::source::SourceError;
use crate::space::Shortage;
use crate::store_error::StoreError;
use crate::tar::{Reason, Refusal};
use crate::worker::WorkerError;

/// Why a pull failed. The four kinds are kept apart because different things have to be done about them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// What came is not what was asked for, or is hostile. Trying again will not help.
    #[error("{image} was refused")]
    Refused {
        /// The reference.
        image: String,
        /// What is wrong.
        #[source]
        source: Box<Refused>,
    },
    /// The image is made for something else than this host.
    #[error("{image} is for {found}, not for {wanted}")]
    WrongPlatform {
        /// The reference.
        image: String,
        /// What was wanted.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The source does not have it.
    #[error("{image} was not found")]
    NotFound {
        /// The reference.
        image: String,
        /// What it was asked for.
        #[source]
        source: SourceError,
    },
    /// The registry wants credentials, or answers with an error that will not pass by itself.
    #[error("the registry does not give {image}")]
    Denied {
        /// The reference.
        image: String,
        /// What the registry says.
        #[source]
        source: SourceError,
    },
    /// The network or the registry failed, several times. Trying again later may help.
    #[error("could not fetch {image}")]
    Network {
        /// The reference.
        image: String,
        /// What happened last.
        #[source]
        source: SourceError,
    },
    /// The files that it should come from cannot be read.
    #[error("could not read {image}")]
    Archive {
        /// The reference.
        image: String,
        /// What happened.
        #[source]
        source: SourceError,
    },
    /// The process that parses a layer failed: it could not be started, or the layer needs more than it may have.
    #[error("could not take in layer {layer} of {image}")]
    Worker {
        /// The reference.
        image: String,
        /// The compressed digest of the layer.
        layer: Digest,
        /// What happened to the process.
        #[source]
        source: WorkerError,
    },
    /// It is known before it begins that there is no room for it.
    #[error("there is no room for {image}")]
    NoRoom {
        /// The reference.
        image: String,
        /// What is missing.
        #[source]
        source: Shortage,
    },
    /// The disk became full, or all but full; what was written is removed again.
    #[error("the disk is full, there is no room for {image}")]
    DiskFull {
        /// The reference.
        image: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PullError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused { .. } => Fault::Refused,
            Self::NotFound { .. } => Fault::Missing,
            Self::WrongPlatform { .. } => Fault::Invalid,
            _ => Fault::Failed,
        }
    }

    /// Whether it was refused for security.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether the same pull may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Network { .. })
    }

    /// Whether a larger window may help.
    pub(crate) fn is_window(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if matches!(**source, Refused::Window { .. }))
    }

    pub(crate) fn from_source(image: &str, error: SourceError) -> Self {
        let image = image.to_owned();
        match error {
            SourceError::Missing { .. } | SourceError::Registry(RegistryError::NotFound { .. }) => {
                Self::NotFound { image, source: error }
            }
            SourceError::Read { .. } => Self::Archive { image, source: error },
            SourceError::Registry(error) if error.is_refusal() => {
                Self::Refused { image, source: Box::new(Refused::Registry(error)) }
            }
            error if error.is_retryable() => Self::Network { image, source: error },
            error => Self::Denied { image, source: error },
        }
    }
}

/// What is refused about an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// What the registry sent.
    #[error(transparent)]
    Registry(RegistryError),
    /// A document that is malformed or ambiguous.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A document that is no UTF-8.
    #[error("a document is not UTF-8")]
    NotText,
    /// An index that leads to another index.
    #[error("the index leads to another index")]
    NestedIndex,
    /// The configuration cannot be read.
    #[error("the image configuration is malformed")]
    Config(#[source] oci_spec::OciSpecError),
    /// The manifest and the configuration disagree.
    #[error("manifest and configuration differ in their number of layers")]
    LayerCount,
    /// The parts do not fit together.
    #[error("the parts of the image do not fit together")]
    Record(#[source] RecordFault),
    /// A layer that is hostile or broken.
    #[error("layer {layer}")]
    Layer {
        /// Its compressed digest.
        layer: Digest,
        /// What is wrong with it.
        #[source]
        source: Refusal,
    },
    /// A layer that does not fit over those below it.
    #[error("layer {layer}, entry '{path}'")]
    Stacked {
        /// Its compressed digest.
        layer: Digest,
        /// The path at fault as text.
        path: String,
        /// What is wrong with it.
        #[source]
        source: Reason,
    },
    /// A layer that cannot be decompressed.
    #[error("layer {layer} cannot be decompressed")]
    Compression {
        /// Its compressed digest.
        layer: Digest,
        /// What the decompressor says.
        #[source]
        source: io::Error,
    },
    /// A layer that needs more memory than a pull may take.
    #[error(
        "layer {layer} needs a window of more than {limit} MiB to be decompressed; compress it without `--long` or `--ultra`"
    )]
    Window {
        /// Its compressed digest.
        layer: Digest,
        /// What it may take, in MiB.
        limit: u32,
    },
    /// A native layer whose descriptor does not say what it makes.
    #[error("native layer {layer} does not say which blob it makes")]
    Annotations {
        /// Its digest.
        layer: Digest,
    },
    /// A native layer that makes another blob than its descriptor says.
    #[error("native layer {layer} does not make the blob {expected}")]
    Blob {
        /// Its digest.
        layer: Digest,
        /// What its descriptor says.
        expected: Digest,
    },
    /// A layer that is not the one that the configuration names.
    #[error("layer {layer} contains {found} where the configuration says {expected}")]
    DiffId {
        /// Its compressed digest.
        layer: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
}
