//! The writer: data as it comes, everything else at the end, and behind the image its leaves.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use bennu_manifests::model::Digest;

use super::BLOCK;
use super::format::{self, DiskInode, NO_BLOCK, Superblock};
use super::layout::{self, Layout, Placed};
use super::tree::{Attributes, FileData, InodeKind, Tree};
use crate::leaves::{LEAVES_IN_MEMORY, Namer};
use crate::space::Watch;
use crate::spill::{Scratch, Spill};

/// Tails that wait in memory before they go to an unnamed file, in bytes.
const TAILS_IN_MEMORY: usize = 4 << 20;

/// Bytes that are hashed and written at a time; a whole number of blocks.
const BATCH: usize = 1 << 17;

/// An image that is complete, its leaves behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The fs-verity digest of both.
    pub verity: Digest,
    /// Bytes of both.
    pub size: u64,
}

/// Writes one image to an empty file.
#[derive(Debug)]
pub struct Writer {
    out: File,
    /// Of what was written to the file.
    name: Namer,
    /// What comes behind it, [`BATCH`] bytes with those that are free.
    waiting: Box<[u8]>,
    /// Bytes of them that are not.
    filled: usize,
    tails: Spill,
    watch: Watch,
}

/// Why a file could not be copied into the image.
#[derive(Debug)]
pub enum CopyError<E> {
    /// The source failed.
    Read(E),
    /// The source ended before the size that was announced.
    Short,
    /// The image's file failed.
    Write(io::Error),
}

fn fill<E>(
    mut buffer: &mut [u8],
    read: &mut impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), CopyError<E>> {
    while !buffer.is_empty() {
        match read(buffer).map_err(CopyError::Read)? {
            0 => return Err(CopyError::Short),
            n => buffer = &mut buffer[n..],
        }
    }
    Ok(())
}

impl Writer {
    /// Begins an image in `file`, which must be empty and open for writing. What does not fit into memory waits in an unnamed
    /// file in `spill`.
    ///
    /// # Errors
    /// Whatever the file says.
    pub fn new(file: File, spill: &Path) -> io::Result<Self> {
        Self::with_scratch(file, Scratch::Directory(spill.to_owned()))
    }

    /// As [`Self::new`], with a place for what does not fit into memory.
    pub(crate) fn with_scratch(file: File, scratch: Scratch) -> io::Result<Self> {
        let (tails, leaves) = scratch.spills(TAILS_IN_MEMORY, LEAVES_IN_MEMORY);
        let mut writer = Self {
            out: file,
            name: Namer::with_leaves(leaves),
            waiting: vec![0; BATCH].into(),
            filled: 0,
            tails,
            watch: Watch::default(),
        };
        // The superblock comes last; until then this is no file system.
        writer.put(&[0; BLOCK])?;
        Ok(writer)
    }

    /// Writes the bytes of a regular file that will have `attributes`. `read` fills a buffer, at least partly, and gives 0
    /// only at the end of the file.
    ///
    /// # Errors
    /// What `read` says, and apart from it what the image's file says.
    pub fn write_file<E>(
        &mut self,
        size: u64,
        attributes: &Attributes,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
    ) -> Result<FileData, CopyError<E>> {
        let room = layout::inline_room(format::encode_xattrs(&attributes.xattrs).len());
        let tail = (size % BLOCK as u64) as usize;
        let inline = tail > 0 && tail <= room;
        let mut left = if inline { size - tail as u64 } else { size };
        let mut data = FileData { size, ..FileData::default() };
        if left > 0 {
            data.start_block = self.next_block().map_err(CopyError::Write)?;
        }
        while left > 0 {
            let free = &mut self.waiting[self.filled..];
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(free.len());
            fill(&mut free[..want], &mut read)?;
            left -= want as u64;
            // Files begin at whole blocks, and so does the end of what is free.
            let padded = want.next_multiple_of(BLOCK);
            free[want..padded].fill(0);
            self.filled += padded;
            self.settle().map_err(CopyError::Write)?;
        }
        if inline {
            let mut buffer = [0; BLOCK];
            fill(&mut buffer[..tail], &mut read)?;
            data.tail = self.tails.len();
            self.tails.add(&buffer[..tail]);
            self.tails.settle().map_err(CopyError::Write)?;
        }
        Ok(data)
    }

    /// Writes the tree, the superblock and the leaves. The file is complete and flushed to the kernel, but not fsynced.
    ///
    /// # Errors
    /// Whatever the file says.
    pub fn finish(mut self, tree: &Tree) -> io::Result<(File, Written)> {
        let layout = layout::layout(tree);
        let blocks = self.write_blocks(tree, &layout)?;
        let meta_block = self.next_block()?;
        self.write_inodes(tree, &layout, &blocks)?;

        let mut superblock = Superblock {
            root: u16::try_from(layout.nid(Tree::ROOT)).expect("the root is the first inode"),
            inodes: layout.placed.len() as u64,
            blocks: self.next_block()?,
            meta_block,
            uuid: [0; 16],
        };
        // overlayfs tells its layers apart by UUID, so each image has its own, made from all that is in it.
        self.write_waiting()?;
        superblock.uuid = uuid(&self.name.peek());
        let first = superblock.encode();
        let mut out = BufWriter::with_capacity(BATCH, self.out);
        let (verity, size) = self.name.finish(Some(&first), &mut out)?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&first)?;
        Ok((file, Written { verity, size }))
    }

    /// Contents of directories and links that do not fit behind their inode. Gives the first block for each inode.
    fn write_blocks(&mut self, tree: &Tree, layout: &Layout) -> io::Result<Vec<u32>> {
        let mut starts = Vec::with_capacity(layout.placed.len());
        for placed in &layout.placed {
            let directory;
            let content = match &tree.node(placed.id).kind {
                InodeKind::File(data) => {
                    starts.push(data.start_block);
                    continue;
                }
                InodeKind::CharDevice(major, minor) | InodeKind::BlockDevice(major, minor) => {
                    starts.push(format::encode_device(*major, *minor));
                    continue;
                }
                InodeKind::Fifo => {
                    starts.push(0);
                    continue;
                }
                InodeKind::Directory => {
                    directory = layout::encode_directory(tree, layout, placed);
                    &directory[..]
                }
                InodeKind::Symlink(target) => target,
            };
            let whole = &content[..content.len() - placed.inline()];
            if whole.is_empty() {
                starts.push(NO_BLOCK);
                continue;
            }
            starts.push(self.next_block()?);
            self.put(whole)?;
            let padding = whole.len().next_multiple_of(BLOCK) - whole.len();
            self.put(&[0; BLOCK][..padding])?;
        }
        Ok(starts)
    }

    /// The metadata area: every inode with its attributes and tail, by place.
    fn write_inodes(&mut self, tree: &Tree, layout: &Layout, blocks: &[u32]) -> io::Result<()> {
        let mut order: Vec<u32> = (0..layout.placed.len() as u32).collect();
        order.sort_unstable_by_key(|i| layout.placed[*i as usize].offset());
        let mut at = 0;
        for i in order {
            let placed = &layout.placed[i as usize];
            self.zeros(placed.offset() - at)?;
            let node = tree.node(placed.id);
            let inode = DiskInode {
                layout: placed.layout,
                xattr_len: node.attributes.xattrs().len(),
                mode: layout::mode(node),
                size: placed.size,
                block_or_rdev: blocks[i as usize],
                number: i + 1,
                uid: node.attributes.uid,
                gid: node.attributes.gid,
                mtime: node.attributes.mtime(),
                nlink: link_count(tree, placed),
            };
            self.put(&inode.encode())?;
            self.put(node.attributes.xattrs())?;
            let tail = self.tail(tree, layout, placed)?;
            self.put(&tail)?;
            let behind = format::INODE_SIZE + node.attributes.xattrs().len() + placed.inline();
            at = placed.offset() + behind as u64;
        }
        self.zeros(layout.blocks * BLOCK as u64 - at)
    }

    fn tail(&self, tree: &Tree, layout: &Layout, placed: &Placed) -> io::Result<Vec<u8>> {
        if placed.inline() == 0 {
            return Ok(Vec::new());
        }
        Ok(match &tree.node(placed.id).kind {
            InodeKind::File(data) => {
                let mut tail = vec![0; placed.inline()];
                self.tails.read(data.tail, &mut tail)?;
                tail
            }
            InodeKind::Directory => {
                let mut content = layout::encode_directory(tree, layout, placed);
                content.split_off(content.len() - placed.inline())
            }
            InodeKind::Symlink(target) => target.to_vec(),
            _ => Vec::new(),
        })
    }

    fn next_block(&self) -> io::Result<u32> {
        // 2^32 - 1 blocks are 16 TiB, and the last number means "none".
        u32::try_from((self.name.len() + self.filled as u64) / BLOCK as u64)
            .ok()
            .filter(|block| *block != NO_BLOCK)
            .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let now = count.min(BLOCK as u64);
            self.put(&[0; BLOCK][..now as usize])?;
            count -= now;
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let free = &mut self.waiting[self.filled..];
            let (now, rest) = bytes.split_at(bytes.len().min(free.len()));
            free[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = rest;
            self.settle()?;
        }
        Ok(())
    }

    /// Writes what waits where there is no room for more.
    fn settle(&mut self) -> io::Result<()> {
        if self.filled == self.waiting.len() { self.write_waiting() } else { Ok(()) }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let bytes = &self.waiting[..std::mem::take(&mut self.filled)];
        self.name.update(bytes)?;
        self.out.write_all(bytes)?;
        self.watch.wrote(&self.out, bytes.len())
    }
}

/// Names of an inode; a directory has one in its parent, its own `.`, and `..` in each directory below.
fn link_count(tree: &Tree, placed: &Placed) -> u32 {
    let node = tree.node(placed.id);
    match node.kind {
        InodeKind::Directory => {
            2 + node.children.values().filter(|child| tree.is_directory(**child)).count() as u32
        }
        _ => node.names,
    }
}

/// A UUID of version 8 (RFC 9562, section 5.8: vendor's own) from a digest.
fn uuid(digest: &Digest) -> [u8; 16] {
    let mut uuid: [u8; 16] = digest.as_bytes()[..16].try_into().expect("a digest has 32 bytes");
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::erofs::Image;

    /// As [`Tree`] and [`Writer`] are used for a layer, with files of these sizes, in pieces of no particular length.
    fn written(sizes: &[usize], content: impl Fn(usize, usize) -> u8) -> (File, Written) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut writer = Writer::new(tempfile::tempfile().expect("a file"), dir.path()).expect("begun");
        let mut tree = Tree::new(1000, 1 << 20);
        for (number, size) in sizes.iter().enumerate() {
            let data: Vec<u8> = (0..*size).map(|i| content(number, i)).collect();
            let (mut left, attributes) = (&data[..], Attributes::default());
            let read = |buffer: &mut [u8]| {
                let (piece, rest) = left.split_at(buffer.len().min(left.len()).min(10_007));
                buffer[..piece.len()].copy_from_slice(piece);
                left = rest;
                Ok::<_, Infallible>(piece.len())
            };
            let data = writer.write_file(*size as u64, &attributes, read).expect("written");
            let name = format!("{number:03}");
            tree.add(Tree::ROOT, name.as_bytes(), InodeKind::File(data), &attributes).expect("added");
        }
        writer.finish(&tree).expect("finished")
    }

    #[test]
    fn files_that_begin_and_end_anywhere_in_a_batch_are_read_back_and_the_digest_is_that_of_the_file() {
        let few = [1, BLOCK, BATCH - BLOCK, BATCH, BATCH + 1, BATCH - 1, 3 * BATCH + 5000, 0, BLOCK + 17];
        // Then the same from another place in a batch.
        let sizes = [&few[..], &[3 * BLOCK], &few[..], &[7 * BLOCK - 1], &few[..]].concat();
        let content = |number: usize, i: usize| (number * 89 + i * 7 + i / BLOCK) as u8;
        let (mut file, written) = written(&sizes, content);
        file.seek(SeekFrom::Start(0)).expect("back");
        let (verity, size) = crate::verity::digest(&file).expect("read");
        assert_eq!((written.verity, written.size), (verity, size));
        let image = Image::open(file).expect("an image");
        let entries = image.entries(&image.root().expect("a root")).expect("listed");
        let files: Vec<_> = entries.into_iter().filter(|(name, _)| name[0] != b'.').collect();
        assert_eq!(files.len(), sizes.len());
        for ((number, size), (_, nid)) in sizes.iter().enumerate().zip(files) {
            let inode = image.inode(nid).expect("an inode");
            assert_eq!(inode.size, *size as u64, "file {number}");
            let mut found = vec![0; *size];
            let mut at = 0;
            while at < *size {
                at += image.read(&inode, at as u64, &mut found[at..]).expect("read");
            }
            assert!(found.iter().enumerate().all(|(i, byte)| *byte == content(number, i)), "file {number}");
        }
    }
}
