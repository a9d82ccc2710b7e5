//! Fetching what may be the signatures of an image.
//!
//! ```text
//!  NAME:sha256-<hex>.sig ───► manifest ─► layers: simple signing, signature in an annotation
//!  referrers.rs ────────────► manifests ─► the same layers, or Sigstore bundles
//! ```
//! cosign, `specs/SIGNATURE_SPEC.md` and `specs/BUNDLE_SPEC.md`.

use std::collections::BTreeMap;

use bennu_manifests::model::{Digest, ImageRef};
use serde::Deserialize;

use super::client::{Client, Repository};
use super::document::{self, MANIFEST_TYPES};
use super::error::RegistryError;
use super::referrers::{self, Referrer};
use crate::cosign::{BUNDLE_MEDIA_TYPE, Candidate, MAX_BUNDLE, MAX_CANDIDATES, MAX_PAYLOAD};

/// The media type of a simple-signing payload.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature over it, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// The type of a referrer whose layers are simple-signing payloads.
const SIGNATURE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// A manifest, as far as it says where signatures are.
#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Client {
    /// Everything in the image's repository that may be a signature of it, at most [`MAX_CANDIDATES`]; an image that
    /// nobody signed has none. A candidate that is damaged or missing is passed over, for it proves nothing.
    ///
    /// # Errors
    /// [`RegistryError`], where the registry cannot be asked.
    pub async fn signatures(&self, image: &ImageRef) -> Result<Vec<Candidate>, RegistryError> {
        let repository = Repository { registry: image.registry.clone(), name: image.repository.clone() };
        let tag = format!("{}.sig", referrers::tag(&image.digest));
        let mut candidates = Vec::new();
        if let Some(served) = there(self.document(&repository, &tag, None, None).await)? {
            self.collect(&repository, &served.bytes, &served.media_type, &mut candidates).await?;
        }
        let referrers = there(self.referrers(&repository, &image.digest).await)?.unwrap_or_default();
        for referrer in referrers.into_iter().filter(is_signature).take(MAX_CANDIDATES) {
            if candidates.len() >= MAX_CANDIDATES {
                break;
            }
            if let Some(served) = there(self.manifest(&repository, &referrer.digest).await)? {
                self.collect(&repository, &served.bytes, &served.media_type, &mut candidates).await?;
            }
        }
        Ok(candidates)
    }

    /// Adds the signatures that are layers of one manifest.
    async fn collect(
        &self,
        repository: &Repository,
        bytes: &[u8],
        media_type: &str,
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), RegistryError> {
        // The strict reader first: a document with two meanings has none here.
        if !MANIFEST_TYPES.contains(&media_type) || document::parse(bytes, Some(media_type)).is_err() {
            return Ok(());
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes) else { return Ok(()) };
        for layer in manifest.layers {
            if candidates.len() >= MAX_CANDIDATES {
                break;
            }
            let signature = layer.annotations.get(SIGNATURE);
            let limit = match (layer.media_type.as_str(), signature) {
                (SIMPLE_SIGNING, Some(_)) => MAX_PAYLOAD,
                (bundle, None) if bundle.starts_with(BUNDLE_MEDIA_TYPE) => MAX_BUNDLE,
                _ => continue,
            };
            if layer.size > limit as u64 {
                continue;
            }
            let Some(bytes) = there(self.small_blob(repository, &layer.digest, layer.size).await)? else {
                continue;
            };
            candidates.push(match signature {
                Some(signature) => Candidate::Simple { payload: bytes, signature: signature.clone() },
                None => Candidate::Bundle(bytes),
            });
        }
        Ok(())
    }
}

/// Whether a referrer says to be a signature.
fn is_signature(referrer: &Referrer) -> bool {
    let kind = referrer.artifact_type.as_str();
    kind == SIGNATURE_ARTIFACT || kind.starts_with(BUNDLE_MEDIA_TYPE)
}

/// What was asked for, or nothing where it is missing or not what it should be: it proves nothing then, and must not
/// stand in the way of what proves something.
fn there<T>(asked: Result<T, RegistryError>) -> Result<Option<T>, RegistryError> {
    match asked {
        Ok(value) => Ok(Some(value)),
        Err(RegistryError::NotFound { .. }) => Ok(None),
        Err(
            error @ (RegistryError::Digest { .. }
            | RegistryError::TooLarge { .. }
            | RegistryError::Document(_)),
        ) => {
            tracing::warn!(%error, "a signature is passed over");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
