//! From the tar of a layer to an EROFS blob.
//!
//! The rules are those of the OCI image specification (`layer.md`): `.wh.NAME` says that NAME of the layers below is gone,
//! `.wh..wh..opq` that everything below its directory is. Both become what overlayfs understands: a character device 0:0,
//! and the attribute `trusted.overlay.opaque`. A whiteout never touches what its own layer brings, wherever in the archive it
//! stands.
//!
//! A directory that only the path of another entry implies says nothing about itself, and neither does a root without an
//! entry: where a lower layer has that directory, its owner, mode, times and attributes stay. Such directories bear [`IMPLIED`].
//!
//! Of entries with the same path the last wins. A directory that replaces a directory keeps what is in it, and one that replaces
//! something else hides what is below.
//!
//! Hard links point to an earlier entry of the same layer, or, in a layer that is to lie over others, to a file of those. The
//! latter stay open: they become symbolic links that bear [`LINK`], and [`crate::Store`] puts the file there once it knows the
//! layers below.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bennu_manifests::model::Digest;
use serde::{Deserialize, Serialize};

use crate::erofs::{Attributes, CopyError, InodeId, InodeKind, Tree, TreeError, Writer};
use crate::sha256::HashingReader;
use crate::spill::Scratch;
use crate::tar::{Entry, EntryPath, Kind, Limits, Meta, Reader, Reason, TarError};

/// The attribute of a directory that hides what lower layers have there (Linux, `Documentation/filesystems/overlayfs.rst`,
/// "whiteouts and opaque directories").
pub const OPAQUE: &str = "trusted.overlay.opaque";
/// The attribute of a directory that the layer has no entry for. overlayfs shows nobody what begins with `trusted.overlay.`
/// (Linux, `fs/overlayfs/xattrs.c`), and an archive cannot bring it.
pub const IMPLIED: &str = "trusted.overlay.bennu.implied";

/// The attribute of what stands for a hard link to a file of the layers below: a symbolic link with that file's path from the root.
/// No blob with it is mounted.
pub const LINK: &str = "trusted.overlay.bennu.link";

/// What may lie below a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Below {
    /// Nothing: hard links out of the layer are refused.
    Nothing,
    /// Layers that are not known yet.
    Layers,
}

/// A layer that was converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// SHA-256 of the whole uncompressed archive: the *diff id* of OCI.
    pub diff_id: Digest,
    /// Bytes of the archive.
    pub tar_size: u64,
    /// fs-verity digest of the blob.
    pub blob: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Whether something is left to the layers below: a directory other than the root without an entry, or a link to their files.
    pub open: bool,
}

/// Why a layer could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The archive is refused or cannot be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The blob cannot be written.
    #[error("could not write the blob")]
    Write(#[source] io::Error),
}

/// A blob that was built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Built {
    /// fs-verity digest of the blob.
    pub(crate) blob: Digest,
    /// Bytes of the blob.
    pub(crate) size: u64,
    /// As in [`Converted`].
    pub(crate) open: bool,
}

/// Reads the whole archive from `reader`, in this process, and writes the blob to `out`, an empty file. Temporary data goes to `spill`. The
/// blob is not fsynced. What may lie `below` says which hard links are taken.
///
/// # Errors
/// [`ConvertError`]; `out` holds something unusable then.
pub fn convert(
    reader: impl Read,
    out: File,
    spill: &Path,
    limits: Limits,
    below: Below,
) -> Result<(File, Converted), ConvertError> {
    let scratch = Scratch::Directory(spill.to_owned());
    let (tar, file, built) = build(HashingReader::new(reader), out, scratch, limits, below)?;
    let (diff_id, tar_size) = tar.finish();
    Ok((file, Converted { diff_id, tar_size, blob: built.blob, size: built.size, open: built.open }))
}

/// As [`convert`], for who knows what the archive is: gives the reader back, at its end.
pub(crate) fn build<R: Read>(
    reader: R,
    out: File,
    scratch: Scratch,
    limits: Limits,
    below: Below,
) -> Result<(R, File, Built), ConvertError> {
    let mut layer = Layer {
        tar: Reader::new(reader, limits),
        writer: Writer::with_scratch(out, scratch).map_err(ConvertError::Write)?,
        tree: Tree::new(limits.entries, limits.metadata_bytes),
        whiteouts: BTreeSet::new(),
        opaque: HashSet::new(),
        implied: BTreeSet::from([Tree::ROOT]),
        hollow: HashSet::new(),
        below,
        links: false,
    };
    while let Some(entry) = layer.tar.next_entry()? {
        layer.take(entry)?;
    }
    layer.apply_whiteouts()?;
    for directory in &layer.implied {
        layer.tree.add_mark(*directory, IMPLIED, "y");
    }
    let open = layer.links || layer.implied.iter().any(|directory| *directory != Tree::ROOT);
    let reader = layer.tar.finish()?;
    let (file, written) = layer.writer.finish(&layer.tree).map_err(ConvertError::Write)?;
    Ok((reader, file, Built { blob: written.verity, size: written.size, open }))
}

#[derive(Debug)]
struct Layer<R> {
    tar: Reader<R>,
    writer: Writer,
    tree: Tree,
    /// Directory and name; applied at the end, when it is known what the layer itself has there.
    whiteouts: BTreeSet<(InodeId, Vec<u8>)>,
    opaque: HashSet<InodeId>,
    /// Directories without an entry of their own.
    implied: BTreeSet<InodeId>,
    /// Those that nothing but whiteouts implies.
    hollow: HashSet<InodeId>,
    below: Below,
    /// Whether a hard link was left open.
    links: bool,
}

impl<R: Read> Layer<R> {
    fn take(&mut self, entry: Entry) -> Result<(), ConvertError> {
        let Entry { path, kind, meta } = entry;
        let attributes = attributes(meta);
        let Some((_, name)) = path.split_last() else {
            if kind != Kind::Directory {
                return Err(self.refuse(&path, Reason::Root));
            }
            return self.describe(&path, Tree::ROOT, &attributes);
        };
        let directory = self.parent(&path, name.starts_with(b".wh."))?;
        if let Some(removed) = name.strip_prefix(b".wh.") {
            return self.whiteout(&path, directory, removed);
        }
        let before = self.tree.child(directory, name);
        let kind = match kind {
            Kind::Directory => match before {
                Some(old) if self.tree.is_directory(old) => {
                    return self.describe(&path, old, &attributes);
                }
                _ => InodeKind::Directory,
            },
            Kind::HardLink { target } => {
                let Some(inode) = self.link_target(&path, &target)? else {
                    return self.leave_open(&path, directory, name, &target);
                };
                // Linking a name to what it already names changes nothing.
                if before == Some(inode) {
                    return Ok(());
                }
                return self.tree.link(directory, name, inode).map_err(|e| self.too_much(&path, e));
            }
            Kind::File { size } => {
                let tar = &mut self.tar;
                let data = self.writer.write_file(size, &attributes, |buf| tar.read_data(buf));
                InodeKind::File(data.map_err(|error| match error {
                    CopyError::Read(error) => ConvertError::Tar(error),
                    CopyError::Short => self.refuse(&path, Reason::Truncated),
                    CopyError::Write(error) => ConvertError::Write(error),
                })?)
            }
            Kind::Symlink { target } => InodeKind::Symlink(target.into_boxed_slice()),
            Kind::CharDevice { major, minor } => InodeKind::CharDevice(major, minor),
            Kind::BlockDevice { major, minor } => InodeKind::BlockDevice(major, minor),
            Kind::Fifo => InodeKind::Fifo,
        };
        let replaced = before.is_some() && kind == InodeKind::Directory;
        let added = self.tree.add(directory, name, kind, &attributes);
        let added = added.map_err(|e| self.too_much(&path, e))?;
        if replaced {
            // What it replaced had taken the place of whatever is below.
            self.opaque.insert(added);
        }
        Ok(())
    }

    /// Gives a directory that is there what its entry says.
    fn describe(
        &mut self,
        path: &EntryPath,
        directory: InodeId,
        attributes: &Attributes,
    ) -> Result<(), ConvertError> {
        self.implied.remove(&directory);
        self.hollow.remove(&directory);
        self.tree.set_attributes(directory, attributes).map_err(|e| self.too_much(path, e))
    }

    /// The directory that `path` lies in; directories that no entry described are made.
    fn parent(&mut self, path: &EntryPath, of_whiteout: bool) -> Result<InodeId, ConvertError> {
        let (parent, _) = path.split_last().expect("the root was handled before");
        let mut directory = Tree::ROOT;
        let mut walked = 0;
        for name in parent.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            walked += name.len() + 1;
            directory = match self.tree.child(directory, name) {
                Some(child) if self.tree.is_directory(child) => child,
                Some(_) => {
                    let culprit = crate::tar::printable(&parent[..walked - 1]);
                    return Err(self.refuse(path, Reason::NotADirectory(culprit)));
                }
                None => {
                    let attributes = Attributes { mode: 0o755, ..Attributes::default() };
                    let added = self.tree.add(directory, name, InodeKind::Directory, &attributes);
                    let added = added.map_err(|e| self.too_much(path, e))?;
                    self.implied.insert(added);
                    self.hollow.insert(added);
                    added
                }
            };
            if !of_whiteout {
                self.hollow.remove(&directory);
            }
        }
        Ok(directory)
    }

    /// What a hard link points to; `None` where that is for the layers below to say.
    fn link_target(&self, path: &EntryPath, target: &EntryPath) -> Result<Option<InodeId>, ConvertError> {
        let missing = || self.refuse(path, Reason::MissingLinkTarget(target.to_string()));
        let mut at = Tree::ROOT;
        for name in target.components() {
            // Beneath what this layer has hidden before, the layers below have nothing.
            let hidden = self.opaque.contains(&at) || self.whiteouts.contains(&(at, name.to_vec()));
            match self.tree.child(at, name) {
                Some(child) => at = child,
                None if hidden || !self.tree.is_directory(at) => return Err(missing()),
                // A link to itself would take away what it points to.
                None if self.below == Below::Nothing || path == target => return Err(missing()),
                None => return Ok(None),
            }
        }
        if self.tree.is_directory(at) {
            return Err(self.refuse(path, Reason::DirectoryLink(target.to_string())));
        }
        Ok(Some(at))
    }

    fn leave_open(
        &mut self,
        path: &EntryPath,
        directory: InodeId,
        name: &[u8],
        target: &EntryPath,
    ) -> Result<(), ConvertError> {
        let kind = InodeKind::Symlink(target.as_bytes().into());
        let mark = BTreeMap::from([(LINK.as_bytes().to_vec(), b"y".to_vec())]);
        let attributes = Attributes { mode: 0o777, xattrs: mark, ..Attributes::default() };
        self.links = true;
        self.tree.add(directory, name, kind, &attributes).map(drop).map_err(|e| self.too_much(path, e))
    }

    fn whiteout(&mut self, path: &EntryPath, directory: InodeId, removed: &[u8]) -> Result<(), ConvertError> {
        match removed {
            b".wh..opq" => {
                self.opaque.insert(directory);
            }
            // `.` and `..` would remove the directory itself or its parent; other names with the prefix are left over from
            // aufs and mean nothing in a layer.
            b"" | b"." | b".." => return Err(self.refuse(path, Reason::Whiteout)),
            reserved if reserved.starts_with(b".wh.") => return Err(self.refuse(path, Reason::Whiteout)),
            name => {
                self.whiteouts.insert((directory, name.to_vec()));
            }
        }
        Ok(())
    }

    fn apply_whiteouts(&mut self) -> Result<(), ConvertError> {
        for (directory, name) in std::mem::take(&mut self.whiteouts) {
            match self.tree.child(directory, &name) {
                // What this layer brings replaces what is below; a directory would merge with it unless it is opaque.
                // One that is there for whiteouts alone is no content, and goes with them.
                Some(child) if self.tree.is_directory(child) && !self.hollow.contains(&child) => {
                    self.opaque.insert(child);
                    // The one below is gone, so there is nothing that this one could keep.
                    self.implied.remove(&child);
                }
                Some(child) if !self.tree.is_directory(child) => {}
                _ => {
                    let path = EntryPath::parse(&name).unwrap_or_default();
                    let device = InodeKind::CharDevice(0, 0);
                    let added = self.tree.add(directory, &name, device, &Attributes::default());
                    added.map_err(|e| self.too_much(&path, e))?;
                }
            }
        }
        for directory in std::mem::take(&mut self.opaque) {
            self.tree.add_mark(directory, OPAQUE, "y");
        }
        Ok(())
    }

    fn refuse(&self, path: &EntryPath, reason: Reason) -> ConvertError {
        self.tar.refuse(Some(path), reason).into()
    }

    fn too_much(&self, path: &EntryPath, error: TreeError) -> ConvertError {
        self.refuse(path, error.into())
    }
}

impl From<TreeError> for Reason {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::TooManyInodes { limit } => Self::TooMuch { what: "entries".into(), limit },
            TreeError::TooMuchMetadata { limit } => {
                Self::TooMuch { what: "bytes of names and attributes".into(), limit }
            }
        }
    }
}

fn attributes(meta: Meta) -> Attributes {
    Attributes { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs: meta.xattrs }
}
