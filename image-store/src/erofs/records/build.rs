//! Records become what stands behind the data of an image. They come from a stranger: every number is checked, and what they make take
//! of memory is bounded.

use std::io;
use std::path::Path;

use super::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, END, FIFO, FILE, FILE_WITH_TAIL, FURTHER_NAME, MAX_BYTES,
    MAX_NAMES, MAX_TARGET, SYMLINK, whole_blocks,
};
use crate::erofs::BLOCK;
use crate::erofs::format::{self, NO_BLOCK, XATTR_HEADER};
use crate::erofs::metadata::{self, Sink};
use crate::erofs::tree::{FileData, InodeId, InodeKind, Stored, Tree};
use crate::spill::Spill;

/// Tails that wait in memory before they go to an unnamed file, in bytes.
const TAILS_IN_MEMORY: usize = 4 << 20;
/// More than the longest record: name, attributes, and a tail or a target.
const MAX_RECORD: usize = 512 + (1 << 16) * 4 + BLOCK;

/// Why nothing comes of records.
#[derive(Debug)]
pub(crate) enum BuildError {
    /// They are none, or too many.
    Damaged,
    /// A file failed.
    Io(io::Error),
}

impl From<io::Error> for BuildError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Takes records, in pieces of any length.
#[derive(Debug)]
pub(crate) struct Build {
    tree: Tree,
    tails: Spill,
    names: u64,
    /// Directories that did not end yet.
    open: Vec<InodeId>,
    /// Inodes, in order.
    inodes: Vec<InodeId>,
    /// The block behind the file before.
    predicted: u32,
    /// The beginning of a record.
    pending: Vec<u8>,
}

/// A record that was read.
enum Record<'a> {
    End,
    FurtherName { name: &'a [u8], back: u32 },
    Inode { name: &'a [u8], attributes: Stored, kind: Kind<'a> },
}

enum Kind<'a> {
    File { size: u64, shift: u32, tail: Option<&'a [u8]> },
    Other(InodeKind),
}

impl Build {
    /// No record yet. Tails that do not fit into memory wait in an unnamed file in `spill`.
    pub(crate) fn new(spill: &Path) -> Self {
        Self {
            tree: Tree::new(MAX_NAMES, MAX_BYTES),
            tails: Spill::new(spill, TAILS_IN_MEMORY),
            names: 0,
            open: Vec::new(),
            inodes: Vec::new(),
            predicted: 1,
            pending: Vec::new(),
        }
    }

    /// Takes the next bytes of the records.
    ///
    /// # Errors
    /// [`BuildError`]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut fields = Fields(&pending);
        let mut rest = pending.len();
        while rest > 0 {
            match fields.record()? {
                Some(record) => self.take(record)?,
                None if rest > MAX_RECORD => return Err(BuildError::Damaged),
                None => break,
            }
            rest = fields.0.len();
        }
        pending.drain(..pending.len() - rest);
        self.pending = pending;
        Ok(self.tails.settle()?)
    }

    /// The first block of each file that has some, in their order.
    pub(crate) fn files(&self) -> Vec<u64> {
        let first = |inode: &InodeId| match self.tree.kind(*inode) {
            InodeKind::File(data) if data.start_block != NO_BLOCK => Some(u64::from(data.start_block)),
            _ => None,
        };
        let mut files: Vec<u64> = self.inodes.iter().filter_map(first).collect();
        files.sort_unstable();
        files
    }

    /// Writes what the records describe to `out`, to the end of the image. What comes before was written.
    ///
    /// # Errors
    /// [`BuildError`], also where records are missing.
    pub(crate) fn finish(&self, out: &mut impl Sink) -> Result<(), BuildError> {
        if !self.open.is_empty() || self.inodes.is_empty() || !self.pending.is_empty() {
            return Err(BuildError::Damaged);
        }
        metadata::write(out, &self.tree, &self.tails)?;
        Ok(())
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), BuildError> {
        self.names += 1;
        let is_first = self.inodes.is_empty();
        let Some(parent) = self.open.last().copied().or(is_first.then_some(Tree::ROOT)) else {
            return Err(BuildError::Damaged); // Behind the end of the root.
        };
        match record {
            Record::End if !is_first => {
                self.open.pop();
                self.names -= 1;
            }
            _ if self.names > MAX_NAMES => return Err(BuildError::Damaged),
            Record::Inode { name, attributes, kind: Kind::Other(InodeKind::Directory) } => {
                let directory = if is_first {
                    self.tree.set_stored(Tree::ROOT, attributes).map(|()| Tree::ROOT)
                } else {
                    self.tree.add_stored(parent, name, InodeKind::Directory, attributes)
                };
                let directory = directory.map_err(|_| BuildError::Damaged)?;
                self.open.push(directory);
                self.inodes.push(directory);
            }
            _ if is_first => return Err(BuildError::Damaged),
            Record::Inode { name, attributes, kind } => {
                let kind = self.kind(kind);
                let added = self.tree.add_stored(parent, name, kind, attributes);
                self.inodes.push(added.map_err(|_| BuildError::Damaged)?);
            }
            Record::FurtherName { name, back } => {
                let number = self.inodes.len().checked_sub(back as usize).filter(|_| back > 0);
                let inode = number.map(|number| self.inodes[number]);
                let inode =
                    inode.filter(|inode| !self.tree.is_directory(*inode)).ok_or(BuildError::Damaged)?;
                self.tree.link(parent, name, inode).map_err(|_| BuildError::Damaged)?;
            }
            Record::End => return Err(BuildError::Damaged),
        }
        Ok(())
    }

    fn kind(&mut self, kind: Kind<'_>) -> InodeKind {
        let (size, shift, tail) = match kind {
            Kind::Other(kind) => return kind,
            Kind::File { size, shift, tail } => (size, shift, tail),
        };
        let mut data = FileData { size, ..FileData::default() };
        let blocks = whole_blocks(size, tail.map_or(0, <[u8]>::len));
        if blocks > 0 {
            data.start_block = self.predicted.wrapping_add(shift);
            self.predicted = data.start_block.wrapping_add(blocks as u32);
        }
        if let Some(tail) = tail {
            data.tail = self.tails.len();
            self.tails.add(tail);
        }
        InodeKind::File(data)
    }
}

/// What is left of some bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next record; `None` where it did not come whole yet, and then what is left is of no use any more.
    fn record(&mut self) -> Result<Option<Record<'a>>, BuildError> {
        match self.0.first() {
            Some(
                &(END | FILE | FILE_WITH_TAIL | DIRECTORY | SYMLINK | CHAR_DEVICE | BLOCK_DEVICE | FIFO
                | FURTHER_NAME),
            ) => {}
            _ => return Err(BuildError::Damaged),
        }
        Ok(self.known())
    }

    fn known(&mut self) -> Option<Record<'a>> {
        let [kind] = self.array()?;
        if kind == END {
            return Some(Record::End);
        }
        let [len] = self.array()?;
        let name = self.bytes(len.into())?;
        if kind == FURTHER_NAME {
            return Some(Record::FurtherName { name, back: self.u32()? });
        }
        let mode = u16::from_le_bytes(self.array()?);
        let owner = (self.u32()?, self.u32()?);
        let mtime = (i64::from_le_bytes(self.array()?), self.u32()?);
        let words = usize::from(u16::from_le_bytes(self.array()?));
        let xattrs = if words == 0 { 0 } else { XATTR_HEADER + (words - 1) * 4 };
        let attributes = Stored::encoded(mode & 0o7777, owner, mtime, self.bytes(xattrs)?.to_vec());
        let kind = match kind {
            FILE | FILE_WITH_TAIL => {
                let (size, shift) = (u64::from_le_bytes(self.array()?), self.u32()?);
                let tail = (size % BLOCK as u64) as usize;
                let tail = if kind == FILE_WITH_TAIL { Some(self.bytes(tail)?) } else { None };
                Kind::File { size, shift, tail }
            }
            SYMLINK => {
                let len = usize::from(u16::from_le_bytes(self.array()?));
                Kind::Other(InodeKind::Symlink(self.bytes(len.min(MAX_TARGET))?.into()))
            }
            CHAR_DEVICE | BLOCK_DEVICE => {
                let (major, minor) = format::decode_device(self.u32()?);
                Kind::Other(match kind {
                    CHAR_DEVICE => InodeKind::CharDevice(major, minor),
                    _ => InodeKind::BlockDevice(major, minor),
                })
            }
            DIRECTORY => Kind::Other(InodeKind::Directory),
            _ => Kind::Other(InodeKind::Fifo),
        };
        Some(Record::Inode { name, attributes, kind })
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
}
