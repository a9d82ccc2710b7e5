//! `export`: an image of the store, written for others.

use bennu_image_store::Store as ImageStore;
use bennu_image_store::archive::{Form, WriteError};
use bennu_image_store::export::{self, ExportError, Exported};
use bennu_image_store::native::ExportedNative;
use bennu_manifests::model::Digest;

use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, Table, bytes, facts};

use super::args::{Compression, Export, Format};

/// Writes an image, native or not. `earlier` are the images that patches lead from.
pub(super) fn export(
    store: &ImageStore,
    image: &Digest,
    earlier: &[Digest],
    args: &Export,
    out: &mut Out,
) -> Outcome {
    let form = match args.format {
        Some(Format::Oci) => Form::Directory,
        Some(Format::OciArchive) => Form::Archive,
        None if args.path.extension().is_some_and(|extension| extension == "tar") => Form::Archive,
        None => Form::Directory,
    };
    if args.native {
        let exported = store.export_native(image, &args.path, form, &args.tag, args.level, earlier);
        let exported = exported.map_err(not_exported)?;
        out.result(&exported, |exported| native(exported, args))?;
    } else {
        let compression = match args.compression {
            Compression::None => export::Compression::None,
            Compression::Zstd => export::Compression::Zstd(args.level),
        };
        let exported = store.export(image, &args.path, form, &args.tag, compression);
        let exported = exported.map_err(not_exported)?;
        out.result(&exported, |Exported { digest, size }| facts(&written(digest, *size, args)))?;
    }
    Ok(0)
}

fn written(digest: &Digest, size: u64, args: &Export) -> Vec<(&'static str, String)> {
    vec![("digest", digest.to_string()), ("size", bytes(size)), ("path", args.path.display().to_string())]
}

fn native(exported: &ExportedNative, args: &Export) -> String {
    let mut shown = written(&exported.digest, exported.size, args);
    if !args.patch_from.is_empty() {
        let listed = exported.patches_tag.clone();
        shown.push(("patches", listed.unwrap_or_else(|| "none, for none would be smaller".to_owned())));
    }
    let mut text = facts(&shown);
    if !exported.patches.is_empty() {
        let mut table = Table::new(&[">PATCH", ">MEMORY", "FROM", "TO"]);
        for patch in &exported.patches {
            table.row([
                bytes(patch.size),
                bytes(patch.memory),
                patch.from.to_string(),
                patch.blob.to_string(),
            ]);
        }
        text += &table.text("");
    }
    text
}

fn not_exported(error: ExportError) -> Failure {
    let code = match error {
        ExportError::Missing(_) => Code::NotFound,
        ExportError::Write(WriteError::Exists(_)) => Code::Invalid,
        _ => Code::Failed,
    };
    Failure::new(code, "export").because(error)
}
