//! `pull`: an image from its registry, or what that would fetch.

use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::Source;
use bennu_image_store::{Image, PullError, Store as ImageStore, Way};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::ImageRef;

use crate::exit::{Failure, Outcome};
use crate::reach::Reach;
use crate::render::{Out, Table, bytes, counted, facts};

use super::look::Shown;
use super::progress::Display;
use super::{failed, parsed, pinned};

/// Pulls. Most pulls find that the image is here: those make nothing that talks to anybody, and so no event loop either.
pub(super) fn pull(
    store: &ImageStore,
    reference: &str,
    platform: &Platform,
    reach: &Reach,
    out: &mut Out,
) -> Outcome {
    let wanted = parsed(reference)?;
    let (image, pulled) = match here(store, &wanted, platform)? {
        Some(here) => here,
        None => crate::to_its_end(fetched(store, wanted, platform, reach, out.json()))?,
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

async fn fetched(
    store: &ImageStore,
    wanted: UnpinnedRef,
    platform: &Platform,
    reach: &Reach,
    json: bool,
) -> Result<(ImageRef, Image), Failure> {
    let client = reach.client(&wanted.registry).await?;
    let image = pinned(&client, wanted).await?;
    let display = Display::new(image.to_string(), json);
    let pulled = store.pull(&client, &image, platform, &display).await;
    display.end();
    Ok((image, pulled.map_err(not_pulled)?))
}

/// The image of a reference with a digest, where all of it is in the store. Asked before there is a client: to make one, all
/// certificates of the machine are read, and credentials asked for.
fn here(
    store: &ImageStore,
    wanted: &UnpinnedRef,
    platform: &Platform,
) -> Result<Option<(ImageRef, Image)>, Failure> {
    let Some(image) = wanted.pinned() else { return Ok(None) };
    let present = store.present(&image.digest).map_err(failed)?;
    // For another platform the pull finds another image of the same index, or knows how to say that there is none.
    let fits = |image: &Image| {
        image.config.os().to_string() == platform.os
            && image.config.architecture().to_string() == platform.architecture
            && image.sibling(platform).is_none()
    };
    Ok(present.filter(fits).map(|present| (image, present)))
}

/// What a pull would fetch.
pub(super) async fn estimate(
    store: &ImageStore,
    reference: &str,
    platform: &Platform,
    reach: &Reach,
    out: &mut Out,
) -> Outcome {
    let wanted = parsed(reference)?;
    let client = reach.client(&wanted.registry).await?;
    let image = pinned(&client, wanted).await?;
    let source = Source::registry(&client, &image);
    let name = image.to_string();
    let estimate = store.estimate(&source, &name, &image.digest, platform).await;
    let estimate = estimate.map_err(not_pulled)?;
    out.result(&estimate, |estimate| {
        let mut table = Table::new(&[">TO FETCH", ">OF", "AS", "LAYER"]);
        for layer in &estimate.layers {
            let way = match layer.way {
                Way::Here => "it is here",
                Way::Whole => "whole",
                Way::Parts => "parts",
                Way::Patch => "patch",
            };
            table.row([bytes(layer.bytes), bytes(layer.size), way.to_owned(), layer.digest.to_string()]);
        }
        format!("{}{} to fetch\n", table.text(""), bytes(estimate.bytes))
    })?;
    Ok(0)
}

pub(crate) fn not_pulled(error: PullError) -> Failure {
    Failure::new(error.fault().into(), "pull").because(error)
}
