//! An image of the store becomes a native image: an OCI image layout that any tool can push.
//!
//! OCI image specification, `image-layout.md` and `manifest.md`. The configuration is that of the image, byte for byte; each
//! layer is the blob that the store has for it.

use std::fs::File;
use std::io;
use std::path::Path;

use bennu_manifests::model::Digest;

use super::{MEDIA_TYPE, Native, encode};
use crate::LayerRecord;
use crate::archive::{Described, Form, LayoutWriter, json};
use crate::export::{CONFIG_TYPE, ExportError, Exported, Manifest, finish_image};
use crate::registry::document::MANIFEST_TYPES;
use crate::store::Store;
use crate::store_error::StoreError;

impl Store {
    /// Writes the image as a native image to `target`, which must not be there yet, its frames compressed at `level` (1 to 22), and
    /// calls it `name` there. Blocks.
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
    ) -> Result<Exported, ExportError> {
        let missing = || ExportError::Missing(*image);
        let claimed = self.claim(image)?.ok_or_else(missing)?;
        let config = self.image_record(image)?.ok_or_else(missing)?.config;
        let mut layout = LayoutWriter::create(target, form)?;
        let layers = claimed.layers.iter().map(|layer| self.export_native_layer(layer, &mut layout, level));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let config = Described::new(CONFIG_TYPE, layout.bytes(config.as_bytes())?);
        let manifest =
            Manifest { schema_version: 2, media_type: MANIFEST_TYPES[0], config, layers, annotations: None };
        finish_image(layout, &json(&manifest), name)
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
        encode(&blob, &layer.blob, level, &mut out).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ExportError::Damaged(layer.blob),
            _ => out.failed(error).into(),
        })?;
        let annotations = Native::annotations(&layer.blob, layer.size);
        Ok(Described { annotations, ..Described::new(MEDIA_TYPE, out.finish()?) })
    }
}
