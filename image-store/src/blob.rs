//! Blobs: made as temporary files, sealed, and given their names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::Serialize;

use crate::claim::Claim;
use crate::durable;
use crate::store::Store;
use crate::store_error::StoreError;
use crate::verity::{self, Measured};

/// What has the name of a blob that is to be installed.
enum Found {
    Nothing,
    /// It is put in the place of this.
    Damaged,
    /// It need not be installed.
    Sound(Claim),
}

/// Gives a file its name. Only what is damaged loses the name that it has: a claim is on a file, and whoever claims the one that is
/// there would have a file that nobody looks at.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where there is one by now.
fn give_name(from: &Path, to: &Path, found: &Found) -> io::Result<()> {
    match found {
        Found::Damaged => std::fs::rename(from, to),
        Found::Nothing | Found::Sound(_) => match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // This file system has no such rename (rename(2), `RENAME_NOREPLACE`).
            Err(Errno::INVAL) => std::fs::rename(from, to),
            named => Ok(named?),
        },
    }
}

impl Store {
    /// Puts a finished temporary file under the name of its digest, durably, turns fs-verity on and claims it.
    pub(crate) fn install_blob(&self, temporary: Temporary, verity: &Digest) -> Result<Claim, StoreError> {
        self.install(temporary, verity, false)
    }

    /// As [`Self::install_blob`], for a file that has this digest only by the word of a process which a layer may have broken. The
    /// kernel computes it anew when fs-verity is turned on; where it cannot, all blocks are read.
    pub(crate) fn install_claimed_blob(
        &self,
        temporary: Temporary,
        verity: &Digest,
    ) -> Result<Claim, StoreError> {
        self.install(temporary, verity, true)
    }

    fn install(&self, temporary: Temporary, verity: &Digest, claimed: bool) -> Result<Claim, StoreError> {
        let path = self.inner.names.blob(verity);
        let Temporary { path: from, file } = &temporary;
        file.sync_all().map_err(StoreError::io("write", from))?;
        let len = file.metadata().map_err(StoreError::io("look at", from))?.len();
        let mut found = self.found(&path, verity, len)?;
        if let Found::Sound(claim) = found {
            return Ok(claim);
        }
        let temporary = temporary.close_for_writing().map_err(StoreError::io("open", &path))?;
        let checked = seal(&temporary.file, verity, &temporary.path)?;
        if claimed && checked == Checked::AtImportOnly {
            let found = verity::digest(&*temporary.file).map_err(StoreError::io("read", &temporary.path))?.0;
            if found != *verity {
                let fault = format!("it was said to be {verity}, and is {found}");
                return Err(StoreError::Damaged { path: temporary.path.clone(), fault });
            }
        }
        // Only now: turning fs-verity on takes the permission to write, even from the owner.
        let read_only = std::fs::Permissions::from_mode(0o444);
        let finished = temporary.file.set_permissions(read_only).and_then(|()| commit(&temporary.file));
        finished.map_err(StoreError::io("write", &temporary.path))?;
        let (naming, claim) = loop {
            {
                let _lock = self.lock(FlockArg::LockShared)?;
                let naming = self.begin_naming()?;
                match give_name(&temporary.path, &path, &found) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => naming.end(),
                    named => {
                        named.map_err(StoreError::io("rename to", &path))?;
                        break (naming, Claim::of(&path).map_err(StoreError::io("open", &path))?);
                    }
                }
            }
            // Another one brought it meanwhile, and claims the file that has the name now.
            found = self.found(&path, verity, len)?;
            if let Found::Sound(claim) = found {
                return Ok(claim);
            }
        };
        let directory = self.inner.names.blobs();
        durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        naming.end();
        // Only now, so that no moment is without a claim; it has no name in tmp/ any more.
        drop(temporary);
        claim.ok_or_else(|| StoreError::Damaged { path, fault: "it cannot be opened any more".to_owned() })
    }

    /// What has the name of a blob of this length.
    fn found(&self, path: &Path, verity: &Digest, len: u64) -> Result<Found, StoreError> {
        let existing = {
            let _lock = self.lock(FlockArg::LockShared)?;
            Claim::of(path).map_err(StoreError::io("open", path))?
        };
        let Some(existing) = existing else {
            let is_there = path.try_exists().map_err(StoreError::io("look at", path))?;
            return Ok(if is_there { Found::Damaged } else { Found::Nothing });
        };
        let measured = verity::measure(&existing).map_err(StoreError::io("measure", path))?;
        // Where nothing could check it, reading it is all that can be done, and a new one would be no better.
        let is_checked = match measured {
            Measured::Digest(found) => found == *verity,
            Measured::Unsupported => true,
            Measured::NotEnabled | Measured::OtherAlgorithm => false,
        };
        let is_sound = is_checked
            && existing.metadata().map_err(StoreError::io("look at", path))?.len() == len
            && self.is_sound(&existing, verity)?;
        if !is_sound {
            return Ok(Found::Damaged);
        }
        // The same bytes. Whoever wrote them may have been killed before the name was durable.
        self.settle_names()?;
        Ok(Found::Sound(existing))
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
    use std::io::Write;

    use super::*;
    use crate::worker::Confinement;

    #[test]
    fn a_blob_that_is_not_what_was_claimed_gets_no_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Confinement::None).expect("a store");
        // A block, and the block with its leaf: a blob as it has to be, named as what it is and as another one.
        let image = [7; verity::BLOCK];
        let whole = [&image[..], &crate::leaves::encode(&[crate::leaves::leaf(&image)])].concat();
        let (name, _) = verity::digest(whole.as_slice()).expect("in memory");
        let written = || {
            let temporary = store.temporary().expect("made");
            (&*temporary.file).write_all(&whole).expect("written");
            temporary
        };
        let other = Digest::of(b"the base that everybody has");
        let error = store.install_claimed_blob(written(), &other).expect_err("it is another one");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        assert!(!store.blob_path(&other).exists());
        drop(store.install_claimed_blob(written(), &name).expect("it is what it is said to be"));
        assert!(store.blob_path(&name).exists());
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).expect("listed").count(), 0);
    }

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
