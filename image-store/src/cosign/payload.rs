//! Simple signing: the payload and what it says (`containers-signature(5)`, "The JSON data format").

use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::ImageRef;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{MAX_PAYLOAD, NamedKey, Unfit, holders};
use crate::registry::document::shown;

/// What `critical.type` has to be (cosign, `specs/SIGNATURE_SPEC.md`, "Payloads").
const TYPE: &str = "cosign container image signature";
/// Names of one and the same registry, Docker Hub; the first is how it is compared.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Critical,
    /// Whatever its author likes; nothing here is decided by it.
    #[serde(default, rename = "optional")]
    _optional: IgnoredAny,
}

/// What is critical has to be understood as a whole, so a key that is not known is a refusal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The keys that signed this payload, where it is about `image`.
pub(super) fn signed_by<'k>(
    image: &ImageRef,
    payload: &[u8],
    signature: &str,
    keys: &'k [NamedKey],
) -> Result<Vec<&'k NamedKey>, Unfit> {
    if payload.len() > MAX_PAYLOAD {
        return Err(Unfit::TooLarge { limit: MAX_PAYLOAD });
    }
    let by = holders(keys, payload, signature)?;
    let Payload { critical, .. } = serde_json::from_slice(payload).map_err(Unfit::malformed)?;
    if critical.kind != TYPE {
        return Err(Unfit::Purpose { found: shown(&critical.kind) });
    }
    if critical.image.digest != image.digest.to_string() {
        return Err(Unfit::OtherImage { found: shown(&critical.image.digest) });
    }
    // cosign writes the repository alone, skopeo a tag too; the tag says nothing that the digest does not.
    let named: UnpinnedRef = critical.identity.reference.parse().map_err(Unfit::malformed)?;
    if (canonical(&named.registry), &named.repository) != (canonical(&image.registry), &image.repository) {
        return Err(Unfit::OtherRepository { found: shown(&critical.identity.reference) });
    }
    Ok(by)
}

fn canonical(registry: &str) -> &str {
    if DOCKER_HUB.contains(&registry) { DOCKER_HUB[0] } else { registry }
}
