//! An image of the store, written for programs that do not know stores: as an OCI image layout of ordinary layers.
//!
//! ```text
//!  blob (EROFS) ──► tree: entries in the order of their data ──► tar ──┬──► SHA-256: the new diff id
//!                                                                      └──► as it is, or zstd ──► layout
//! ```
//! The tar that a layer was made from is not kept, so an export is an image that is equal and has another digest: its trees are
//! those of the original, its layers are tars of ours, and its configuration is the original's but for the diff ids. The same image
//! always gives the same export, and a layer of it, converted again, the blob that it was made from.
//!
//! OCI image specification, `manifest.md`, `config.md` and `layer.md`.

mod tree;
mod write;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use bennu_manifests::model::Digest;
use serde::Serialize;
use serde_json::Value;

use crate::archive::{Described, Form, LayoutWriter, REF_NAME, WriteError, json};
use crate::erofs::ReadError;
use crate::leaves::{self, Health};
use crate::record::LayerRecord;
use crate::registry::document::MANIFEST_TYPES;
use crate::store::Store;
use crate::store_error::StoreError;

use write::{NotTold, write_tar};

/// The media type of a configuration.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// The media type of a layer that is not compressed; `+zstd` follows for one that is.
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: every program reads them.
    None,
    /// Zstandard, at a level from 1 to 22.
    Zstd(i32),
}

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// The digest of its manifest, by which it is pulled.
    pub digest: Digest,
    /// Bytes of all its parts.
    pub size: u64,
}

/// Why an image could not be exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The store does not have it, or not all of it.
    #[error("the store has no image {0}")]
    Missing(Digest),
    /// A blob is not what its name says.
    #[error("the blob {0} is damaged; scrub the store")]
    Damaged(Digest),
    /// A blob, made by somebody else, has something that no tar can say.
    #[error("the blob {blob} cannot be a tar: {fault}")]
    Untellable {
        /// Which one.
        blob: Digest,
        /// Why not.
        fault: String,
    },
    /// The target is there, or cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The manifest of an image that is written (OCI image specification, `manifest.md`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest<'a> {
    pub(crate) schema_version: u32,
    pub(crate) media_type: &'a str,
    pub(crate) config: Described,
    pub(crate) layers: Vec<Described>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<Value>,
}

impl Store {
    /// Writes an image to `target`, which must not be there yet, and calls it `name` there. Blocks.
    ///
    /// # Errors
    /// [`ExportError`]; nothing is left at `target` then.
    pub fn export(
        &self,
        image: &Digest,
        target: &Path,
        form: Form,
        name: &str,
        compression: Compression,
    ) -> Result<Exported, ExportError> {
        let missing = || ExportError::Missing(*image);
        let layers = self.image(image)?.ok_or_else(missing)?.layers;
        let record = self.image_record(image)?.ok_or_else(missing)?;
        let mut layout = LayoutWriter::create(target, form)?;
        let mut known: BTreeMap<Digest, (Digest, Described)> = BTreeMap::new();
        let (mut diff_ids, mut described) = (Vec::new(), Vec::new());
        for layer in &layers {
            let (diff_id, descriptor) = match known.get(&layer.blob) {
                Some(known) => known.clone(),
                None => self.export_layer(layer, &mut layout, compression)?,
            };
            known.insert(layer.blob, (diff_id, descriptor.clone()));
            diff_ids.push(diff_id);
            described.push(descriptor);
        }
        let config = layout.bytes(&with_diff_ids(&record.config, &diff_ids))?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPES[0],
            config: Described::new(CONFIG_TYPE, config),
            layers: described,
            annotations: annotations(&record.manifest),
        };
        finish_image(layout, &json(&manifest), name)
    }

    fn export_layer(
        &self,
        layer: &LayerRecord,
        layout: &mut LayoutWriter,
        compression: Compression,
    ) -> Result<(Digest, Described), ExportError> {
        let path = self.blob_path(&layer.blob);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        // Where the kernel does not check what is read, nobody would notice later: the export has digests of its own.
        let Ok(health) = leaves::examine(&file, layer.size, &layer.blob, |_| Ok::<_, Infallible>(()));
        if health != Health::Sound {
            return Err(ExportError::Damaged(layer.blob));
        }
        let mut out = layout.blob()?;
        let written = compressed(file, &mut out, compression);
        let diff_id = written.map_err(|error| match error {
            NotTold::Read(ReadError::Io(source)) => StoreError::io("read", &path)(source).into(),
            NotTold::Write(source) => out.failed(source).into(),
            other => ExportError::Untellable { blob: layer.blob, fault: other.to_string() },
        })?;
        let media_type = match compression {
            Compression::None => LAYER_TYPE.to_owned(),
            Compression::Zstd(_) => format!("{LAYER_TYPE}+zstd"),
        };
        Ok((diff_id, Described::new(&media_type, out.finish()?)))
    }
}

/// Writes the tar of a blob, compressed or not; gives its diff id.
fn compressed(blob: File, out: &mut impl Write, compression: Compression) -> Result<Digest, NotTold> {
    match compression {
        Compression::None => write_tar(blob, out),
        Compression::Zstd(level) => {
            let mut encoder = zstd::stream::write::Encoder::new(out, level).map_err(NotTold::Write)?;
            let diff_id = write_tar(blob, &mut encoder)?;
            encoder.finish().map_err(NotTold::Write)?;
            Ok(diff_id)
        }
    }
}

/// Writes the manifest of an image and ends the layout with it.
fn finish_image(mut layout: LayoutWriter, manifest: &[u8], name: &str) -> Result<Exported, ExportError> {
    let mut entry = Described::new(MANIFEST_TYPES[0], layout.bytes(manifest)?);
    entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
    let exported = Exported { digest: entry.digest, size: layout.size() };
    layout.finish(&[entry], &BTreeMap::new())?;
    Ok(exported)
}

/// The configuration with other diff ids, all else as it is.
fn with_diff_ids(config: &str, diff_ids: &[Digest]) -> Vec<u8> {
    let mut config: Value = serde_json::from_str(config).expect("the record of the image was read before");
    config["rootfs"]["diff_ids"] = diff_ids.iter().map(Digest::to_string).collect();
    json(&config)
}

/// What the manifest of the original says besides its parts.
fn annotations(manifest: &str) -> Option<Value> {
    let mut manifest: Value =
        serde_json::from_str(manifest).expect("the record of the image was read before");
    manifest.get_mut("annotations").map(Value::take)
}
