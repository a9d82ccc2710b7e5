//! Signatures of images, in the form that `cosign` and `skopeo` write them; decided from bytes alone.
//!
//! ```text
//!  registry::Client::signatures(image) ──► [Candidate] ─┐
//!  keys of the trust document ──────────────────────────┼─► signers() ──► names of distinct keys ──► policy::decide()
//!  HOST/NAME and digest of the image ───────────────────┘                 and why others do not count
//! ```
//! Two forms are read, and what they say has to be about exactly this image:
//! - *simple signing* (containers/image, `containers-signature(5)`; cosign, `specs/SIGNATURE_SPEC.md`): a small JSON
//!   document names the repository and the digest; the signature over its bytes stands in an annotation beside it;
//! - a *Sigstore bundle* with a DSSE envelope (cosign 3): an in-toto statement names the digest. It does not name a
//!   repository, so it holds wherever the same bytes are served.
//!
//! Keys are Ed25519 and ECDSA on P-256. What transparency logs and certificates say is not looked at: trust comes from
//! the keys of the trust document and from nothing else.
//!
//! **Invariants:** a payload is parsed only after a trusted key's signature over it holds; no candidate can take away
//! from what another one proves; distinct keys are counted, not signatures or names.

mod arithmetic;
mod bundle;
mod payload;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bennu_manifests::PublicKey;
use bennu_manifests::model::ImageRef;
use serde::{Deserialize, Serialize};

use crate::registry::document::shown;

pub(crate) use arithmetic::can_sign_images;
pub(crate) use bundle::MEDIA_TYPE as BUNDLE_MEDIA_TYPE;

/// The largest payload of a simple signature, in bytes; cosign writes some 250, and what its user annotates.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// The largest Sigstore bundle, in bytes; with a log entry and its proof they have about 10 kB.
pub const MAX_BUNDLE: usize = 256 << 10;
/// The longest signature, in bytes of base64; ECDSA on P-256 takes 96.
pub const MAX_SIGNATURE: usize = 1024;
/// The most signatures of one image that are looked at, the oldest first.
pub const MAX_CANDIDATES: usize = 64;

/// Something that may be a signature of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidate {
    /// A simple-signing payload and the signature over its bytes.
    Simple {
        /// The exact bytes.
        #[serde(with = "in_base64")]
        payload: Vec<u8>,
        /// In base64.
        signature: String,
    },
    /// A Sigstore bundle, as JSON.
    Bundle(#[serde(with = "in_base64")] Vec<u8>),
}

/// Exact bytes in JSON.
mod in_base64 {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        STANDARD.encode(bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// A key and what the trust document calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedKey {
    /// Its name.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

/// Who signed an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signers {
    /// The names of the keys that did, each key once, in the order of the names.
    pub names: BTreeSet<String>,
    /// Why other candidates do not count, in their order.
    pub unfit: Vec<Unfit>,
}

/// Why a candidate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It is too large to be looked at.
    #[error("a signature is larger than {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// It is not of its form.
    #[error("a signature is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// No trusted key made it, or its payload was changed.
    #[error("a signature is by none of the keys")]
    Stranger,
    /// A trusted key signed something, but not an image.
    #[error("a signature is for something else than an image: '{found}'")]
    Purpose {
        /// What it says to be.
        found: String,
    },
    /// A trusted key signed another image.
    #[error("a signature is for the image {found}")]
    OtherImage {
        /// Its digest.
        found: String,
    },
    /// A trusted key signed this image for another repository.
    #[error("a signature is for the repository {found}")]
    OtherRepository {
        /// The one that it names.
        found: String,
    },
}

impl Unfit {
    fn malformed(reason: impl std::fmt::Display) -> Self {
        Self::Malformed { reason: shown(&reason.to_string()) }
    }
}

/// Which of `keys` signed `image`. Of more than [`MAX_CANDIDATES`] candidates the first are looked at.
pub fn signers(image: &ImageRef, candidates: &[Candidate], keys: &[NamedKey]) -> Signers {
    let mut found = Signers::default();
    let mut counted: BTreeSet<&[u8]> = BTreeSet::new();
    for candidate in candidates.iter().take(MAX_CANDIDATES) {
        let by = match candidate {
            Candidate::Simple { payload, signature } => payload::signed_by(image, payload, signature, keys),
            Candidate::Bundle(bytes) => bundle::signed_by(image, bytes, keys),
        };
        match by {
            Ok(by) => {
                for key in by {
                    if counted.insert(key.key.material()) {
                        found.names.insert(key.name.clone());
                    }
                }
            }
            Err(unfit) => found.unfit.push(unfit),
        }
    }
    found
}

/// The keys by which `signature`, in base64, holds over `message`; at least one.
fn holders<'k>(keys: &'k [NamedKey], message: &[u8], signature: &str) -> Result<Vec<&'k NamedKey>, Unfit> {
    use base64::prelude::{BASE64_STANDARD, Engine};
    if signature.len() > MAX_SIGNATURE {
        return Err(Unfit::TooLarge { limit: MAX_SIGNATURE });
    }
    let signature = BASE64_STANDARD.decode(signature.trim_ascii()).map_err(Unfit::malformed)?;
    let holders: Vec<_> =
        keys.iter().filter(|key| arithmetic::holds(&key.key, message, &signature)).collect();
    if holders.is_empty() { Err(Unfit::Stranger) } else { Ok(holders) }
}
