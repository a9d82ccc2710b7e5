//! EROFS images, written in one pass.
//!
//! ```text
//!  block 0        1 …                       …                    …                    end
//!  ┌────────────┬────────────────────────┬────────────────────┬─────────────────────┐
//!  │ superblock │ file data, as it came  │ directories, long  │ inodes, attributes, │
//!  │ (at 1024)  │ (whole blocks)         │ links              │ tails of files      │
//!  └────────────┴────────────────────────┴────────────────────┴─────────────────────┘
//! ```
//! Data goes to disk as it arrives; only names, attributes and the last partial block of each file wait until the end
//! (in memory, and beyond 4 MiB of tails in an unnamed file). Equal trees whose data came in the same order give equal
//! bytes on every machine: nothing depends on time, memory addresses or the order of a hash table.
//!
//! The format is that of the kernel's `fs/erofs/erofs_fs.h` and `Documentation/filesystems/erofs.rst`; only what every
//! kernel since 5.4 reads is used: uncompressed inodes, plain or with an inline tail, and inline attributes. Behind the
//! image, where the kernel does not look, stand its leaves ([`crate::leaves`]).

mod format;
mod layout;
mod metadata;
mod reader;
pub(crate) mod records;
mod tree;
mod write;

pub(crate) use metadata::Sink;
pub use reader::{FileType, Image, Inode, ReadError};
pub use tree::{Attributes, FileData, InodeId, InodeKind, Tree, TreeError};
pub use write::{CopyError, Writer, Written};

/// Bytes in a block.
pub const BLOCK: usize = 4096;
