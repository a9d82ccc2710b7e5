//! Files of public keys: a line of SSH, or PEM as `cosign generate-key-pair` and `openssl pkey -pubout` write it.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use bennu_manifests::{NotAPublicKey, PublicKey};

use crate::exit::Failure;
use crate::files;

/// The largest file, in bytes.
const MAX_FILE: usize = 4 << 10;
const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// What stands before the 32 bytes of an Ed25519 key (RFC 8410, section 4, in DER).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What stands before the uncompressed point of a key on P-256 (RFC 5480, section 2, in DER).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Text that holds no usable public key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAKeyFile {
    #[error("it is no PEM file of one PUBLIC KEY")]
    Pem,
    #[error("the PEM file holds another kind of key than ed25519 and ecdsa-p256")]
    Kind,
    #[error(transparent)]
    Key(#[from] NotAPublicKey),
}

/// The public key in the file that the user named.
pub(crate) fn read(path: &Path) -> Result<PublicKey, Failure> {
    let text = files::read_text(path, MAX_FILE)?;
    parse(&text).map_err(|error| {
        Failure::invalid(format!("{} is no public key", path.display())).because(error).advice(
            "keys are SSH public keys (ssh-ed25519, ecdsa-sha2-nistp256), or PEM files of these kinds",
        )
    })
}

/// The public key in `text`: PEM where it begins as such, else a line of SSH.
pub(crate) fn parse(text: &str) -> Result<PublicKey, NotAKeyFile> {
    match text.trim().strip_prefix(BEGIN) {
        Some(rest) => from_der(&pem_body(rest.strip_suffix(END).ok_or(NotAKeyFile::Pem)?)?),
        None => Ok(text.trim_end().parse()?),
    }
}

/// The bytes between the lines (RFC 7468), without the headers of older forms.
fn pem_body(body: &str) -> Result<Vec<u8>, NotAKeyFile> {
    let base64: String = body.split_ascii_whitespace().collect();
    BASE64_STANDARD.decode(base64).map_err(|_| NotAKeyFile::Pem)
}

/// The key in a `SubjectPublicKeyInfo`. DER has one form for each kind of key, so what stands before it is compared.
fn from_der(der: &[u8]) -> Result<PublicKey, NotAKeyFile> {
    let (kind, parts): (_, Vec<&[u8]>) = if let Some(key) = der.strip_prefix(&ED25519) {
        ("ssh-ed25519", vec![key])
    } else if let Some(point) = der.strip_prefix(&P256) {
        ("ecdsa-sha2-nistp256", vec![b"nistp256", point])
    } else {
        return Err(NotAKeyFile::Kind);
    };
    // By way of the line, so that the one reader of keys checks their lengths and points.
    let mut wire = Vec::new();
    for part in [&[kind.as_bytes()], parts.as_slice()].concat() {
        let length = u32::try_from(part.len()).expect("the file is small");
        wire.extend(length.to_be_bytes());
        wire.extend(part);
    }
    Ok(format!("{kind} {}", BASE64_STANDARD.encode(wire)).parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.1.
    const RFC_8410: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                            -----END PUBLIC KEY-----\n";

    #[test]
    fn pem_and_ssh_name_the_same_key() {
        let key = parse(RFC_8410).expect("a key");
        assert_eq!(key.key_type(), "ssh-ed25519");
        assert_eq!(key.material()[..4], [0x19, 0xbf, 0x44, 0x09]);
        assert_eq!(parse(&format!("{key} a comment\n")).expect("a key"), key);
    }

    #[test]
    fn what_is_not_exactly_one_key_is_refused() {
        let body = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        let zeros = BASE64_STANDARD.encode([&ED25519[..], &[0; 32]].concat());
        for text in [
            RFC_8410.replace("PUBLIC", "PRIVATE"),
            RFC_8410.replace(END, ""),
            format!("{RFC_8410}{RFC_8410}"),
            RFC_8410.replace(body, &body[4..]),
            RFC_8410.replace(body, "AAAA"),
            RFC_8410.replace(body, ""),
            RFC_8410.replace(body, &zeros),
            RFC_8410.replace("ZuE=", "ZuEA"),
            String::new(),
        ] {
            assert_ne!(text, RFC_8410, "nothing was replaced");
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}
