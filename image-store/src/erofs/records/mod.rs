//! Records: all that an image says of its files but their whole blocks, in the order of paths and without places.
//!
//! ```text
//!  image   │ superblock │ data of files │ directories, long links, inodes, attributes, tails │
//!                                         └────────── read ──► records ──► build ──────────┘
//! ```
//! A file that grows moves nearly all that stands behind the data of an image; its records stay as they are but for one. Since the
//! writer goes by rules, they are enough to make what they came of again, byte for byte.
//!
//! Numbers are little-endian. A record is a byte for its kind, and, but for the end of a directory, the length of a name (1 byte),
//! the name, and, but for a further name, what every inode has:
//!
//! | bytes | what |
//! |---|---|
//! | 2 + 4 + 4 | the lower 12 bits of the mode, owner, group |
//! | 8 + 4 | seconds since 1970, nanoseconds |
//! | 2 | `i_xattr_icount`: attributes, as they stand behind the inode, in words: with *n* > 0, 12 + 4(*n* − 1) bytes |
//! | | the attributes |
//!
//! | kind | | what follows |
//! |---|---|---|
//! | 0 | the end of a directory | nothing |
//! | 1 | a file, all of it in blocks | 8: its size; 4: by how much its first block is another than the one behind the file before |
//! | 2 | a file, its tail behind the inode | the same, then the tail |
//! | 3 | a directory | the records of what is in it, by name, and its end |
//! | 4 | a symbolic link | 2: the length of the target; the target |
//! | 5, 6 | a character device, a block device | 4: its number, as in the inode |
//! | 7 | a pipe | nothing |
//! | 8 | a further name of an inode | 4: how many inodes back, 1 for the last one |
//!
//! The first record is that of the root, its name empty, and its end is the last.

mod build;
mod read;

pub(crate) use build::{Build, BuildError};
pub(crate) use read::read;

const END: u8 = 0;
const FILE: u8 = 1;
const FILE_WITH_TAIL: u8 = 2;
const DIRECTORY: u8 = 3;
const SYMLINK: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;
const FIFO: u8 = 7;
const FURTHER_NAME: u8 = 8;

/// Names that records may have: those of a large root many times over. They take some 60 MiB of memory where they are built.
pub(crate) const MAX_NAMES: u64 = 1 << 18;
/// Bytes of names, targets and attributes that they may have.
pub(crate) const MAX_BYTES: u64 = 32 << 20;
/// The longest directory that is read, in bytes: more names than are allowed do not fit into one.
const MAX_DIRECTORY: u64 = 8 << 20;
/// The longest target of a link.
const MAX_TARGET: usize = 4096;

/// How many blocks a file has beside its tail.
fn whole_blocks(size: u64, tail: usize) -> u64 {
    (size - tail as u64).div_ceil(super::BLOCK as u64)
}

#[cfg(test)]
mod tests;
