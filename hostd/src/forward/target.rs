//! Where lines go: what a manifest says of a receiver, read once.

use std::sync::Arc;

use axum::http::Uri;
use bennu_manifests::model::{Forward, ForwardKind, Manifest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// What is appended to the address of a receiver of OTLP that names no path (OpenTelemetry, "OTLP Specification",
/// "OTLP/HTTP Request").
const OTLP_PATH: &str = "/v1/logs";

/// A receiver that can be connected to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// How lines are sent.
    pub(super) kind: ForwardKind,
    /// Its name or address.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
    /// The path that is posted to.
    pub(super) path: String,
    /// TLS, where it is spoken, and the name that the receiver's certificate has to bear.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// What a manifest says of a receiver, with the certificates that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) forward: Forward,
    /// The certificates (PEM) that its own is signed by; `None` is those of the OS.
    ca: Option<String>,
}

/// Why a receiver can't be connected to.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTarget {
    /// Its URL is not one for its kind.
    #[error("{url} is no address for a receiver of this kind: {expected}")]
    Url { url: String, expected: &'static str },
    /// Its certificates are none.
    #[error("the config `{config}` holds no certificate that can be used")]
    Certificates { config: String },
    /// TLS can't be set up.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

impl Declared {
    /// What is declared of each receiver of a manifest.
    pub(super) fn all(manifest: &Manifest) -> impl Iterator<Item = (&bennu_manifests::model::Name, Self)> {
        let forwards = manifest.logs.iter().flat_map(|logs| &logs.forwards);
        forwards.map(|(name, forward)| {
            let config = forward.ca.as_ref().and_then(|ca| manifest.configs.get(ca));
            (name, Self { forward: forward.clone(), ca: config.map(|config| config.content.clone()) })
        })
    }

    /// The receiver.
    ///
    /// # Errors
    /// Where what is declared can't be carried out.
    pub(super) fn target(&self) -> Result<Target, NoTarget> {
        let Forward { kind, url, .. } = &self.forward;
        let expected = match kind {
            ForwardKind::Syslog => "write tcp://HOST:PORT or tls://HOST:PORT",
            ForwardKind::Otlp | ForwardKind::Http => "write https://HOST[:PORT]/PATH",
        };
        let wrong = || NoTarget::Url { url: url.clone(), expected };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (encrypted, port) = match (kind, uri.scheme_str().unwrap_or_default()) {
            (ForwardKind::Syslog, "tcp") => (false, None),
            (ForwardKind::Syslog, "tls") => (true, None),
            (ForwardKind::Otlp | ForwardKind::Http, "http") => (false, Some(80)),
            (ForwardKind::Otlp | ForwardKind::Http, "https") => (true, Some(443)),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        // An IPv6 address stands in brackets in a URI (RFC 3986, section 3.2.2), and in none elsewhere.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().or(port).ok_or_else(wrong)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if *kind == ForwardKind::Otlp && path == "/" { OTLP_PATH } else { path }.to_owned();
        let tls = if encrypted {
            let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
            Some((Arc::new(self.tls()?), name))
        } else {
            None
        };
        Ok(Target { kind: *kind, host, port, path, tls })
    }

    fn tls(&self) -> Result<ClientConfig, NoTarget> {
        let config = self.forward.ca.as_ref().map(ToString::to_string).unwrap_or_default();
        let unusable = || NoTarget::Certificates { config: config.clone() };
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
                }
                if roots.is_empty() {
                    return Err(unusable());
                }
            }
            // One of them that can't be read is none of ours; with none at all nobody is believed.
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(lines: &str) -> Manifest {
        let text = format!(
            "schema = 1\nname = \"a\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n{lines}"
        );
        bennu_manifests::check(text.as_bytes())
            .unwrap_or_else(|invalid| panic!("{}", invalid.render("a", &text)))
    }

    fn target(lines: &str) -> Result<Target, NoTarget> {
        let manifest =
            manifest(&format!("config.ca.content = \"no certificate\"\n[logs.forward.central]\n{lines}\n"));
        Declared::all(&manifest).next().expect("one").1.target()
    }

    #[test]
    fn what_is_declared_of_a_receiver_is_where_it_is() {
        for (lines, place, encrypted) in [
            ("kind = \"syslog\"\nurl = \"tcp://logs.example:601\"", "logs.example 601 /", false),
            ("kind = \"syslog\"\nurl = \"tls://192.0.2.1:6514\"", "192.0.2.1 6514 /", true),
            ("kind = \"otlp\"\nurl = \"https://otel.example\"", "otel.example 443 /v1/logs", true),
            ("kind = \"otlp\"\nurl = \"http://otel.example:4318/x?a=b\"", "otel.example 4318 /x?a=b", false),
            ("kind = \"http\"\nurl = \"https://[2001:db8::1]:8443/in\"", "2001:db8::1 8443 /in", true),
        ] {
            let target = target(lines).expect(lines);
            assert_eq!(format!("{} {} {}", target.host, target.port, target.path), place);
            assert_eq!(target.tls.is_some(), encrypted, "{lines}");
        }
    }

    #[test]
    fn a_receiver_that_cannot_be_is_an_error_that_says_what_to_write() {
        for lines in [
            "kind = \"syslog\"\nurl = \"https://logs.example\"",
            "kind = \"otlp\"\nurl = \"tcp://logs.example:601\"",
            "kind = \"http\"\nurl = \"tls://logs.example:601\"",
        ] {
            let error = target(lines).expect_err(lines).to_string();
            assert!(error.contains("write "), "{error}");
        }
        let lines = "kind = \"syslog\"\nurl = \"tls://logs.example:6514\"\nca = \"ca\"";
        let error = target(lines).expect_err(lines).to_string();
        assert_eq!(error, "the config `ca` holds no certificate that can be used");
    }
}
