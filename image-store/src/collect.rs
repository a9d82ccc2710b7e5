//! Removing what no pin holds: first a plan that can be shown, then the deed.

use std::collections::BTreeSet;

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use serde::Serialize;

use crate::durable;
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
    /// Bytes of those blobs.
    pub bytes: u64,
}

impl GcPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.layers.is_empty() && self.blobs.is_empty()
    }
}

impl Store {
    /// What [`Store::gc`] would remove now.
    ///
    /// # Errors
    /// [`StoreError`]; what cannot be read is never planned for removal.
    pub fn gc_plan(&self) -> Result<GcPlan, StoreError> {
        let names = &self.inner.names;
        let held: BTreeSet<Digest> = self.pins()?.into_iter().flat_map(|(_, holds)| holds).collect();
        let mut plan = GcPlan::default();
        // A blob may be held by its own digest, as the root of an OS is.
        let mut blobs_held = held.clone();
        let mut layers_held = BTreeSet::new();
        for digest in self.digests_in(&names.images())? {
            if !held.contains(&digest) {
                plan.images.push(digest);
            } else if let Some(image) = self.recorded_image(&digest)? {
                // What is left of an image that lost a blob is kept too: it may be running.
                blobs_held.extend(image.layers.iter().map(|layer| layer.blob));
                layers_held.extend(image.layers.iter().map(|layer| layer.diff_id));
            }
        }
        for diff_id in self.digests_in(&names.layers())? {
            let blob_held = || {
                Ok::<_, StoreError>(
                    self.recorded_layer(&diff_id)?.is_some_and(|l| blobs_held.contains(&l.blob)),
                )
            };
            if !layers_held.contains(&diff_id) && !blob_held()? {
                plan.layers.push(diff_id);
            }
        }
        for blob in self.digests_in(&names.blobs())? {
            if !blobs_held.contains(&blob) {
                let path = names.blob(&blob);
                plan.bytes += std::fs::metadata(&path).map_err(StoreError::io("look at", path))?.len();
                plan.blobs.push(blob);
            }
        }
        Ok(plan)
    }

    /// Removes what no pin holds, and says what it was. Records go before what they name, so a power cut in between leaves
    /// blobs without a record, never a record without its blob.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a pull or an import runs: what it has brought is held by nothing yet.
    pub fn gc(&self) -> Result<GcPlan, StoreError> {
        self.writable()?;
        let _lock = self.lock(FlockArg::LockExclusiveNonblock)?;
        let plan = self.gc_plan()?;
        let names = &self.inner.names;
        for (directory, digests) in
            [(names.images(), &plan.images), (names.layers(), &plan.layers), (names.blobs(), &plan.blobs)]
        {
            for digest in digests {
                let path = directory.join(digest.hex());
                std::fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
            }
            durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        }
        Ok(plan)
    }
}
