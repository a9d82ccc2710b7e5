//! The entries of a blob, in the order that a tar has them.
//!
//! The order of files in a tar decides where their data lie in the blob that is made of it, and nothing else of the order counts. So
//! files come in the order of their data, which is also the fastest to read; directories come before, each before what is in it.

use std::collections::HashSet;

use crate::erofs::{FileType, Image, ReadError};
use crate::layer::OPAQUE;
use crate::tar::{Limits, MAX_PATH};

/// An entry: an inode, and how it is called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its inode.
    pub(super) nid: u64,
    /// The place of its name among [`Tree`]'s.
    pub(super) name: u32,
}

/// All names of a blob, each once.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Directories, each before what is in it and sorted by name.
    pub(super) directories: Vec<Entry>,
    /// Everything else: what has no data of its own sorted by path, then files in the order of their data.
    pub(super) others: Vec<Entry>,
    names: Vec<Name>,
}

/// A name in its directory. The root is the first, and its own parent.
#[derive(Debug)]
struct Name {
    parent: u32,
    name: Box<[u8]>,
}

impl Tree {
    /// Reads the tree of a blob. One that is no tree, or larger than a layer may be, is damaged: somebody else made it.
    pub(super) fn read(blob: &Image) -> Result<Self, ReadError> {
        let limit = Limits::default().entries as usize;
        let mut tree = Self::default();
        let root = tree.call(0, Box::default());
        let mut seen = HashSet::new();
        let mut others = Vec::new();
        let mut waiting = vec![(root, blob.root()?.nid, 0)];
        while let Some((name, nid, length)) = waiting.pop() {
            if !seen.insert(nid) {
                return Err(ReadError::Damaged("its directories are no tree"));
            }
            tree.directories.push(Entry { nid, name });
            let below = waiting.len();
            for (child_name, nid) in blob.entries(&blob.inode(nid)?)? {
                let length = length + child_name.len() + 1;
                if tree.names.len() >= limit || length > MAX_PATH {
                    return Err(ReadError::Damaged("it has more or longer paths than a layer may have"));
                }
                let child = tree.call(name, child_name.into());
                let inode = blob.inode(nid)?;
                if inode.file_type() == FileType::Directory {
                    waiting.push((child, nid, length));
                } else {
                    others.push((inode.first_byte().unwrap_or(0), Entry { nid, name: child }));
                }
            }
            waiting[below..].reverse();
        }
        // Stable: what has no data stays in the order in which directories were read.
        others.sort_by_key(|(first_byte, _)| *first_byte);
        tree.others = others.into_iter().map(|(_, entry)| entry).collect();
        Ok(tree)
    }

    /// The path of an entry from the root, which is empty.
    pub(super) fn path(&self, entry: &Entry) -> Vec<u8> {
        let mut components = Vec::new();
        let mut at = entry.name;
        while at != 0 {
            let name = &self.names[at as usize];
            components.push(&*name.name);
            at = name.parent;
        }
        components.reverse();
        components.join(&b'/')
    }

    fn call(&mut self, parent: u32, name: Box<[u8]>) -> u32 {
        self.names.push(Name { parent, name });
        u32::try_from(self.names.len() - 1).expect("entries are capped far below 2^32")
    }
}

/// Whether a directory hides what lower layers have there.
pub(super) fn is_opaque(directory: &crate::erofs::Inode) -> bool {
    directory.xattrs.get(OPAQUE.as_bytes()).is_some_and(|value| value == b"y")
}
