//! `store export`: an image of the store, written for others.

use std::path::Path;

use bennu_image_store::Store as ImageStore;
use bennu_image_store::native::{ExportError, Exported};
use bennu_manifests::model::Digest;

use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, bytes, facts};

/// Writes a native image.
pub(super) fn native(
    store: &ImageStore,
    image: &Digest,
    target: &Path,
    tag: &str,
    level: i32,
    out: &mut Out,
) -> Outcome {
    let exported = store.export_native(image, target, tag, level).map_err(|error| {
        let code = match error {
            ExportError::Missing(_) => Code::NotFound,
            ExportError::Exists(_) => Code::Invalid,
            _ => Code::Failed,
        };
        Failure::new(code, "export").because(error)
    })?;
    out.result(&exported, |Exported { digest, size }| {
        facts(&[
            ("digest", digest.to_string()),
            ("size", bytes(*size)),
            ("folder", target.display().to_string()),
        ])
    })?;
    Ok(0)
}
