//! Which images must be signed, by whom, and whether they are.
//!
//! A policy comes from `[image-policy."HOST/REPO-PREFIX"]` of a manifest and names keys of the trust document. Of several
//! policies the one with the longest prefix counts, alone.
//!
//! [`require`] asks a registry and decides; [`decide`] is the pure half of it.

mod declared;

use std::collections::BTreeSet;

use bennu_manifests::model::ImageRef;

pub use declared::{PolicyError, declared};

use crate::cosign::{Candidate, NamedKey, Unfit, can_sign_images, signers};
use crate::registry::{Client, RegistryError};

/// The most keys that one policy names.
pub const MAX_KEYS: usize = 64;

/// Images below `prefix` must be signed by `threshold` of `keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    prefix: String,
    keys: Vec<NamedKey>,
    threshold: usize,
}

/// A policy that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAPolicy {
    /// The prefix is none.
    #[error(
        "'{prefix}' is no prefix of images: HOST[:PORT], and then as many parts of a repository as you like"
    )]
    Prefix {
        /// What stands in its place.
        prefix: String,
    },
    /// A key that can sign no image.
    #[error(
        "the key '{name}' is a security key, which cannot sign images; name an ed25519 or ecdsa-p256 key"
    )]
    Key {
        /// The name of the key.
        name: String,
    },
    /// Fewer than 1 or more than [`MAX_KEYS`] keys.
    #[error("a policy has 1 to {MAX_KEYS} keys, and this one {found}")]
    Keys {
        /// How many there are.
        found: usize,
    },
    /// Nothing could ever, or anything would, reach the threshold.
    #[error(
        "the threshold is {threshold}, and there are {distinct} distinct keys: it has to be 1 to {distinct}"
    )]
    Threshold {
        /// What it is.
        threshold: usize,
        /// Distinct keys.
        distinct: usize,
    },
}

impl Policy {
    /// A policy for images below `prefix`: `HOST[:PORT]`, or with whole parts of a repository name behind it.
    ///
    /// # Errors
    /// [`NotAPolicy`]
    pub fn new(prefix: &str, keys: Vec<NamedKey>, threshold: usize) -> Result<Self, NotAPolicy> {
        // What can stand before `/x` in a reference, and nothing that would be read as its tag or digest.
        let reference = format!("{prefix}/x").parse::<bennu_manifests::UnpinnedRef>();
        let whole =
            reference.is_ok_and(|r| format!("{}/{}", r.registry, r.repository) == format!("{prefix}/x"));
        if !whole {
            return Err(NotAPolicy::Prefix { prefix: crate::registry::document::shown(prefix) });
        }
        if !(1..=MAX_KEYS).contains(&keys.len()) {
            return Err(NotAPolicy::Keys { found: keys.len() });
        }
        if let Some(key) = keys.iter().find(|key| !can_sign_images(&key.key)) {
            return Err(NotAPolicy::Key { name: key.name.clone() });
        }
        let distinct = keys.iter().map(|key| key.key.material()).collect::<BTreeSet<_>>().len();
        if !(1..=distinct).contains(&threshold) {
            return Err(NotAPolicy::Threshold { threshold, distinct });
        }
        Ok(Self { prefix: prefix.to_owned(), keys, threshold })
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is about this image: its prefix is the whole name, or ends where a part of the name does.
    pub fn covers(&self, image: &ImageRef) -> bool {
        covers(&self.prefix, image)
    }
}

/// Whether a policy with this prefix is about an image; see [`Policy::covers`].
pub fn covers(prefix: &str, image: &ImageRef) -> bool {
    let name = format!("{}/{}", image.registry, image.repository);
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The policy that counts for an image; `None` where it needs no signature.
pub fn governing<'p>(policies: &'p [Policy], image: &ImageRef) -> Option<&'p Policy> {
    policies.iter().filter(|policy| policy.covers(image)).max_by_key(|policy| policy.prefix.len())
}

/// Why an image may not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequireError {
    /// Refused: too few of the keys signed it.
    #[error(
        "{image} needs the signatures of {threshold} of the keys for {prefix}, and has {}{}",
        .signers.len(), reasons(.unfit)
    )]
    NotSigned {
        /// The image.
        image: Box<ImageRef>,
        /// The prefix of the policy.
        prefix: String,
        /// How many keys must have signed.
        threshold: usize,
        /// The names of those that did.
        signers: BTreeSet<String>,
        /// Why other signatures do not count.
        unfit: Vec<Unfit>,
    },
    /// The signatures could not be fetched.
    #[error("look for the signatures of {image}")]
    Registry {
        /// The image.
        image: Box<ImageRef>,
        /// What happened.
        source: RegistryError,
    },
}

impl RequireError {
    /// Whether it was refused for security.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NotSigned { .. } => true,
            Self::Registry { source, .. } => source.is_refusal(),
        }
    }

    /// Whether it may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Registry { source, .. } if source.is_retryable())
    }
}

/// The first reasons, for a message.
fn reasons(unfit: &[Unfit]) -> String {
    let mut shown: Vec<String> = unfit.iter().take(3).map(Unfit::to_string).collect();
    if unfit.len() > shown.len() {
        shown.push(format!("and {} more", unfit.len() - shown.len()));
    }
    if shown.is_empty() { String::new() } else { format!(" ({})", shown.join("; ")) }
}

/// Whether enough of the policy's keys signed the image; the names of those that did.
///
/// # Errors
/// [`RequireError::NotSigned`]
pub fn decide(
    policy: &Policy,
    image: &ImageRef,
    candidates: &[Candidate],
) -> Result<BTreeSet<String>, RequireError> {
    let found = signers(image, candidates, &policy.keys);
    if found.names.len() >= policy.threshold {
        return Ok(found.names);
    }
    Err(RequireError::NotSigned {
        image: Box::new(image.clone()),
        prefix: policy.prefix.clone(),
        threshold: policy.threshold,
        signers: found.names,
        unfit: found.unfit,
    })
}

/// To be called before an image is pulled: decides, where a policy covers it, by the signatures that are `kept` of it, and where they
/// do not suffice by those that its registry has. Gives back who signed; nobody had to where no policy covers it.
///
/// # Errors
/// [`RequireError`]
pub async fn require(
    client: &Client,
    policies: &[Policy],
    image: &ImageRef,
    kept: &[Candidate],
) -> Result<BTreeSet<String>, RequireError> {
    let Some(policy) = governing(policies, image) else { return Ok(BTreeSet::new()) };
    if let Ok(signers) = decide(policy, image, kept) {
        return Ok(signers);
    }
    let candidates = client
        .signatures(image)
        .await
        .map_err(|source| RequireError::Registry { image: Box::new(image.clone()), source })?;
    decide(policy, image, &candidates)
}
