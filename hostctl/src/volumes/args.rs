//! The command line of `volumes`.

use std::path::PathBuf;

use bennu_api::SnapshotName;
use clap::Subcommand;

/// The commands; without one the volumes are listed.
#[derive(Debug, Subcommand)]
pub(crate) enum Volumes {
    /// The volumes on the host: how long they live, how full they are, who uses them
    Ls,
    /// Take a snapshot of a volume; it is kept until somebody removes it
    ///
    /// Containers go on meanwhile: it is what a power cut at this moment would leave.
    Snapshot {
        /// The volume
        name: String,
    },
    /// The snapshots of a volume; what a name says after the time is why it was taken
    ///
    ///     schedule      by the schedule of the manifest, which says how many are kept
    ///     hand          by hand
    ///     replaced      before a restore or an import; kept as one by hand
    ///     generation-N  as generation N left it; kept while a rollback may need it
    #[command(verbatim_doc_comment)]
    Snapshots {
        /// The volume
        name: String,
    },
    /// Put a volume back into the state of a snapshot
    ///
    /// The containers that use it are stopped and started again. What it held before is itself kept as a snapshot.
    Restore {
        /// The volume
        name: String,
        /// The snapshot, as `hostctl volumes snapshots` names it
        snapshot: SnapshotName,
    },
    /// Remove a snapshot
    RmSnapshot {
        /// The volume
        name: String,
        /// The snapshot, as `hostctl volumes snapshots` names it
        snapshot: SnapshotName,
    },
    /// Write a volume as a tar, to standard output or a file
    ///
    ///     hostctl volumes export data | zstd > data.tar.zst
    ///
    /// It is made from a snapshot, so it is of one moment. Owners are numbers, as containers see them; holes, extended
    /// attributes and access lists are kept.
    #[command(verbatim_doc_comment)]
    Export {
        /// The volume
        name: String,
        /// The snapshot [default: the volume as it is now]
        snapshot: Option<SnapshotName>,
        /// Write it here, whole or not at all
        #[arg(short, long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Fill a volume from a tar, from a file or standard input
    ///
    ///     zstd -dc data.tar.zst | hostctl volumes import data
    ///
    /// The volume has to be there, and to be empty unless --replace is given. It holds the whole archive or what it held
    /// before. The containers that use it are stopped and started again.
    #[command(verbatim_doc_comment)]
    Import {
        /// The volume
        name: String,
        /// The tar, or - for standard input
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Put it in the place of what the volume holds, which is kept as a snapshot
        #[arg(long)]
        replace: bool,
    },
}
