//! The writer: data as it comes, everything else at the end, and behind the image its leaves.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use bennu_manifests::model::Digest;

use super::BLOCK;
use super::format::{self, Superblock};
use super::layout;
use super::metadata::{self, Sink, Summary};
use super::tree::{Attributes, FileData, Tree};
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
    out: Out,
    tails: Spill,
}

/// The image's file, and what is computed on the way.
#[derive(Debug)]
struct Out {
    file: File,
    /// Of what was written to the file.
    name: Namer,
    /// What comes behind it, [`BATCH`] bytes with those that are free.
    waiting: Box<[u8]>,
    /// Bytes of them that are not.
    filled: usize,
    watch: Watch,
}

impl Out {
    /// Writes what waits where there is no room for more.
    fn settle(&mut self) -> io::Result<()> {
        if self.filled == self.waiting.len() { self.write_waiting() } else { Ok(()) }
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let bytes = &self.waiting[..std::mem::take(&mut self.filled)];
        self.name.update(bytes)?;
        self.file.write_all(bytes)?;
        self.watch.wrote(&self.file, bytes.len())
    }
}

impl Sink for Out {
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

    fn written(&self) -> u64 {
        self.name.len() + self.filled as u64
    }
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
        let (name, waiting) = (Namer::with_leaves(leaves), vec![0; BATCH].into());
        let mut out = Out { file, name, waiting, filled: 0, watch: Watch::default() };
        // The superblock comes last; until then this is no file system.
        out.put(&[0; BLOCK])?;
        Ok(Self { out, tails })
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
            data.start_block = self.out.next_block().map_err(CopyError::Write)?;
        }
        while left > 0 {
            let free = &mut self.out.waiting[self.out.filled..];
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(free.len());
            fill(&mut free[..want], &mut read)?;
            left -= want as u64;
            // Files begin at whole blocks, and so does the end of what is free.
            let padded = want.next_multiple_of(BLOCK);
            free[want..padded].fill(0);
            self.out.filled += padded;
            self.out.settle().map_err(CopyError::Write)?;
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
        let Summary { root, inodes, meta_block } = metadata::write(&mut self.out, tree, &self.tails)?;
        let blocks = self.out.next_block()?;
        self.out.write_waiting()?;
        let Out { file, name, .. } = self.out;
        // overlayfs tells its layers apart by UUID, so each image has its own, made from all that is in it.
        let uuid = uuid(&name.peek());
        let first = Superblock { root, inodes, blocks, meta_block, uuid }.encode();
        let mut out = BufWriter::with_capacity(BATCH, file);
        let (verity, size) = name.finish(Some(&first), &mut out)?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&first)?;
        Ok((file, Written { verity, size }))
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

    use super::super::tree::InodeKind;
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
