//! The tree of inodes, before it is on disk.

use std::collections::BTreeMap;
use std::ops::Deref;

use super::format;

/// The number of an inode in a [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(pub(super) u32);

/// Owner, times and attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// The lower 12 bits of the mode.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes by full name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where [`super::Writer::write_file`] put the bytes of a file. There are as many of these as files in a layer, so they are small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileData {
    /// Bytes.
    pub(super) size: u64,
    /// Where the rest behind the whole blocks waits; [`NO_TAIL`] where nothing does.
    pub(super) tail: u64,
    /// The first whole block; [`format::NO_BLOCK`] where there is none.
    pub(super) start_block: u32,
}

/// No tail waits.
pub(super) const NO_TAIL: u64 = u64::MAX;

impl Default for FileData {
    fn default() -> Self {
        Self { size: 0, tail: NO_TAIL, start_block: format::NO_BLOCK }
    }
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// A regular file.
    File(FileData),
    /// A directory; children are added to the tree.
    Directory,
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character device: major and minor number. 0 and 0 is a whiteout to overlayfs.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: InodeKind,
    pub(super) attributes: Stored,
    pub(super) children: Children,
    /// Names of this inode; for a directory, 1 until it is removed.
    pub(super) names: u32,
}

/// What is in a directory, sorted by name, which is the order on disk. Most inodes are none, and have nothing here.
#[derive(Debug, Default)]
pub(super) struct Children(Option<Box<Names>>);

type Names = BTreeMap<Box<[u8]>, InodeId>;

impl Deref for Children {
    type Target = Names;

    fn deref(&self) -> &Names {
        static NOTHING: Names = Names::new();
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

/// [`Attributes`] with the extended ones encoded already, which takes far less memory.
#[derive(Debug)]
pub(super) struct Stored {
    seconds: i64,
    nanoseconds: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u16,
    #[expect(clippy::box_collection, reason = "hardly any inode has some, and each has this field")]
    xattrs: Option<Box<Vec<u8>>>,
}

impl Stored {
    pub(super) fn mtime(&self) -> (i64, u32) {
        (self.seconds, self.nanoseconds)
    }

    /// As they follow the inode.
    pub(super) fn xattrs(&self) -> &[u8] {
        self.xattrs.as_ref().map_or(&[], |xattrs| xattrs)
    }

    fn set_xattrs(&mut self, encoded: Vec<u8>) {
        self.xattrs = (!encoded.is_empty()).then(|| Box::new(encoded));
    }
}

impl Stored {
    /// Attributes of which the extended ones are encoded already.
    pub(super) fn encoded(mode: u16, owner: (u32, u32), mtime: (i64, u32), xattrs: Vec<u8>) -> Self {
        let (seconds, nanoseconds) = mtime;
        let mut stored = Self { seconds, nanoseconds, uid: owner.0, gid: owner.1, mode, xattrs: None };
        stored.set_xattrs(xattrs);
        stored
    }
}

impl From<&Attributes> for Stored {
    fn from(a: &Attributes) -> Self {
        let (seconds, nanoseconds) = a.mtime;
        let mut stored = Self { seconds, nanoseconds, uid: a.uid, gid: a.gid, mode: a.mode, xattrs: None };
        stored.set_xattrs(format::encode_xattrs(&a.xattrs));
        stored
    }
}

/// Why the tree cannot grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// More inodes than were allowed.
    #[error("more than {limit} inodes")]
    TooManyInodes {
        /// How many were allowed.
        limit: u64,
    },
    /// More bytes of names and attributes than were allowed.
    #[error("more than {limit} bytes of names and attributes")]
    TooMuchMetadata {
        /// How many were allowed.
        limit: u64,
    },
}

/// A tree of inodes with a root.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    max_inodes: u64,
    max_metadata: u64,
    metadata: u64,
}

impl Tree {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree with an empty root (0755, root, 1970) that takes so many inodes, and bytes of names and attributes.
    pub fn new(max_inodes: u64, max_metadata: u64) -> Self {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        let root = Node {
            kind: InodeKind::Directory,
            attributes: Stored::from(&attributes),
            children: Children::default(),
            names: 1,
        };
        Self { nodes: vec![root], max_inodes: max_inodes.min(u32::MAX.into()), max_metadata, metadata: 0 }
    }

    /// The child of `directory` called `name`.
    pub fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.node(directory).children.get(name).copied()
    }

    /// What an inode is.
    pub fn kind(&self, inode: InodeId) -> &InodeKind {
        &self.node(inode).kind
    }

    /// Whether an inode is a directory.
    pub fn is_directory(&self, inode: InodeId) -> bool {
        self.node(inode).kind == InodeKind::Directory
    }

    /// Adds an inode called `name` to `directory`; whatever had that name loses it.
    ///
    /// # Errors
    /// Where a limit is reached.
    pub fn add(
        &mut self,
        directory: InodeId,
        name: &[u8],
        kind: InodeKind,
        attributes: &Attributes,
    ) -> Result<InodeId, TreeError> {
        self.add_stored(directory, name, kind, Stored::from(attributes))
    }

    /// As [`Self::add`], with attributes that are encoded already.
    pub(super) fn add_stored(
        &mut self,
        directory: InodeId,
        name: &[u8],
        kind: InodeKind,
        attributes: Stored,
    ) -> Result<InodeId, TreeError> {
        if self.nodes.len() as u64 >= self.max_inodes {
            return Err(TreeError::TooManyInodes { limit: self.max_inodes });
        }
        let target = if let InodeKind::Symlink(target) = &kind { target.len() } else { 0 };
        self.account(name.len() + attributes.xattrs().len() + target)?;
        let id = InodeId(u32::try_from(self.nodes.len()).expect("inodes are capped below 2^32"));
        self.nodes.push(Node { kind, attributes, children: Children::default(), names: 0 });
        self.attach(directory, name, id);
        Ok(id)
    }

    /// Gives `inode` one more name.
    ///
    /// # Errors
    /// Where a limit is reached.
    pub fn link(&mut self, directory: InodeId, name: &[u8], inode: InodeId) -> Result<(), TreeError> {
        debug_assert!(!self.is_directory(inode), "callers refuse hard links to directories");
        self.account(name.len())?;
        self.attach(directory, name, inode);
        Ok(())
    }

    /// Replaces owner, times and attributes of an inode.
    ///
    /// # Errors
    /// Where a limit is reached.
    pub fn set_attributes(&mut self, inode: InodeId, attributes: &Attributes) -> Result<(), TreeError> {
        self.set_stored(inode, Stored::from(attributes))
    }

    /// As [`Self::set_attributes`], with attributes that are encoded already.
    pub(super) fn set_stored(&mut self, inode: InodeId, stored: Stored) -> Result<(), TreeError> {
        self.account(stored.xattrs().len())?;
        self.node_mut(inode).attributes = stored;
        Ok(())
    }

    /// Says where the bytes of a file are that was added before they were written.
    pub(crate) fn set_kind(&mut self, inode: InodeId, kind: InodeKind) {
        debug_assert!(!self.is_directory(inode), "a directory stays one");
        self.node_mut(inode).kind = kind;
    }

    /// Sets `name` in the encoded attributes of a directory, beside those that it has; used for overlayfs's own marks,
    /// which come from no archive.
    pub(crate) fn add_mark(&mut self, inode: InodeId, name: &str, value: &str) {
        let mark = BTreeMap::from([(name.as_bytes().to_vec(), value.as_bytes().to_vec())]);
        let encoded = format::encode_xattrs(&mark);
        let stored = &mut self.node_mut(inode).attributes;
        let mut joined = stored.xattrs().to_vec();
        let skip = if joined.is_empty() { 0 } else { format::XATTR_HEADER };
        joined.extend_from_slice(&encoded[skip..]);
        stored.set_xattrs(joined);
    }

    fn attach(&mut self, directory: InodeId, name: &[u8], inode: InodeId) {
        self.node_mut(inode).names += 1;
        let names = self.node_mut(directory).children.0.get_or_insert_default();
        if let Some(old) = names.insert(name.into(), inode) {
            self.forget(old);
        }
    }

    /// Takes one name from `inode`, and all names below a directory.
    fn forget(&mut self, inode: InodeId) {
        // A stack of its own: the depth is chosen by a stranger.
        let mut doomed = vec![inode];
        while let Some(id) = doomed.pop() {
            let node = self.node_mut(id);
            node.names -= 1;
            if node.kind == InodeKind::Directory {
                doomed.extend(node.children.0.take().unwrap_or_default().into_values());
            }
        }
    }

    fn account(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.metadata += bytes as u64;
        if self.metadata > self.max_metadata {
            return Err(TreeError::TooMuchMetadata { limit: self.max_metadata });
        }
        Ok(())
    }

    pub(super) fn node(&self, id: InodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn node_mut(&mut self, id: InodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }
}
