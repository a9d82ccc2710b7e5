//! Removing what no pin, no mount and no running operation holds: first a plan that can be shown, then the deed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use serde::Serialize;

use crate::claim::is_claimed;
use crate::durable;
use crate::mounted;
use crate::store::Store;
use crate::store_error::StoreError;

/// What a collection would remove.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcPlan {
    /// Records of images.
    pub images: Vec<Digest>,
    /// Records of layers, by diff id.
    pub layers: Vec<Digest>,
    /// Blobs, by fs-verity digest.
    pub blobs: Vec<Digest>,
    /// Blobs that were put aside and are of no use any more, by the names they had.
    pub quarantined: Vec<Digest>,
    /// Bytes of those blobs, which is what a collection frees.
    pub bytes: u64,
    /// Who holds the rest.
    pub held: Vec<Held>,
    /// Bytes of all blobs that are held, each counted once.
    pub held_bytes: u64,
}

/// Blobs that stay, and why. A blob may be held several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// Who holds them.
    pub by: Holder,
    /// The image that they belong to; `None` where the blob is held by its own digest.
    pub image: Option<Digest>,
    /// The blobs, by fs-verity digest.
    pub blobs: Vec<Digest>,
    /// Bytes of them.
    pub bytes: u64,
}

/// Who holds a blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Holder {
    /// A pin.
    Pin {
        /// Its name.
        name: String,
    },
    /// A mounted tree.
    Mount {
        /// Where it is mounted, as the mount table writes it.
        place: String,
    },
    /// A pull, an import or a reader that is at work now; see [`Store::claim`].
    Operation,
}

impl GcPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.layers.is_empty()
            && self.blobs.is_empty()
            && self.quarantined.is_empty()
    }
}

impl Store {
    /// What [`Store::gc`] would remove now.
    ///
    /// # Errors
    /// [`StoreError`]; what cannot be read is never planned for removal.
    pub fn gc_plan(&self) -> Result<GcPlan, StoreError> {
        let _lock = self.lock(FlockArg::LockShared)?;
        self.planned()
    }

    /// The plan; the caller holds the store's lock.
    fn planned(&self) -> Result<GcPlan, StoreError> {
        let names = &self.inner.names;
        let sizes = self.sizes(&names.blobs())?;
        let mut plan = GcPlan::default();
        let mut hold = |by: Holder, image: Option<Digest>, blobs: BTreeSet<Digest>| {
            let bytes = blobs.iter().filter_map(|blob| sizes.get(blob)).sum();
            plan.held.push(Held { by, image, blobs: blobs.into_iter().collect(), bytes });
        };
        let (mut held, mut layers_held) = (BTreeSet::new(), BTreeSet::new());
        for (name, digests) in self.pins()? {
            for digest in digests {
                let by = Holder::Pin { name: name.clone() };
                held.insert(digest);
                // What is left of an image that lost a blob is kept too: it may be running.
                if let Some(image) = self.recorded_image(&digest)? {
                    layers_held.extend(image.layers.iter().map(|layer| layer.diff_id));
                    hold(by, Some(digest), image.layers.iter().map(|layer| layer.blob).collect());
                } else {
                    // A blob may be held by its own digest, as the root of an OS is.
                    hold(by, None, BTreeSet::from([digest]));
                }
            }
        }
        // Whatever became of the pins, what is mounted is in use.
        for (blob, places) in mounted::mounted()?.into_iter().filter(|(blob, _)| sizes.contains_key(blob)) {
            places.into_iter().for_each(|place| hold(Holder::Mount { place }, None, BTreeSet::from([blob])));
        }
        let mut blobs_held: BTreeSet<Digest> =
            plan.held.iter().flat_map(|held| held.blobs.iter().copied()).collect();
        let rest = sizes.keys().filter(|blob| !blobs_held.contains(blob));
        let in_use = claimed(rest, |blob| names.blob(blob))?;
        if !in_use.is_empty() {
            let bytes = in_use.iter().map(|blob| sizes[blob]).sum();
            blobs_held.extend(&in_use);
            let blobs = in_use.into_iter().collect();
            plan.held.push(Held { by: Holder::Operation, image: None, blobs, bytes });
        }
        plan.held_bytes = blobs_held.iter().filter_map(|blob| sizes.get(blob)).sum();
        plan.images = self.digests_in(&names.images())?;
        plan.images.retain(|image| !held.contains(image));
        let in_use = claimed(&plan.images, |image| names.image(image))?;
        plan.images.retain(|image| !in_use.contains(image));
        for diff_id in self.digests_in(&names.layers())? {
            let held = match self.recorded_layer(&diff_id) {
                // A layer that an image has in another form has a blob of its own.
                Ok(Some(layer)) => blobs_held.contains(&layer.blob),
                Ok(None) => false,
                // It says nothing that anybody believes, and must not stand in the way of everything else.
                Err(StoreError::Damaged { .. }) => layers_held.contains(&diff_id),
                Err(error) => return Err(error),
            };
            if !held {
                plan.layers.push(diff_id);
            }
        }
        plan.blobs = sizes.keys().copied().filter(|blob| !blobs_held.contains(blob)).collect();
        plan.bytes = plan.blobs.iter().map(|blob| sizes[blob]).sum();
        for blob in self.quarantined()? {
            // One that is held and has no successor yet may still have blocks that are of use.
            if sizes.contains_key(&blob) || !blobs_held.contains(&blob) {
                let path = names.quarantine().join(blob.hex());
                plan.bytes += std::fs::metadata(&path).map_err(StoreError::io("look at", path))?.len();
                plan.quarantined.push(blob);
            }
        }
        Ok(plan)
    }

    /// Bytes of every blob in a directory.
    fn sizes(&self, directory: &Path) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let size = |blob: Digest| {
            let path = directory.join(blob.hex());
            let metadata = std::fs::metadata(&path).map_err(StoreError::io("look at", path))?;
            Ok((blob, metadata.len()))
        };
        self.digests_in(directory)?.into_iter().map(size).collect()
    }

    /// Removes what no pin holds, is not mounted and no running operation relies on, and says what it was. Records go before what
    /// they name, so a power cut in between leaves blobs without a record, never a record without its blob.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn gc(&self) -> Result<GcPlan, StoreError> {
        self.writable()?;
        let _lock = self.lock(FlockArg::LockExclusive)?;
        let plan = self.planned()?;
        let names = &self.inner.names;
        for (directory, digests) in [
            (names.images(), &plan.images),
            (names.layers(), &plan.layers),
            (names.blobs(), &plan.blobs),
            (names.quarantine(), &plan.quarantined),
        ] {
            // A record of a layer that an image has taken over was removed without an fsync (`record_image`), and may come back as long
            // as its blob is there.
            let may_come_back = directory == names.layers() && !plan.blobs.is_empty();
            if digests.is_empty() && !may_come_back {
                continue;
            }
            for digest in digests {
                let path = directory.join(digest.hex());
                std::fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
            }
            durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        }
        Ok(plan)
    }
}

/// Those of `digests` whose files are claimed.
fn claimed<'a>(
    digests: impl IntoIterator<Item = &'a Digest>,
    path: impl Fn(&Digest) -> PathBuf,
) -> Result<BTreeSet<Digest>, StoreError> {
    let claimed = digests.into_iter().map(|digest| Ok(is_claimed(&path(digest))?.then_some(*digest)));
    claimed.filter_map(Result::transpose).collect()
}
