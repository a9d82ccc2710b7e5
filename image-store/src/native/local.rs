//! What is here already: the leaves of local blobs, looked through for those that are wanted.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bennu_manifests::model::Digest;

use super::encode::group_digest;
use super::layout::ends_group;
use super::short;
use crate::leaves;
use crate::store::Store;
use crate::store_error::StoreError;

/// Where a block is: in which blob, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) blob: u32,
    pub(crate) block: u32,
}

/// Blobs that parts can be taken from. Only what is wanted is remembered, so the memory goes by the size of the layer and not
/// by that of the store.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    blobs: Vec<(Digest, Arc<File>)>,
}

impl Local {
    /// All blobs of a store that can be opened.
    pub(crate) fn of(store: &Store) -> Result<Self, StoreError> {
        let names = store.digests_in(&store.inner.names.blobs())?;
        let open = |name: Digest| Some((name, Arc::new(File::open(store.blob_path(&name)).ok()?)));
        Ok(Self { blobs: names.into_iter().filter_map(open).collect() })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// The file of the blob with this name.
    pub(crate) fn named(&self, name: &Digest) -> Option<&Arc<File>> {
        self.blobs.iter().find(|(blob, _)| blob == name).map(|(_, file)| file)
    }

    /// The files of all blobs, in their order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Arc<File>> {
        self.blobs.iter().map(|(_, file)| file)
    }

    /// The file that a place is in.
    pub(crate) fn file(&self, place: Place) -> &Arc<File> {
        &self.blobs[place.blob as usize].1
    }

    /// Where whole groups are, by their short digests; each begins at the place given. Gives for each blob how many of them it has.
    pub(crate) fn groups(&self, wanted: &mut HashMap<u64, Option<Place>>) -> Vec<usize> {
        let mut found = vec![0; self.blobs.len()];
        self.each(|blob, leaves| {
            for group in groups(leaves) {
                if let Some(place) = wanted.get_mut(&short(&group_digest(&leaves[group.clone()]))) {
                    *place = Some(Place { blob, block: group.start as u32 });
                    found[blob as usize] += 1;
                }
            }
        });
        found
    }

    /// Where blocks are, by their short leaves.
    pub(crate) fn blocks(&self, wanted: &mut HashMap<u64, Option<Place>>) {
        self.each(|blob, leaves| {
            for (block, leaf) in leaves.iter().enumerate() {
                if let Some(place) = wanted.get_mut(&short(leaf)) {
                    *place = Some(Place { blob, block: block as u32 });
                }
            }
        });
    }

    /// The leaves of each blob; one whose leaves are damaged has nothing to give.
    fn each(&self, mut look: impl FnMut(u32, &[Digest])) {
        for (i, (name, file)) in self.blobs.iter().enumerate() {
            if let Ok(leaves) = leaves::read(file, name) {
                look(i as u32, &leaves);
            }
        }
    }
}

/// The groups of units with these leaves.
pub(super) fn groups(leaves: &[Digest]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = leaves.get(start..).filter(|rest| !rest.is_empty())?;
        let last = (1..rest.len()).find(|units| ends_group(rest[units - 1].as_bytes(), *units));
        let group = start..start + last.unwrap_or(rest.len());
        start = group.end;
        Some(group)
    })
}
