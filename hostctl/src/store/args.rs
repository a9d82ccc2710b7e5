//! The command line of `store`.

use std::path::PathBuf;

use bennu_image_store::registry::document::Platform;
use clap::{Args, Subcommand, ValueEnum};

use crate::reach::Reach;

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
    ///
    /// Logins are those of `docker login`, `podman login` and their helper programs: $REGISTRY_AUTH_FILE,
    /// containers/auth.json, $DOCKER_CONFIG/config.json. Certificates are those of certs.d/HOST:PORT, proxies those of
    /// $HTTPS_PROXY, $HTTP_PROXY and $NO_PROXY. With --json there is a line of JSON on standard error for each step of
    /// a layer, and the result on standard output.
    Pull {
        /// `HOST[:PORT]/NAME[:TAG][@DIGEST]`
        #[arg(value_name = "REF")]
        reference: String,
        /// Only say how many bytes would be fetched
        #[arg(long)]
        dry_run: bool,
        /// The platform of the image, as linux/arm64 or linux/arm/v7, where it is not that of this machine
        #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
        platform: Option<Platform>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Take images from files: an OCI layout, an `oci-archive`, or what `docker save` writes; or one
    /// layer from its tar
    ///
    /// What it is, is seen by looking. Bytes that are not those of their digest are refused with exit
    /// code 3, a tar that is refused or a file that is none of these ends with 2.
    Import(Import),
    /// Write an image for others, as an OCI image layout or `oci-archive`
    ///
    /// The tars that layers came in are not kept: what is written is an equal image with another
    /// digest, always the same for the same image.
    Export(Export),
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
        #[command(flatten)]
        reach: Reach,
    },
    /// Check records, pins and lengths, without reading blobs; exit code 1 where something is wrong
    Verify,
    /// Read every block of every blob; exit code 1 where one is bad and stays so
    ///
    /// A scrub that is stopped, by Ctrl-C for instance, goes on where it was with the next one. Exit
    /// code 4 where it was stopped, or another one is at work.
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
        #[command(flatten)]
        reach: Reach,
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
        #[command(flatten)]
        reach: Reach,
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
    /// Remove what no pin holds, is not mounted and no running pull relies on
    Gc {
        /// Only say what would be removed, and who holds the rest
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A file or folder, or - for a layer on standard input
    pub(crate) path: PathBuf,
    /// Which of several images: its digest, its name, or what follows a slash in it
    #[arg(value_name = "REF", conflicts_with_all = ["all", "layer"])]
    pub(crate) reference: Option<String>,
    /// Take every image
    #[arg(long)]
    pub(crate) all: bool,
    /// Take images for other machines than this one, in the words of OCI
    #[arg(long, conflicts_with = "layer")]
    pub(crate) arch: Option<String>,
    /// Take the file for a layer, whatever it looks like
    #[arg(long, conflicts_with = "all")]
    pub(crate) layer: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The image: `sha256:…` as `ls` prints it, or a reference with a digest
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The file or folder to write; it must not be there yet
    pub(crate) path: PathBuf,
    /// How it is written; a PATH that ends with `.tar` is an archive if nothing is said
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The tag in the layout
    #[arg(long, default_value = "latest")]
    pub(crate) tag: String,
    /// How layers are compressed; every program reads `none`
    #[arg(long, default_value = "none", conflicts_with = "native")]
    pub(crate) compression: Compression,
    /// Write a native image: each layer is a blob as hosts keep it, and whoever has another version
    /// fetches only the blocks that differ. Other programs can copy it, but not run it
    #[arg(long)]
    pub(crate) native: bool,
    /// Beside a native image, patches for hosts that have this earlier one, as `ls` prints it or as a
    /// reference with a digest; may be given more than once. They are listed in the layout under a
    /// name of their own, and are pushed by it
    #[arg(long, value_name = "REF", requires = "native")]
    pub(crate) patch_from: Vec<String>,
    /// How hard zstd tries; patches are made with 19 at least
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: i32,
}

/// How a layout is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// A folder
    Oci,
    /// A tar with the same files
    OciArchive,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Compression {
    /// Not at all
    None,
    /// Zstandard
    Zstd,
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
    #[command(flatten)]
    pub(crate) reach: Reach,
    /// Bytes that are read in a second at most; 0 is as fast as it goes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) rate: u64,
    /// Begin with the first blob, wherever the last scrub was stopped
    #[arg(long)]
    pub(crate) restart: bool,
}
