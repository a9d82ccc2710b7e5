//! `ls` and `files`: what is in a store.

use bennu_image_store::listing::{self, Line};
use bennu_image_store::{Image, LayerRecord, Store as ImageStore};
use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::exit::{Failure, Outcome};
use crate::reach::Reach;
use crate::render::{Out, Table, bytes};

use super::{digest_of, failed};

/// An image, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) digest: Digest,
    #[serde(rename = "manifest-digest")]
    manifest_digest: Digest,
    pub(super) size: u64,
    pub(super) layers: Vec<LayerRecord>,
    /// Pins that hold it.
    pins: Vec<String>,
}

impl Shown {
    pub(super) fn new(image: &Image, pins: &[(String, Vec<Digest>)]) -> Self {
        let holding = pins.iter().filter(|(_, holds)| holds.contains(&image.digest));
        Self {
            digest: image.digest,
            manifest_digest: image.manifest_digest,
            size: image.size,
            layers: image.layers.clone(),
            pins: holding.map(|(name, _)| name.clone()).collect(),
        }
    }
}

pub(super) fn list(store: &ImageStore, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct List {
        images: Vec<Shown>,
    }
    let pins = store.pins().map_err(failed)?;
    let images = store.images().map_err(failed)?;
    let list = List { images: images.iter().map(|image| Shown::new(image, &pins)).collect() };
    out.result(&list, |list| {
        let mut table = Table::new(&[">LAYERS", ">SIZE", "HELD BY", "DIGEST"]);
        for image in &list.images {
            table.row([
                image.layers.len().to_string(),
                bytes(image.size),
                image.pins.join(","),
                image.digest.to_string(),
            ]);
        }
        table.text("no images")
    })?;
    Ok(0)
}

/// The image that `reference` names, which has to be in the store.
pub(super) async fn image(store: &ImageStore, reference: &str, reach: &Reach) -> Result<Image, Failure> {
    let digest = digest_of(reference, reach).await?;
    let missing = || Failure::not_found(format!("the store has no image {digest}"));
    store.image(&digest).map_err(failed)?.ok_or_else(missing)
}

pub(super) async fn files(store: &ImageStore, reference: &str, reach: &Reach, out: &mut Out) -> Outcome {
    let image = image(store, reference, reach).await?;
    let lines = listing::files(store, &image)
        .map_err(|e| Failure::failed(format!("list the files of {}", image.digest)).because(e))?;
    show_listing(lines, out)?;
    Ok(0)
}

/// The entries of a tree, one a line, with nothing shortened: it is for comparing.
pub(crate) fn show_listing(entries: Vec<Line>, out: &mut Out) -> Result<(), Failure> {
    #[derive(Debug, Serialize)]
    struct Listing {
        entries: Vec<Line>,
    }
    out.result(&Listing { entries }, |listing| {
        listing.entries.iter().map(|line| format!("{line}\n")).collect()
    })
}
