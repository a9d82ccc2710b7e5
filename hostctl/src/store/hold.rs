//! `gc`: what nothing holds goes.

use bennu_image_store::Store as ImageStore;

use crate::exit::Outcome;
use crate::render::{Out, bytes, counted};

use super::failed;

pub(super) fn collect(store: &ImageStore, dry_run: bool, out: &mut Out) -> Outcome {
    let plan = if dry_run { store.gc_plan() } else { store.gc() }.map_err(failed)?;
    out.result(&plan, |plan| {
        let done = if dry_run { "would be removed" } else { "removed" };
        let (images, blobs) = (counted(plan.images.len(), "image"), counted(plan.blobs.len(), "blob"));
        match plan.is_empty() {
            true => "nothing to collect\n".to_owned(),
            false => format!("{images} and {blobs} {done}, {}\n", bytes(plan.bytes)),
        }
    })?;
    Ok(0)
}
