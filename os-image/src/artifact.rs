//! The OS as an image for registries: what a manifest names in `os.image`, and what hosts update themselves from.
//!
//! A native image (`docs/native-images.md`) with two layers: the root, and one with the boot image at `/boot/bennu.efi`. The
//! boot image is not part of the root because its command line names the root's digest.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;

use bennu_image_store::archive::{Described, Form, LayoutWriter};
use bennu_image_store::layer::{self, Below, Converted};
use bennu_image_store::native;
use bennu_image_store::tar::Limits;
use serde_json::json;

use crate::command::at;
use crate::{BuildError, Variant};

/// Media types of the OCI image specification, `media-types.md`.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The annotation that names a manifest in a layout (OCI image specification, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layer that is written as a blob.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    /// The blob's file.
    pub(crate) blob: &'a Path,
    /// What became known when it was made.
    pub(crate) converted: &'a Converted,
}

/// Makes the blob of the second layer from the boot image.
pub(crate) fn boot_layer(uki: &Path, out: &Path, spill: &Path) -> Result<Converted, BuildError> {
    let bytes = fs::read(uki).map_err(at("read", uki))?;
    let in_memory = |_| BuildError::Incomplete { what: "room in a tar header for the boot image".into() };
    let mut tar = tar::Builder::new(Vec::new());
    let mut directory = crate::root::header(tar::EntryType::Directory, 0o755, 0);
    tar.append_data(&mut directory, "boot/", std::io::empty()).map_err(in_memory)?;
    let mut file = crate::root::header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
    tar.append_data(&mut file, "boot/bennu.efi", bytes.as_slice()).map_err(in_memory)?;
    let bytes = tar.into_inner().map_err(in_memory)?;
    let file = File::create_new(out).map_err(at("create", out))?;
    layer::convert(Cursor::new(bytes), file, spill, Limits::default(), Below::Nothing)
        .map(|(_, converted)| converted)
        .map_err(|source| BuildError::Import { source: Box::new(source) })
}

/// Writes the image as an OCI image layout to `target`, which must not be there, and gives back its digest.
pub(crate) fn write(layers: &[Layer<'_>], variant: &Variant, target: &Path) -> Result<String, BuildError> {
    let (version, level) = (variant.version.as_str(), variant.compression);
    let failed = |source| BuildError::Import { source };
    let mut layout = LayoutWriter::create(target, Form::Directory).map_err(|e| failed(Box::new(e)))?;
    let mut described = Vec::new();
    for layer in layers {
        let blob = File::open(layer.blob).map_err(at("open", layer.blob))?;
        let mut out = layout.blob().map_err(|e| failed(Box::new(e)))?;
        let (name, spill) = (&layer.converted.blob, layer.blob.parent().unwrap_or(Path::new(".")));
        let encoded = native::encode(&blob, name, level, spill, &mut out);
        let encoded = encoded.map_err(at("encode", layer.blob))?;
        let written = out.finish().map_err(|e| failed(Box::new(e)))?;
        let annotations = encoded.annotations(name, layer.converted.size);
        described.push(Described { annotations, ..Described::new(native::MEDIA_TYPE, written) });
    }
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.converted.diff_id.to_string()).collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Labels": { "org.opencontainers.image.version": version } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = layout.bytes(config.to_string().as_bytes()).map_err(|e| failed(Box::new(e)))?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": Described::new(CONFIG, config),
        "layers": described,
    });
    let manifest = layout.bytes(manifest.to_string().as_bytes()).map_err(|e| failed(Box::new(e)))?;
    let mut entry = Described::new(MANIFEST, manifest);
    entry.annotations.insert(REF_NAME.to_owned(), version.replace('+', "-"));
    let digest = entry.digest.to_string();
    layout.finish(&[entry], &Default::default()).map_err(|e| failed(Box::new(e)))?;
    Ok(digest)
}
