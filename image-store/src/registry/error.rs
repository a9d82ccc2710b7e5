//! What can go wrong between us and a registry.

use std::error::Error;
use std::time::Duration;

use bennu_manifests::model::Digest;

use super::document::DocumentError;
use super::http::HttpError;

/// The client cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The certificates or the key for a registry do not fit together, or are none.
    #[error("the certificates or the key for {registry} cannot be used")]
    Tls {
        /// The registry.
        registry: String,
        /// What is wrong with them.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The library that speaks HTTP.
    #[error("could not set up the HTTP client")]
    Http(#[source] Box<dyn Error + Send + Sync>),
}

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Refused: the bytes are not those that were asked for.
    #[error("{expected} was asked for and {found} came")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Refused: more bytes than allowed or announced.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        what: String,
        /// What was allowed.
        limit: u64,
    },
    /// Refused: a document that is malformed or ambiguous.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Refused: an address that is not secure or no address.
    #[error("{reason}")]
    Insecure {
        /// Which one, and why.
        reason: String,
    },
    /// The registry wants credentials that we do not have.
    #[error("{registry} does not let us pull")]
    Unauthorized {
        /// The registry.
        registry: String,
    },
    /// It is not there.
    #[error("{what} is not there")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The registry answered with an error.
    #[error("{what}: the registry answers with status {status}")]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// How long it wants us to wait.
        retry_after: Option<Duration>,
    },
    /// The connection ended before all bytes had come.
    #[error("{what} broke off after {found} of {expected} bytes")]
    Truncated {
        /// What it is.
        what: String,
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// The network failed.
    #[error("could not reach {host}")]
    Network {
        /// Whom.
        host: String,
        /// What happened.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl RegistryError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Whether it was refused for security.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Digest { .. } | Self::TooLarge { .. } | Self::Document(_) | Self::Insecure { .. }
        )
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<HttpError> for RegistryError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Network { host, source } => Self::Network { host, source },
            other @ (HttpError::Address { .. }
            | HttpError::PlainHttp { .. }
            | HttpError::Forbidden { .. }
            | HttpError::Certificate { .. }
            | HttpError::Redirects { .. }) => Self::Insecure { reason: other.to_string() },
        }
    }
}
