//! `import`: one layer from a tar.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bennu_image_store::tar::Limits;
use bennu_image_store::{ImportError, Store as ImageStore};
use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, bytes, facts};

/// One imported layer.
#[derive(Debug, Serialize)]
struct Imported {
    #[serde(rename = "diff-id")]
    diff_id: Digest,
    blob: Digest,
    size: u64,
    path: PathBuf,
}

pub(super) fn import(store: &ImageStore, path: &Path, out: &mut Out) -> Outcome {
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let failed = |e| Failure::failed(format!("read {}", path.display())).because(e);
        Box::new(std::io::BufReader::new(File::open(path).map_err(failed)?))
    };
    let layer = store.import_layer(reader, Limits::default()).map_err(|error| {
        let code = if matches!(error, ImportError::Refused(_)) { Code::Invalid } else { Code::Failed };
        Failure::new(code, format!("import {}", path.display())).because(error)
    })?;
    let imported = Imported { diff_id: layer.diff_id, blob: layer.blob, size: layer.size, path: layer.path };
    out.result(&imported, |i| {
        facts(&[("diff id", i.diff_id.to_string()), ("blob", i.blob.to_string()), ("size", bytes(i.size))])
    })?;
    Ok(0)
}
