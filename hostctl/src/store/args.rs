//! The command line of `store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Store {
    /// The folder of the store
    #[arg(long)]
    pub(crate) root: PathBuf,
    #[command(subcommand)]
    pub(crate) command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Fetch an image, verify and keep it; nothing holds it against `gc` but a pin of a host
    Pull {
        /// `HOST[:PORT]/NAME[:TAG][@DIGEST]`
        #[arg(value_name = "REF")]
        reference: String,
        /// Only say how many bytes would be fetched
        #[arg(long)]
        dry_run: bool,
        /// Speak HTTP without TLS to registries beyond loopback, too
        #[arg(long)]
        plain_http: bool,
    },
    /// Convert and keep one layer: an uncompressed tar file, or - for standard input
    ///
    /// Exit code 2 where the tar is refused.
    Import {
        /// The tar
        path: PathBuf,
    },
    /// Write an image for others, as an OCI image layout that `skopeo copy` pushes
    ///
    /// A native image: each layer is a blob as hosts keep it, and whoever has another version fetches
    /// only the blocks that differ. Other programs cannot run it.
    Export {
        /// The image: `sha256:…` as `ls` prints it, or a reference with a digest
        #[arg(value_name = "REF")]
        reference: String,
        /// The folder to write; it must not be there yet
        path: PathBuf,
        /// Write a native image
        #[arg(long, required = true)]
        native: bool,
        /// The tag in the layout
        #[arg(long, default_value = "latest")]
        tag: String,
        /// How hard zstd tries
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=22))]
        level: i32,
    },
    /// List the images
    Ls,
    /// Everything that a container of an image would see, sorted: one line an entry
    ///
    /// Path, type, mode, uid:gid, size, mtime, link target or device, extended attributes and
    /// SHA-256, separated by tabs.
    Files {
        /// The image: `sha256:…` as `ls` prints it, or a reference; what a tag means is asked of
        /// its registry
        #[arg(value_name = "REF")]
        reference: String,
        /// Speak HTTP without TLS to registries beyond loopback, too
        #[arg(long)]
        plain_http: bool,
    },
    /// Check records, pins and lengths, without reading blobs; exit code 1 where something is wrong
    Verify,
    /// Read every blob and check that it is what its name says; exit code 1 where one is not
    Scrub {
        /// Remove bad blobs, so that the next pull fetches them again
        #[arg(long)]
        discard: bool,
    },
    /// Remove what no pin holds
    Gc {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}
