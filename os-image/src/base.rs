//! The root before our own programs are added, and the boot programs that come with it.

use crate::BuildError;
use crate::command::{at, run};
use crate::recipe;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the distribution keeps the keys that Debian signs its archives with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// All files of the root carry this time, 2025-01-01T00:00:00Z, so that equal packages make equal roots.
pub(crate) const EPOCH: u64 = 1_735_689_600;

const ARCHIVE: &str = "parts/archive";

/// What the installation left, in a folder of the cache.
#[derive(Debug)]
pub(crate) struct Base {
    folder: PathBuf,
}

impl Base {
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The root as a tar, sorted by name.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("root.tar")
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join("parts/vmlinuz")
    }

    /// The kernel's release, as `uname -r` says it.
    pub(crate) fn kernel_release(&self) -> Result<String, BuildError> {
        let path = self.folder.join("parts/kernel-release");
        Ok(fs::read_to_string(&path).map_err(at("read", &path))?.trim().to_owned())
    }

    /// When the initrd loads which modules: the text of its `/modules`.
    pub(crate) fn module_list(&self) -> Result<String, BuildError> {
        let path = self.folder.join("parts/modules");
        fs::read_to_string(&path).map_err(at("read", &path))
    }

    /// The file of a module that the list names.
    pub(crate) fn module(&self, path: &str) -> PathBuf {
        self.folder.join("parts/tree").join(path.trim_start_matches('/'))
    }

    /// What the archive had when it was installed from there; see [`crate::archive`].
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder.join(ARCHIVE)
    }

    /// What makes this base what it is: how it is installed, and the names and versions of all its packages.
    pub(crate) fn key(&self) -> Result<String, BuildError> {
        let path = self.packages();
        let packages = fs::read(&path).map_err(at("read", &path))?;
        Ok(recipe::key([recipe::base_key().as_bytes(), &packages]))
    }

    /// The packages of the root and the boot programs; see [`crate::sbom`].
    pub(crate) fn packages(&self) -> PathBuf {
        self.folder.join("parts/packages")
    }

    /// A program of systemd's for UEFI: `systemd-bootx64.efi` or `linuxx64.efi.stub`.
    pub(crate) fn efi(&self, name: &str) -> PathBuf {
        self.folder.join("parts/usr/lib/systemd/boot/efi").join(name)
    }

    /// The script that puts a unified kernel image together.
    pub(crate) fn ukify(&self) -> PathBuf {
        self.folder.join("parts/usr/bin/ukify")
    }
}

/// Installs the root into the empty `folder`: about a minute of work, and the only stage that downloads packages. Gives back its key
/// in the cache: [`recipe::shelf_key`], and what the archive had.
pub(crate) fn install(folder: &Path) -> Result<String, BuildError> {
    let mut command = Command::new("mmdebstrap");
    command
        .current_dir(folder)
        .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
        .env("LC_ALL", "C.UTF-8")
        .args(["--quiet", "--variant=essential", "--architectures=amd64"])
        // The script below does it, and leaves no apt behind that could.
        .arg("--skip=cleanup/apt")
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg(format!("--include={}", recipe::PACKAGES.join(",")))
        // Handed over as text: where mmdebstrap works in a user namespace, it could not open a file in a private home.
        .arg(format!("--customize-hook={}", recipe::CUSTOMIZE))
        .arg("--customize-hook=tar-out /bennu-parts parts.tar")
        .arg("--customize-hook=rm -rf \"$1/bennu-parts\"");
    if Path::new(KEYRING).exists() {
        command.arg(format!("--keyring={KEYRING}"));
    }
    command.args([recipe::RELEASE, "root.tar"]);
    if let Some(sources) = recipe::machine_sources() {
        command.args(sources.lines());
    }
    run(&mut command)?;
    let parts = folder.join("parts");
    fs::create_dir(&parts).map_err(at("create", &parts))?;
    run(Command::new("tar")
        .current_dir(&parts)
        .args(["--extract", "--file=../parts.tar", "--strip-components=1"])
        .args(["--no-same-owner", "--no-same-permissions"]))?;
    let tar = folder.join("parts.tar");
    fs::remove_file(&tar).map_err(at("remove", &tar))?;
    let path = folder.join(ARCHIVE);
    let archive = fs::read(&path).map_err(at("read", &path))?;
    Ok(format!("{}-{}", recipe::shelf_key(), recipe::key([archive.as_slice()])))
}
