//! An image of the store becomes a native image: an OCI image layout that any tool can push.
//!
//! OCI image specification, `image-layout.md` and `manifest.md`. The configuration is that of the image, byte for byte; each
//! layer is the blob that the store has for it.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;
use serde::Serialize;

use super::{MEDIA_TYPE, Native, encode};
use crate::durable;
use crate::record::Image;
use crate::registry::document::MANIFEST_TYPES;
use crate::sha256;
use crate::store::Store;
use crate::store_error::StoreError;

/// The annotation of an index entry with its tag (`annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The media type of a configuration.
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// A native image that was written.
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
    /// The target is there already.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// A blob is not what its name says.
    #[error("a blob of the image is damaged; scrub the store")]
    Damaged(#[source] io::Error),
    /// The target cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    manifests: Vec<Descriptor<'a>>,
}

impl Store {
    /// Writes the image as a native image to the directory `target`, which must not be there yet, its frames compressed at `level`
    /// (1 to 22) and its manifest tagged `tag`. Blocks.
    ///
    /// # Errors
    /// [`ExportError`]; `target` is incomplete then, and without the file `index.json`.
    pub fn export_native(
        &self,
        image: &Digest,
        target: &Path,
        tag: &str,
        level: i32,
    ) -> Result<Exported, ExportError> {
        let image = self.claim(image)?.ok_or(ExportError::Missing(*image))?;
        let config = self.config_of(&image)?;
        let blobs = target.join("blobs/sha256");
        if target.exists() {
            return Err(ExportError::Exists(target.to_owned()));
        }
        DirBuilder::new().recursive(true).create(&blobs).map_err(write_error(&blobs))?;
        let put = |bytes: &[u8]| -> Result<(Digest, u64), ExportError> {
            let digest = sha256::digest(bytes);
            let path = blobs.join(digest.hex());
            std::fs::write(&path, bytes).map_err(write_error(&path))?;
            Ok((digest, bytes.len() as u64))
        };
        let layers = image.layers.iter().map(|layer| self.export_layer(layer, &blobs, level));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let layers_size: u64 = layers.iter().map(|layer| layer.size).sum();
        let (config_digest, config_size) = put(config.as_bytes())?;
        let describe =
            |media_type, digest, size| Descriptor { media_type, digest, size, annotations: BTreeMap::new() };
        let manifest = json(&Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPES[0],
            config: describe(CONFIG_TYPE, config_digest, config_size),
            layers,
        });
        let (digest, size) = put(&manifest)?;
        let mut entry = describe(MANIFEST_TYPES[0], digest, size);
        entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
        let layout = target.join("oci-layout");
        std::fs::write(&layout, r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(write_error(&layout))?;
        let index = target.join("index.json");
        let bytes = json(&Index { schema_version: 2, manifests: vec![entry] });
        durable::replace(&index, &bytes).map_err(write_error(&index))?;
        Ok(Exported { digest, size: layers_size + config_size + size })
    }

    fn export_layer(
        &self,
        layer: &crate::LayerRecord,
        blobs: &Path,
        level: i32,
    ) -> Result<Descriptor<'static>, ExportError> {
        let path = self.blob_path(&layer.blob);
        let blob = File::open(&path).map_err(StoreError::io("open", &path))?;
        let temporary = blobs.join(durable::temporary_name());
        let file = File::create_new(&temporary).map_err(write_error(&temporary))?;
        let encoded = encode(&blob, &layer.blob, level, io::BufWriter::new(file)).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                return ExportError::Damaged(error);
            }
            write_error(&temporary)(error)
        })?;
        let path = blobs.join(encoded.digest.hex());
        std::fs::rename(&temporary, &path).map_err(write_error(&path))?;
        Ok(Descriptor {
            media_type: MEDIA_TYPE,
            digest: encoded.digest,
            size: encoded.size,
            annotations: Native::annotations(&layer.blob, layer.size),
        })
    }

    /// The configuration of an image, byte for byte.
    fn config_of(&self, image: &Image) -> Result<String, ExportError> {
        self.image_record(&image.digest)?
            .map(|record| record.config)
            .ok_or(ExportError::Missing(image.digest))
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the documents have string keys and no fallible parts")
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    move |source| ExportError::Write { path, source }
}
