//! Images in an OCI layout (OCI image specification, `image-layout.md`), and pulls from it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_image_store::registry::Served;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::{Archive, Source};
use bennu_image_store::{Image, PullError, Store, sha256};
use bennu_manifests::model::Digest;

use super::registry::MANIFEST;

/// Writes a layout with one image of these tars, called `latest`.
pub(crate) fn write_layout(root: &Path, layers: &[Vec<u8>]) {
    let layers: Vec<_> = layers.iter().map(|layer| (sha256::digest(layer), layer.clone())).collect();
    write_layout_of(root, &layers, "application/vnd.oci.image.layer.v1.tar");
}

/// Writes a layout with one image of layers with these diff ids and bytes, called `latest`.
pub(crate) fn write_layout_of(root: &Path, layers: &[(Digest, Vec<u8>)], media_type: &str) {
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = sha256::digest(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("written");
        serde_json::json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    };
    let diff_ids: Vec<String> = layers.iter().map(|(diff_id, _)| diff_id.to_string()).collect();
    let config = serde_json::json!({ "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": layers.iter().map(|(_, layer)| put(media_type, layer)).collect::<Vec<_>>(),
    });
    let mut entry = put(MANIFEST, manifest.to_string().as_bytes());
    entry["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(root.join("index.json"), index.to_string()).expect("written");
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}

/// A layout as a source of images.
struct Layout(PathBuf);

impl Archive for Layout {
    fn document(&self, digest: &Digest) -> io::Result<Option<Served>> {
        let bytes = fs::read(self.0.join("blobs/sha256").join(digest.hex()))?;
        Ok(Some(Served { bytes, media_type: MANIFEST.to_owned() }))
    }

    fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(Some(Box::new(fs::File::open(self.0.join("blobs/sha256").join(digest.hex()))?)))
    }
}

/// Pulls the only image of a layout.
pub(crate) fn pull(store: &Store, layout: &Path) -> Result<Image, PullError> {
    let index = fs::read(layout.join("index.json")).expect("read");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest").parse().expect("a digest");
    let source = Source::Archive(Arc::new(Layout(layout.to_owned())));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(store.pull_from(&source, "layout", &digest, &Platform::linux("amd64"), &()))
}

/// The image of these tars, pulled from `layout` into `store`, both in a directory of their own.
pub(crate) fn pulled(layers: &[Vec<u8>]) -> (tempfile::TempDir, Result<(Store, Image), PullError>) {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    write_layout(&layout, layers);
    let store = Store::open(&dir.path().join("store"), super::confined()).expect("a store");
    let image = pull(&store, &layout).map(|image| (store, image));
    (dir, image)
}
