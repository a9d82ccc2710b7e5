//! What stands behind the data of files: directories, long links, inodes with their attributes and tails.
//!
//! All of it follows from the tree, the tails, and how many blocks come before; so does whoever has these have the rest of an image
//! ([`super::records`]).

use std::io;

use super::BLOCK;
use super::format::{self, DiskInode, NO_BLOCK};
use super::layout::{self, Layout, Placed};
use super::tree::{InodeKind, Tree};
use crate::spill::Spill;

/// Where the image goes, from its first byte to its last.
pub(crate) trait Sink {
    /// Writes the next bytes.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Bytes written so far.
    fn written(&self) -> u64;

    /// The block that comes next; what was written are whole blocks.
    fn next_block(&self) -> io::Result<u32> {
        // 2^32 - 1 blocks are 16 TiB, and the last number means "none".
        u32::try_from(self.written() / BLOCK as u64)
            .ok()
            .filter(|block| *block != NO_BLOCK)
            .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
    }
}

/// What the superblock says of it.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) meta_block: u32,
}

/// Writes all of it, to the end of the image. The tails of files wait in `tails`.
pub(super) fn write(out: &mut impl Sink, tree: &Tree, tails: &Spill) -> io::Result<Summary> {
    let mut metadata = Metadata { out, tree, layout: layout::layout(tree), tails };
    let blocks = metadata.write_blocks()?;
    let meta_block = metadata.out.next_block()?;
    metadata.write_inodes(&blocks)?;
    let layout = metadata.layout;
    Ok(Summary {
        root: u16::try_from(layout.nid(Tree::ROOT)).expect("the root is the first inode"),
        inodes: layout.placed.len() as u64,
        meta_block,
    })
}

struct Metadata<'a, S> {
    out: &'a mut S,
    tree: &'a Tree,
    layout: Layout,
    tails: &'a Spill,
}

impl<S: Sink> Metadata<'_, S> {
    /// Contents of directories and links that do not fit behind their inode. Gives the first block for each inode.
    fn write_blocks(&mut self) -> io::Result<Vec<u32>> {
        let Self { out, tree, layout, .. } = self;
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
            starts.push(out.next_block()?);
            out.put(whole)?;
            let padding = whole.len().next_multiple_of(BLOCK) - whole.len();
            out.put(&[0; BLOCK][..padding])?;
        }
        Ok(starts)
    }

    /// The metadata area: every inode with its attributes and tail, by place.
    fn write_inodes(&mut self, blocks: &[u32]) -> io::Result<()> {
        let Self { out, tree, layout, tails } = self;
        let mut order: Vec<u32> = (0..layout.placed.len() as u32).collect();
        order.sort_unstable_by_key(|i| layout.placed[*i as usize].offset());
        let mut at = 0;
        for i in order {
            let placed = &layout.placed[i as usize];
            zeros(*out, placed.offset() - at)?;
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
            out.put(&inode.encode())?;
            out.put(node.attributes.xattrs())?;
            out.put(&tail(tree, layout, tails, placed)?)?;
            let behind = format::INODE_SIZE + node.attributes.xattrs().len() + placed.inline();
            at = placed.offset() + behind as u64;
        }
        zeros(*out, layout.blocks * BLOCK as u64 - at)
    }
}

/// What lies behind an inode and its attributes.
fn tail(tree: &Tree, layout: &Layout, tails: &Spill, placed: &Placed) -> io::Result<Vec<u8>> {
    if placed.inline() == 0 {
        return Ok(Vec::new());
    }
    Ok(match &tree.node(placed.id).kind {
        InodeKind::File(data) => {
            let mut tail = vec![0; placed.inline()];
            tails.read(data.tail, &mut tail)?;
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

fn zeros(out: &mut impl Sink, mut count: u64) -> io::Result<()> {
    while count > 0 {
        let now = count.min(BLOCK as u64);
        out.put(&[0; BLOCK][..now as usize])?;
        count -= now;
    }
    Ok(())
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
