//! Why an image could not be built.

use std::path::PathBuf;

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A file could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Verb and object, as in `read the tar`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started: most likely its package is missing.
    #[error("cannot start {program}")]
    Start {
        /// Name of the program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{program} failed ({status}):\n{stderr}")]
    Program {
        /// Name of the program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote to its standard error, at most 4 KiB.
        stderr: String,
    },
    /// A part that must be there was not made by the stage before.
    #[error("the root has no {what}")]
    Incomplete {
        /// What is missing.
        what: String,
    },
    /// A mirror shows what is not good any more.
    #[error(
        "the release file of {suite} was good until {until}: the mirror, or something on the way to it, stands still"
    )]
    Stale {
        /// Address of the suite's folder.
        suite: String,
        /// When that was over.
        until: String,
    },
    /// Something is larger than machines have room for.
    #[error("the {what} has {bytes} bytes, and at most {most} fit")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its bytes.
        bytes: u64,
        /// How many it may have.
        most: u64,
    },
    /// A folder of keys for Secure Boot is not complete.
    #[error("{} has no {missing}: `cargo xtask keys` makes all that is needed in a new folder", folder.display())]
    Keys {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        missing: String,
    },
    /// The root could not be turned into a blob of the store.
    #[error("cannot import the root into the store")]
    Import {
        /// What the store said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No UEFI firmware for virtual machines is installed.
    #[error("no UEFI firmware found; looked for {looked_for}")]
    NoFirmware {
        /// The paths, separated by commas.
        looked_for: String,
    },
}
