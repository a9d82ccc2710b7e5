//! `store`: an image store on this machine, without a daemon.
//!
//! ```text
//! args ──► run ──┬─► fetch: pull, and what it would fetch
//!                ├─► import: images from files, or a layer
//!                ├─► export: an image for others
//!                ├─► look:  ls, files
//!                ├─► hold:  pin, unpin, pins, gc
//!                ├─► mount: mount, unmount
//!                ├─► check: verify
//!                └─► scrub
//! ```

pub(crate) mod args;
mod check;
mod export;
mod fetch;
mod hold;
mod import;
mod look;
mod mount;
mod progress;
mod scrub;

use std::path::Path;

use bennu_image_store::registry::Client;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::worker::Program;
use bennu_image_store::{Confinement, OpenError, Store as ImageStore, StoreError};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::{Digest, ImageRef};

use crate::exit::{Code, Failure, Outcome};
use crate::pin::failed as not_resolved;
use crate::reach::Reach;
use crate::render::Out;

use args::{Store, StoreCommand};
pub(crate) use fetch::not_pulled;
pub(crate) use look::show_listing;
pub(crate) use progress::Display;

/// Carries one command out.
pub(crate) fn run(args: &Store, out: &mut Out) -> Outcome {
    match &args.command {
        StoreCommand::Pull { reference, dry_run: false, platform, reach } => {
            let platform = platform.clone().unwrap_or_else(Platform::host);
            fetch::pull(&open(&args.root)?, reference, &platform, reach, out)
        }
        command => crate::to_its_end(carry_out(&args.root, command, out)),
    }
}

/// Commands that may talk to something.
async fn carry_out(root: &Path, command: &StoreCommand, out: &mut Out) -> Outcome {
    match command {
        StoreCommand::Pull { reference, platform, reach, .. } => {
            let platform = platform.clone().unwrap_or_else(Platform::host);
            fetch::estimate(&open(root)?, reference, &platform, reach, out).await
        }
        StoreCommand::Export(export) => {
            let store = open_existing(root)?;
            let image = look::image(&store, &export.reference, &Reach::default()).await?;
            let mut earlier = Vec::with_capacity(export.patch_from.len());
            for reference in &export.patch_from {
                earlier.push(look::image(&store, reference, &Reach::default()).await?.digest);
            }
            export::export(&store, &image.digest, &earlier, export, out)
        }
        StoreCommand::Import(import) => import::import(&open(root)?, import, out).await,
        StoreCommand::Files { reference, reach } => {
            look::files(&open_existing(root)?, reference, reach, out).await
        }
        StoreCommand::Ls => look::list(&open_existing(root)?, out),
        StoreCommand::Verify => check::verify(&open_existing(root)?, out),
        StoreCommand::Scrub(scrub) => scrub::scrub(&open_existing(root)?, scrub, out).await,
        StoreCommand::Pin { name, references, reach } => {
            hold::pin(&open_existing(root)?, name, references, reach, out).await
        }
        StoreCommand::Unpin { name } => hold::unpin(&open_existing(root)?, name, out),
        StoreCommand::Pins => hold::list(&open_existing(root)?, out),
        StoreCommand::Mount { reference, directory, run, reach } => {
            let store = open_existing(root)?;
            let image = look::image(&store, reference, reach).await?;
            mount::mount(&store, &image, directory, run, out)
        }
        StoreCommand::Unmount { directory, run } => mount::unmount(directory, run, out),
        StoreCommand::Gc { dry_run } => hold::collect(&open_existing(root)?, *dry_run, out),
    }
}

fn open(root: &Path) -> Result<ImageStore, Failure> {
    ImageStore::open(root, Confinement::Process(Program::this())).map_err(|error| {
        let code = match error {
            OpenError::NotAStore { .. } => Code::Invalid,
            _ => Code::Failed,
        };
        Failure::new(code, format!("open the store {}", root.display())).because(error)
    })
}

/// A look into a store must not make one.
fn open_existing(root: &Path) -> Result<ImageStore, Failure> {
    let empty = std::fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        return Err(Failure::not_found(format!("there is no store at {}", root.display())));
    }
    open(root)
}

fn parsed(reference: &str) -> Result<UnpinnedRef, Failure> {
    reference.parse().map_err(|e| Failure::invalid(format!("'{reference}' is no image reference")).because(e))
}

/// The image that a reference names; what a tag means is asked of its registry.
async fn pinned(client: &Client, wanted: UnpinnedRef) -> Result<ImageRef, Failure> {
    match wanted.pinned() {
        Some(image) => Ok(image),
        None => Ok(wanted.pin(client.resolve(&wanted).await.map_err(|e| not_resolved(&wanted, e))?)),
    }
}

/// The digest that `reference` stands for: itself, as `ls` prints it, or that of the image it names.
async fn digest_of(reference: &str, reach: &Reach) -> Result<Digest, Failure> {
    match reference.parse() {
        Ok(digest) => Ok(digest),
        Err(_) => {
            let wanted = parsed(reference)?;
            let client = reach.client(&wanted.registry).await?;
            Ok(pinned(&client, wanted).await?.digest)
        }
    }
}

fn failed(error: StoreError) -> Failure {
    let code = match error {
        StoreError::Busy => Code::Waiting,
        StoreError::PinName { .. } => Code::Invalid,
        StoreError::NothingToPin { .. } => Code::NotFound,
        _ => Code::Failed,
    };
    Failure::new(code, "use the store").because(error)
}
