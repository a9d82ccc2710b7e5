//! Operating systems that a host is updated to: built beside the one that it runs, and pushed to a registry of their own.

use std::process::Command;

use bennu_os_image::{Keys, Variant, os_image};

use crate::error::{Error, IoContext, run};
use crate::host::Host;
use crate::image;
use crate::registry::Registry;

/// A registry with operating systems.
#[derive(Debug)]
pub struct Releases {
    registry: Registry,
    _directory: tempfile::TempDir,
}

/// An operating system in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// How a manifest names it, pinned.
    pub reference: String,
    /// The fs-verity digest of its root, as a host's status names it.
    pub root: String,
}

impl Releases {
    /// An empty registry.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn new() -> Result<Self, Error> {
        let directory = tempfile::tempdir().doing("make a directory in", std::env::temp_dir())?;
        Ok(Self { registry: Registry::start(directory.path())?, _directory: directory })
    }

    /// What the guest calls it.
    pub fn from_guest(&self) -> String {
        self.registry.from_guest()
    }

    /// Builds an operating system with the programs that the host runs, and pushes it.
    ///
    /// # Errors
    /// [`Error::Image`] where it can't be built, or where `skopeo` fails.
    pub fn publish(&self, host: &Host, variant: &Variant) -> Result<Release, Error> {
        self.publish_signed(host, variant, Keys::default())
    }

    /// As [`Releases::publish`], signed.
    ///
    /// # Errors
    /// As [`Releases::publish`].
    pub fn publish_signed(&self, host: &Host, variant: &Variant, keys: Keys<'_>) -> Result<Release, Error> {
        // It is fetched once, from this machine.
        let variant = Variant { compression: 1, ..variant.clone() };
        let image = os_image(&image::inputs(host.fixture.programs(), keys, &|_| {}), &variant)
            .map_err(|source| Error::Image { source })?;
        let tag = variant.version.replace('+', "-");
        let to = format!("docker://{}/bennu-os:{tag}", self.registry.address());
        run(Command::new("skopeo")
            .args(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"])
            .arg(format!("oci:{}:{tag}", image.layout.display()))
            .arg(to))?;
        Ok(Release {
            reference: format!("{}/bennu-os:{tag}@{}", self.from_guest(), image.digest),
            root: format!("sha256:{}", image.root_digest),
        })
    }
}
