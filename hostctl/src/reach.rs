//! How this machine reaches registries: options, logins, the folders with certificates of Docker and Podman, and proxies.
//!
//! ```text
//! --plain-http, --ca, --client-cert, --client-key ─┐
//! certs.d/HOST[:PORT]/{*.crt,*.cert,*.key} ────────┼─► ClientOptions ─► Client
//! logins (`login.rs`) ─────────────────────────────┤
//! HTTP_PROXY, HTTPS_PROXY, NO_PROXY ───────────────┘
//! ```
//! containers-certs.d(5); Docker, "Verify repository client with certificates".

use std::path::{Path, PathBuf};

use bennu_image_store::registry::{Client, ClientOptions, MAX_PEM, NotTls, Proxies, Tls};
use clap::Args;

use crate::exit::Failure;
use crate::files;
use crate::login;

/// The most files of such a folder that are looked at.
const MAX_FILES: usize = 1000;

/// How to reach the registries of one command.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Reach {
    /// Speak HTTP without TLS to registries beyond loopback, too
    #[arg(long)]
    pub(crate) plain_http: bool,
    /// Believe the registry by these authorities (PEM) alone; otherwise by *.crt in its folder of certs.d, or the
    /// public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Show the registry this certificate (PEM); otherwise *.cert with its *.key in its folder of certs.d
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// A token server of another domain that may see the login for the registry
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) token_server: Vec<String>,
}

impl Reach {
    /// A client that can ask this registry.
    pub(crate) async fn client(&self, registry: &str) -> Result<Client, Failure> {
        let mut options = self.options()?;
        self.add(&mut options, registry).await?;
        connect(options)
    }

    /// Options that say nothing about single registries yet.
    pub(crate) fn options(&self) -> Result<ClientOptions, Failure> {
        let mut options = ClientOptions::default();
        options.plain_http_everywhere = self.plain_http;
        options.proxies = Proxies::from_env(|name| std::env::var(name).ok())
            .map_err(|e| Failure::invalid("read who is to be asked in a registry's place").because(e))?;
        Ok(options)
    }

    /// Adds what is known about one registry.
    pub(crate) async fn add(&self, options: &mut ClientOptions, registry: &str) -> Result<(), Failure> {
        if self.plain_http {
            // Whoever says so about the registries of a command means their logins, too.
            options.plain_http.insert(registry.to_owned());
        }
        if !self.token_server.is_empty() {
            options.token_servers.insert(registry.to_owned(), self.token_server.iter().cloned().collect());
        }
        options.credentials.extend(login::credentials(registry).await?);
        let found = Certificates::of(&places(), registry)?;
        let tls = self.tls(found)?;
        options.tls.extend(tls.map(|tls| (registry.to_owned(), tls)));
        Ok(())
    }

    /// What was said on the command line, and from a folder what was not.
    fn tls(&self, mut found: Certificates) -> Result<Option<Tls>, Failure> {
        if let Some(ca) = &self.ca {
            found.authorities = vec![ca.clone()];
        }
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            found.identity = Some((certificate.clone(), key.clone()));
        }
        found.read()
    }
}

/// A client, or why there is none.
pub(crate) fn connect(options: ClientOptions) -> Result<Client, Failure> {
    Client::new(options).map_err(|e| Failure::invalid("reach registries").because(e))
}

/// The files for one registry.
#[derive(Debug, Default, PartialEq, Eq)]
struct Certificates {
    authorities: Vec<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Certificates {
    /// Those in the first folder that there is for the registry.
    fn of(places: &[PathBuf], registry: &str) -> Result<Self, Failure> {
        let mut found = Self::default();
        let Some(folder) = places.iter().map(|place| place.join(registry)).find(|folder| folder.is_dir())
        else {
            return Ok(found);
        };
        let failed = |e| Failure::failed(format!("read {}", folder.display())).because(e);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)?.take(MAX_FILES) {
            names.push(entry.map_err(failed)?.path());
        }
        names.sort();
        let has = |path: &Path, end: &str| path.extension().is_some_and(|extension| extension == end);
        found.authorities = names.iter().filter(|path| has(path, "crt")).cloned().collect();
        // Of several the first, as others take them.
        if let Some(certificate) = names.iter().find(|path| has(path, "cert")) {
            found.identity = Some((certificate.clone(), certificate.with_extension("key")));
        }
        Ok(found)
    }

    fn read(&self) -> Result<Option<Tls>, Failure> {
        if *self == Self::default() {
            return Ok(None);
        }
        let mut tls = Tls::default();
        for file in &self.authorities {
            tls = tls.with_authorities(&files::read(file, MAX_PEM)?).map_err(|e| wrong(file, e))?;
        }
        if let Some((certificate, key)) = &self.identity {
            let (shown, secret) = (files::read(certificate, MAX_PEM)?, files::read(key, MAX_PEM)?);
            let file = |error: &NotTls| if *error == NotTls::Key { key } else { certificate };
            tls = tls.with_identity(&shown, &secret).map_err(|e| wrong(file(&e), e))?;
        }
        Ok(Some(tls))
    }
}

fn wrong(file: &Path, error: NotTls) -> Failure {
    Failure::invalid(format!("{} cannot be used", file.display())).because(error)
}

/// Where such folders are, the first to be asked first.
fn places() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let own = home.map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
    own.into_iter().chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nYQ==\n-----END PRIVATE KEY-----\n";

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("in a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let places = ["first", "second"].map(|place| dir.path().join(place)).to_vec();
        (dir, places)
    }

    #[test]
    fn the_first_folder_for_a_registry_counts() {
        let (_dir, places) = folder(&[
            ("first/b.example/ca.crt", CERTIFICATE),
            ("second/a.example:5000/b.crt", CERTIFICATE),
            ("second/a.example:5000/a.crt", CERTIFICATE),
            ("second/a.example:5000/me.cert", CERTIFICATE),
            ("second/a.example:5000/me.key", KEY),
            ("second/a.example:5000/README", "x"),
            ("second/b.example/me.cert", CERTIFICATE),
        ]);
        let found = Certificates::of(&places, "a.example:5000").expect("read");
        let names: Vec<_> = found.authorities.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["a.crt", "b.crt"]);
        let tls = found.read().expect("sound").expect("something");
        assert_eq!(format!("{tls:?}"), "Tls { authorities: 2, identity: true }");
        assert_eq!(Certificates::of(&places, "b.example").expect("read").identity, None);
        assert!(Certificates::of(&places, "a.example").expect("read").read().expect("sound").is_none());
    }

    #[test]
    fn files_that_are_missing_or_something_else_are_named() {
        let (_dir, places) = folder(&[
            ("first/a.example/me.cert", CERTIFICATE),
            ("first/b.example/ca.crt", KEY),
            ("first/c.example/me.cert", CERTIFICATE),
            ("first/c.example/me.key", CERTIFICATE),
        ]);
        for (registry, file) in [("a.example", "me.key"), ("b.example", "ca.crt"), ("c.example", "me.key")] {
            let failure = Certificates::of(&places, registry).expect("listed").read().expect_err(registry);
            assert!(format!("{failure:?}").contains(file), "{failure:?}");
        }
    }

    #[test]
    fn the_command_line_counts_before_a_folder() {
        let (dir, places) = folder(&[
            ("first/a.example/ca.crt", "no certificate"),
            ("first/a.example/me.cert", CERTIFICATE),
            ("first/a.example/me.key", KEY),
            ("ca.pem", CERTIFICATE),
        ]);
        let found = || Certificates::of(&places, "a.example").expect("listed");
        assert!(Reach::default().tls(found()).is_err());
        let reach = Reach { ca: Some(dir.path().join("ca.pem")), ..Reach::default() };
        let tls = reach.tls(found()).expect("sound").expect("something");
        assert_eq!(format!("{tls:?}"), "Tls { authorities: 1, identity: true }");
    }
}
