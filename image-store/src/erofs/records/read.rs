//! An image becomes records. Nothing in it is believed: it may come from a stranger.

use std::collections::HashMap;

use super::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, END, FIFO, FILE, FILE_WITH_TAIL, FURTHER_NAME, MAX_BYTES,
    MAX_DIRECTORY, MAX_NAMES, MAX_TARGET, SYMLINK, whole_blocks,
};
use crate::erofs::format::XATTR_HEADER;
use crate::erofs::{FileType, Image, Inode, ReadError};

/// What comes next.
enum Next {
    Name(Vec<u8>, u64),
    End,
}

/// Gives each record of an image to `emit`, in order. Reads no more bytes than the image has, and its inodes once.
///
/// # Errors
/// [`ReadError`], also where there are more names than records may have, or more bytes of them; and what `emit` says.
pub(crate) fn read(
    image: &Image,
    mut emit: impl FnMut(&[u8]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut reading =
        Reading { image, seen: HashMap::new(), predicted: 1, budget: image.len(), bytes: MAX_BYTES };
    let mut stack = vec![Next::Name(Vec::new(), image.root()?.nid)];
    let (mut record, mut names) = (Vec::new(), 0);
    while let Some(next) = stack.pop() {
        record.clear();
        match next {
            Next::End => record.push(END),
            Next::Name(name, nid) => {
                names += 1;
                if names > MAX_NAMES {
                    return Err(ReadError::Damaged("more names than are read"));
                }
                if let Some(directory) = reading.record(&name, nid, &mut record)? {
                    stack.push(Next::End);
                    let entries = reading.entries(&directory)?;
                    stack.extend(entries.into_iter().rev().map(|(name, nid)| Next::Name(name, nid)));
                }
            }
        }
        emit(&record)?;
    }
    Ok(())
}

struct Reading<'a> {
    image: &'a Image,
    /// The number of each inode that had its record, by its number in the image.
    seen: HashMap<u64, u32>,
    /// The block behind the file before.
    predicted: u32,
    /// Bytes that may still be read: directories may name one another, and inodes lie over one another.
    budget: u64,
    /// Bytes of names, targets and attributes that there may still be.
    bytes: u64,
}

impl Reading<'_> {
    /// Writes the record of a name, and gives the inode where it is a directory.
    fn record(&mut self, name: &[u8], nid: u64, out: &mut Vec<u8>) -> Result<Option<Inode>, ReadError> {
        let len = u8::try_from(name.len()).map_err(|_| ReadError::Damaged("a name"))?;
        self.keep(name.len())?;
        let number = self.seen.len() as u32;
        if let Some(earlier) = self.seen.get(&nid) {
            out.extend_from_slice(&[FURTHER_NAME, len]);
            out.extend_from_slice(name);
            out.extend_from_slice(&(number - earlier).to_le_bytes());
            return Ok(None);
        }
        self.seen.insert(nid, number);
        let inode = self.image.inode(nid)?;
        let kind = match (inode.file_type(), inode.tail_len()) {
            (FileType::File, None) => FILE,
            (FileType::File, Some(_)) => FILE_WITH_TAIL,
            (FileType::Directory, _) => DIRECTORY,
            (FileType::Symlink, _) => SYMLINK,
            (FileType::CharDevice, _) => CHAR_DEVICE,
            (FileType::BlockDevice, _) => BLOCK_DEVICE,
            (FileType::Fifo, _) => FIFO,
        };
        out.extend_from_slice(&[kind, len]);
        out.extend_from_slice(name);
        self.keep(inode.encoded.len())?;
        attributes(&inode, out);
        match kind {
            FILE | FILE_WITH_TAIL => self.file(&inode, out)?,
            SYMLINK => {
                let target = self.image.link_target(&inode)?;
                self.keep(target.len())?;
                let len = u16::try_from(target.len()).ok().filter(|len| usize::from(*len) <= MAX_TARGET);
                out.extend_from_slice(&len.ok_or(ReadError::Damaged("a symbolic link"))?.to_le_bytes());
                out.extend_from_slice(&target);
            }
            CHAR_DEVICE | BLOCK_DEVICE => out.extend_from_slice(&inode.block_or_rdev.to_le_bytes()),
            _ => {}
        }
        Ok((kind == DIRECTORY).then_some(inode))
    }

    fn file(&mut self, inode: &Inode, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let tail = inode.tail_len().unwrap_or(0);
        self.spend(tail as u64)?;
        let blocks = whole_blocks(inode.size, tail);
        let mut shift = 0;
        if blocks > 0 {
            shift = inode.block_or_rdev.wrapping_sub(self.predicted);
            self.predicted = inode.block_or_rdev.wrapping_add(blocks as u32);
        }
        out.extend_from_slice(&inode.size.to_le_bytes());
        out.extend_from_slice(&shift.to_le_bytes());
        let from = out.len();
        out.resize(from + tail, 0);
        if self.image.read(inode, inode.size - tail as u64, &mut out[from..])? == tail {
            Ok(())
        } else {
            Err(ReadError::Damaged("a tail"))
        }
    }

    fn entries(&mut self, directory: &Inode) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        if directory.size > MAX_DIRECTORY {
            return Err(ReadError::Damaged("a directory larger than any that is read"));
        }
        self.spend(directory.size)?;
        self.image.entries(directory)
    }

    fn spend(&mut self, bytes: u64) -> Result<(), ReadError> {
        let damaged = ReadError::Damaged("parts that lie over one another");
        self.budget = self.budget.checked_sub(bytes).ok_or(damaged)?;
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> Result<(), ReadError> {
        let damaged = ReadError::Damaged("more names and attributes than are read");
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or(damaged)?;
        Ok(())
    }
}

fn attributes(inode: &Inode, out: &mut Vec<u8>) {
    out.extend_from_slice(&(inode.mode & 0o7777).to_le_bytes());
    out.extend_from_slice(&inode.uid.to_le_bytes());
    out.extend_from_slice(&inode.gid.to_le_bytes());
    out.extend_from_slice(&inode.mtime.0.to_le_bytes());
    out.extend_from_slice(&inode.mtime.1.to_le_bytes());
    let words = inode.encoded.len().checked_sub(XATTR_HEADER).map_or(0, |more| more / 4 + 1);
    // The inode says the same number in as many bytes.
    out.extend_from_slice(&(words as u16).to_le_bytes());
    out.extend_from_slice(&inode.encoded);
}
