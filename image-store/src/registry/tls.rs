//! Whom a registry is believed to be, and what it is shown: certificates and keys as PEM (RFC 7468).

use std::fmt;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// The most bytes of PEM that are read at once.
pub const MAX_PEM: usize = 1 << 20;
/// The most certificates in it. All public authorities together are about 150.
const MAX_CERTIFICATES: usize = 1000;

/// How TLS is spoken with one registry. `Debug` does not show the key, which is wiped when it is dropped.
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<Zeroizing<Vec<u8>>>,
}

/// This is not what a registry can be reached with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTls {
    /// Too long.
    #[error("a file with certificates has at most {MAX_PEM} bytes and {MAX_CERTIFICATES} certificates")]
    TooLarge,
    /// No certificates, or something malformed between them.
    #[error("there are no certificates in PEM in it")]
    Certificates,
    /// No key.
    #[error("there is no private key in PEM in it, or it is encrypted")]
    Key,
}

impl Tls {
    /// The registry's certificate has to come from one of these authorities (PEM). The public ones are not believed any more.
    ///
    /// # Errors
    /// [`NotTls`]
    pub fn with_authorities(mut self, pem: &[u8]) -> Result<Self, NotTls> {
        self.authorities.extend(certificates(pem)?);
        if self.authorities.len() > MAX_CERTIFICATES {
            return Err(NotTls::TooLarge);
        }
        Ok(self)
    }

    /// The registry is shown this certificate, with those between it and its authority (PEM), and that we have its `key` (PEM:
    /// PKCS #8, or the older forms for RSA and elliptic curves).
    ///
    /// # Errors
    /// [`NotTls`]
    pub fn with_identity(mut self, certificate: &[u8], key: &[u8]) -> Result<Self, NotTls> {
        certificates(certificate)?;
        if key.len() > MAX_PEM {
            return Err(NotTls::TooLarge);
        }
        PrivateKeyDer::from_pem_slice(key).map_err(|_| NotTls::Key)?;
        let mut both = Zeroizing::new(Vec::with_capacity(certificate.len() + key.len() + 1));
        both.extend_from_slice(certificate);
        both.push(b'\n');
        both.extend_from_slice(key);
        self.identity = Some(both);
        Ok(self)
    }

    /// Those that are believed in place of the public ones, where there are any.
    pub(super) fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// Certificates and key, one after the other.
    pub(super) fn identity(&self) -> Option<&[u8]> {
        self.identity.as_ref().map(|pem| pem.as_slice())
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, NotTls> {
    if pem.len() > MAX_PEM {
        return Err(NotTls::TooLarge);
    }
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(NotTls::Certificates)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n";
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";

    #[test]
    fn certificates_and_keys_are_told_apart() {
        let tls = || Tls::default();
        assert!(tls().with_authorities(CERTIFICATE).is_ok());
        assert!(tls().with_identity(CERTIFICATE, KEY).is_ok());
        for other in [KEY, b"", b"-----BEGIN CERTIFICATE-----\nYQ==\n", b"no PEM"] {
            assert_eq!(tls().with_authorities(other).err(), Some(NotTls::Certificates));
            assert_eq!(tls().with_identity(other, KEY).err(), Some(NotTls::Certificates));
        }
        assert_eq!(tls().with_identity(CERTIFICATE, CERTIFICATE).err(), Some(NotTls::Key));
    }

    #[test]
    fn files_with_certificates_are_bounded() {
        let many = CERTIFICATE.repeat(MAX_CERTIFICATES + 1);
        assert_eq!(Tls::default().with_authorities(&many).err(), Some(NotTls::TooLarge));
        let long = vec![b'\n'; MAX_PEM + 1];
        assert_eq!(Tls::default().with_authorities(&long).err(), Some(NotTls::TooLarge));
        assert_eq!(Tls::default().with_identity(CERTIFICATE, &long).err(), Some(NotTls::TooLarge));
    }

    #[test]
    fn a_key_is_not_shown() {
        let tls = Tls::default().with_identity(CERTIFICATE, KEY).expect("sound");
        assert_eq!(format!("{tls:?}"), "Tls { authorities: 0, identity: true }");
    }
}
