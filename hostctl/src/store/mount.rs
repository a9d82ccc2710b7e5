//! `mount` and `unmount`: the tree of an image on a folder.

use std::path::{Path, PathBuf};

use bennu_image_store::mount::{MountError, Mounts, is_mount_point};
use bennu_image_store::{Checked, Image, Store as ImageStore};
use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::exit::{Code, Failure, Outcome};
use crate::render::{Out, progress};

/// A mounted tree.
#[derive(Debug, Serialize)]
struct Mounted {
    image: Digest,
    directory: PathBuf,
    /// Who checks what is read.
    checked: Checked,
}

pub(super) fn mount(
    store: &ImageStore,
    image: &Image,
    directory: &Path,
    run: &Path,
    out: &mut Out,
) -> Outcome {
    let directory = canonical(directory)?;
    let mounts = Mounts::new(run).map_err(failed)?;
    let taken = is_mount_point(&directory)
        .map_err(|e| Failure::failed(format!("look at {}", directory.display())).because(e))?;
    if taken {
        return Err(Failure::failed(format!("something is mounted on {} already", directory.display()))
            .advice("unmount it first, or choose another folder"));
    }
    let checked = mounts.mount_image(store, &image.layers, &directory, None, None).map_err(failed)?;
    if checked == Checked::AtImportOnly {
        progress("the file system of the store has no fs-verity: blobs are checked at import and scrub only");
    }
    let mounted = Mounted { image: image.digest, directory, checked };
    out.result(&mounted, |m| format!("{} is mounted on {}\n", m.image, m.directory.display()))?;
    Ok(0)
}

/// Only what [`mount`] mounted: what somebody else mounted is not ours to undo.
pub(super) fn unmount(directory: &Path, run: &Path, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Unmounted {
        directory: PathBuf,
    }
    let directory = canonical(directory)?;
    let nothing = || Failure::not_found(format!("no image was mounted on {}", directory.display()));
    if !run.exists() {
        return Err(nothing());
    }
    let mounts = Mounts::new(run).map_err(failed)?;
    if !mounts.targets().map_err(failed)?.contains(&directory) {
        return Err(nothing());
    }
    mounts.unmount_image(&directory).map_err(failed)?;
    out.result(&Unmounted { directory }, |u| format!("unmounted {}\n", u.directory.display()))?;
    Ok(0)
}

/// The one name of a folder, by which a mount is found again.
fn canonical(directory: &Path) -> Result<PathBuf, Failure> {
    directory.canonicalize().map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
        Failure::new(code, format!("find the folder {}", directory.display())).because(error)
    })
}

fn failed(error: MountError) -> Failure {
    let code = if matches!(error, MountError::Refused(_)) { Code::Refused } else { Code::Failed };
    Failure::new(code, "mount or unmount an image").because(error)
}
