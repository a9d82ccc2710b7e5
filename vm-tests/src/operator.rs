//! An operator: a signing key, a trust document, and what `hostctl provision` writes.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext};
use crate::hostctl::{Hostctl, offline};
use crate::signing::Key;

/// An operator's directory.
#[derive(Debug, Clone)]
pub struct Operator {
    directory: PathBuf,
}

impl Operator {
    /// Makes keys, a trust document with one key for all roles, and the provisioning document of one host.
    ///
    /// # Errors
    /// Where `ssh-keygen` or `hostctl` fails.
    pub fn create(directory: &Path, hostctl: &Path) -> Result<Self, Error> {
        let operator = Self::of(directory);
        let key = Key::generate(&directory.join("deploy"), "deploy")?;
        let (trust, named) = (operator.trust(), format!("deploy={}", key.public().display()));
        offline(hostctl, &["trust", "init", "--key", &named, &trust.to_string_lossy()])?.done()?;
        let (directory, trust) = (directory.to_string_lossy(), trust.to_string_lossy());
        let place = ["--dir", &directory, "--trust", &trust];
        let host = ["--name", "phoenix", "--address", "127.0.0.1", "--label", "site=test"];
        offline(hostctl, &[&["provision"][..], &place, &host].concat())?.done()?;
        Ok(operator)
    }

    /// The operator whose directory this is.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The provisioning document, which holds the host's private key.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn document(&self) -> Result<Vec<u8>, Error> {
        let path = self.directory.join("provision.toml");
        fs::read(&path).doing("read", &path)
    }

    /// The trust document.
    pub fn trust(&self) -> PathBuf {
        self.directory.join("trust.toml")
    }

    /// The key that the host trusts.
    pub fn key(&self) -> Key {
        Key(self.directory.join("deploy"))
    }

    /// The directory of the client certificate.
    pub fn identity(&self) -> PathBuf {
        self.directory.join("operator")
    }

    /// `hostctl` with this operator's identity, for a host that is not known yet; see [`Hostctl::at`].
    pub fn hostctl(&self, program: &Path) -> Hostctl {
        Hostctl { program: program.to_owned(), identity: self.identity(), address: String::new() }
    }
}
