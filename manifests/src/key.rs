//! Public keys, in the form of `~/.ssh/*.pub` (sshd(8), "AUTHORIZED_KEYS FILE FORMAT", without options).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base64::{decode, encode};
use crate::model::serde_as_text;
use crate::wire::{Malformed, Reader, put_string};

/// The longest line that is read as a public key, in bytes.
const MAX_LINE: usize = 1024;

/// A key that a signature can be checked with.
///
/// Two values are equal when they are the same line without its comment. For counting signers see
/// [`PublicKey::material`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(Kind);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `ssh-ed25519` (RFC 8709, section 4).
    Ed25519([u8; 32]),
    /// `sk-ssh-ed25519@openssh.com` (OpenSSH, PROTOCOL.u2f, "SSH U2F Key formats"), with its application.
    SkEd25519([u8; 32], Vec<u8>),
    /// `ecdsa-sha2-nistp256` (RFC 5656, section 3.1), an uncompressed point.
    EcdsaP256([u8; 65]),
    /// `sk-ecdsa-sha2-nistp256@openssh.com` (PROTOCOL.u2f, "SSH U2F Key formats"), with its application.
    SkEcdsaP256([u8; 65], Vec<u8>),
}

/// A string that is no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAPublicKey {
    /// Not `TYPE BASE64 [COMMENT]`.
    #[error("a public key is one line: its type, base64, and a comment if you like")]
    Form,
    /// Another type.
    #[error(
        "the key type is none of ssh-ed25519, ecdsa-sha2-nistp256, and those of hardware tokens: \
         sk-ssh-ed25519@openssh.com, sk-ecdsa-sha2-nistp256@openssh.com"
    )]
    Type,
    /// The base64 is damaged, or does not hold a key of the type that is named.
    #[error("the base64 part is not a key of the type that is named before it")]
    Damaged,
    /// A point of small order: there are signatures by it that hold for any message.
    #[error("the key is a weak point that anybody can sign for")]
    Weak,
    /// A key of a hardware token that was not made for SSH.
    #[error("the hardware token's key was made for another application: those for SSH begin with `ssh:`")]
    Application,
}

pub(crate) const ED25519: &str = "ssh-ed25519";
pub(crate) const SK_ED25519: &str = "sk-ssh-ed25519@openssh.com";
pub(crate) const ECDSA_P256: &str = "ecdsa-sha2-nistp256";
pub(crate) const SK_ECDSA_P256: &str = "sk-ecdsa-sha2-nistp256@openssh.com";
const NISTP256: &[u8] = b"nistp256";
/// What applications of SSH begin with (ssh-keygen(1), "-O application"); what websites may ask a token to sign for
/// does not.
const APPLICATION: &[u8] = b"ssh:";
/// The longest application that is taken, in bytes. OpenSSH sets none; the usual one is `ssh:` alone.
const MAX_APPLICATION: usize = 128;

impl PublicKey {
    /// The type as it is written in the line.
    pub fn key_type(&self) -> &'static str {
        match self.0 {
            Kind::Ed25519(_) => ED25519,
            Kind::SkEd25519(..) => SK_ED25519,
            Kind::EcdsaP256(_) => ECDSA_P256,
            Kind::SkEcdsaP256(..) => SK_ECDSA_P256,
        }
    }

    /// The bytes of the key itself, by which signers are told apart: the same secret under two names, or with
    /// two applications, is one signer.
    pub fn material(&self) -> &[u8] {
        match &self.0 {
            Kind::Ed25519(point) | Kind::SkEd25519(point, _) => point,
            Kind::EcdsaP256(point) | Kind::SkEcdsaP256(point, _) => point,
        }
    }

    /// `SHA256:` and base64, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        let digest = crate::crypto::sha256(&[&self.to_wire()]);
        format!("SHA256:{}", encode(&digest).trim_end_matches('='))
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.0
    }

    /// The key from the wire format, whole and in its only form.
    pub(crate) fn from_wire(wire: &[u8]) -> Result<Self, NotAPublicKey> {
        let mut reader = Reader(wire);
        let key_type = reader.string().map_err(|Malformed| NotAPublicKey::Damaged)?;
        let key = match std::str::from_utf8(key_type) {
            Ok(ED25519) => Self::ed25519(&mut reader),
            Ok(SK_ED25519) => Self::sk_ed25519(&mut reader),
            Ok(ECDSA_P256) => Self::ecdsa(&mut reader),
            Ok(SK_ECDSA_P256) => Self::sk_ecdsa(&mut reader),
            _ => return Err(NotAPublicKey::Type),
        };
        let key =
            key.and_then(|key| reader.end().map(|()| key)).map_err(|Malformed| NotAPublicKey::Damaged)?;
        if matches!(key.0, Kind::Ed25519(point) | Kind::SkEd25519(point, _) if is_small_order(&point)) {
            return Err(NotAPublicKey::Weak);
        }
        if !key.application().is_none_or(is_for_ssh) {
            return Err(NotAPublicKey::Application);
        }
        Ok(key)
    }

    fn ed25519(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(Kind::Ed25519(reader.array()?)))
    }

    fn sk_ed25519(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let point = reader.array()?;
        Ok(Self(Kind::SkEd25519(point, reader.string()?.to_vec())))
    }

    fn ecdsa(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self(Kind::EcdsaP256(point(reader)?)))
    }

    fn sk_ecdsa(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let point = point(reader)?;
        Ok(Self(Kind::SkEcdsaP256(point, reader.string()?.to_vec())))
    }

    /// What a hardware token's key was made for; `None` for other keys.
    fn application(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::SkEd25519(_, application) | Kind::SkEcdsaP256(_, application) => Some(application),
            Kind::Ed25519(_) | Kind::EcdsaP256(_) => None,
        }
    }

    /// The wire format (RFC 4253, section 6.6).
    pub(crate) fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        put_string(&mut wire, self.key_type().as_bytes());
        match &self.0 {
            Kind::Ed25519(point) => put_string(&mut wire, point),
            Kind::SkEd25519(point, application) => {
                put_string(&mut wire, point);
                put_string(&mut wire, application);
            }
            Kind::EcdsaP256(point) => {
                put_string(&mut wire, NISTP256);
                put_string(&mut wire, point);
            }
            Kind::SkEcdsaP256(point, application) => {
                put_string(&mut wire, NISTP256);
                put_string(&mut wire, point);
                put_string(&mut wire, application);
            }
        }
        wire
    }
}

/// The name of the curve and an uncompressed point on it. Compressed points are not used by OpenSSH; one key has one
/// form here.
fn point(reader: &mut Reader<'_>) -> Result<[u8; 65], Malformed> {
    reader.expect(NISTP256)?;
    let point: [u8; 65] = reader.array()?;
    if point[0] == 4 { Ok(point) } else { Err(Malformed) }
}

fn is_for_ssh(application: &[u8]) -> bool {
    application.len() <= MAX_APPLICATION
        && application.starts_with(APPLICATION)
        && application.iter().all(u8::is_ascii_graphic)
}

/// The `y` coordinates of the points of order 1, 2, 4 and 8 on edwards25519, in all their encodings below 2^255 (RFC 7748,
/// section 7, warns of them).
/// The sign bit of `x` is left out of the comparison.
const SMALL_ORDER: [[u8; 32]; 7] = {
    let mut minus_one = [0xff; 32];
    minus_one[0] = 0xec;
    minus_one[31] = 0x7f;
    let mut zero_again = minus_one;
    zero_again[0] = 0xed;
    let mut one_again = minus_one;
    one_again[0] = 0xee;
    let mut one = [0; 32];
    one[0] = 1;
    let eight = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    let other_eight = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    [[0; 32], one, minus_one, zero_again, one_again, eight, other_eight]
};

fn is_small_order(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

impl FromStr for PublicKey {
    type Err = NotAPublicKey;

    fn from_str(line: &str) -> Result<Self, NotAPublicKey> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        if line.len() > MAX_LINE || line.chars().any(char::is_control) {
            return Err(NotAPublicKey::Form);
        }
        let mut words = line.splitn(3, ' ');
        let (Some(key_type), Some(body)) = (words.next(), words.next()) else {
            return Err(NotAPublicKey::Form);
        };
        if ![ED25519, SK_ED25519, ECDSA_P256, SK_ECDSA_P256].contains(&key_type) {
            return Err(NotAPublicKey::Type);
        }
        let wire = decode(body).ok_or(NotAPublicKey::Damaged)?;
        let key = Self::from_wire(&wire)?;
        if key.key_type() == key_type { Ok(key) } else { Err(NotAPublicKey::Damaged) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_type(), encode(&self.to_wire()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(PublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXXJ2dOar+m2w6HnhRRp5tHX8tzNRKG5ZRSKKS7TLLb";

    fn ed25519_line(point: [u8; 32]) -> String {
        PublicKey(Kind::Ed25519(point)).to_string()
    }

    #[test]
    fn a_line_is_read_with_and_without_its_comment() {
        for line in [LINE.to_owned(), format!("{LINE} alice@example two words"), format!("{LINE} alice\n")] {
            assert_eq!(line.parse::<PublicKey>().expect(&line).to_string(), LINE);
        }
        let key: PublicKey = LINE.parse().expect("a key");
        assert_eq!(key.fingerprint().len(), "SHA256:".len() + 43);
    }

    #[test]
    fn lines_that_are_not_exactly_a_key_are_refused() {
        let body = LINE.strip_prefix("ssh-ed25519 ").expect("the type");
        for (line, why) in [
            (String::new(), NotAPublicKey::Form),
            ("ssh-ed25519".to_owned(), NotAPublicKey::Form),
            (format!("{LINE}\n{LINE}"), NotAPublicKey::Form),
            (format!("{LINE} {}", "c".repeat(1024)), NotAPublicKey::Form),
            (format!("ssh-rsa {body}"), NotAPublicKey::Type),
            (format!(" {LINE}"), NotAPublicKey::Type),
            (format!("restrict {LINE}"), NotAPublicKey::Type),
            (format!("ecdsa-sha2-nistp256 {body}"), NotAPublicKey::Damaged),
            (format!("ssh-ed25519  {body}"), NotAPublicKey::Damaged),
            (format!("ssh-ed25519 {body}=="), NotAPublicKey::Damaged),
            (format!("ssh-ed25519 {}", &body[4..]), NotAPublicKey::Damaged),
            (format!("ssh-ed25519 {body}AAAA"), NotAPublicKey::Damaged),
        ] {
            assert_eq!(line.parse::<PublicKey>(), Err(why), "{line:?}");
        }
    }

    #[test]
    fn tokens_keys_are_taken_only_for_applications_of_ssh() {
        for (application, good) in [
            (&b"ssh:"[..], true),
            (b"ssh:fleet", true),
            (b"", false),
            (b"https://example.org", false),
            (b"SSH:", false),
            (b"ssh:a b", false),
            (&[&b"ssh:"[..], &[b'a'; MAX_APPLICATION]].concat(), false),
        ] {
            let mut point = [0; 65];
            point[0] = 4;
            for kind in [
                Kind::SkEd25519([3; 32], application.to_vec()),
                Kind::SkEcdsaP256(point, application.to_vec()),
            ] {
                let read = PublicKey(kind).to_string().parse::<PublicKey>().map(|_| ());
                assert_eq!(
                    read,
                    if good { Ok(()) } else { Err(NotAPublicKey::Application) },
                    "{application:?}"
                );
            }
        }
    }

    #[test]
    fn points_of_small_order_are_refused_in_each_encoding() {
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut point = y;
                point[31] |= sign;
                assert_eq!(
                    ed25519_line(point).parse::<PublicKey>(),
                    Err(NotAPublicKey::Weak),
                    "{point:02x?}"
                );
            }
        }
    }
}
