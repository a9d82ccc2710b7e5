//! Whether a signature holds. `ring`'s signatures are named here and nowhere else in this crate.

use bennu_manifests::PublicKey;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};

/// Whether keys of this type can sign images. Security keys (`sk-…`) cannot: what they sign is not the message itself.
pub(crate) fn can_sign_images(key: &PublicKey) -> bool {
    matches!(key.key_type(), "ssh-ed25519" | "ecdsa-sha2-nistp256")
}

/// Whether `signature` is by `key` over `message`: Ed25519 (RFC 8032, PureEdDSA) in its 64 bytes, or ECDSA on P-256 over
/// SHA-256 in DER (RFC 3279, section 2.2.3), as Sigstore's libraries make them.
pub(super) fn holds(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    match key.key_type() {
        "ssh-ed25519" => UnparsedPublicKey::new(&ED25519, key.material()).verify(message, signature).is_ok(),
        "ecdsa-sha2-nistp256" => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.material()).verify(message, signature).is_ok()
        }
        _ => false,
    }
}
