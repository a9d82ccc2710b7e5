//! Recipe and builder of the bootable image.
//!
//! ```text
//! Debian packages ──mmdebstrap──► base root (tar) + kernel + modules + boot programs      cached by recipe, while the archive has the same
//!        base root + hostd, hostctl ──► root (tar) ──► EROFS blob, named by its verity digest
//!             init + kernel modules ──► initrd (cpio) ┐
//!   kernel, command line with digest ─────────────────┴──► UKI ──► ESP (FAT) ┐
//!                    EROFS blob ──► store/blobs/sha256/<digest> ──► state (btrfs) ─┴──► GPT disk (qcow2)
//!              EROFS blob + UKI ──► an image for registries, which hosts update themselves from
//!  package database, Cargo ──► a list of all that it is made of (SPDX), in the root
//! ```
//!
//! [`build()`] runs these stages and keeps what they make under [`cache_dir`], each under a key that is the SHA-256
//! of everything it was made from, so a second build of the same inputs is a look-up.
//!
//! **Invariant:** nothing here needs a loop device, a mount or the privileges of root, and nothing is written
//! inside the checkout. Programs are started by name; which packages bring them is the business of
//! `cargo xtask`. No address of a package mirror is written here: it is the machine's own (see [`mirror`]).
//!
//! What happens when the disk boots is written in `docs/boot.md`.

mod again;
mod archive;
mod artifact;
mod base;
mod build;
mod cache;
mod command;
mod disk;
mod error;
mod firmware;
mod initrd;
mod measured;
pub mod mirror;
mod recipe;
mod root;
mod sbom;
mod secure_boot;
mod uki;
mod variant;

use std::path::PathBuf;
use std::time::Duration;

pub use build::{OsImage, build, os_image};
pub use cache::cache_dir;
pub use error::BuildError;
pub use firmware::{Firmware, firmware, secure_firmware};
pub use measured::Measured;
pub use secure_boot::{Enroll, SecureBoot};
pub use variant::Variant;

/// What an image is made of besides the recipe.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The daemon, an x86-64 program that runs on the image's own C library.
    pub hostd: &'a std::path::Path,
    /// The operator's command, likewise.
    pub hostctl: &'a std::path::Path,
    /// The first program of the initrd; static.
    pub init: &'a std::path::Path,
    /// What is signed, and with what.
    pub keys: Keys<'a>,
    /// Which packages of the distribution.
    pub packages: Packages,
    /// Told of each stage as it begins and ends.
    pub progress: &'a dyn Fn(Event<'_>),
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("hostd", &self.hostd)
            .field("hostctl", &self.hostctl)
            .field("init", &self.init)
            .field("keys", &self.keys)
            .field("packages", &self.packages)
            .finish_non_exhaustive()
    }
}

/// What an image is signed with, where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keys<'a> {
    /// Boot programs, for Secure Boot.
    pub secure_boot: Option<&'a SecureBoot>,
    /// What a TPM measures of the boot image, for hosts that seal their state.
    pub measured: Option<&'a Measured>,
}

/// Which packages of the distribution an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packages {
    /// Those that its archive has now: it is asked, and where it has others they are installed. Where it cannot be asked, those
    /// that were installed last, which [`Event::Unasked`] tells.
    Current,
    /// Those that were installed last, if any were.
    AsInstalled,
}

/// How far a build has come.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A stage begins.
    Started(&'a str),
    /// The archive could not be asked whether it has other packages than those that were installed last.
    Unasked(&'a BuildError),
    /// A stage ended with a file of this many bytes on disk.
    Finished {
        /// The stage that ended.
        stage: &'a str,
        /// Size of what it made.
        bytes: u64,
        /// How long it took.
        took: Duration,
        /// Whether it was found in the cache.
        cached: bool,
    },
}

/// A bootable disk in the cache.
///
/// The file is shared by all who ask for the same inputs: never write to it, put an overlay on it
/// (`qemu-img create -f qcow2 -b <qcow2> -F qcow2 <overlay>`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The disk, qcow2, read-only by convention.
    pub qcow2: PathBuf,
    /// Lower-case hexadecimal SHA-256 of all that went into it: changes exactly when the disk does.
    pub key: String,
    /// Lower-case hexadecimal SHA-256 of the names and versions of all packages in it, and of how they are installed.
    pub packages: String,
    /// fs-verity SHA-256 digest of the OS root, lower-case hexadecimal, as named on the kernel's command line.
    pub root_digest: String,
    /// Version of the OS, as in `/usr/lib/os-release`.
    pub version: String,
}
