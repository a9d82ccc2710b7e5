//! Blobs: made as temporary files, sealed, and given their names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use serde::Serialize;

use crate::claim::Claim;
use crate::durable;
use crate::store::Store;
use crate::store_error::StoreError;
use crate::verity::{self, Measured};

impl Store {
    /// Puts a finished temporary file under the name of its digest, durably, turns fs-verity on and claims it.
    pub(crate) fn install_blob(&self, temporary: Temporary, verity: &Digest) -> Result<Claim, StoreError> {
        let path = self.inner.names.blob(verity);
        let Temporary { path: from, file } = &temporary;
        file.sync_all().map_err(StoreError::io("write", from))?;
        let existing = {
            let _lock = self.lock(FlockArg::LockShared)?;
            Claim::of(&path).map_err(StoreError::io("open", &path))?
        };
        if let Some(existing) = existing {
            let len =
                |file: &File| file.metadata().map(|m| m.len()).map_err(StoreError::io("look at", &path));
            let measured = verity::measure(&existing).map_err(StoreError::io("measure", &path))?;
            if len(&existing)? == len(file)?
                && matches!(measured, Measured::Digest(d) if d == *verity)
                && self.is_sound(&existing, verity)?
            {
                // The same bytes; the temporary file goes away. Whoever wrote the other may have been killed before its name
                // was durable.
                self.settle_names()?;
                return Ok(existing);
            }
        }
        let temporary = temporary.close_for_writing().map_err(StoreError::io("open", &path))?;
        seal(&temporary.file, verity, &temporary.path)?;
        // Only now: turning fs-verity on takes the permission to write, even from the owner.
        let read_only = std::fs::Permissions::from_mode(0o444);
        let finished = temporary.file.set_permissions(read_only).and_then(|()| commit(&temporary.file));
        finished.map_err(StoreError::io("write", &temporary.path))?;
        let (naming, claim) = {
            let _lock = self.lock(FlockArg::LockShared)?;
            let naming = self.begin_naming()?;
            std::fs::rename(&temporary.path, &path).map_err(StoreError::io("rename to", &path))?;
            (naming, Claim::of(&path).map_err(StoreError::io("open", &path))?)
        };
        let directory = self.inner.names.blobs();
        durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        naming.end();
        // Only now, so that no moment is without a claim; it has no name in tmp/ any more.
        drop(temporary);
        claim.ok_or_else(|| StoreError::Damaged { path, fault: "it cannot be opened any more".to_owned() })
    }

    pub(crate) fn temporary(&self) -> Result<Temporary, StoreError> {
        let path = self.inner.names.temporary().join(durable::temporary_name());
        // An opening must not see it before it is claimed.
        let _lock = self.lock(FlockArg::LockShared)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        let file = Claim::on(file).map_err(StoreError::io("lock", &path))?;
        Ok(Temporary { path, file })
    }
}

/// Whether the kernel checks the reads of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checked {
    /// Every read, by fs-verity.
    ByKernel,
    /// No read: the file system has no fs-verity. Only imports and scrubs check.
    AtImportOnly,
}

/// Makes sure that fs-verity is on for `file` with this very digest. A blob whose flag was lost in a power cut gets it anew,
/// which is sound because the kernel computes the digest from what is there now.
pub(crate) fn seal(file: &File, verity: &Digest, path: &Path) -> Result<Checked, StoreError> {
    let damaged = |fault: String| StoreError::Damaged { path: path.to_owned(), fault };
    let mut measured = verity::measure(file).map_err(StoreError::io("measure", path))?;
    if measured == Measured::NotEnabled {
        if enable(file).map_err(StoreError::io("turn fs-verity on for", path))?
            == verity::Enabled::Unsupported
        {
            return Ok(Checked::AtImportOnly);
        }
        commit(file).map_err(StoreError::io("write", path))?;
        measured = verity::measure(file).map_err(StoreError::io("measure", path))?;
    }
    match measured {
        Measured::Digest(found) if found == *verity => Ok(Checked::ByKernel),
        Measured::Digest(found) => Err(damaged(format!("its fs-verity digest is {found}"))),
        Measured::OtherAlgorithm => Err(damaged("its fs-verity digest is no SHA-256".to_owned())),
        Measured::NotEnabled => Err(damaged("fs-verity does not stay on".to_owned())),
        Measured::Unsupported => Ok(Checked::AtImportOnly),
    }
}

/// Makes a file whose fs-verity was just turned on durable, with all that the file system wrote before it.
///
/// `fsync` is not enough: btrfs then writes the inode, which says that fs-verity is on, into its log, but not the descriptor. After
/// a power cut the file could never be opened again ("Verity descriptor has invalid size").
fn commit(file: &File) -> io::Result<()> {
    Ok(nix::unistd::syncfs(file)?)
}

/// Whether an error of `open` says that the file itself is damaged: the kernel cannot read it, or what fs-verity keeps
/// beside it.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let damage = [Errno::EIO, Errno::EMSGSIZE, Errno::EINVAL, Errno::EBADMSG, Errno::EUCLEAN];
    error.raw_os_error().is_some_and(|number| damage.contains(&Errno::from_raw(number)))
}

/// Turns fs-verity on, waiting up to two seconds for writers that are about to go: a child that another thread forked a moment
/// ago holds a copy of every descriptor until it executes its program.
fn enable(file: &File) -> io::Result<verity::Enabled> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    loop {
        match verity::enable(file) {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// A file in `tmp/` that goes away unless it is kept.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    pub(crate) file: Claim,
}

impl Temporary {
    /// The same file open for reading only, as fs-verity wants it.
    fn close_for_writing(mut self) -> io::Result<Self> {
        self.file = Claim::on(File::open(&self.path)?)?;
        Ok(self)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing under this name; otherwise a leftover is removed at the next opening.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_the_kernel_cannot_open_counts_as_damaged_and_one_without_permission_does_not() {
        use nix::errno::Errno;
        for (errno, damaged) in [
            (Errno::EMSGSIZE, true),
            (Errno::EIO, true),
            (Errno::EUCLEAN, true),
            (Errno::EACCES, false),
            (Errno::EMFILE, false),
            (Errno::ENOENT, false),
        ] {
            assert_eq!(is_damage(&io::Error::from_raw_os_error(errno as i32)), damaged, "{errno}");
        }
    }
}
