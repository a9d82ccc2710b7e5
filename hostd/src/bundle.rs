//! A manifest that comes with its images, for hosts that reach no registry.
//!
//! ```text
//!  body ─► a file without a name ─► its manifest, would it be accepted? ─► its images into the store ─► accepted
//! ```
//! **Invariant:** nothing of a bundle is brought into the store before its manifest was verified, and then only what that names,
//! each by its digest. Whatever ends it before its end, the file is gone and no generation was made.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bennu_api::{Accepted, Problem, ProblemKind, Submission};
use bennu_image_store::archive::{BundleError, Files, SignedManifest};
use bennu_image_store::source::Source;
use bennu_image_store::{Fault, Image, PullError, Store};
use bennu_manifests::model::{Digest, Manifest};
use futures_util::{Stream, StreamExt as _};
use nix::libc::O_TMPFILE;
use tokio::io::AsyncWriteExt as _;

use crate::core::{Core, chain, failed};

/// Bytes of a bundle after which it is looked again whether there is room for more.
const LOOK: u64 = 64 << 20;

/// Takes a bundle in. What its images need that the store has already is not read.
///
/// # Errors
/// Where it is no bundle or does not fit, one of its images is not there or not what it should be, or as [`Core::submit`].
pub async fn take<B: AsRef<[u8]>>(
    core: &Core,
    require_plan: Option<Digest>,
    body: impl Stream<Item = io::Result<B>> + Unpin,
) -> Result<Accepted, Problem> {
    let file = received(&core.store, body).await?;
    let (files, signed) = tokio::task::spawn_blocking(move || opened(&file)).await.map_err(failed)??;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| no_bundle("its manifest is no text"));
    let submission =
        Submission { manifest: text(signed.manifest)?, signatures: text(signed.signatures)?, require_plan };
    let manifest = core.acceptable(&submission).await?;
    // Claimed until the generation is there: a collection would take them else.
    let _held = imported(core, &manifest, Arc::new(files)).await?;
    core.submit(&submission).await
}

/// The body, in a file that nothing leads to and that is gone with whoever holds it.
async fn received<B: AsRef<[u8]>>(
    store: &Store,
    mut body: impl Stream<Item = io::Result<B>> + Unpin,
) -> Result<File, Problem> {
    let mut options = File::options();
    let file = options.read(true).write(true).mode(0o600).custom_flags(O_TMPFILE).open(store.root());
    let mut file = tokio::fs::File::from_std(file.map_err(failed)?);
    let mut looked_at = 0;
    let mut written: u64 = 0;
    while let Some(piece) = body.next().await {
        let piece =
            piece.map_err(|error| no_bundle(&format!("it did not come to its end: {}", chain(&error))))?;
        let piece = piece.as_ref();
        written += piece.len() as u64;
        if written >= looked_at {
            require_room(store, LOOK)?;
            looked_at = written + LOOK;
        }
        file.write_all(piece).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(file.into_std().await)
}

fn require_room(store: &Store, bytes: u64) -> Result<(), Problem> {
    match store.shortage(bytes).map_err(failed)? {
        None => Ok(()),
        Some(shortage) => {
            Err(Problem::new(ProblemKind::Failed, format!("the bundle does not fit: {shortage}")))
        }
    }
}

fn opened(file: &File) -> Result<(Files, SignedManifest), Problem> {
    // The file has no name but this one.
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let files = Files::open(&path).map_err(|error| no_bundle(&chain(&error)))?;
    let files = files.ok_or_else(|| no_bundle("it has no images"))?;
    let signed = files.signed_manifest().map_err(unreadable)?;
    Ok((files, signed))
}

/// Brings what `manifest` names into the store, with the signatures that came along.
async fn imported(core: &Core, manifest: &Manifest, files: Arc<Files>) -> Result<Vec<Image>, Problem> {
    let reader = files.clone();
    let read = tokio::task::spawn_blocking(move || reader.image_signatures()).await;
    let mut signatures = read.map_err(failed)?.map_err(unreadable)?;
    let source = Source::Archive(files);
    let mut images = Vec::new();
    for image in manifest.images() {
        let name = image.to_string();
        let pulled = core.store.pull_from(&source, &name, &image.digest, &core.platform(), &()).await;
        images.push(pulled.map_err(|error| not_imported(&name, &error))?);
        if let Some(signatures) = signatures.remove(&image.digest) {
            core.store.keep_signatures(&image.digest, signatures).map_err(failed)?;
        }
    }
    Ok(images)
}

fn not_imported(image: &str, error: &PullError) -> Problem {
    let message = format!("take {image} from the bundle: {}", chain(error));
    Problem::new(kind(error.fault()), message)
}

fn unreadable(error: BundleError) -> Problem {
    Problem { kind: kind(error.fault()), ..no_bundle(&chain(&error)) }
}

fn kind(fault: Fault) -> ProblemKind {
    match fault {
        Fault::Invalid => ProblemKind::Invalid,
        Fault::Refused => ProblemKind::Refused,
        Fault::Missing => ProblemKind::NotFound,
        Fault::Failed => ProblemKind::Failed,
    }
}

fn no_bundle(why: &str) -> Problem {
    Problem::new(ProblemKind::Invalid, format!("the bundle is not taken: {why}"))
}
