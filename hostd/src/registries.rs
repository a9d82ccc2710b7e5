//! How a generation reaches registries: what its manifest says about them, with the configs and secrets that it names.
//!
//! Secrets are opened when the client of a generation is made, into memory, and go with it. A manifest with a changed secret is
//! another generation, so it takes effect with it.

use std::sync::{Mutex, PoisonError};

use bennu_image_store::registry::{
    Client, ClientError, ClientOptions, Credentials, NotAProxy, NotCredentials, NotTls, Proxies, Tls,
};
use bennu_manifests::model::{Manifest, Name, Registry};
use bennu_secrets::{Identity, OpenError, Zeroizing};

use crate::ledger::Applicable;

/// Why a generation cannot ask its registries.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// The manifest names what it does not have.
    #[error("registry \"{registry}\": the manifest has no {kind} `{name}`")]
    Missing {
        /// Whose.
        registry: String,
        /// Whether it is a config or a secret.
        kind: &'static str,
        /// Its name.
        name: Name,
    },
    /// A secret that is not for this host, or damaged.
    #[error("registry \"{registry}\": could not open the secret `{secret}`")]
    Secret {
        /// Whose.
        registry: String,
        /// Its name.
        secret: Name,
        /// Why not.
        source: OpenError,
    },
    /// A user and a password that cannot be sent.
    #[error("registry \"{registry}\": the secret `{secret}` is no password")]
    Password {
        /// Whose.
        registry: String,
        /// Its name.
        secret: Name,
        /// Why not.
        source: NotCredentials,
    },
    /// Certificates or a key that are none.
    #[error("registry \"{registry}\": {key} cannot be used")]
    Tls {
        /// Whose.
        registry: String,
        /// The key of the manifest.
        key: &'static str,
        /// Why not.
        source: NotTls,
    },
    /// The proxy is none, or one of its exceptions.
    #[error("[proxy]: {0}")]
    Proxy(#[from] NotAProxy),
    /// They do not fit together.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The clients of generations. There are two at most: that of the active one and that of the one that is to be.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Vec<(u64, Client)>>);

impl Clients {
    /// The client of a generation, the same one each time: it remembers tokens, and mirrors that do not answer.
    ///
    /// # Errors
    /// [`RegistriesError`]
    pub fn of(&self, wanted: &Applicable, identity: &Identity) -> Result<Client, RegistriesError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = wanted.generation.number;
        if let Some((_, client)) = all.iter().find(|(known, _)| *known == number) {
            return Ok(client.clone());
        }
        let client = client(&wanted.manifest, identity)?;
        // The one that is not used any more is the older one.
        all.truncate(1);
        all.insert(0, (number, client.clone()));
        Ok(client)
    }
}

/// A client by a manifest, which remembers nothing of others.
///
/// # Errors
/// [`RegistriesError`]
pub fn client(manifest: &Manifest, identity: &Identity) -> Result<Client, RegistriesError> {
    Ok(Client::new(options(manifest, identity)?)?)
}

/// What a manifest says about registries.
///
/// # Errors
/// [`RegistriesError`]
pub fn options(manifest: &Manifest, identity: &Identity) -> Result<ClientOptions, RegistriesError> {
    let mut options = ClientOptions::default();
    if let Some(proxy) = &manifest.proxy {
        options.proxies = Proxies::one(&proxy.url, proxy.except.iter().map(String::as_str))?;
    }
    for (registry, entry) in &manifest.registries {
        let parts = Parts { manifest, identity, registry };
        if entry.plain_http {
            options.plain_http.insert(registry.clone());
        }
        if !entry.mirrors.is_empty() {
            options.mirrors.insert(registry.clone(), entry.mirrors.clone());
        }
        if !entry.token_servers.is_empty() {
            let named = entry.token_servers.iter().cloned().collect();
            options.token_servers.insert(registry.clone(), named);
        }
        if let Some(credentials) = &entry.credentials {
            let sound = parts.credentials(&credentials.username, &credentials.password)?;
            options.credentials.insert(registry.clone(), sound);
        }
        options.tls.extend(parts.tls(entry)?.map(|tls| (registry.clone(), tls)));
    }
    Ok(options)
}

/// What the entry of one registry is made of.
struct Parts<'a> {
    manifest: &'a Manifest,
    identity: &'a Identity,
    registry: &'a str,
}

impl Parts<'_> {
    fn credentials(&self, user: &str, secret: &Name) -> Result<Credentials, RegistriesError> {
        let opened = self.secret(secret)?;
        let source = |source| RegistriesError::Password {
            registry: self.registry.to_owned(),
            secret: secret.clone(),
            source,
        };
        let text = std::str::from_utf8(&opened).map_err(|_| source(NotCredentials))?;
        // Editors and `echo` end a file with a new line, which no password does.
        let text = text.strip_suffix('\n').unwrap_or(text);
        Credentials::password(user, text.strip_suffix('\r').unwrap_or(text)).map_err(source)
    }

    fn tls(&self, entry: &Registry) -> Result<Option<Tls>, RegistriesError> {
        let wrong =
            |key| move |source| RegistriesError::Tls { registry: self.registry.to_owned(), key, source };
        let mut tls = None;
        if let Some(ca) = &entry.ca {
            let sound = Tls::default().with_authorities(self.config(ca)?).map_err(wrong("`ca`"))?;
            tls = Some(sound);
        }
        if let (Some(certificate), Some(key)) = (&entry.client_certificate, &entry.client_key) {
            let (certificate, key) = (self.config(certificate)?, self.secret(key)?);
            let with = tls.unwrap_or_default().with_identity(certificate, &key);
            tls = Some(with.map_err(wrong("`client-certificate` with `client-key`"))?);
        }
        Ok(tls)
    }

    fn config(&self, name: &Name) -> Result<&[u8], RegistriesError> {
        let config = self.manifest.configs.get(name).ok_or_else(|| self.missing("config", name))?;
        Ok(config.content.as_bytes())
    }

    fn secret(&self, name: &Name) -> Result<Zeroizing<Vec<u8>>, RegistriesError> {
        let secret = self.manifest.secrets.get(name).ok_or_else(|| self.missing("secret", name))?;
        bennu_secrets::open(self.identity, &secret.age).map_err(|source| RegistriesError::Secret {
            registry: self.registry.to_owned(),
            secret: name.clone(),
            source,
        })
    }

    fn missing(&self, kind: &'static str, name: &Name) -> RegistriesError {
        RegistriesError::Missing { registry: self.registry.to_owned(), kind, name: name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\\nYQ==\\n-----END CERTIFICATE-----\\n";
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nYQ==\n-----END PRIVATE KEY-----\n";

    fn manifest(lines: &str) -> Manifest {
        let text = format!(
            "schema = 1\nname = \"a\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n{lines}"
        );
        bennu_manifests::check(text.as_bytes())
            .unwrap_or_else(|invalid| panic!("{}", invalid.render("a", &text)))
    }

    fn secret(name: &str, identity: &Identity, secret: &[u8]) -> String {
        let sealed = bennu_secrets::seal(&[identity.recipient()], secret).expect("sealed");
        format!("secret.{name}.age = \"\"\"\n{sealed}\"\"\"\n")
    }

    #[test]
    fn what_a_manifest_says_about_registries_is_carried_out() {
        let host = Identity::generate();
        let manifest = manifest(&format!(
            "config.ca.content = \"{CERTIFICATE}\"\nconfig.shown.content = \"{CERTIFICATE}\"\n{}{}\
             [registry.\"a.example:5000\"]\nca = \"ca\"\nclient-certificate = \"shown\"\nclient-key = \"key\"\n\
             mirrors = [\"m.example/hub\", \"n.example\"]\ntoken-servers = [\"sso.example\"]\n\
             credentials = {{ username = \"ci\", password = \"password\" }}\n\
             [registry.\"b.example\"]\nplain-http = true\n",
            secret("password", &host, b"hunter2\n"),
            secret("key", &host, KEY),
        ));
        let options = options(&manifest, &host).expect("sound");
        let registry = "a.example:5000";
        assert_eq!(options.credentials[registry], Credentials::password("ci", "hunter2").expect("sound"));
        assert_eq!(options.mirrors[registry], ["m.example/hub", "n.example"]);
        assert!(options.token_servers[registry].contains("sso.example"));
        assert_eq!(format!("{:?}", options.tls[registry]), "Tls { authorities: 1, identity: true }");
        assert_eq!(options.plain_http.iter().collect::<Vec<_>>(), ["b.example"]);
        assert_eq!((options.tls.len(), options.mirrors.len(), options.credentials.len()), (1, 1, 1));
    }

    #[test]
    fn the_proxy_of_a_manifest_is_used() {
        let host = Identity::generate();
        let with = |text: &str| options(&manifest(text), &host);
        let sound = with("[proxy]\nurl = \"http://proxy.example:3128\"\nexcept = [\"192.0.2.0/24\"]\n");
        let shown = format!("{:?}", sound.expect("sound"));
        assert!(shown.contains("Proxies { http: true, https: true"), "{shown}");
        let error = with("[proxy]\nurl = \"http://proxy.example:3128\"\nexcept = [\"192.0.2.0/99\"]\n");
        let error = error.expect_err("no network").to_string();
        assert!(error.starts_with("[proxy]: an exception is not understood"), "{error}");
    }

    #[test]
    fn a_secret_that_is_not_for_this_host_is_named() {
        let (host, other) = (Identity::generate(), Identity::generate());
        let manifest = manifest(&format!(
            "{}[registry.\"a.example\"]\ncredentials = {{ username = \"ci\", password = \"password\" }}\n",
            secret("password", &other, b"hunter2"),
        ));
        let error = options(&manifest, &host).expect_err("not for us");
        assert_eq!(error.to_string(), "registry \"a.example\": could not open the secret `password`");
        assert!(error.source().is_some());
    }

    #[test]
    fn what_is_no_password_or_certificate_is_named_and_not_shown() {
        let host = Identity::generate();
        let entry = |secret: &str, line: &str| {
            options(
                &manifest(&format!(
                    "config.ca.content = \"hunter2\"\n{secret}[registry.\"a.example\"]\n{line}\n"
                )),
                &host,
            )
        };
        let password = "credentials = { username = \"ci\", password = \"password\" }";
        for bad in [&b"hunter2\nhunter3"[..], b"", b"\xff"] {
            let error = entry(&secret("password", &host, bad), password).expect_err("no password");
            assert_eq!(error.to_string(), "registry \"a.example\": the secret `password` is no password");
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
        }
        let error = entry("", "ca = \"ca\"").expect_err("no certificate");
        assert_eq!(error.to_string(), "registry \"a.example\": `ca` cannot be used");
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
    }
}
