//! `pin`, `unpin`, `pins` and `gc`: what is held, and what goes because nothing holds it.

use bennu_image_store::{Holder, Store as ImageStore};
use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::exit::{Failure, Outcome};
use crate::reach::Reach;
use crate::render::{Out, Table, bytes, counted};

use super::{digest_of, failed};

/// A pin, as it is shown.
#[derive(Debug, Serialize)]
struct Pin {
    name: String,
    holds: Vec<Digest>,
}

pub(super) async fn pin(
    store: &ImageStore,
    name: &str,
    references: &[String],
    reach: &Reach,
    out: &mut Out,
) -> Outcome {
    let mut holds = Vec::with_capacity(references.len());
    for reference in references {
        holds.push(digest_of(reference, reach).await?);
    }
    holds.sort_unstable();
    holds.dedup();
    store.pin(name, &holds).map_err(failed)?;
    let pin = Pin { name: name.to_owned(), holds };
    out.result(&pin, |pin| {
        pin.holds.iter().map(|digest| format!("{} holds {digest}\n", pin.name)).collect()
    })?;
    Ok(0)
}

pub(super) fn unpin(store: &ImageStore, name: &str, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Unpinned<'a> {
        name: &'a str,
    }
    let there = store.has_pin(name).map_err(failed)?;
    if !there {
        return Err(Failure::not_found(format!("the store has no pin {name}")));
    }
    store.unpin(name).map_err(failed)?;
    out.result(&Unpinned { name }, |pin| format!("{} holds nothing any more\n", pin.name))?;
    Ok(0)
}

pub(super) fn list(store: &ImageStore, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct List {
        pins: Vec<Pin>,
    }
    let pins = store.pins().map_err(failed)?.into_iter().map(|(name, holds)| Pin { name, holds }).collect();
    out.result(&List { pins }, |list| {
        let mut table = Table::new(&["PIN", "HOLDS"]);
        for pin in &list.pins {
            for digest in &pin.holds {
                table.row([pin.name.clone(), digest.to_string()]);
            }
            if pin.holds.is_empty() {
                table.row([pin.name.clone(), String::new()]);
            }
        }
        table.text("no pins")
    })?;
    Ok(0)
}

pub(super) fn collect(store: &ImageStore, dry_run: bool, out: &mut Out) -> Outcome {
    let plan = if dry_run { store.gc_plan() } else { store.gc() }.map_err(failed)?;
    out.result(&plan, |plan| {
        let done = if dry_run { "would be removed" } else { "removed" };
        let (images, blobs) = (counted(plan.images.len(), "image"), counted(plan.blobs.len(), "blob"));
        let mut text = match plan.is_empty() {
            true => "nothing to collect\n".to_owned(),
            false => format!("{images} and {blobs} {done}, {}\n", bytes(plan.bytes)),
        };
        if dry_run && !plan.held.is_empty() {
            let mut table = Table::new(&["HELD BY", ">BLOBS", ">SIZE", "DIGEST"]);
            for held in &plan.held {
                let by = match &held.by {
                    Holder::Pin { name } => format!("pin {name}"),
                    Holder::Mount { place } => format!("mount {place}"),
                    Holder::Operation => "what runs now".to_owned(),
                };
                let digest = held.image.or(held.blobs.first().copied());
                let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
                table.row([by, held.blobs.len().to_string(), bytes(held.bytes), digest]);
            }
            text.push_str(&table.text(""));
            text.push_str(&format!("{} stay, what several hold counted once\n", bytes(plan.held_bytes)));
        }
        text
    })?;
    Ok(0)
}
