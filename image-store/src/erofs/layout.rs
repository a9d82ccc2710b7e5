//! Where each inode goes.
//!
//! An inode, its attributes and its inline tail have to lie in one block. They differ in size, so each goes into the
//! fullest block that still has room for it (best fit); first fit in order would leave a third of the space empty.

use std::collections::BTreeSet;

use super::BLOCK;
use super::format::{self, DIRENT_SIZE, DataLayout, INODE_SIZE, SLOT};
use super::tree::{InodeId, InodeKind, NO_TAIL, Node, Tree};

/// An inode with its place.
#[derive(Debug)]
pub(super) struct Placed {
    /// Bytes of content: of the file, the directory's blocks, or the link's target.
    pub(super) size: u64,
    pub(super) id: InodeId,
    pub(super) parent: InodeId,
    /// Slots from the beginning of the metadata area, which is the number that directory entries use.
    slot: u32,
    /// Bytes of content that lie behind the inode, less than a block.
    inline: u16,
    pub(super) layout: DataLayout,
}

impl Placed {
    /// Bytes from the beginning of the metadata area.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.slot) * SLOT as u64
    }

    /// Bytes of content that lie behind the inode.
    pub(super) fn inline(&self) -> usize {
        self.inline.into()
    }
}

#[derive(Debug)]
pub(super) struct Layout {
    /// Every inode that has a name, in the order of the tree: a directory before its children, by name.
    pub(super) placed: Vec<Placed>,
    /// Position in `placed` by inode number.
    pub(super) position: Vec<u32>,
    /// Blocks of the metadata area.
    pub(super) blocks: u64,
}

impl Layout {
    pub(super) fn of(&self, id: InodeId) -> &Placed {
        &self.placed[self.position[id.0 as usize] as usize]
    }

    /// The number that directory entries use: the offset in slots.
    pub(super) fn nid(&self, id: InodeId) -> u64 {
        self.of(id).slot.into()
    }
}

/// How much tail fits behind an inode with so many bytes of attributes.
pub(super) fn inline_room(xattr_len: usize) -> usize {
    BLOCK.saturating_sub(INODE_SIZE + xattr_len)
}

pub(super) fn layout(tree: &Tree) -> Layout {
    let mut space = Space::default();
    let mut placed = Vec::with_capacity(tree.nodes.len());
    let mut position = vec![u32::MAX; tree.nodes.len()];
    let mut stack = vec![(Tree::ROOT, Tree::ROOT)];
    while let Some((id, parent)) = stack.pop() {
        if position[id.0 as usize] != u32::MAX {
            continue; // A further name of an inode that has its place.
        }
        let node = tree.node(id);
        let (size, layout, inline) = content(node);
        position[id.0 as usize] = u32::try_from(placed.len()).expect("inodes are capped below 2^32");
        let offset = space.take(INODE_SIZE + node.attributes.xattrs().len() + inline);
        let slot =
            u32::try_from(offset / SLOT as u64).expect("names and attributes are capped below 2^32 slots");
        let inline = u16::try_from(inline).expect("a tail is less than a block");
        placed.push(Placed { size, id, parent, slot, inline, layout });
        stack.extend(node.children.values().rev().map(|child| (*child, id)));
    }
    Layout { placed, position, blocks: space.blocks }
}

/// Size, layout and inline bytes of what an inode holds.
fn content(node: &Node) -> (u64, DataLayout, usize) {
    let size = match &node.kind {
        InodeKind::File(data) => {
            let inline = if data.tail != NO_TAIL { (data.size % BLOCK as u64) as usize } else { 0 };
            let layout = if inline > 0 { DataLayout::Inline } else { DataLayout::Plain };
            return (data.size, layout, inline);
        }
        InodeKind::Directory => directory_size(node),
        InodeKind::Symlink(target) => target.len() as u64,
        InodeKind::CharDevice(..) | InodeKind::BlockDevice(..) | InodeKind::Fifo => 0,
    };
    let tail = (size % BLOCK as u64) as usize;
    if tail > 0 && tail <= inline_room(node.attributes.xattrs().len()) {
        (size, DataLayout::Inline, tail)
    } else {
        (size, DataLayout::Plain, 0)
    }
}

/// Names of a directory in the order on disk, `.` and `..` among the others: lookups search by halving.
pub(super) fn directory_names(node: &Node) -> Vec<&[u8]> {
    let mut names: Vec<&[u8]> = node.children.keys().map(AsRef::as_ref).collect();
    for own in [&b"."[..], b".."] {
        let at = names.partition_point(|name| *name < own);
        names.insert(at, own);
    }
    names
}

/// How many of `names` fit into one directory block, and the bytes they take there.
pub(super) fn fill_block(names: &[&[u8]]) -> (usize, usize) {
    let mut used = 0;
    for (count, name) in names.iter().enumerate() {
        let needed = DIRENT_SIZE + name.len();
        if used + needed > BLOCK {
            return (count, used);
        }
        used += needed;
    }
    (names.len(), used)
}

fn directory_size(node: &Node) -> u64 {
    let names = directory_names(node);
    let mut rest = names.as_slice();
    let mut size = 0;
    loop {
        let (count, used) = fill_block(rest);
        rest = &rest[count..];
        if rest.is_empty() {
            return size + used as u64;
        }
        size += BLOCK as u64;
    }
}

/// Free space in the metadata area.
#[derive(Debug, Default)]
struct Space {
    blocks: u64,
    /// Bytes that are free at the end of a block, and the block.
    open: BTreeSet<(usize, u64)>,
}

impl Space {
    /// The place of `len` bytes that do not cross a block where they fit into one.
    fn take(&mut self, len: usize) -> u64 {
        let len = len.next_multiple_of(SLOT);
        if let Some(&(free, block)) = self.open.range((len, 0)..).next() {
            self.open.remove(&(free, block));
            self.keep(free - len, block);
            return (block + 1) * BLOCK as u64 - free as u64;
        }
        // Number 0 stays unused: programs take an inode number of 0 for a deleted file.
        let start = if self.blocks == 0 { SLOT } else { 0 };
        let offset = self.blocks * BLOCK as u64 + start as u64;
        let end = start + len;
        self.blocks += end.div_ceil(BLOCK) as u64;
        self.keep(end.next_multiple_of(BLOCK) - end, self.blocks - 1);
        offset
    }

    fn keep(&mut self, free: usize, block: u64) {
        if free >= INODE_SIZE {
            self.open.insert((free, block));
        }
    }
}

/// The blocks of a directory, the last one cut to its used length.
pub(super) fn encode_directory(tree: &Tree, layout: &Layout, placed: &Placed) -> Vec<u8> {
    let node = tree.node(placed.id);
    let names = directory_names(node);
    let mut out = Vec::with_capacity(placed.size as usize);
    let mut rest = names.as_slice();
    while !rest.is_empty() {
        let (count, _) = fill_block(rest);
        let (here, later) = rest.split_at(count);
        let start = out.len();
        let mut name_offset = count * DIRENT_SIZE;
        for name in here {
            let child = match *name {
                b"." => placed.id,
                b".." => placed.parent,
                name => node.children[name],
            };
            out.extend_from_slice(&layout.nid(child).to_le_bytes());
            out.extend_from_slice(&(name_offset as u16).to_le_bytes());
            out.extend_from_slice(&[format::file_type(mode(tree.node(child))), 0]);
            name_offset += name.len();
        }
        here.iter().for_each(|name| out.extend_from_slice(name));
        if !later.is_empty() {
            out.resize(start + BLOCK, 0);
        }
        rest = later;
    }
    debug_assert_eq!(out.len() as u64, placed.size, "the size was computed by the same rule");
    out
}

/// The whole mode, type included.
pub(super) fn mode(node: &Node) -> u16 {
    let kind = match node.kind {
        InodeKind::File(_) => format::S_IFREG,
        InodeKind::Directory => format::S_IFDIR,
        InodeKind::Symlink(_) => format::S_IFLNK,
        InodeKind::CharDevice(..) => format::S_IFCHR,
        InodeKind::BlockDevice(..) => format::S_IFBLK,
        InodeKind::Fifo => format::S_IFIFO,
    };
    kind | node.attributes.mode & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_a_block_never_crosses_one_and_nothing_overlaps() {
        let mut space = Space::default();
        let sizes = (0..5000_usize).map(|i| 64 + i * 37 % 4033);
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for len in sizes {
            let at = space.take(len);
            assert!(at > 0 && at % SLOT as u64 == 0);
            if len <= BLOCK {
                assert_eq!(at / BLOCK as u64, (at + len as u64 - 1) / BLOCK as u64, "{len} at {at}");
            }
            taken.push((at, at + len as u64));
        }
        taken.sort_unstable();
        assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two inodes overlap");
        let used: u64 = taken.iter().map(|(from, to)| to - from).sum();
        assert!(used * 100 / (space.blocks * BLOCK as u64) > 90, "{used} of {} blocks", space.blocks);
    }
}
