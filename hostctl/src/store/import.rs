//! `import`: images from files, or one layer from its tar.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_image_store::archive::{self, ChooseError, Files};
use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::Source;
use bennu_image_store::tar::Limits;
use bennu_image_store::{Image, ImportError, Store as ImageStore};
use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::bundle::unreadable;
use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, bytes, counted, facts};

use super::args::Import;
use super::failed;
use super::fetch::not_pulled;
use super::look::Shown;
use super::progress::Display;

/// What was imported: images, or a layer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Imported {
    Images { images: Vec<Shown> },
    Layer(Layer),
}

/// One imported layer.
#[derive(Debug, Serialize)]
struct Layer {
    #[serde(rename = "diff-id")]
    diff_id: Digest,
    blob: Digest,
    size: u64,
    path: PathBuf,
}

pub(super) async fn import(store: &ImageStore, args: &Import, out: &mut Out) -> Outcome {
    let what = || format!("import {}", args.path.display());
    let standard_input = args.path == Path::new("-");
    let files = if args.layer || standard_input {
        None
    } else {
        Files::open(&args.path).map_err(|error| {
            let code = match error {
                archive::OpenError::Read(_) => Code::Failed,
                _ => Code::Invalid,
            };
            Failure::new(code, what()).because(error).advice("--layer takes any tar for a layer")
        })?
    };
    let imported = match files {
        Some(files) => Imported::Images { images: images(store, files, args, out.json()).await? },
        None if args.all || args.reference.is_some() => {
            return Err(Failure::invalid(format!("{} holds no images", args.path.display())));
        }
        None => Imported::Layer(layer(store, &args.path, standard_input)?),
    };
    out.result(&imported, |imported| match imported {
        Imported::Images { images } => images
            .iter()
            .map(|image| {
                let layers = format!("{}, {}", counted(image.layers.len(), "layer"), bytes(image.size));
                facts(&[("image", image.digest.to_string()), ("layers", layers)])
            })
            .collect(),
        Imported::Layer(layer) => facts(&[
            ("diff id", layer.diff_id.to_string()),
            ("blob", layer.blob.to_string()),
            ("size", bytes(layer.size)),
        ]),
    })?;
    Ok(0)
}

/// Pulls from files as from a registry: every digest is checked in the same way.
async fn images(store: &ImageStore, files: Files, args: &Import, json: bool) -> Result<Vec<Shown>, Failure> {
    let name = args.path.display().to_string();
    let wanted: Vec<Digest> = if args.all {
        files.images().map(|image| image.digest).collect()
    } else {
        let chosen = files.choose(args.reference.as_deref()).map_err(|error| {
            let code = match error {
                ChooseError::NotFound { .. } | ChooseError::Empty => Code::NotFound,
                _ => Code::Invalid,
            };
            let failure = Failure::new(code, format!("choose an image of {name}"));
            failure.because(error).advice("name it by its digest or its name, or take all with --all")
        })?;
        vec![chosen.digest]
    };
    let platform = args.arch.as_deref().map_or_else(Platform::host, Platform::linux);
    let mut signatures = files.image_signatures().map_err(|error| unreadable(&args.path, error))?;
    let source = Source::Archive(Arc::new(files));
    let mut images: Vec<Image> = Vec::with_capacity(wanted.len());
    for digest in wanted {
        if images.iter().any(|image| image.digest == digest) {
            continue;
        }
        let name = format!("{digest} of {name}");
        let display = Display::new(name.clone(), json);
        let pulled = store.pull_from(&source, &name, &digest, &platform, &display).await;
        display.end();
        let image = pulled.map_err(not_pulled)?;
        if let Some(signatures) = signatures.remove(&digest) {
            store.keep_signatures(&image.digest, signatures).map_err(failed)?;
        }
        images.push(image);
    }
    Ok(images.iter().map(|image| Shown::new(image, &[])).collect())
}

fn layer(store: &ImageStore, path: &Path, standard_input: bool) -> Result<Layer, Failure> {
    let reader: Box<dyn Read> = if standard_input {
        Box::new(std::io::stdin())
    } else {
        let failed = |e| Failure::failed(format!("read {}", path.display())).because(e);
        Box::new(std::io::BufReader::new(File::open(path).map_err(failed)?))
    };
    let layer = store.import_layer(reader, Limits::default()).map_err(|error| {
        let code = if matches!(error, ImportError::Refused(_)) { Code::Invalid } else { Code::Failed };
        Failure::new(code, format!("import {}", path.display())).because(error)
    })?;
    Ok(Layer { diff_id: layer.diff_id, blob: layer.blob, size: layer.size, path: layer.path })
}
