//! An image of the store becomes a native image: an OCI image layout that any tool can push.
//!
//! OCI image specification, `image-layout.md` and `manifest.md`. The configuration is that of the image, byte for byte; each
//! layer is the blob that the store has for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use bennu_manifests::model::Digest;
use serde::Serialize;

use super::{MEDIA_TYPE, WrittenPatch, encode, patch};
use crate::LayerRecord;
use crate::archive::{Described, Form, LayoutWriter, REF_NAME, json};
use crate::export::{CONFIG_TYPE, ExportError, Manifest};
use crate::registry::document::MANIFEST_TYPES;
use crate::registry::referrers_tag;
use crate::store::Store;
use crate::store_error::StoreError;

/// A native image that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExportedNative {
    /// The digest of its manifest, by which it is pulled.
    pub digest: Digest,
    /// Bytes of all that was written.
    pub size: u64,
    /// The patches that were written beside it.
    pub patches: Vec<WrittenPatch>,
    /// The name in the layout, and the tag in a registry, of the list of patches; `None` where there is none.
    pub patches_tag: Option<String>,
}

impl Store {
    /// Writes the image as a native image to `target`, which must not be there yet, its frames compressed at `level` (1 to 22), and
    /// calls it `name` there. Beside it are patches from each of the `earlier` images. Blocks.
    ///
    /// # Errors
    /// [`ExportError`]; nothing is left at `target` then.
    pub fn export_native(
        &self,
        image: &Digest,
        target: &Path,
        form: Form,
        name: &str,
        level: i32,
        earlier: &[Digest],
    ) -> Result<ExportedNative, ExportError> {
        let missing = || ExportError::Missing(*image);
        let claimed = self.claim(image)?.ok_or_else(missing)?;
        let config = self.image_record(image)?.ok_or_else(missing)?.config;
        let mut layout = LayoutWriter::create(target, form)?;
        let layers = claimed.layers.iter().map(|layer| {
            let native = self.export_native_layer(layer, &mut layout, level)?;
            Ok::<_, ExportError>((*layer, native))
        });
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPES[0],
            config: Described::new(CONFIG_TYPE, layout.bytes(config.as_bytes())?),
            layers: layers.iter().map(|(_, native)| native.clone()).collect(),
            annotations: None,
        };
        let mut entry = Described::new(MANIFEST_TYPES[0], layout.bytes(&json(&manifest))?);
        let digest = entry.digest;
        let (patches, manifests) = self.export_patches(earlier, &entry, &layers, &mut layout, level)?;
        entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        let mut entries = vec![entry];
        if !manifests.is_empty() {
            entries.push(patch::write_list(&mut layout, &digest, &manifests)?);
        }
        let (size, patches_tag) = (layout.size(), entries.get(1).map(|_| referrers_tag(&digest)));
        layout.finish(&entries, &BTreeMap::new())?;
        Ok(ExportedNative { digest, size, patches, patches_tag })
    }

    fn export_native_layer(
        &self,
        layer: &LayerRecord,
        layout: &mut LayoutWriter,
        level: i32,
    ) -> Result<Described, ExportError> {
        let path = self.blob_path(&layer.blob);
        let blob = File::open(&path).map_err(StoreError::io("open", &path))?;
        let mut out = layout.blob()?;
        let spill = self.inner.names.temporary();
        let encoded =
            encode(&blob, &layer.blob, level, &spill, &mut out).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => ExportError::Damaged(layer.blob),
                _ => out.failed(error).into(),
            })?;
        let annotations = encoded.annotations(&layer.blob, layer.size);
        Ok(Described { annotations, ..Described::new(MEDIA_TYPE, out.finish()?) })
    }
}
