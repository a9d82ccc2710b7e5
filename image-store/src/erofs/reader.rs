//! Reading images of our own making, without mounting them.
//!
//! Only what [`super::Writer`] writes is understood. Nothing in the image is believed: it may be damaged, so every number is
//! checked against the length of the file before it is used.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::BLOCK;
use super::format::{self, DIRENT_SIZE, INODE_SIZE, SLOT, XATTR_HEADER, XATTR_PREFIXES};

/// The largest directory that is read, in bytes: room for some hundred thousand names.
const MAX_DIRECTORY: u64 = 64 << 20;
/// The longest target of a symbolic link, in bytes.
const MAX_LINK: u64 = 4096;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is damaged, or not of our making.
    #[error("the image is damaged: {0}")]
    Damaged(&'static str),
    /// The file cannot be read.
    #[error("could not read the image")]
    Io(#[from] io::Error),
}

/// An open image.
#[derive(Debug)]
pub struct Image {
    file: File,
    len: u64,
    meta: u64,
    root: u64,
}

/// An inode as it is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number in the image.
    pub nid: u64,
    /// Type and permissions.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of content.
    pub size: u64,
    /// Names.
    pub nlink: u32,
    /// Major and minor number, of devices.
    pub device: (u32, u32),
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Extended attributes as they follow the inode.
    pub(super) encoded: Vec<u8>,
    /// First block, or the device number.
    pub(super) block_or_rdev: u32,
    /// Where the whole blocks are, and where the inline tail is.
    blocks: u64,
    tail: Option<u64>,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

impl Inode {
    /// What it is.
    pub fn file_type(&self) -> FileType {
        match self.mode & format::S_IFMT {
            format::S_IFDIR => FileType::Directory,
            format::S_IFLNK => FileType::Symlink,
            format::S_IFCHR => FileType::CharDevice,
            format::S_IFBLK => FileType::BlockDevice,
            format::S_IFIFO => FileType::Fifo,
            _ => FileType::File,
        }
    }

    /// Where the first whole block of a file is, in bytes from the beginning of the image; `None` where it has none.
    pub(crate) fn first_byte(&self) -> Option<u64> {
        let whole = if self.tail.is_some() { self.size >= BLOCK as u64 } else { self.size > 0 };
        (self.file_type() == FileType::File && whole).then_some(self.blocks)
    }

    /// Bytes of content behind the inode; `None` where all of it is in blocks.
    pub(super) fn tail_len(&self) -> Option<usize> {
        self.tail.map(|_| (self.size % BLOCK as u64) as usize)
    }
}

impl Image {
    /// Opens the image in `file`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn open(file: File) -> Result<Self, ReadError> {
        let len = file.metadata()?.len();
        let mut block = [0; BLOCK];
        file.read_exact_at(&mut block, 0)?;
        let superblock = &mut block[format::SUPER_OFFSET..];
        let checksum = u32_at(superblock, 4);
        superblock[4..8].fill(0);
        if u32_at(superblock, 0) != format::MAGIC || format::crc32c(superblock) != checksum {
            return Err(ReadError::Damaged("the superblock"));
        }
        if superblock[12] != BLOCK.ilog2() as u8 || u32_at(superblock, 80) != 0 {
            return Err(ReadError::Damaged("features that we never use"));
        }
        let meta = u64::from(u32_at(superblock, 40)) * BLOCK as u64;
        Ok(Self { meta, root: u16_at(superblock, 14).into(), len, file })
    }

    /// The root directory.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn root(&self) -> Result<Inode, ReadError> {
        self.inode(self.root)
    }

    /// Bytes of the file that it is in.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The inode with this number.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let damaged = ReadError::Damaged("an inode");
        let Some(at) = nid.checked_mul(SLOT as u64).and_then(|offset| offset.checked_add(self.meta)) else {
            return Err(damaged);
        };
        let mut raw = [0; INODE_SIZE];
        self.read_exact(at, &mut raw)?;
        let inline = match u16_at(&raw, 0) {
            1 => false,
            5 => true,
            _ => return Err(damaged),
        };
        let xattr_len = match u16_at(&raw, 2) {
            0 => 0,
            count => XATTR_HEADER + (usize::from(count) - 1) * 4,
        };
        let mode = u16_at(&raw, 4);
        let size = u64::from_le_bytes(raw[8..16].try_into().expect("8 bytes"));
        let block = u32_at(&raw, 16);
        let is_device = matches!(mode & format::S_IFMT, format::S_IFCHR | format::S_IFBLK);
        let encoded = self.encoded_xattrs(at + INODE_SIZE as u64, xattr_len)?;
        let inode = Inode {
            nid,
            mode,
            uid: u32_at(&raw, 24),
            gid: u32_at(&raw, 28),
            mtime: (i64::from_le_bytes(raw[32..40].try_into().expect("8 bytes")), u32_at(&raw, 40)),
            size,
            nlink: u32_at(&raw, 44),
            device: if is_device { format::decode_device(block) } else { (0, 0) },
            xattrs: xattrs(&encoded)?,
            encoded,
            block_or_rdev: block,
            blocks: u64::from(block) * BLOCK as u64,
            tail: inline.then_some(at + (INODE_SIZE + xattr_len) as u64),
        };
        if size > self.len {
            return Err(ReadError::Damaged("a file larger than the image"));
        }
        Ok(inode)
    }

    /// The names in a directory and the inodes they stand for, `.` and `..` left out, in order.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn entries(&self, directory: &Inode) -> Result<Vec<(Vec<u8>, u64)>, ReadError> {
        let damaged = || ReadError::Damaged("a directory");
        if directory.file_type() != FileType::Directory || directory.size > MAX_DIRECTORY {
            return Err(damaged());
        }
        let content = self.content(directory)?;
        let mut entries = Vec::new();
        for block in content.chunks(BLOCK) {
            let first = usize::from(u16_at(block.get(..DIRENT_SIZE).ok_or_else(damaged)?, 8));
            if first == 0 || first % DIRENT_SIZE != 0 || first > block.len() {
                return Err(damaged());
            }
            let starts: Vec<usize> =
                block[..first].chunks_exact(DIRENT_SIZE).map(|entry| u16_at(entry, 8).into()).collect();
            for (i, start) in starts.iter().enumerate() {
                let end = starts.get(i + 1).copied().unwrap_or(block.len());
                let mut name = block.get(*start..end).ok_or_else(damaged)?;
                if i + 1 == starts.len() {
                    name = name.split(|b| *b == 0).next().unwrap_or(name);
                }
                if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
                    return Err(damaged());
                }
                if name != b"." && name != b".." {
                    let nid = block[i * DIRENT_SIZE..][..8].try_into().expect("8 bytes");
                    entries.push((name.to_vec(), u64::from_le_bytes(nid)));
                }
            }
        }
        Ok(entries)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn link_target(&self, link: &Inode) -> Result<Vec<u8>, ReadError> {
        if link.file_type() != FileType::Symlink || link.size > MAX_LINK {
            return Err(ReadError::Damaged("a symbolic link"));
        }
        self.content(link)
    }

    /// Reads content of an inode from `offset`; 0 bytes at its end.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn read(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = inode.size.saturating_sub(offset);
        let whole = if inode.tail.is_some() { inode.size - inode.size % BLOCK as u64 } else { inode.size };
        let (at, run) = match inode.tail {
            Some(tail) if offset >= whole => (tail.saturating_add(offset - whole), left),
            _ => (inode.blocks.saturating_add(offset), whole.saturating_sub(offset)),
        };
        let n = usize::try_from(run.min(left)).unwrap_or(usize::MAX).min(buf.len());
        // An inode without content names no place that could be checked.
        if n > 0 {
            self.read_exact(at, &mut buf[..n])?;
        }
        Ok(n)
    }

    fn content(&self, inode: &Inode) -> Result<Vec<u8>, ReadError> {
        let mut content = vec![0; usize::try_from(inode.size).map_err(|_| ReadError::Damaged("a size"))?];
        let mut filled = 0;
        while filled < content.len() {
            filled += self.read(inode, filled as u64, &mut content[filled..])?;
        }
        Ok(content)
    }

    fn encoded_xattrs(&self, at: u64, len: usize) -> Result<Vec<u8>, ReadError> {
        let mut raw = vec![0; len];
        self.read_exact(at, &mut raw)?;
        Ok(raw)
    }

    fn read_exact(&self, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if at.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(ReadError::Damaged("a place beyond its end"));
        }
        Ok(self.file.read_exact_at(buf, at)?)
    }
}

fn xattrs(encoded: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ReadError> {
    let damaged = || ReadError::Damaged("extended attributes");
    let mut rest = encoded.get(XATTR_HEADER..).unwrap_or_default();
    let mut xattrs = BTreeMap::new();
    while let [name_len, index, ..] = rest {
        let value_len = usize::from(u16_at(rest.get(..4).ok_or_else(damaged)?, 2));
        let (name_end, end) = (4 + usize::from(*name_len), 4 + usize::from(*name_len) + value_len);
        let prefix = XATTR_PREFIXES.iter().find(|(i, _)| i == index).ok_or_else(damaged)?.1;
        let name = rest.get(4..name_end).ok_or_else(damaged)?;
        let value = rest.get(name_end..end).ok_or_else(damaged)?;
        xattrs.insert([prefix, name].concat(), value.to_vec());
        rest = rest.get(end.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(xattrs)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
