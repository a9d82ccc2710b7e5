//! Bundles: a manifest, its signatures and its images in one `oci-archive` (`docs/image-files.md`, "Bundles").

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;
use bennu_manifests::{MAX_DOCUMENT, MAX_SIGNATURE_FILE};

use super::{ArtifactError, Files, Part};
use crate::Fault;
use crate::cosign::Candidate;

/// The annotation of an index that says that it is a bundle's, and of which version.
pub const BUNDLE: &str = "dev.bennu.bundle";
/// The one version that there is.
pub const BUNDLE_VERSION: &str = "1";
/// The type of the artifact with the manifest, and of its first part.
pub const MANIFEST_TYPE: &str = "application/vnd.bennu.manifest.v1+toml";
/// The type of its second part, the signatures.
pub const SIGNATURES_TYPE: &str = "application/vnd.bennu.signatures.v1";
/// The type of the artifact with the signatures of images; each part is titled with the digest of its image.
pub const IMAGE_SIGNATURES_TYPE: &str = "application/vnd.bennu.image-signatures.v1+json";

/// A manifest with its signatures, neither of them checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    /// The manifest, at most [`MAX_DOCUMENT`] bytes.
    pub manifest: Vec<u8>,
    /// What its `.sig` file holds, at most [`MAX_SIGNATURE_FILE`] bytes.
    pub signatures: Vec<u8>,
}

/// Why something of a bundle cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The artifact that has it cannot be read.
    #[error("the artifact with {what} cannot be read")]
    Artifact {
        /// What is in it.
        what: &'static str,
        /// Why.
        source: ArtifactError,
    },
    /// A part is not there, too large, or there twice.
    #[error("it has not one {kind} of at most {max} bytes")]
    Part {
        /// The media type of the part.
        kind: &'static str,
        /// Bytes that are taken.
        max: usize,
    },
    /// What should be signatures of images is something else.
    #[error("it has signatures of images that are none")]
    ImageSignatures,
}

impl BundleError {
    /// What kind of failure it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Artifact { source: ArtifactError::Digest(_), .. } => Fault::Refused,
            Self::Artifact { source: ArtifactError::Missing(_), .. } => Fault::Missing,
            Self::Artifact { source: ArtifactError::Read(_), .. } => Fault::Failed,
            _ => Fault::Invalid,
        }
    }
}

impl Files {
    /// The manifest of a bundle and its signatures, each with the digest that the bundle says, and nothing else checked. Blocks.
    ///
    /// # Errors
    /// [`BundleError`]
    pub fn signed_manifest(&self) -> Result<SignedManifest, BundleError> {
        let parts = self
            .artifact(MANIFEST_TYPE)
            .map_err(|source| BundleError::Artifact { what: "the manifest", source })?;
        let of = |kind: &'static str, max: usize| {
            let mut found = parts.iter().filter(|part| part.media_type == kind);
            match (found.next(), found.next()) {
                (Some(part), None) if part.bytes.len() <= max => Ok(part.bytes.clone()),
                _ => Err(BundleError::Part { kind, max }),
            }
        };
        Ok(SignedManifest {
            manifest: of(MANIFEST_TYPE, MAX_DOCUMENT)?,
            signatures: of(SIGNATURES_TYPE, MAX_SIGNATURE_FILE)?,
        })
    }

    /// What may be signatures of images, by the digest of the image; nothing where the files are no bundle, or its manifest asks for
    /// none. Blocks.
    ///
    /// # Errors
    /// [`BundleError`]
    pub fn image_signatures(&self) -> Result<BTreeMap<Digest, Vec<Candidate>>, BundleError> {
        let parts = match self.artifact(IMAGE_SIGNATURES_TYPE) {
            Err(ArtifactError::Number { found: 0, .. }) => return Ok(BTreeMap::new()),
            parts => {
                parts.map_err(|source| BundleError::Artifact { what: "the signatures of images", source })?
            }
        };
        let one = |part: Part| Some((part.title.parse().ok()?, serde_json::from_slice(&part.bytes).ok()?));
        parts.into_iter().map(one).collect::<Option<_>>().ok_or(BundleError::ImageSignatures)
    }
}
