//! Layers are parsed in processes that can do nothing else.
//!
//! ```text
//!            this process                         "unpack"                 this process             "convert"
//!  source ─► SHA-256 = descriptor? ──pipe──► gunzip or unzstd ──pipe──► SHA-256 = diff id? ──pipe──► tar ─► EROFS ─► open file
//!                                                  └──────────── what became of it: a pipe each ─────────┘
//! ```
//! A stranger chooses every byte that a decompressor and a reader of tar see. So both run in children that are made for one
//! layer, hold nothing but their pipes and the file that they write, and have given up everything else before they read the first
//! byte (`worker/confine.rs`). What goes between them is hashed here: no child can pass off one layer as another. Why it is so is written
//! down in `docs/decisions/0006-layers-are-parsed-in-a-confined-process.md`.
//!
//! ```text
//!  start: a child, its pipes, its end ◄── unpack: what a child gives, as a reader
//!                                     ◄── convert: a layer becomes a blob
//!  role:  what the children do        ──► report ──► what they say of it, which is believed of nobody
//! ```

mod confine;
mod convert;
mod error;
mod report;
mod role;
mod start;
mod syscalls;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use confine::{Bounds, confine};
pub(crate) use convert::{Failed, convert};
pub use error::WorkerError;
pub(crate) use role::Packed;
pub use role::run_if_asked;
pub(crate) use unpack::{Unpacked, decoder};

/// The name that a program is started by to be a worker, in stead of its own.
const NAME: &str = "bennu-layer-worker";
/// How long a worker may neither take nor give anything while it should. A disk that writes back gigabytes can hold one up for
/// minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the layers of a store are parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confinement {
    /// In this process, with all its rights. For tests, and for programs that have no rights which an attacker would want.
    None,
    /// In processes of their own, which can do nothing else.
    Process(Program),
}

/// The program that is started to parse layers: one that calls [`run_if_asked`] before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    patience: Duration,
}

impl Program {
    /// This program. Its `main` has to begin with [`run_if_asked`].
    pub fn this() -> Self {
        Self::at(Path::new("/proc/self/exe"))
    }

    /// The program at `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), patience: PATIENCE }
    }

    /// The same, but given up on when it neither takes nor gives anything for so long; 10 minutes unless it is said.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}
