//! The command line of `bundle`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::reach::Reach;

#[derive(Debug, Subcommand)]
pub(crate) enum Bundle {
    /// Write a manifest, its signatures and every image it names into one file
    ///
    /// Images come from their registries and stay as they are, byte for byte. The file is an
    /// `oci-archive` that other tools read, too.
    Create(Create),
    /// Say whether a host that trusts TRUST would take the manifest, and whether every image is there
    /// and has its digests; needs no network
    ///
    /// Exit code 3 where something is refused, 5 where something is missing.
    Verify(Verify),
    /// Write the manifest and its signatures to FILE and FILE.sig
    ///
    /// They are not checked for that: `verify` does, and so does every host. The images go into a
    /// store with `hostctl store import BUNDLE --all`.
    Unpack(Unpack),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The manifest; its signatures are in FILE.sig
    pub(crate) file: PathBuf,
    /// The bundle to write; it must not be there yet
    #[arg(short, long, value_name = "BUNDLE")]
    pub(crate) out: PathBuf,
    /// For which machines, in the words of OCI [default: the manifest's audience, or this machine]
    #[arg(long)]
    pub(crate) arch: Option<String>,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The bundle
    pub(crate) bundle: PathBuf,
    /// The trust document
    #[arg(long, value_name = "TRUST")]
    pub(crate) trust: PathBuf,
    /// The time that counts as now [default: this machine's]
    #[arg(long, value_name = "RFC3339")]
    pub(crate) now: Option<Timestamp>,
    /// For which machines, in the words of OCI [default: the manifest's audience, or this machine]
    #[arg(long)]
    pub(crate) arch: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Unpack {
    /// The bundle
    pub(crate) bundle: PathBuf,
    /// The manifest to write; neither it nor FILE.sig may be there yet
    #[arg(short, long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}
