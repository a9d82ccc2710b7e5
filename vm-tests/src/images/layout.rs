//! An OCI layout with one image (OCI image specification 1.1: image-layout.md, manifest.md, config.md).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::Tars;
use super::recipe::Recipe;
use crate::cache::hex;
use crate::error::{Error, IoContext};

/// Changes whenever the same recipe is written in another way.
pub(super) const FORMAT: &str = "layout 2";

/// The annotation that holds the size of all blobs together, in bytes.
pub(super) const SIZE: &str = "bennu.size";

/// Writes a layout into an empty directory.
pub(super) fn write(directory: &Path, recipe: &Recipe, layers: &[Tars]) -> Result<(), Error> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).doing("make", &blobs)?;
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let (digest, size) = file_digest(&layer.gzip)?;
        let blob = blobs.join(&digest);
        fs::copy(&layer.gzip, &blob).doing("write", &blob)?;
        descriptors.push(descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &digest, size));
        diff_ids.push(format!("sha256:{}", file_digest(&layer.tar)?.0));
    }
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": recipe.entrypoint,
            "Cmd": recipe.command,
            "WorkingDir": "/",
            "StopSignal": recipe.stop_signal,
            "ExposedPorts": { format!("{}/tcp", recipe.port): {} },
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(&blobs, "application/vnd.oci.image.config.v1+json", &config)?,
        "layers": descriptors,
    });
    let size = |d: &Value| d["size"].as_u64().unwrap_or_default();
    let mut entry = blob(&blobs, "application/vnd.oci.image.manifest.v1+json", &manifest)?;
    let total = size(&entry) + size(&manifest["config"]) + descriptors.iter().map(size).sum::<u64>();
    entry["annotations"] =
        json!({ "org.opencontainers.image.ref.name": recipe.tag, SIZE: total.to_string() });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    for (name, value) in [("index.json", index), ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }))] {
        let path = directory.join(name);
        fs::write(&path, value.to_string()).doing("write", &path)?;
    }
    Ok(())
}

fn blob(blobs: &Path, media_type: &str, value: &Value) -> Result<Value, Error> {
    let bytes = value.to_string().into_bytes();
    let digest = hex(&Sha256::digest(&bytes));
    let path = blobs.join(&digest);
    fs::write(&path, &bytes).doing("write", &path)?;
    Ok(descriptor(media_type, &digest, bytes.len() as u64))
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn file_digest(path: &Path) -> Result<(String, u64), Error> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).doing("open", path)?;
    let size = io::copy(&mut file, &mut Hashing(&mut hash)).doing("read", path)?;
    Ok((hex(&hash.finalize()), size))
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
