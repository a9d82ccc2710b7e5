//! One layer, written anew over those below it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::Path;

use super::below::{Below, Found, Place, Way, attributes, is_opaque, is_whiteout};
use super::{Refused, StackError};
use crate::erofs::{
    Attributes, CopyError, FileType, Image as Erofs, Inode, InodeId, InodeKind, ReadError, Tree, TreeError,
    Writer, Written,
};
use crate::layer::{IMPLIED, LINK, OPAQUE};
use crate::tar::{Limits, Reason};

/// The number that stands for the layer itself where one of those below could stand.
const OWN: usize = usize::MAX;

/// The hard links that may lead to each other by paths through symbolic links.
const MAX_CHAIN: usize = 8;

/// The tree of a layer over those below it, and where the content of its files is.
pub(super) struct Rewrite {
    own: Erofs,
    below: Below,
    limits: Limits,
    tree: Tree,
    /// Files whose content is to be copied: where to, layer, inode there.
    files: Vec<(InodeId, usize, Inode)>,
    /// Where inodes of layers are in the tree, by layer and number.
    placed: HashMap<(usize, u64), InodeId>,
    /// Hard links to what is below: place, name, target.
    links: Vec<(usize, Vec<u8>, Vec<u8>)>,
    /// Whiteouts: place, name, what stands for it.
    whiteouts: Vec<(usize, Vec<u8>, Inode)>,
    /// Directories without an entry where the layers below have a symbolic link: place, name, the directory.
    later: VecDeque<(usize, Vec<u8>, Inode)>,
    /// Directories of the layer, and where they go.
    directories: Vec<(Inode, usize)>,
    /// Directories that nobody has an entry for.
    implied: Vec<usize>,
    /// Bytes that are copied from the layers below.
    copied: u64,
    changed: bool,
}

impl Rewrite {
    /// Puts the layer `own` over `below`, the lowest first; `None` where that changes nothing.
    pub(super) fn plan(own: Erofs, below: Vec<Erofs>, limits: Limits) -> Result<Option<Self>, StackError> {
        let mut rewrite = Self {
            own,
            below: Below::new(below)?,
            limits,
            tree: Tree::new(limits.entries, limits.metadata_bytes),
            files: Vec::new(),
            placed: HashMap::new(),
            links: Vec::new(),
            whiteouts: Vec::new(),
            later: VecDeque::new(),
            directories: Vec::new(),
            implied: Vec::new(),
            copied: 0,
            changed: false,
        };
        let root = rewrite.own.root()?;
        rewrite.root(&root)?;
        rewrite.directories(root, Below::ROOT)?;
        while let Some((place, name, directory)) = rewrite.later.pop_front() {
            let place = rewrite.below.follow(place, &name, false)?;
            rewrite.below.places[place].opaque |= is_opaque(&directory);
            rewrite.directories(directory, place)?;
        }
        for (directory, place) in std::mem::take(&mut rewrite.directories) {
            rewrite.contents(&directory, place)?;
        }
        rewrite.take_links()?;
        rewrite.take_whiteouts()?;
        let vanished = |place: &Place| place.node.is_none();
        rewrite.changed |= rewrite.implied.iter().any(|place| vanished(&rewrite.below.places[*place]));
        for place in &rewrite.below.places {
            if let Some(node) = place.node.filter(|_| place.opaque) {
                rewrite.tree.add_mark(node, OPAQUE, "y");
            }
        }
        Ok(rewrite.changed.then_some(rewrite))
    }

    /// Writes the blob to `out`, an empty file.
    pub(super) fn write(mut self, out: File, spill: &Path) -> Result<Written, StackError> {
        let mut writer = Writer::new(out, spill).map_err(StackError::Write)?;
        for (id, layer, inode) in &self.files {
            let image = if *layer == OWN { &self.own } else { &self.below.images[*layer] };
            let mut at = 0;
            let data = writer.write_file(inode.size, &attributes(inode), |buf| {
                let read = image.read(inode, at, buf)?;
                at += read as u64;
                Ok::<_, ReadError>(read)
            });
            let data = data.map_err(|error| match error {
                CopyError::Read(error) => StackError::Read(error),
                CopyError::Short => StackError::Read(ReadError::Damaged("a file")),
                CopyError::Write(error) => StackError::Write(error),
            })?;
            self.tree.set_kind(*id, InodeKind::File(data));
        }
        let (_, written) = writer.finish(&self.tree).map_err(StackError::Write)?;
        Ok(written)
    }

    fn root(&mut self, root: &Inode) -> Result<(), StackError> {
        let mut says = attributes(root);
        if root.xattrs.contains_key(IMPLIED.as_bytes()) {
            match self.below.attributes(Below::ROOT) {
                Some(lower) => says = lower,
                None => drop(says.xattrs.insert(IMPLIED.as_bytes().to_vec(), b"y".to_vec())),
            }
        }
        let place = &mut self.below.places[Below::ROOT];
        (place.node, place.opaque) = (Some(Tree::ROOT), is_opaque(root));
        let set = self.tree.set_attributes(Tree::ROOT, &says);
        set.map_err(|error| self.too_much(Below::ROOT, b"", error))
    }

    /// Finds out where a directory of the layer goes, and all beneath it.
    fn directories(&mut self, directory: Inode, place: usize) -> Result<(), StackError> {
        let mut waiting = vec![(directory, place)];
        while let Some((directory, place)) = waiting.pop() {
            for (name, nid) in self.own.entries(&directory)? {
                let inode = self.own.inode(nid)?;
                if inode.file_type() == FileType::Directory
                    && let Some(child) = self.directory(place, &name, &inode)?
                {
                    waiting.push((inode, child));
                }
            }
            self.directories.push((directory, place));
        }
        Ok(())
    }

    /// Where a directory of the layer goes; `None` where that has to wait.
    fn directory(&mut self, parent: usize, name: &[u8], inode: &Inode) -> Result<Option<usize>, StackError> {
        let implied = inode.xattrs.contains_key(IMPLIED.as_bytes());
        let mut blocked = false;
        let place = match self.below.enter(parent, name, false)? {
            Way::Place(place) => place,
            Way::Other(_, other) if implied && other.file_type() == FileType::Symlink => {
                self.changed = true;
                self.later.push_back((parent, name.to_vec(), inode.clone()));
                return Ok(None);
            }
            way => {
                blocked = implied && matches!(way, Way::Other(..));
                self.below.make(parent, name)
            }
        };
        let lower = self.below.attributes(place);
        self.changed |= blocked || implied && lower.as_ref().is_some_and(|lower| *lower != attributes(inode));
        if implied && lower.is_none() {
            self.implied.push(place);
        }
        let there = &mut self.below.places[place];
        there.opaque |= is_opaque(inode);
        there.blocked |= blocked;
        if !implied && there.says.is_none() {
            (there.says, there.blocked) = (Some(attributes(inode)), false);
        }
        Ok(Some(place))
    }

    /// Takes what is in a directory of the layer, but for directories that say nothing themselves.
    fn contents(&mut self, directory: &Inode, place: usize) -> Result<(), StackError> {
        let there = &self.below.places[place];
        if there.says.is_some() || there.opaque && self.below.has(place) {
            self.node(place)?;
        }
        for (name, nid) in self.own.entries(directory)? {
            let inode = self.own.inode(nid)?;
            if inode.file_type() == FileType::Directory {
                continue;
            }
            if is_whiteout(&inode) {
                self.whiteouts.push((place, name, inode));
            } else if inode.xattrs.contains_key(LINK.as_bytes()) {
                self.changed = true;
                let target = self.own.link_target(&inode)?;
                self.links.push((place, name, target));
            } else {
                self.put(place, &name, OWN, &inode)?;
            }
        }
        Ok(())
    }

    /// The directory of a place in the tree, made with those that it lies in where it is missing.
    fn node(&mut self, place: usize) -> Result<InodeId, StackError> {
        if let Some(node) = self.below.places[place].node {
            return Ok(node);
        }
        let mut directory = Tree::ROOT;
        for step in self.below.way_to(place).into_iter().skip(1) {
            directory = match self.below.places[step].node {
                Some(node) => node,
                None => {
                    let name = self.below.name(step).to_vec();
                    if self.below.places[step].blocked || self.tree.child(directory, &name).is_some() {
                        let reason = Reason::NotADirectory(crate::tar::printable(&name));
                        return Err(self.below.refuse(place, b"", reason));
                    }
                    let own = self.below.places[step].says.clone();
                    let says = own.or_else(|| self.below.attributes(step)).unwrap_or_else(|| Attributes {
                        mode: 0o755,
                        xattrs: [(IMPLIED.as_bytes().to_vec(), b"y".to_vec())].into(),
                        ..Attributes::default()
                    });
                    let node = self.tree.add(directory, &name, InodeKind::Directory, &says);
                    let node = node.map_err(|error| self.too_much(place, b"", error))?;
                    self.below.places[step].node = Some(node);
                    node
                }
            };
        }
        Ok(directory)
    }

    /// Adds what is no directory, unless the layer has something there already.
    fn put(&mut self, place: usize, name: &[u8], layer: usize, inode: &Inode) -> Result<(), StackError> {
        let directory = self.node(place)?;
        if self.tree.child(directory, name).is_some() {
            return Ok(());
        }
        if let Some(placed) = self.placed.get(&(layer, inode.nid)) {
            let linked = self.tree.link(directory, name, *placed);
            return linked.map_err(|error| self.too_much(place, name, error));
        }
        let image = if layer == OWN { &self.own } else { &self.below.images[layer] };
        let (major, minor) = inode.device;
        let kind = match inode.file_type() {
            FileType::File => InodeKind::File(Default::default()),
            FileType::Symlink => InodeKind::Symlink(image.link_target(inode)?.into_boxed_slice()),
            FileType::CharDevice => InodeKind::CharDevice(major, minor),
            FileType::BlockDevice => InodeKind::BlockDevice(major, minor),
            FileType::Fifo => InodeKind::Fifo,
            FileType::Directory => unreachable!("directories have their own way"),
        };
        if layer != OWN {
            self.copied = self.copied.saturating_add(inode.size);
            let limit = self.limits.bytes;
            if self.copied > limit {
                let reason = Reason::TooMuch { what: "bytes in files that are linked to".into(), limit };
                return Err(self.below.refuse(place, name, reason));
            }
        }
        let id = self.tree.add(directory, name, kind, &attributes(inode));
        let id = id.map_err(|error| self.too_much(place, name, error))?;
        self.placed.insert((layer, inode.nid), id);
        if inode.file_type() == FileType::File {
            self.files.push((id, layer, inode.clone()));
        }
        Ok(())
    }

    /// Adds the whiteouts, last, for they touch nothing that the layer brings. Where there is nothing to hide, they say nothing.
    fn take_whiteouts(&mut self) -> Result<(), StackError> {
        for (place, name, inode) in std::mem::take(&mut self.whiteouts) {
            let hidden = self.below.places[place].opaque;
            if hidden || matches!(self.below.find(place, &name)?, Found::Nothing) {
                continue;
            }
            match self.put(place, &name, OWN, &inode) {
                Err(StackError::Refused(Refused { reason: Reason::NotADirectory(_), .. })) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Adds the hard links; one may lead to another that came by another path.
    fn take_links(&mut self) -> Result<(), StackError> {
        for left in (0..MAX_CHAIN).rev() {
            for (place, name, target) in std::mem::take(&mut self.links) {
                match self.link(place, &name, &target) {
                    Err(StackError::Refused(Refused { reason: Reason::MissingLinkTarget(_), .. }))
                        if left > 0 =>
                    {
                        self.links.push((place, name, target));
                    }
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Adds a hard link to what lies below, or to what came to lie there through a symbolic link.
    fn link(&mut self, place: usize, name: &[u8], target: &[u8]) -> Result<(), StackError> {
        let shown = || crate::tar::printable(target);
        let (parent, last) = match target.iter().rposition(|b| *b == b'/') {
            Some(at) => (&target[..at], &target[at + 1..]),
            None => (&b""[..], target),
        };
        let parent = self.below.follow(Below::ROOT, parent, true)?;
        // What the layer has there came after the link, or it would have been found when the layer was read. Only what it has
        // there by another path may have come before.
        let own = self.below.places[parent].node.and_then(|directory| self.tree.child(directory, last));
        match (self.below.find(parent, last)?, own) {
            (Found::Other(layer, inode), _) => self.put(place, name, layer, &inode),
            (Found::Nothing, Some(own)) if !self.tree.is_directory(own) => {
                let directory = self.node(place)?;
                if self.tree.child(directory, name).is_some() {
                    return Ok(());
                }
                self.tree.link(directory, name, own).map_err(|error| self.too_much(place, name, error))
            }
            (Found::Directory(_), _) | (_, Some(_)) => {
                Err(self.below.refuse(place, name, Reason::DirectoryLink(shown())))
            }
            (Found::Nothing, None) => Err(self.below.refuse(place, name, Reason::MissingLinkTarget(shown()))),
        }
    }

    fn too_much(&self, place: usize, name: &[u8], error: TreeError) -> StackError {
        self.below.refuse(place, name, error.into())
    }
}
