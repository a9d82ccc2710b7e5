//! Certificates for mutual TLS between operators and hosts (RFC 5280). `rcgen` is named here and nowhere else.
//!
//! One authority signs both sides. What a certificate may be used for is in it (`extended key usage`), so a host's key
//! opens no other host.

use std::net::IpAddr;
use std::sync::Arc;

use bennu_api::Role;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

/// Machines without a clock wake up in the past, so everything is valid from a day that lies behind all of them.
const FROM: (i32, u8, u8) = (2020, 1, 1);
/// How long what is made is valid, in years.
const AUTHORITY_YEARS: i16 = 10;
const HOST_YEARS: i16 = 5;
const OPERATOR_YEARS: i16 = 2;

const AUTHORITY_NAME: &str = "Bennu operators' authority";

/// A certificate and its private key, both PEM; the key is PKCS #8.
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) certificate: String,
    /// The private key.
    pub(crate) key: String,
}

/// What signs for hosts and operators.
pub(crate) struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// A name that cannot stand in a certificate.
    #[error("'{name}' is neither an IP address nor a DNS name")]
    Name {
        /// The name.
        name: String,
    },
    /// Making it failed.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// The certificate and the key of the authority are not of one pair, or the certificate is another's.
    #[error("the authority's certificate and key do not belong together, or hostctl did not make them")]
    NotAPair(#[source] rustls::Error),
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be read")]
    Unreadable,
}

impl Authority {
    /// A new authority, and its private key.
    pub(crate) fn new(now: Timestamp) -> Result<(Self, Identity), CertificateError> {
        let key = KeyPair::generate()?;
        let certificate = authority_params(now).self_signed(&key)?.pem();
        let identity = Identity { certificate: certificate.clone(), key: key.serialize_pem() };
        Ok((Self { certificate, issuer: Issuer::new(authority_params(now), key) }, identity))
    }

    /// The authority that was made before.
    pub(crate) fn load(certificate: String, key: &str, now: Timestamp) -> Result<Self, CertificateError> {
        // What an issuer writes into certificates is its name and key alone; the dates do not matter.
        let issuer = Issuer::new(authority_params(now), KeyPair::from_pem(key)?);
        Ok(Self { certificate, issuer })
    }

    /// Its certificate, PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The identity of a host that is reached as `names`: IP addresses and DNS names.
    pub(crate) fn host(
        &self,
        name: &str,
        names: &[String],
        now: Timestamp,
    ) -> Result<Identity, CertificateError> {
        let mut params = params(name, now, HOST_YEARS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(alternative_name(name)?);
        }
        let identity = self.issue(params)?;
        self.check(&identity, name, now)?;
        Ok(identity)
    }

    /// The identity of a client, with the role that hosts allow it ([`bennu_api::Role`]). The name is for people, and for
    /// what hosts write down.
    pub(crate) fn client(
        &self,
        name: &str,
        role: Role,
        now: Timestamp,
    ) -> Result<Identity, CertificateError> {
        let mut params = params(name, now, OPERATOR_YEARS);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for uri in [role.uri(), format!("bennu:operator:{name}")] {
            let wrong = || CertificateError::Name { name: name.to_owned() };
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().map_err(|_| wrong())?));
        }
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity, CertificateError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// Whether operators would believe a certificate just made: it would not be so if the authority's files were not a
    /// pair, and that is better known before a host is installed.
    fn check(&self, made: &Identity, name: &str, now: Timestamp) -> Result<(), CertificateError> {
        let read = |pem: &str| {
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::Unreadable)
        };
        let mut roots = RootCertStore::empty();
        roots.add(read(&self.certificate)?).map_err(|_| CertificateError::Unreadable)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider)
            .build()
            .map_err(|_| CertificateError::Unreadable)?;
        let host =
            ServerName::try_from(name).map_err(|_| CertificateError::Name { name: name.to_owned() })?;
        let at = UnixTime::since_unix_epoch(now.as_duration().unsigned_abs());
        verifier
            .verify_server_cert(&read(&made.certificate)?, &[], &host, &[], at)
            .map(|_| ())
            .map_err(CertificateError::NotAPair)
    }
}

fn authority_params(now: Timestamp) -> CertificateParams {
    let mut params = params(AUTHORITY_NAME, now, AUTHORITY_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(common_name: &str, now: Timestamp, years: i16) -> CertificateParams {
    let mut params = CertificateParams::default();
    let today = now.to_zoned(TimeZone::UTC).date();
    // The first of the month exists in every year.
    let (month, year) = (today.month().unsigned_abs(), i32::from(today.year() + years));
    params.not_before = date_time_ymd(FROM.0, FROM.1, FROM.2);
    params.not_after = date_time_ymd(year, month, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn alternative_name(name: &str) -> Result<SanType, CertificateError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || CertificateError::Name { name: name.to_owned() };
    match ServerName::try_from(name) {
        Ok(ServerName::DnsName(dns)) => Ok(SanType::DnsName(dns.as_ref().try_into().map_err(|_| wrong())?)),
        _ => Err(wrong()),
    }
}
