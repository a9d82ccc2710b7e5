//! The arithmetic. `ring` is named here and nowhere else in this crate.

use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};

use crate::model::Digest;

impl Digest {
    /// The SHA-256 digest of `bytes` (FIPS 180-4).
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_bytes(sha256(&[bytes]))
    }
}

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// SHA-512 of `bytes`.
pub(crate) fn sha512(bytes: &[u8]) -> [u8; 64] {
    let digest = ring::digest::digest(&ring::digest::SHA512, bytes);
    digest.as_ref().try_into().expect("SHA-512 has 64 bytes")
}

/// Whether `signature` is that of `key` over `message` (RFC 8032, PureEdDSA).
pub(crate) fn ed25519_holds(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// Whether `signature`, `r` and `s` of 32 bytes each, is that of the uncompressed point `key` over the SHA-256 of
/// `message` (FIPS 186-4 on P-256).
pub(crate) fn p256_holds(key: &[u8; 65], message: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
}

/// A key for tests that need a signature no program on this machine makes, such as one of a hardware token.
#[cfg(test)]
pub(crate) struct TestKey(ring::signature::Ed25519KeyPair);

#[cfg(test)]
impl TestKey {
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes are a seed"))
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        use ring::signature::KeyPair;
        self.0.public_key().as_ref().try_into().expect("an Ed25519 key has 32 bytes")
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-4, the examples for "abc".
        let sha256 = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").to_string(), sha256);
        assert_eq!(super::sha256(&[b"a", b"bc"]), *Digest::of(b"abc").as_bytes());
        assert_eq!(sha512(b"abc")[..4], [0xdd, 0xaf, 0x35, 0xa1]);
    }
}
