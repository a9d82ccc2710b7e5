//! The layers below a layer, as one tree that is looked at only where it is asked for.

use std::collections::HashMap;

use super::{Refused, StackError};
use crate::erofs::{Attributes, FileType, Image as Erofs, Inode, InodeId};
use crate::layer::{IMPLIED, LINK, OPAQUE};
use crate::tar::{Reason, printable};

/// The most names that are kept of the layers below.
const MAX_NAMES: usize = 4_000_000;
/// The symbolic links that one path may lead through (`MAXSYMLINKS` of Linux, `include/linux/namei.h`).
const MAX_LINKS: usize = 40;

/// Inodes with one path, each with the number of its layer, the topmost first.
type Merged = Vec<(usize, Inode)>;
/// Layer and number of each inode by its name, the topmost first.
type Names = HashMap<Vec<u8>, Vec<(usize, u64)>>;

/// A directory, by the path that no symbolic link is on.
#[derive(Debug, Default)]
pub(super) struct Place {
    parent: usize,
    name: Box<[u8]>,
    /// The directories of the layers below that are seen here together.
    lower: Merged,
    /// What is in them, once that was asked for.
    names: Option<Names>,
    children: HashMap<Vec<u8>, usize>,
    /// The layers below have something else here.
    pub(super) blocked: bool,
    /// The layer hides what is below.
    pub(super) opaque: bool,
    /// What the entry of the layer says of it, where there is one.
    pub(super) says: Option<Attributes>,
    /// Where it is in the tree that is made.
    pub(super) node: Option<InodeId>,
}

/// What the layers below have under a name.
pub(super) enum Found {
    Nothing,
    Directory(Merged),
    Other(usize, Inode),
}

/// The layers below, the lowest first, and the directories of them that were asked for.
pub(super) struct Below {
    pub(super) images: Vec<Erofs>,
    pub(super) places: Vec<Place>,
    names: usize,
}

impl Below {
    /// The place of the root.
    pub(super) const ROOT: usize = 0;

    pub(super) fn new(images: Vec<Erofs>) -> Result<Self, StackError> {
        let mut root = Place::default();
        for (layer, image) in images.iter().enumerate().rev() {
            let inode = image.root()?;
            let opaque = is_opaque(&inode);
            root.lower.push((layer, inode));
            if opaque {
                break;
            }
        }
        Ok(Self { images, places: vec![root], names: 0 })
    }

    /// What the layers below say of a directory of theirs; `None` where they have none.
    pub(super) fn attributes(&self, place: usize) -> Option<Attributes> {
        let lower = &self.places[place].lower;
        let described = lower.iter().find(|(_, inode)| !inode.xattrs.contains_key(IMPLIED.as_bytes()));
        described.or(lower.first()).map(|(_, inode)| attributes(inode))
    }

    /// What the layers below have in a directory of theirs, whatever the layer itself does to it.
    pub(super) fn find(&mut self, place: usize, name: &[u8]) -> Result<Found, StackError> {
        self.load(place)?;
        let names = self.places[place].names.as_ref().expect("loaded above");
        let mut merged = Merged::new();
        for (layer, nid) in names.get(name).into_iter().flatten() {
            let inode = self.images[*layer].inode(*nid)?;
            if inode.file_type() == FileType::Directory {
                let opaque = is_opaque(&inode);
                merged.push((*layer, inode));
                if opaque {
                    break;
                }
            } else if merged.is_empty() && !is_whiteout(&inode) {
                return Ok(Found::Other(*layer, inode));
            } else {
                break;
            }
        }
        Ok(if merged.is_empty() { Found::Nothing } else { Found::Directory(merged) })
    }

    /// The place of a directory that was asked for before, or is one below; `before` the layer hid anything.
    pub(super) fn enter(&mut self, place: usize, name: &[u8], before: bool) -> Result<Way, StackError> {
        if let Some(known) = self.places[place].children.get(name) {
            return Ok(Way::Place(*known));
        }
        if self.places[place].opaque && !before {
            return Ok(Way::Nothing);
        }
        Ok(match self.find(place, name)? {
            Found::Directory(lower) => Way::Place(self.add(place, name, lower)),
            Found::Other(layer, inode) => Way::Other(layer, inode),
            Found::Nothing => Way::Nothing,
        })
    }

    /// A new place that the layers below do not have, in stead of whatever they have.
    pub(super) fn make(&mut self, parent: usize, name: &[u8]) -> usize {
        self.add(parent, name, Merged::new())
    }

    /// Whether the layers below have that directory.
    pub(super) fn has(&self, place: usize) -> bool {
        !self.places[place].lower.is_empty()
    }

    /// The directory that `path` leads to from `place`, through symbolic links of the layers below, which never leave the root.
    /// What is not there is made. With `before`, what the layer hides is seen all the same.
    pub(super) fn follow(
        &mut self,
        mut place: usize,
        path: &[u8],
        before: bool,
    ) -> Result<usize, StackError> {
        let split = |path: &[u8]| path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut rest = split(path);
        if path.starts_with(b"/") {
            place = Self::ROOT;
        }
        let mut links = 0;
        while let Some(name) = rest.pop() {
            place = match name.as_slice() {
                b"" | b"." => place,
                b".." => self.places[place].parent,
                name => match self.enter(place, name, before)? {
                    Way::Place(next) => next,
                    Way::Nothing => self.make(place, name),
                    Way::Other(layer, inode) if inode.file_type() == FileType::Symlink => {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(self.refuse(place, name, Reason::NotADirectory(printable(name))));
                        }
                        let target = self.images[layer].link_target(&inode)?;
                        rest.extend(split(&target));
                        if target.starts_with(b"/") { Self::ROOT } else { place }
                    }
                    Way::Other(..) => {
                        let made = self.make(place, name);
                        self.places[made].blocked = true;
                        made
                    }
                },
            };
        }
        Ok(place)
    }

    /// The places from the root to this one, both included.
    pub(super) fn way_to(&self, mut place: usize) -> Vec<usize> {
        let mut way = vec![place];
        while place != Self::ROOT {
            place = self.places[place].parent;
            way.push(place);
        }
        way.reverse();
        way
    }

    /// The name of a place in its parent.
    pub(super) fn name(&self, place: usize) -> &[u8] {
        &self.places[place].name
    }

    /// A refusal of what the layer has under `name`.
    pub(super) fn refuse(&self, place: usize, name: &[u8], reason: Reason) -> StackError {
        let mut path = Vec::new();
        for step in self.way_to(place).into_iter().skip(1) {
            path.extend_from_slice(self.name(step));
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Refused { path: printable(&path), reason }.into()
    }

    fn add(&mut self, parent: usize, name: &[u8], lower: Merged) -> usize {
        let place = self.places.len();
        self.places.push(Place { parent, name: name.into(), lower, ..Place::default() });
        self.places[parent].children.insert(name.to_vec(), place);
        place
    }

    fn load(&mut self, place: usize) -> Result<(), StackError> {
        if self.places[place].names.is_some() {
            return Ok(());
        }
        let mut names = Names::new();
        for (layer, directory) in &self.places[place].lower {
            for (name, nid) in self.images[*layer].entries(directory)? {
                self.names += 1;
                names.entry(name).or_default().push((*layer, nid));
            }
            if self.names > MAX_NAMES {
                let reason =
                    Reason::TooMuch { what: "names in the layers below".into(), limit: MAX_NAMES as u64 };
                return Err(self.refuse(place, b"", reason));
            }
        }
        self.places[place].names = Some(names);
        Ok(())
    }
}

/// Where a name leads.
pub(super) enum Way {
    Place(usize),
    Other(usize, Inode),
    Nothing,
}

/// What an inode says of itself, without the marks that are made between layers.
pub(super) fn attributes(inode: &Inode) -> Attributes {
    let mut xattrs = inode.xattrs.clone();
    for mark in [OPAQUE, IMPLIED, LINK] {
        xattrs.remove(mark.as_bytes());
    }
    Attributes { mode: inode.mode & 0o7777, uid: inode.uid, gid: inode.gid, mtime: inode.mtime, xattrs }
}

pub(super) fn is_opaque(inode: &Inode) -> bool {
    inode.xattrs.contains_key(OPAQUE.as_bytes())
}

pub(super) fn is_whiteout(inode: &Inode) -> bool {
    inode.file_type() == FileType::CharDevice && inode.device == (0, 0)
}
