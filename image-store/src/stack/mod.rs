//! What a layer leaves to the layers below it, settled once they are known.
//!
//! ```text
//!  blob of the layer alone (marks: implied directories, links to files below) ─┐
//!  blobs of the layers below ──────────────────────────────────────────────────┴─► blob of this layer in this image
//! ```
//! overlayfs takes what a directory says of itself from the topmost layer that has it, follows no symbolic link on the way, and
//! has no hard links between layers. So a layer with a directory that it has no entry for, where those below have that directory
//! or a symbolic link, or with a hard link to a file below, is written anew from its own blob and theirs. What comes of it is
//! what `docs/layers.md` says, and depends on these blobs alone.
//!
//! **Absent:** the tar is not read again, and layers above are not looked at.

mod below;
mod rewrite;

use std::fs::File;
use std::io;

use bennu_manifests::model::Digest;

use crate::claim::Claim;
use crate::erofs::{Image as Erofs, ReadError};
use crate::record::{LayerRecord, Origin};
use crate::store::Store;
use crate::store_error::StoreError;
use crate::tar::{Limits, Reason};
use crate::verity::{self, Measured};

use rewrite::Rewrite;

/// What is refused about a layer over others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{path}': {reason}")]
pub(crate) struct Refused {
    /// The path at fault as text.
    pub(crate) path: String,
    pub(crate) reason: Reason,
}

/// Why a layer could not be put over others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StackError {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A blob is damaged or cannot be read.
    #[error("could not read a blob")]
    Read(#[from] ReadError),
    /// The new blob cannot be written.
    #[error("could not write the blob")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The blob of a layer over those `below` it, the lowest first, and a claim on it; `layer` itself where they change nothing
    /// about it. The caller has claims on all of them.
    pub(crate) fn stack(
        &self,
        below: &[LayerRecord],
        layer: LayerRecord,
        limits: Limits,
    ) -> Result<(LayerRecord, Option<Claim>), StackError> {
        if layer.origin != Origin::Open {
            return Ok((layer, None));
        }
        let open = |record: &LayerRecord| {
            let path = self.blob_path(&record.blob);
            let file = File::open(&path).map_err(StoreError::io("open", path))?;
            Ok::<_, StackError>(Erofs::open(file)?)
        };
        let images = below.iter().map(open).collect::<Result<_, _>>()?;
        let Some(rewrite) = Rewrite::plan(open(&layer)?, images, limits)? else { return Ok((layer, None)) };
        for record in below.iter().chain([&layer]) {
            self.vouched_for(record)?;
        }
        let temporary = self.temporary()?;
        let out = temporary.file.try_clone().map_err(StackError::Write)?;
        let written = rewrite.write(out, &self.inner.names.temporary())?;
        let claim = self.install_blob(temporary, &written.verity)?;
        let stacked =
            LayerRecord { blob: written.verity, size: written.size, origin: Origin::Stacked, ..layer };
        Ok((stacked, Some(claim)))
    }

    /// Refuses a blob that is not what its name says: what is copied from it gets another name, which would vouch for whatever a bad
    /// disk gave.
    fn vouched_for(&self, record: &LayerRecord) -> Result<(), StoreError> {
        let path = self.blob_path(&record.blob);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let measured = verity::measure(&file).map_err(StoreError::io("measure", &path))?;
        if measured == Measured::Digest(record.blob) || self.is_sound(&file, &record.blob)? {
            return Ok(());
        }
        Err(StoreError::Damaged { path, fault: "its content is not what its name says".to_owned() })
    }

    /// The stacked layers that images have over the same layers as one with these diff ids has, by their place. A blob that was
    /// published is not made from its diff id, so what lies over one is not looked at.
    pub(crate) fn stacked(&self, diff_ids: &[Digest]) -> Result<Vec<Option<LayerRecord>>, StoreError> {
        let mut found = vec![None; diff_ids.len()];
        for image in self.digests_in(&self.inner.names.images())? {
            let image = match self.recorded_image(&image) {
                Err(StoreError::Damaged { .. }) => continue,
                other => other?,
            };
            let layers = image.map(|image| image.layers).unwrap_or_default();
            let same = layers.iter().zip(diff_ids).take_while(|(layer, diff_id)| {
                layer.diff_id == **diff_id && layer.origin != Origin::Published
            });
            for (i, (layer, _)) in same.enumerate() {
                if layer.origin == Origin::Stacked && found[i].is_none() && self.has_blob(layer)? {
                    found[i] = Some(*layer);
                }
            }
        }
        Ok(found)
    }
}
