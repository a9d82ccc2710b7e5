//! Fetching what may be the signatures of an image.
//!
//! ```text
//!  NAME:sha256-<hex>.sig ─────────────► manifest ─► layers: simple signing, signature in an annotation
//!  /v2/NAME/referrers/sha256:<hex> ───► index ────► manifests ─► the same layers, or Sigstore bundles
//!   (or NAME:sha256-<hex> where the registry has no such endpoint)
//! ```
//! cosign, `specs/SIGNATURE_SPEC.md` and `specs/BUNDLE_SPEC.md`; distribution specification 1.1, "Listing Referrers" and
//! "Referrers Tag Schema".

use std::collections::BTreeMap;

use bennu_manifests::model::{Digest, ImageRef};
use serde::Deserialize;

use super::client::{Client, MAX_DOCUMENT, Repository};
use super::document::{self, INDEX_TYPES, MANIFEST_TYPES};
use super::error::RegistryError;
use super::mirror::Place;
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

/// A list of referrers.
#[derive(Deserialize)]
struct Referrers {
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    digest: Digest,
    #[serde(default)]
    artifact_type: String,
}

impl Client {
    /// Everything in the image's repository that may be a signature of it, at most [`MAX_CANDIDATES`]; an image that
    /// nobody signed has none. A candidate that is damaged or missing is passed over, for it proves nothing.
    ///
    /// # Errors
    /// [`RegistryError`], where the registry cannot be asked.
    pub async fn signatures(&self, image: &ImageRef) -> Result<Vec<Candidate>, RegistryError> {
        let repository = Repository { registry: image.registry.clone(), name: image.repository.clone() };
        let tag = image.digest.to_string().replace(':', "-");
        let mut candidates = Vec::new();
        if let Some(served) = there(self.document(&repository, &format!("{tag}.sig"), None, None).await)? {
            self.collect(&repository, &served.bytes, &served.media_type, &mut candidates).await?;
        }
        for referrer in self.referrers(&repository, &image.digest, &tag).await? {
            if candidates.len() >= MAX_CANDIDATES {
                break;
            }
            if let Some(served) = there(self.manifest(&repository, &referrer).await)? {
                self.collect(&repository, &served.bytes, &served.media_type, &mut candidates).await?;
            }
        }
        Ok(candidates)
    }

    /// The digests of manifests that refer to the image and are signatures by their type.
    async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        tag: &str,
    ) -> Result<Vec<Digest>, RegistryError> {
        let listed = self
            .retrying(|| async {
                let response = self
                    .get(&Place::own(repository), &format!("referrers/{digest}"), &[INDEX_TYPES[0]])
                    .await?;
                let what = || format!("the referrers of {digest}");
                response
                    .bytes(MAX_DOCUMENT)
                    .await?
                    .ok_or_else(|| RegistryError::TooLarge { what: what(), limit: MAX_DOCUMENT as u64 })
            })
            .await;
        let bytes = match listed {
            Ok(bytes) => bytes,
            // Registries that do not know the endpoint say so in several ways; a list may be kept under a tag then.
            Err(RegistryError::NotFound { .. } | RegistryError::Status { status: 400..=499, .. }) => {
                match there(self.document(repository, tag, None, None).await)? {
                    Some(served) => served.bytes,
                    None => return Ok(Vec::new()),
                }
            }
            Err(error) => return Err(error),
        };
        // What is no list names nothing; an image may happen to have such a tag.
        let Ok(referrers) = serde_json::from_slice::<Referrers>(&bytes) else { return Ok(Vec::new()) };
        let wanted = |referrer: &Referrer| {
            referrer.artifact_type == SIGNATURE_ARTIFACT
                || referrer.artifact_type.starts_with(BUNDLE_MEDIA_TYPE)
        };
        Ok(referrers.manifests.into_iter().filter(wanted).map(|r| r.digest).take(MAX_CANDIDATES).collect())
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
