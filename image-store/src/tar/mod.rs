//! A strict, streaming reader of tar archives that come from strangers.
//!
//! ```text
//!  bytes ──► header (512 bytes: ustar, GNU, v7) ──► pax and GNU long names joined in ──► Entry ──► data, holes filled
//! ```
//! Where readers of tar are known to disagree about what an archive means (a size that differs between the pax and the
//! ustar header, two long names for one entry, data behind a symbolic link), the archive is refused instead of
//! guessed at: a difference between two readers is how content is smuggled past one of them.
//!
//! **Absent:** nothing here touches a file system, and no path leaves this module that could point outside of
//! the archive's own tree.

mod header;
mod path;
mod pax;
mod reader;
mod sparse;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

pub(crate) use path::printable;
pub use path::{EntryPath, MAX_COMPONENT, MAX_PATH};
pub use reader::Reader;

/// Bytes in a header and the unit that data is padded to (POSIX.1-2017, pax, "ustar Interchange Format").
pub(crate) const RECORD: usize = 512;

/// How much of an archive is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// Bytes of the whole archive, headers and padding included; the holes of sparse files count as if they were there.
    pub bytes: u64,
    /// Entries, directories that are only implied included.
    pub entries: u64,
    /// Bytes of names, link targets and extended attributes together.
    pub metadata_bytes: u64,
}

impl Default for Limits {
    /// 64 GiB, 2,000,000 entries, 256 MiB of names and attributes.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, metadata_bytes: 256 << 20 }
    }
}

impl Limits {
    /// What a layer of so many compressed bytes may become: 4 GiB and 200 bytes for each of them, and never more than by
    /// default. Whoever signed the image has signed that size, so a small layer cannot fill a disk.
    pub fn of_compressed(size: u64) -> Self {
        let default = Self::default();
        Self { bytes: size.saturating_mul(200).saturating_add(4 << 30).min(default.bytes), ..default }
    }
}

/// One entry, its data not included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is; the root itself has no component.
    pub path: EntryPath,
    /// What it is.
    pub kind: Kind,
    /// Owner, times and attributes.
    pub meta: Meta,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes, which follow in the archive, all but holes.
    File {
        /// Bytes of data, holes included.
        size: u64,
    },
    /// Another name for the entry at `target`.
    HardLink {
        /// The first name, checked as every path is.
        target: EntryPath,
    },
    /// A symbolic link; its target is data and not checked beyond its length.
    Symlink {
        /// The target, 1 to [`MAX_PATH`] - 1 bytes without NUL.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
    /// A character device.
    CharDevice {
        /// Major number, at most 4095.
        major: u32,
        /// Minor number, at most 1048575.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, at most 4095.
        major: u32,
        /// Minor number, at most 1048575.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Owner, times and attributes of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, set-id and sticky bits: the lower 12.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970, and nanoseconds beyond them.
    pub mtime: (i64, u32),
    /// Extended attributes by full name, as `security.capability`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// It is not well formed, or says something that is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The bytes could not be read.
    #[error("could not read the archive")]
    Read(#[source] io::Error),
}

/// What is refused about an archive, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {reason}", place(*.offset, .path))]
pub struct Refusal {
    /// Bytes from the beginning of the archive to the header at fault.
    pub offset: u64,
    /// The path at fault as text, where it is known.
    pub path: Option<String>,
    /// What is wrong.
    pub reason: Reason,
}

fn place(offset: u64, path: &Option<String>) -> String {
    match path {
        Some(path) => format!("tar entry '{path}' at byte {offset}"),
        None => format!("tar header at byte {offset}"),
    }
}

/// What is wrong with an archive or an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// The archive ends inside a header or inside the data of an entry.
    #[error("the archive ends in the middle")]
    Truncated,
    /// The checksum of a header does not fit.
    #[error("the header checksum is wrong")]
    Checksum,
    /// A number field holds no number, or one that is out of range.
    #[error("field '{0}' holds no usable number")]
    Number(Cow<'static, str>),
    /// A kind of entry that is not taken.
    #[error("entries of type '{}' are not supported", .0.escape_default())]
    Type(char),
    /// A character device 0:0: to overlayfs it is a whiteout, which only a name with the prefix `.wh.` may ask for.
    #[error("the character device 0:0 would hide what is below it")]
    WhiteoutDevice,
    /// A sparse file of a kind that is not known, or whose map does not fit.
    #[error("the map of the sparse file is malformed or of an unknown kind")]
    Sparse,
    /// A file whose name ends with a slash: some readers make a directory of it.
    #[error("a file's name cannot end with a slash")]
    FileWithSlash,
    /// A path that would leave the tree, or is no path.
    #[error("the path {0}")]
    Path(PathFault),
    /// The target of a link is no target.
    #[error("the link target {0}")]
    LinkTarget(PathFault),
    /// The pax records do not read as such.
    #[error("the pax header is malformed")]
    Pax,
    /// A pax record that would change every following entry.
    #[error("the global pax header sets '{0}'")]
    GlobalPax(String),
    /// Two headers give the same entry a long name, or extended headers repeat.
    #[error("more than one extended header says the same")]
    Ambiguous,
    /// Data where an entry of this type has none.
    #[error("an entry of this type cannot have data")]
    UnexpectedData,
    /// An extended attribute that is too long or must not come from outside.
    #[error("extended attribute '{name}' {fault}")]
    Xattr {
        /// The attribute.
        name: String,
        /// What is wrong with it.
        fault: Cow<'static, str>,
    },
    /// More than a limit allows.
    #[error("more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: Cow<'static, str>,
        /// The limit.
        limit: u64,
    },
    /// A whiteout that names nothing that could be removed.
    #[error("the whiteout removes no proper name")]
    Whiteout,
    /// An entry beneath something that is no directory.
    #[error("'{0}' on its way is no directory")]
    NotADirectory(String),
    /// A hard link to something that the archive does not contain before it.
    #[error("hard link to '{0}', which this layer does not contain")]
    MissingLinkTarget(String),
    /// A hard link to a directory.
    #[error("hard link to the directory '{0}'")]
    DirectoryLink(String),
    /// The root is something else than a directory.
    #[error("the root must be a directory")]
    Root,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PathFault {
    /// A component is `..`.
    #[error("contains '..'")]
    Parent,
    /// It contains a NUL byte.
    #[error("contains a NUL byte")]
    Nul,
    /// It is empty.
    #[error("is empty")]
    Empty,
    /// It is longer than [`MAX_PATH`].
    #[error("is too long")]
    Long,
    /// A component is longer than [`MAX_COMPONENT`].
    #[error("has a component that is too long")]
    LongComponent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t14_a_layer_may_grow_with_its_compressed_size_up_to_the_default() {
        assert_eq!(Limits::of_compressed(0).bytes, 4 << 30);
        assert_eq!(Limits::of_compressed(1 << 20).bytes, (4 << 30) + (200 << 20));
        assert_eq!(Limits::of_compressed(u64::MAX), Limits::default());
    }
}
