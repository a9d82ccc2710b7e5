//! The host's verbs for volumes.

use std::io;
use std::path::PathBuf;

use bennu_api::{Snapshot, SnapshotName, Why};
use bennu_manifests::model::{Name, VolumeLife};
use futures_util::Stream;
use jiff::Timestamp;

use super::Host;
use super::volume::{ArchiveError, Archives, Incoming, VolumeError};

/// Why an archive of a volume was not made or not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The volume can't be read, or no other one be made.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The archive is not taken, or can't be made.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

/// Data that is ready to take a volume's place. Dropped before that, it is removed.
#[derive(Debug)]
pub struct Prepared(Incoming);

impl Host {
    /// Makes an empty volume; one that is there stays as it is.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn create_volume(&self, name: &Name, life: VolumeLife) -> Result<(), VolumeError> {
        self.volumes.create(name, life).await
    }

    /// Destroys a volume with all data in it, and its snapshots; one that is not there is no error.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn destroy_volume(&self, name: &Name) -> Result<(), VolumeError> {
        self.volumes.destroy(name).await
    }

    /// Lets a volume hold at most so many bytes from now on; `None` is without limit.
    ///
    /// # Errors
    /// Where there is no such volume, or the file system says no.
    pub async fn limit_volume(&self, name: &Name, size: Option<u64>) -> Result<(), VolumeError> {
        self.volumes.limit(name, size).await
    }

    /// Where a volume is on the host.
    pub fn volume_path(&self, name: &Name, life: VolumeLife) -> PathBuf {
        self.volumes.path(name, life)
    }

    /// Whether a volume holds nothing.
    ///
    /// # Errors
    /// Where there is no such volume, or it can't be read.
    pub fn is_empty_volume(&self, name: &Name) -> Result<bool, VolumeError> {
        self.volumes.is_empty(name)
    }

    /// The snapshots of a volume, the oldest first.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn snapshots(&self, name: &Name) -> Result<Vec<SnapshotName>, VolumeError> {
        self.volumes.snapshots(name)
    }

    /// What people are told of the snapshots of a volume, the oldest first.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn snapshots_told(&self, name: &Name) -> Result<Vec<Snapshot>, VolumeError> {
        self.volumes.snapshots_told(name)
    }

    /// Takes a read-only snapshot of a volume: it is what a power cut at this moment would leave.
    ///
    /// # Errors
    /// Where there is no such volume, there are too many snapshots, or the file system says no.
    pub async fn take_snapshot(
        &self,
        name: &Name,
        now: Timestamp,
        why: Why,
    ) -> Result<SnapshotName, VolumeError> {
        self.volumes.take_snapshot(name, now, why).await
    }

    /// Removes a snapshot of a volume.
    ///
    /// # Errors
    /// Where there is no such snapshot, or the file system says no.
    pub async fn remove_snapshot(&self, name: &Name, snapshot: SnapshotName) -> Result<(), VolumeError> {
        self.volumes.remove_snapshot(name, snapshot).await
    }

    /// A copy of a snapshot, ready to take the volume's place.
    ///
    /// # Errors
    /// Where there is no such snapshot, or the file system says no.
    pub async fn prepare_snapshot(
        &self,
        name: &Name,
        snapshot: SnapshotName,
    ) -> Result<Prepared, VolumeError> {
        self.volumes.copy_of(name, snapshot).await.map(Prepared)
    }

    /// The contents of a tar, ready to take the volume's place.
    ///
    /// # Errors
    /// Where there is no such volume, or the tar is not whole or does not fit.
    pub async fn prepare_archive<B: AsRef<[u8]>>(
        &self,
        name: &Name,
        archive: impl Stream<Item = io::Result<B>> + Unpin,
    ) -> Result<Prepared, DataError> {
        let incoming = self.volumes.empty(name).await?;
        self.archives().unpack(&incoming, archive).await?;
        Ok(Prepared(incoming))
    }

    /// Puts what is prepared in the volume's place in one step, and returns the snapshot of what it held before, where it
    /// held anything. Nothing may use the volume.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn replace_volume(
        &self,
        name: &Name,
        prepared: Prepared,
        now: Timestamp,
        why: Why,
    ) -> Result<Option<SnapshotName>, VolumeError> {
        self.volumes.replace(name, prepared.0, now, why).await
    }

    /// A tar of a snapshot, or of the volume as it is at this moment, piece by piece. An error takes the place of its end
    /// where it is not whole. When it is dropped nothing is left of it.
    ///
    /// # Errors
    /// Where there is no such volume or snapshot, or tar can't be run.
    pub async fn export_volume(
        &self,
        name: &Name,
        snapshot: Option<SnapshotName>,
    ) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static + use<>, DataError> {
        let still = self.volumes.still(name, snapshot).await?;
        Ok(self.archives().pack(still)?.into_stream())
    }

    /// Looks after what the file system counts.
    pub async fn tend_volumes(&self) {
        self.volumes.tend().await;
    }

    fn archives(&self) -> Archives {
        Archives { cells: self.volumes.scratch() }
    }
}
