//! SSH signatures over files, as `ssh-keygen -Y sign` makes them (OpenSSH, PROTOCOL.sshsig).

use crate::armour::{BadArmour, read_armours};
use crate::crypto;
use crate::key::{ECDSA_P256, ED25519, Kind, PublicKey, SK_ECDSA_P256, SK_ED25519};
use crate::wire::{Malformed, Reader, put_string};

/// The namespace of signatures over manifests: `ssh-keygen -Y sign -n bennu-manifest`.
pub const MANIFEST_NAMESPACE: &str = "bennu-manifest";
/// The namespace of signatures over trust documents.
pub const TRUST_NAMESPACE: &str = "bennu-trust";

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const HASH: &[u8] = b"sha512";
/// The longest namespace that is kept, in bytes; ours are far shorter.
const MAX_NAMESPACE: usize = 64;
/// User presence and user verification (FIDO, "WebAuthn", section 6.1, authenticator data flags).
const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;

/// One signature. What it says about itself is not to be relied on before [`verify_signature`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSignature {
    key: PublicKey,
    namespace: String,
    scheme: Scheme,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    Plain([u8; 64]),
    /// A hardware token signs its own flags and counter besides.
    Token {
        signature: [u8; 64],
        flags: u8,
        counter: u32,
    },
}

/// A file of signatures that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSignatureFile {
    /// The armour is not exact.
    #[error(transparent)]
    Armour(#[from] BadArmour),
    /// What the armour holds is no signature of a kind that is taken.
    #[error("signature {number} of the file is damaged or of a kind that is not taken: {what}")]
    Content {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Why a signature does not hold. Which of them it is matters to people only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSignature {
    /// Made by another key.
    #[error("the signature was made by another key")]
    OtherKey,
    /// Made for another purpose.
    #[error("the signature was made for '{namespace}', not for '{expected}'")]
    Namespace {
        /// The namespace it was made for.
        namespace: String,
        /// The one that is needed.
        expected: String,
    },
    /// The token signed without anybody touching it.
    #[error("the hardware token signed without a touch of its user")]
    NoUserPresence,
    /// The arithmetic says no: other bytes were signed, or it was made up.
    #[error("the signature does not fit these bytes")]
    Mismatch,
}

impl SshSignature {
    /// Every signature in a `FILE.sig`, in order; none where the file is empty.
    pub fn read_file(file: &[u8]) -> Result<Vec<Self>, BadSignatureFile> {
        let blobs = read_armours(file)?;
        let numbered = blobs.iter().zip(1..);
        numbered
            .map(|(blob, number)| {
                Self::from_wire(blob).map_err(|what| BadSignatureFile::Content { number, what })
            })
            .collect()
    }

    /// The key that it says it was made by.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The purpose that it says it was made for.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn from_wire(blob: &[u8]) -> Result<Self, &'static str> {
        let cut = |Malformed| "it is cut short";
        let mut reader = Reader(blob);
        if reader.take(MAGIC.len()).map_err(cut)? != MAGIC || reader.number().map_err(cut)? != VERSION {
            return Err("it is not version 1 of SSHSIG");
        }
        let key =
            PublicKey::from_wire(reader.string().map_err(cut)?).map_err(|_| "its key cannot be used")?;
        let namespace = reader.string().map_err(cut)?;
        let namespace = std::str::from_utf8(namespace)
            .ok()
            .filter(|text| {
                (1..=MAX_NAMESPACE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
            })
            .ok_or("its namespace is not plain text")?;
        // The format says to ignore what is reserved; a signature that uses it is from a version we do not know.
        reader.expect(b"").map_err(|Malformed| "its reserved field is not empty")?;
        reader.expect(HASH).map_err(|Malformed| "its hash is not sha512")?;
        let scheme = reader.string().map_err(cut)?;
        reader.end().map_err(|Malformed| "there is more after its end")?;
        let scheme = Scheme::from_wire(scheme, &key)
            .map_err(|Malformed| "its inner signature is not one of its key")?;
        Ok(Self { key, namespace: namespace.to_owned(), scheme })
    }
}

impl Scheme {
    fn from_wire(wire: &[u8], key: &PublicKey) -> Result<Self, Malformed> {
        let mut reader = Reader(wire);
        let scheme = match key.kind() {
            Kind::Ed25519(_) => {
                reader.expect(ED25519.as_bytes())?;
                Self::Plain(reader.array()?)
            }
            Kind::SkEd25519(..) => {
                reader.expect(SK_ED25519.as_bytes())?;
                let signature = reader.array()?;
                Self::token(signature, &mut reader)?
            }
            Kind::EcdsaP256(_) => {
                reader.expect(ECDSA_P256.as_bytes())?;
                Self::Plain(two_numbers(reader.string()?)?)
            }
            Kind::SkEcdsaP256(..) => {
                reader.expect(SK_ECDSA_P256.as_bytes())?;
                let signature = two_numbers(reader.string()?)?;
                Self::token(signature, &mut reader)?
            }
        };
        reader.end()?;
        Ok(scheme)
    }

    /// The flags and the counter that follow a hardware token's signature.
    fn token(signature: [u8; 64], reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let [flags] = *reader.take(1)? else { return Err(Malformed) };
        // Further bits announce further data, which OpenSSH does not carry.
        if flags & !(USER_PRESENT | USER_VERIFIED) != 0 {
            return Err(Malformed);
        }
        Ok(Self::Token { signature, flags, counter: reader.number()? })
    }
}

/// `r` and `s` of an ECDSA signature (RFC 5656, section 3.1.2), each padded to 32 bytes.
fn two_numbers(wire: &[u8]) -> Result<[u8; 64], Malformed> {
    let mut numbers = Reader(wire);
    let mut both = [0; 64];
    both[..32].copy_from_slice(&numbers.positive::<32>()?);
    both[32..].copy_from_slice(&numbers.positive::<32>()?);
    numbers.end()?;
    Ok(both)
}

/// Whether `sig` was made by `key`, for `namespace`, over exactly `message`.
///
/// # Errors
///
/// The reason why not, for people; to a program all of them mean "no".
pub fn verify_signature(
    key: &PublicKey,
    namespace: &str,
    message: &[u8],
    sig: &SshSignature,
) -> Result<(), BadSignature> {
    if sig.key != *key {
        return Err(BadSignature::OtherKey);
    }
    if sig.namespace != namespace {
        let (namespace, expected) = (sig.namespace.clone(), namespace.to_owned());
        return Err(BadSignature::Namespace { namespace, expected });
    }
    if matches!(sig.scheme, Scheme::Token { flags, .. } if flags & USER_PRESENT == 0) {
        return Err(BadSignature::NoUserPresence);
    }
    if holds(key, &sig.scheme, &signed_data(namespace, message)) {
        Ok(())
    } else {
        Err(BadSignature::Mismatch)
    }
}

/// The arithmetic: whether `scheme` is a signature by `key` over `signed`.
fn holds(key: &PublicKey, scheme: &Scheme, signed: &[u8]) -> bool {
    match (key.kind(), scheme) {
        (Kind::Ed25519(point), Scheme::Plain(signature)) => crypto::ed25519_holds(point, signed, signature),
        (Kind::EcdsaP256(point), Scheme::Plain(signature)) => crypto::p256_holds(point, signed, signature),
        (Kind::SkEd25519(point, application), Scheme::Token { signature, flags, counter }) => {
            crypto::ed25519_holds(point, &token_data(application, *flags, *counter, signed), signature)
        }
        (Kind::SkEcdsaP256(point, application), Scheme::Token { signature, flags, counter }) => {
            crypto::p256_holds(point, &token_data(application, *flags, *counter, signed), signature)
        }
        _ => unreachable!("a signature is read by the type of its key"),
    }
}

/// What an SSH signature signs (PROTOCOL.sshsig, "Signed Data, of which the signature goes into the blob above").
fn signed_data(namespace: &str, message: &[u8]) -> Vec<u8> {
    let mut signed = MAGIC.to_vec();
    put_string(&mut signed, namespace.as_bytes());
    put_string(&mut signed, b"");
    put_string(&mut signed, HASH);
    put_string(&mut signed, &crypto::sha512(message));
    signed
}

/// What a hardware token signs when it is asked to sign `signed` (PROTOCOL.u2f, "SSH U2F signatures").
///
/// The counter is covered by the signature, so nobody but the token can change it; whether it grew is not asked, since a
/// host sees only some of the signatures that a token makes.
fn token_data(application: &[u8], flags: u8, counter: u32, signed: &[u8]) -> Vec<u8> {
    let mut asked = crypto::sha256(&[application]).to_vec();
    asked.push(flags);
    asked.extend_from_slice(&counter.to_be_bytes());
    asked.extend_from_slice(&crypto::sha256(&[signed]));
    asked
}

#[cfg(test)]
mod wycheproof;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::armour::armour;
    use crate::crypto::TestKey;

    const APPLICATION: &[u8] = b"ssh:";

    /// The public key of a hardware token.
    fn token_key(secret: &TestKey) -> PublicKey {
        let mut wire = Vec::new();
        put_string(&mut wire, SK_ED25519.as_bytes());
        put_string(&mut wire, &secret.public());
        put_string(&mut wire, APPLICATION);
        PublicKey::from_wire(&wire).expect("a key")
    }

    /// A signature file as a hardware token and OpenSSH make it. `signed_flags` are those that the token signed,
    /// `flags` those that stand in the file.
    fn token_file(secret: &TestKey, signed_flags: u8, flags: u8, hash: &[u8], reserved: &[u8]) -> Vec<u8> {
        let asked = token_data(APPLICATION, signed_flags, 7, &signed_data(MANIFEST_NAMESPACE, b"message"));
        let mut inner = Vec::new();
        put_string(&mut inner, SK_ED25519.as_bytes());
        put_string(&mut inner, &secret.sign(&asked));
        inner.push(flags);
        inner.extend_from_slice(&7u32.to_be_bytes());
        let mut blob = [MAGIC, &VERSION.to_be_bytes()].concat();
        put_string(&mut blob, &token_key(secret).to_wire());
        put_string(&mut blob, MANIFEST_NAMESPACE.as_bytes());
        put_string(&mut blob, reserved);
        put_string(&mut blob, hash);
        put_string(&mut blob, &inner);
        armour(&blob).into_bytes()
    }

    fn verify_token(signed_flags: u8, flags: u8) -> Result<(), BadSignature> {
        let secret = TestKey::from_seed([7; 32]);
        let file = token_file(&secret, signed_flags, flags, HASH, b"");
        let [sig] = &SshSignature::read_file(&file).expect("it is sound")[..] else {
            panic!("one signature")
        };
        verify_signature(&token_key(&secret), MANIFEST_NAMESPACE, b"message", sig)
    }

    #[test]
    fn a_hardware_token_counts_only_when_its_user_touched_it() {
        assert_eq!(verify_token(USER_PRESENT, USER_PRESENT), Ok(()));
        assert_eq!(verify_token(USER_PRESENT | USER_VERIFIED, USER_PRESENT | USER_VERIFIED), Ok(()));
        assert_eq!(verify_token(0, 0), Err(BadSignature::NoUserPresence));
        assert_eq!(verify_token(USER_VERIFIED, USER_VERIFIED), Err(BadSignature::NoUserPresence));
        // Nor when the flag was put there by somebody else than the token.
        assert_eq!(verify_token(0, USER_PRESENT), Err(BadSignature::Mismatch));
    }

    #[test]
    fn fields_that_are_not_understood_are_refused() {
        let secret = TestKey::from_seed([7; 32]);
        assert!(SshSignature::read_file(&token_file(&secret, 1, 1, HASH, b"")).is_ok());
        for (file, what) in [
            (token_file(&secret, 1, 1, b"sha256", b""), "another hash"),
            (token_file(&secret, 1, 1, HASH, b"x"), "the reserved field used"),
            (token_file(&secret, 0x81, 0x81, HASH, b""), "extension data announced"),
        ] {
            assert!(
                matches!(SshSignature::read_file(&file), Err(BadSignatureFile::Content { .. })),
                "{what}"
            );
        }
    }
}
