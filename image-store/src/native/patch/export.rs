//! Patches beside a native image that is written.
//!
//! OCI image specification, `manifest.md` (`subject`); distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema":
//! for registries that do not list referrers themselves, the list is in the layout under the tag where they are looked for.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use bennu_manifests::model::Digest;
use serde::Serialize;

use super::make::{Blob, Sketch};
use super::{ARTIFACT_TYPE, FROM, MEDIA_TYPE, Patch};
use crate::LayerRecord;
use crate::archive::{Described, LayoutWriter, REF_NAME, json};
use crate::export::ExportError;
use crate::leaves;
use crate::registry::document::INDEX_TYPES;
use crate::registry::referrers_tag;
use crate::store::Store;
use crate::store_error::StoreError;

/// How hard zstd tries at least: what is compressed is small, and is fetched by many.
const LEVEL: i32 = 19;

/// A patch that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenPatch {
    /// The earlier image.
    pub image: Digest,
    /// The blob of it that the patch is for.
    pub from: Digest,
    /// The blob that it makes.
    pub blob: Digest,
    /// Its bytes.
    pub size: u64,
    /// Bytes of memory that whoever applies it needs.
    pub memory: u64,
}

/// A blob of an image, and its leaves.
struct Leaves {
    name: Digest,
    file: File,
    leaves: Vec<Digest>,
}

impl Leaves {
    fn of(store: &Store, layer: &LayerRecord) -> Result<Self, ExportError> {
        let path = store.blob_path(&layer.blob);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        let leaves = leaves::read(&file, &layer.blob).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ExportError::Damaged(layer.blob),
            _ => StoreError::io("read", &path)(error).into(),
        })?;
        Ok(Self { name: layer.blob, file, leaves })
    }

    fn blob(&self) -> Blob<'_> {
        Blob { name: &self.name, file: &self.file, leaves: &self.leaves }
    }
}

impl Store {
    /// Writes patches that lead from the earlier images to one whose manifest and layers were written: for each blob that an earlier
    /// image does not have one from the blob most like it. Patches that are not smaller than the layer are left out.
    ///
    /// # Errors
    /// [`ExportError`]
    pub(crate) fn export_patches(
        &self,
        earlier: &[Digest],
        subject: &Described,
        layers: &[(LayerRecord, Described)],
        layout: &mut LayoutWriter,
        level: i32,
    ) -> Result<(Vec<WrittenPatch>, Vec<Described>), ExportError> {
        let (mut all, mut manifests) = (Vec::new(), Vec::new());
        for image in earlier {
            let old = self.claim(image)?.ok_or(ExportError::Missing(*image))?;
            let here: BTreeSet<Digest> = old.layers.iter().map(|layer| layer.blob).collect();
            let mut done = BTreeSet::new();
            let (mut written, mut described) = (Vec::new(), Vec::new());
            let candidates = old.layers.iter().map(|layer| Leaves::of(self, layer));
            let candidates = candidates.collect::<Result<Vec<_>, _>>()?;
            for (number, (layer, native)) in layers.iter().enumerate() {
                if here.contains(&layer.blob) || !done.insert(layer.blob) {
                    continue;
                }
                let new = Leaves::of(self, layer)?;
                let Some(from) = likest(&candidates, &new.leaves, number) else { continue };
                let patch = write(from, &new, layout, native.size, level.max(LEVEL))?;
                if let Some((patch, memory)) = patch {
                    let (from, blob, size) = (from.name, layer.blob, patch.size);
                    written.push(WrittenPatch { image: *image, from, blob, size, memory });
                    described.push(patch);
                }
            }
            if written.is_empty() {
                continue;
            }
            let from: BTreeSet<String> = written.iter().map(|patch| patch.from.to_string()).collect();
            let from = from.into_iter().collect::<Vec<_>>().join(",");
            let annotations = [(FROM.to_owned(), from)].into();
            manifests.push(layout.referrer(ARTIFACT_TYPE, described, subject, annotations)?);
            all.extend(written);
        }
        Ok((all, manifests))
    }
}

/// Of the blobs of an earlier image the one with the most blocks that are also in the new one; of several the one in the same place.
fn likest<'a>(candidates: &'a [Leaves], new: &[Digest], number: usize) -> Option<&'a Leaves> {
    let new: BTreeSet<&Digest> = new.iter().collect();
    let shared = |old: &Leaves| old.leaves.iter().filter(|leaf| new.contains(leaf)).count();
    let rated = candidates.iter().enumerate().map(|(i, old)| ((shared(old), i == number), old));
    rated.max_by_key(|(rating, _)| *rating).map(|(_, old)| old)
}

/// Writes one patch, unless it is not smaller than the layer.
fn write(
    from: &Leaves,
    new: &Leaves,
    layout: &mut LayoutWriter,
    layer: u64,
    level: i32,
) -> Result<Option<(Described, u64)>, ExportError> {
    let Some(sketch) = Sketch::between(from.blob(), new.blob()) else { return Ok(None) };
    let mut out = layout.blob()?;
    sketch.write(from.blob(), new.blob(), level, &mut out).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => ExportError::Damaged(new.name),
        _ => out.failed(error).into(),
    })?;
    if out.size() >= layer {
        return Ok(None);
    }
    let annotations = Patch::annotations(&from.name, &new.name, sketch.memory());
    Ok(Some((Described { annotations, ..Described::new(MEDIA_TYPE, out.finish()?) }, sketch.memory())))
}

/// Writes the list of referrers, as it is kept under its tag.
pub(crate) fn list(
    layout: &mut LayoutWriter,
    subject: &Digest,
    manifests: &[Described],
) -> Result<Described, ExportError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: &'a [Described],
    }
    let index = json(&Index { schema_version: 2, media_type: INDEX_TYPES[0], manifests });
    let mut listed = Described::new(INDEX_TYPES[0], layout.bytes(&index)?);
    // No image to be chosen from the layout.
    listed.artifact_type = Some(ARTIFACT_TYPE.to_owned());
    listed.annotations.insert(REF_NAME.to_owned(), referrers_tag(subject));
    Ok(listed)
}
