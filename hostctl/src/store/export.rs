//! `export`: an image of the store, written for others.

use bennu_image_store::Store as ImageStore;
use bennu_image_store::archive::{Form, WriteError};
use bennu_image_store::export::{self, ExportError, Exported};
use bennu_manifests::model::Digest;

use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, bytes, facts};

use super::args::{Compression, Export, Format};

/// Writes an image, native or not.
pub(super) fn export(store: &ImageStore, image: &Digest, args: &Export, out: &mut Out) -> Outcome {
    let form = match args.format {
        Some(Format::Oci) => Form::Directory,
        Some(Format::OciArchive) => Form::Archive,
        None if args.path.extension().is_some_and(|extension| extension == "tar") => Form::Archive,
        None => Form::Directory,
    };
    let exported = if args.native {
        store.export_native(image, &args.path, form, &args.tag, args.level)
    } else {
        let compression = match args.compression {
            Compression::None => export::Compression::None,
            Compression::Zstd => export::Compression::Zstd(args.level),
        };
        store.export(image, &args.path, form, &args.tag, compression)
    };
    let exported = exported.map_err(|error| {
        let code = match error {
            ExportError::Missing(_) => Code::NotFound,
            ExportError::Write(WriteError::Exists(_)) => Code::Invalid,
            _ => Code::Failed,
        };
        Failure::new(code, "export").because(error)
    })?;
    out.result(&exported, |Exported { digest, size }| {
        facts(&[
            ("digest", digest.to_string()),
            ("size", bytes(*size)),
            ("path", args.path.display().to_string()),
        ])
    })?;
    Ok(0)
}
