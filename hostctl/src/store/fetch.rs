//! `pull`: an image from its registry, or what that would fetch.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::Source;
use bennu_image_store::{Image, Progress, PullError, Store as ImageStore};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::{Digest, ImageRef};
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, Table, bytes, counted, facts, interactive, progress};

use super::look::Shown;
use super::{client, failed, open, parsed, pinned};

pub(super) async fn pull(root: &Path, reference: &str, plain_http: bool, out: &mut Out) -> Outcome {
    let store = open(root)?;
    let wanted = parsed(reference)?;
    let (image, pulled) = match here(&store, &wanted)? {
        Some(here) => here,
        None => {
            let client = client(&wanted.registry, plain_http).await?;
            let image = pinned(&client, wanted).await?;
            let display = Display::new(image.to_string());
            let pulled = store.pull(&client, &image, &Platform::host(), &display).await;
            display.end();
            (image, pulled.map_err(not_pulled)?)
        }
    };
    let shown = Shown::new(&pulled, &[]);
    out.result(&shown, |s| {
        facts(&[
            ("image", image.to_string()),
            ("layers", format!("{}, {}", counted(s.layers.len(), "layer"), bytes(s.size))),
        ])
    })?;
    Ok(0)
}

/// The image of a reference with a digest, where all of it is in the store. Asked before there is a client: to make one, all
/// certificates of the machine are read, and credentials asked for.
fn here(store: &ImageStore, wanted: &UnpinnedRef) -> Result<Option<(ImageRef, Image)>, Failure> {
    let Some(image) = wanted.pinned() else { return Ok(None) };
    let present = store.present(&image.digest).map_err(failed)?;
    // An image for another platform is refused by the pull, which knows how to say so.
    let host = Platform::host();
    let fits = |image: &Image| {
        image.config.os().to_string() == host.os
            && image.config.architecture().to_string() == host.architecture
    };
    Ok(present.filter(fits).map(|present| (image, present)))
}

/// What a pull would fetch.
pub(super) async fn estimate(root: &Path, reference: &str, plain_http: bool, out: &mut Out) -> Outcome {
    let store = open(root)?;
    let wanted = parsed(reference)?;
    let client = client(&wanted.registry, plain_http).await?;
    let image = pinned(&client, wanted).await?;
    let source = Source::registry(&client, &image);
    let name = image.to_string();
    let estimate = store.estimate(&source, &name, &image.digest, &Platform::host()).await;
    let estimate = estimate.map_err(not_pulled)?;
    out.result(&estimate, |estimate| {
        let mut table = Table::new(&[">TO FETCH", ">OF", "LAYER"]);
        for layer in &estimate.layers {
            table.row([bytes(layer.bytes), bytes(layer.size), layer.digest.to_string()]);
        }
        format!("{}{} to fetch\n", table.text(""), bytes(estimate.bytes))
    })?;
    Ok(0)
}

pub(super) fn not_pulled(error: PullError) -> Failure {
    let code = match &error {
        error if error.is_refusal() => Code::Refused,
        PullError::NotFound { .. } => Code::NotFound,
        PullError::WrongPlatform { .. } => Code::Invalid,
        _ => Code::Failed,
    };
    Failure::new(code, "pull").because(error)
}

/// How far a pull is: a bar over all layers on a terminal, elsewhere a line for each layer that has come.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    layers: Mutex<BTreeMap<Digest, (u64, u64)>>,
}

impl Display {
    pub(super) fn new(image: String) -> Self {
        let bar = interactive().then(|| {
            let template = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes}";
            let style = ProgressStyle::with_template(template).expect("the template is well formed");
            ProgressBar::new(0).with_style(style).with_message(image)
        });
        Self { bar, layers: Mutex::default() }
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Display {
    fn layer(&self, digest: &Digest, done: u64, total: u64) {
        let mut layers = self.layers.lock().expect("nothing panics while it is held");
        let before = layers.insert(*digest, (done, total));
        match &self.bar {
            Some(bar) => {
                bar.set_length(layers.values().map(|(_, total)| total).sum());
                bar.set_position(layers.values().map(|(done, _)| done).sum());
            }
            None if done == total && before != Some((done, total)) => {
                progress(&format!("{digest}  {}", bytes(total)));
            }
            None => {}
        }
    }
}
