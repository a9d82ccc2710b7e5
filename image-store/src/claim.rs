//! What running operations rely on, so that a collection beside them leaves it alone.
//!
//! ```text
//!  pull, import:  claim what is there ─► write what is not (claimed from its first byte on) ─► record ─► whoever asked pins it
//!  collection:    lock (exclusive) ─► read pins, mounts and claims ─► remove the rest
//! ```
//! A claim is a shared `flock(2)` on the file itself: it follows the file to its name, and the kernel lets go of it with the
//! process, however that ends. So nothing has to be written down, and nothing is left behind.
//!
//! **Invariant:** claims are made, and files get their names, while the store's lock is held shared. So neither happens while a
//! collection looks and removes, which holds it exclusively. Nobody holds that lock for longer than a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use bennu_manifests::model::Digest;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::blob::is_damage;
use crate::record::{Image, LayerRecord};
use crate::store::Store;
use crate::store_error::StoreError;

/// A file that is not collected as long as this lives.
#[derive(Debug)]
pub(crate) struct Claim(Flock<File>);

/// Claims on what an image is made of, its record included, or none. They end with the last copy.
#[derive(Debug, Clone, Default)]
pub struct Claims(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Vec<Claim>>);

impl Claim {
    /// Claims an open file. The caller holds the store's lock, or the file has no name that a collection would look at.
    pub(crate) fn on(file: File) -> io::Result<Self> {
        Ok(Self(flock(file, FlockArg::LockShared)?))
    }

    /// Claims the file at `path`; `None` where it is missing or the kernel cannot read it. The caller holds the store's lock.
    pub(crate) fn of(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Self::on(file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Deref for Claim {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl FromIterator<Claim> for Claims {
    fn from_iter<T: IntoIterator<Item = Claim>>(claims: T) -> Self {
        Self(Arc::new(claims.into_iter().collect()))
    }
}

/// Whether anybody claims the file at `path`; one that is gone is claimed by nobody.
pub(crate) fn is_claimed(path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => return Ok(false),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    match flock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_nobody) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(StoreError::io("lock", path)(error)),
    }
}

/// Locks a file, however often a signal comes in between.
pub(crate) fn flock(mut file: File, how: FlockArg) -> io::Result<Flock<File>> {
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

impl Store {
    /// The image, as [`Store::image`] gives it. Until this value and all copies of it are dropped, no collection of any process
    /// removes any of it: time to pin it, to mount it, or to read it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn claim(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let _lock = self.lock(FlockArg::LockShared)?;
        let Some(mut image) = self.recorded_image(digest)? else { return Ok(None) };
        let mut claims = Vec::with_capacity(image.layers.len() + 1);
        for layer in &image.layers {
            match self.claimed(layer)? {
                Some(claim) => claims.push(claim),
                None => return Ok(None),
            }
        }
        claims.extend(self.claimed_record(digest)?);
        image.claims = claims.into_iter().collect();
        Ok(Some(image))
    }

    /// The blob of a layer, if it is there with the right length.
    pub(crate) fn claim_blob(&self, layer: &LayerRecord) -> Result<Option<Claim>, StoreError> {
        let _lock = self.lock(FlockArg::LockShared)?;
        self.claimed(layer)
    }

    /// Those of the layers with these diff ids that are here, and their blobs.
    pub(crate) fn claim_layers(
        &self,
        diff_ids: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, (LayerRecord, Claim)>, StoreError> {
        // What was collected since is not there any more.
        let claimed =
            |(diff_id, record)| Ok(self.claim_blob(&record)?.map(|claim| (diff_id, (record, claim))));
        self.known_layers(diff_ids)?.into_iter().filter_map(|known| claimed(known).transpose()).collect()
    }

    /// The record of an image. The caller holds the store's lock.
    pub(crate) fn claimed_record(&self, image: &Digest) -> Result<Option<Claim>, StoreError> {
        let path = self.inner.names.image(image);
        Claim::of(&path).map_err(StoreError::io("open", path))
    }

    fn claimed(&self, layer: &LayerRecord) -> Result<Option<Claim>, StoreError> {
        let path = self.inner.names.blob(&layer.blob);
        let claim = Claim::of(&path).map_err(StoreError::io("open", &path))?;
        let Some(claim) = claim else { return Ok(None) };
        let len = claim.metadata().map_err(StoreError::io("look at", path))?.len();
        Ok((len == layer.size).then_some(claim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_claimed_until_the_last_claim_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, moved) = (dir.path().join("file"), dir.path().join("moved"));
        assert!(!is_claimed(&path).expect("looked at"), "there is no such file");
        std::fs::write(&path, "x").expect("written");
        assert!(!is_claimed(&path).expect("looked at"));
        let claim = || Claim::of(&path).expect("opened").expect("there");
        let (one, two) = (claim(), claim());
        assert!(is_claimed(&path).expect("looked at"));
        drop(one);
        std::fs::rename(&path, &moved).expect("renamed");
        assert!(is_claimed(&moved).expect("looked at"), "a claim does not go with the file");
        drop(two);
        assert!(!is_claimed(&moved).expect("looked at"));
    }
}
