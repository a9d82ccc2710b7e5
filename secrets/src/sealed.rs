//! The age format. `age` is named here and nowhere else in this crate.

use std::error::Error;
use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::ExposeSecret;
use age::{DecryptError, Decryptor, Encryptor, x25519};
use zeroize::Zeroizing;

use crate::{MAX_ARMOURED, MAX_IDENTITY_FILE, MAX_RECIPIENTS, MAX_SECRET};

/// The first line of the armour (C2SP/age.md, "ASCII armor").
const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
/// The longest string that is read as a recipient, in bytes; they all have 62.
const MAX_RECIPIENT: usize = 128;

/// The public half of an [`Identity`]: `age1…` (C2SP/age.md, "The X25519 recipient type").
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

/// A string that is no recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a recipient is 'age1' and 58 letters and digits, as `hostctl status` shows it")]
#[non_exhaustive]
pub struct NotARecipient;

impl FromStr for Recipient {
    type Err = NotARecipient;

    fn from_str(text: &str) -> Result<Self, NotARecipient> {
        if text.len() > MAX_RECIPIENT {
            return Err(NotARecipient);
        }
        let recipient: x25519::Recipient = text.parse().map_err(|_| NotARecipient)?;
        // Bech32 may also be written in capitals; one recipient has one form here.
        if recipient.to_string() == text { Ok(Self(recipient)) } else { Err(NotARecipient) }
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What opens secrets: a host's X25519 key. Its bytes are wiped from memory when it is dropped, and it is never shown.
#[derive(Clone)]
pub struct Identity(x25519::Identity);

/// Text that holds no identity, or several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an identity is one line that begins with AGE-SECRET-KEY-1, besides comments and empty lines")]
#[non_exhaustive]
pub struct NotAnIdentity;

impl Identity {
    /// A new one, from the system's random numbers.
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// Whom a secret has to be sealed for so that this identity opens it.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The content of an identity file, as `age-keygen` writes it: `age --decrypt --identity` reads it too.
    pub fn to_file(&self) -> Zeroizing<String> {
        let secret = self.0.to_string();
        Zeroizing::new(format!("# public key: {}\n{}\n", self.recipient(), secret.expose_secret()))
    }

    /// Reads what [`Identity::to_file`] or `age-keygen` wrote, of at most [`MAX_IDENTITY_FILE`] bytes.
    ///
    /// # Errors
    /// Where it does not hold exactly one identity.
    pub fn from_file(text: &str) -> Result<Self, NotAnIdentity> {
        if text.len() > MAX_IDENTITY_FILE {
            return Err(NotAnIdentity);
        }
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        match (lines.next(), lines.next()) {
            (Some(line), None) => line.parse().map(Self).map_err(|_| NotAnIdentity),
            _ => Err(NotAnIdentity),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the identity of {}", self.recipient())
    }
}

/// Why a secret was not sealed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The secret is too large.
    #[error("a secret has at most {MAX_SECRET} bytes, and this one {found}")]
    TooLarge {
        /// Its bytes.
        found: usize,
    },
    /// Nobody could open it, or too many could.
    #[error("a secret has 1 to {MAX_RECIPIENTS} recipients, and this one {found}")]
    Recipients {
        /// How many there are.
        found: usize,
    },
    /// The library refused.
    #[error("could not encrypt")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// Encrypts `secret` so that each of `recipients`, and nobody else, can open it. The answer ends with a line break and
/// has at most [`MAX_ARMOURED`] bytes.
///
/// # Errors
/// [`SealError`]
pub fn seal(recipients: &[Recipient], secret: &[u8]) -> Result<String, SealError> {
    if secret.len() > MAX_SECRET {
        return Err(SealError::TooLarge { found: secret.len() });
    }
    if !(1..=MAX_RECIPIENTS).contains(&recipients.len()) {
        return Err(SealError::Recipients { found: recipients.len() });
    }
    let encryptor = Encryptor::with_recipients(recipients.iter().map(|r| &r.0 as &dyn age::Recipient))
        .map_err(|error| SealError::Failed(error.into()))?;
    let written = || {
        let armour = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armour)?;
        writer.write_all(secret)?;
        writer.finish()?.finish()
    };
    let armoured = written().map_err(|error| SealError::Failed(error.into()))?;
    Ok(String::from_utf8(armoured).expect("the armour is ASCII"))
}

/// Why a secret could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The armour, or the secret in it, is too large.
    #[error(
        "the encrypted secret is too large: at most {MAX_ARMOURED} bytes of armour with {MAX_SECRET} inside"
    )]
    TooLarge,
    /// Not an age file in its armour, or one that was changed or cut short.
    #[error("this is no sound age file")]
    Damaged(#[source] Box<dyn Error + Send + Sync>),
    /// It was sealed for others.
    #[error("the secret is not encrypted for {recipient}; encrypt it again for this recipient too")]
    NotForUs {
        /// Who tried.
        recipient: String,
    },
}

/// Decrypts an armoured age file that was sealed for `identity`. The secret is checked as a whole before any of it is
/// given back. White space around the armour is allowed, nothing else.
///
/// # Errors
/// [`OpenError`]
pub fn open(identity: &Identity, armoured: &str) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if armoured.len() > MAX_ARMOURED {
        return Err(OpenError::TooLarge);
    }
    let armoured = armoured.trim();
    // The library takes the binary form too; one secret has one form here.
    if !armoured.starts_with(BEGIN) {
        return Err(OpenError::Damaged(format!("it does not begin with {BEGIN}").into()));
    }
    let refused = |error| match error {
        DecryptError::NoMatchingKeys => OpenError::NotForUs { recipient: identity.recipient().to_string() },
        other => OpenError::Damaged(other.into()),
    };
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(armoured.as_bytes())).map_err(refused)?;
    let reader = decryptor.decrypt(std::iter::once(&identity.0 as &dyn age::Identity)).map_err(refused)?;
    // All at once, so that no part of it stays behind where the buffer grew.
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    reader
        .take(MAX_SECRET as u64 + 1)
        .read_to_end(&mut secret)
        .map_err(|error| OpenError::Damaged(error.into()))?;
    if secret.len() > MAX_SECRET { Err(OpenError::TooLarge) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipient_opens_a_secret_and_others_do_not() {
        let (ana, ben, eve) = (Identity::generate(), Identity::generate(), Identity::generate());
        let sealed = seal(&[ana.recipient(), ben.recipient()], b"s3cret\n").expect("sealed");
        assert!(sealed.starts_with(BEGIN) && sealed.ends_with("-----END AGE ENCRYPTED FILE-----\n"));
        for identity in [&ana, &ben] {
            assert_eq!(open(identity, &sealed).expect("it is for them").as_slice(), b"s3cret\n");
        }
        let error = open(&eve, &sealed).expect_err("it is not for them");
        assert!(
            matches!(error, OpenError::NotForUs { ref recipient } if *recipient == eve.recipient().to_string())
        );
    }

    #[test]
    fn the_largest_secret_for_the_most_recipients_is_taken_and_one_more_of_either_is_not() {
        let identity = Identity::generate();
        let others = std::iter::repeat_with(|| Identity::generate().recipient());
        let recipients: Vec<_> = others.take(MAX_RECIPIENTS - 1).chain([identity.recipient()]).collect();
        let sealed = seal(&recipients, &[7; MAX_SECRET]).expect("sealed");
        assert!(sealed.len() <= MAX_ARMOURED, "{} bytes", sealed.len());
        assert_eq!(open(&identity, &sealed).expect("opened").as_slice(), [7; MAX_SECRET]);
        assert!(matches!(seal(&recipients, &[7; MAX_SECRET + 1]), Err(SealError::TooLarge { found: 65537 })));
        let many = vec![identity.recipient(); MAX_RECIPIENTS + 1];
        assert!(matches!(seal(&many, b"a"), Err(SealError::Recipients { found: 257 })));
        assert!(matches!(seal(&[], b"a"), Err(SealError::Recipients { found: 0 })));
    }

    #[test]
    fn a_secret_larger_than_the_bound_that_another_program_sealed_is_refused() {
        let identity = Identity::generate();
        let sealed = age::encrypt_and_armor(&identity.recipient().0, &[7; MAX_SECRET + 1]).expect("sealed");
        assert!(sealed.len() <= MAX_ARMOURED, "the bound of the armour would hide that of the secret");
        assert!(matches!(open(&identity, &sealed), Err(OpenError::TooLarge)));
        assert!(matches!(open(&identity, &" ".repeat(MAX_ARMOURED + 1)), Err(OpenError::TooLarge)));
    }

    #[test]
    fn every_changed_byte_and_every_cut_of_a_sealed_secret_is_refused() {
        let identity = Identity::generate();
        let sealed =
            seal(&[identity.recipient()], b"a secret that is longer than a line of the armour, by far")
                .expect("sealed");
        for at in 0..sealed.len() - 1 {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII for ASCII");
            assert!(open(&identity, &changed).is_err(), "byte {at} was changed, and it was opened");
            assert!(open(&identity, &sealed[..at]).is_err(), "it was cut at {at}, and opened");
        }
        assert!(open(&identity, &format!("{sealed}x")).is_err(), "something follows the armour");
    }

    #[test]
    fn identities_are_written_as_age_keygen_does_and_read_again() {
        let identity = Identity::generate();
        let file = identity.to_file();
        let again = Identity::from_file(&file).expect("just written");
        assert_eq!(again.recipient(), identity.recipient());
        assert_eq!(file.lines().count(), 2);
        let twice = format!("{}{}", *file, *file);
        let long = format!("#{}\n{}", "x".repeat(MAX_IDENTITY_FILE), *file);
        for wrong in ["", "# nothing\n", "AGE-SECRET-KEY-1", twice.as_str(), long.as_str()] {
            assert_eq!(Identity::from_file(wrong).err(), Some(NotAnIdentity));
        }
        assert!(!format!("{identity:?}").contains("SECRET"), "an identity is never shown");
    }

    #[test]
    fn recipients_have_one_form() {
        let recipient = Identity::generate().recipient();
        let text = recipient.to_string();
        assert_eq!(text.parse::<Recipient>().expect("just written"), recipient);
        let secret = Identity::generate().to_file().lines().last().expect("two lines").to_owned();
        let cut = &text[..text.len() - 1];
        for wrong in ["", "age1", cut, &text.to_uppercase(), &format!(" {text}"), &secret, &"a".repeat(9999)]
        {
            assert_eq!(wrong.parse::<Recipient>().err(), Some(NotARecipient), "{wrong}");
        }
    }
}
