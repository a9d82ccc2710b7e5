//! Sigstore bundles with a DSSE envelope, as cosign 3 attaches them.
//!
//! Sigstore `protobuf-specs`, `sigstore_bundle.proto` in its JSON form; DSSE, `protocol.md`; in-toto attestation
//! framework, `spec/v1/statement.md`.

use bennu_manifests::model::ImageRef;
use serde::Deserialize;

use super::{MAX_BUNDLE, NamedKey, Unfit, holders};
use crate::registry::document::shown;

/// How the media types of bundles begin, in a referrer and in the bundle itself.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";
/// What the envelope has to hold.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The version of the statement.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// What the statement has to be about; provenance, SBOMs and the like are statements too, and sign nothing off.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// The most signatures of one envelope.
const MAX_SIGNATURES: usize = 16;
/// The most subjects of one statement.
const MAX_SUBJECTS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}

/// The keys that signed this bundle, where it is about `image`.
pub(super) fn signed_by<'k>(
    image: &ImageRef,
    bytes: &[u8],
    keys: &'k [NamedKey],
) -> Result<Vec<&'k NamedKey>, Unfit> {
    use base64::prelude::{BASE64_STANDARD, Engine};
    if bytes.len() > MAX_BUNDLE {
        return Err(Unfit::TooLarge { limit: MAX_BUNDLE });
    }
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(Unfit::malformed)?;
    if !bundle.media_type.starts_with(MEDIA_TYPE) {
        return Err(Unfit::Purpose { found: shown(&bundle.media_type) });
    }
    // A bundle may hold a bare signature over a file instead.
    let envelope = bundle.dsse_envelope.ok_or_else(|| Unfit::malformed("the bundle has no envelope"))?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(Unfit::Purpose { found: shown(&envelope.payload_type) });
    }
    let payload = BASE64_STANDARD.decode(&envelope.payload).map_err(Unfit::malformed)?;
    let message = pre_authentication_encoding(&envelope.payload_type, &payload);
    let mut by: Vec<&NamedKey> = Vec::new();
    let mut last = Unfit::malformed("the envelope has no signature");
    for signature in envelope.signatures.iter().take(MAX_SIGNATURES) {
        match holders(keys, &message, &signature.sig) {
            Ok(holders) => by.extend(holders),
            Err(unfit) => last = unfit,
        }
    }
    if by.is_empty() {
        return Err(last);
    }
    let statement: Statement = serde_json::from_slice(&payload).map_err(Unfit::malformed)?;
    if statement.kind != STATEMENT {
        return Err(Unfit::Purpose { found: shown(&statement.kind) });
    }
    if statement.predicate_type != PREDICATE {
        return Err(Unfit::Purpose { found: shown(&statement.predicate_type) });
    }
    let wanted = image.digest.to_string();
    let mut digests =
        statement.subject.iter().take(MAX_SUBJECTS).filter_map(|subject| subject.digest.sha256.as_deref());
    if digests.clone().any(|digest| wanted.strip_prefix("sha256:") == Some(digest)) {
        return Ok(by);
    }
    let found = digests.next().map_or_else(|| "nowhere".to_owned(), |digest| format!("sha256:{digest}"));
    Err(Unfit::OtherImage { found: shown(&found) })
}

/// What is signed in place of the payload (DSSE, `protocol.md`, "PAE").
pub(super) fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}
