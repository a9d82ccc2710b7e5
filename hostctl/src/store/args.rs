//! The command line of `store`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where `mount` keeps what it has mounted, unless it is told otherwise.
const MOUNTS: &str = "/run/hostctl-mounts";

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
    /// Fetch an image, verify and keep it; nothing holds it against `gc` but a pin
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
    /// Read every block of every blob; exit code 1 where one is bad and stays so
    ///
    /// A scrub that is stopped, by Ctrl-C for instance, goes on where it was with the next one.
    Scrub(Scrub),
    /// Hold images or blobs under a name, so that `gc` leaves them; what the name held before is let go
    ///
    /// Exit code 5 where one of them is not in the store.
    Pin {
        /// 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`; begins with a letter or digit
        name: String,
        /// Images, or blobs by their fs-verity digest: `sha256:…` or a reference; what a tag means
        /// is asked of its registry
        #[arg(value_name = "REF", required = true)]
        references: Vec<String>,
        /// Speak HTTP without TLS to registries beyond loopback, too
        #[arg(long)]
        plain_http: bool,
    },
    /// Let go of what a name holds; exit code 5 where there is no such pin
    Unpin {
        /// The name
        name: String,
    },
    /// List the pins and what they hold
    Pins,
    /// Mount the merged tree of an image, read-only
    ///
    /// Needs Linux 6.12 and the right to mount. Where the file system of the store has no
    /// fs-verity, a line on standard error says that blobs are checked at import and scrub only.
    Mount {
        /// The image: `sha256:…` as `ls` prints it, or a reference; what a tag means is asked of
        /// its registry
        #[arg(value_name = "REF")]
        reference: String,
        /// An existing folder on which nothing is mounted
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Where it is kept what is mounted: a folder that a reboot empties
        #[arg(long, value_name = "DIR", default_value = MOUNTS)]
        run: PathBuf,
        /// Speak HTTP without TLS to registries beyond loopback, too
        #[arg(long)]
        plain_http: bool,
    },
    /// Undo a `mount`: the tree, and the layers that no other tree uses
    ///
    /// Exit code 5 where `mount` has mounted nothing.
    Unmount {
        /// The folder
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// As it was given to `mount`
        #[arg(long, value_name = "DIR", default_value = MOUNTS)]
        run: PathBuf,
    },
    /// Remove what no pin holds and is not mounted
    Gc {
        /// Only say what would be removed, and who holds the rest
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Mend bad blobs from other blobs; those that cannot be mended are put aside, so that the
    /// next pull fetches them again
    #[arg(long, alias = "discard")]
    pub(crate) repair: bool,
    /// An image to fetch again what cannot be mended here; may be given more than once
    #[arg(long, value_name = "REF", requires = "repair")]
    pub(crate) from: Vec<String>,
    /// Speak HTTP without TLS to registries beyond loopback, too
    #[arg(long, requires = "from")]
    pub(crate) plain_http: bool,
    /// Bytes that are read in a second at most; 0 is as fast as it goes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) rate: u64,
    /// Begin with the first blob, wherever the last scrub was stopped
    #[arg(long)]
    pub(crate) restart: bool,
}
