//! Layers that come from a reader instead of a registry.

use std::io::{self, Read};
use std::path::PathBuf;

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;

use crate::claim::Claim;
use crate::layer::{self, ConvertError};
use crate::record::{LayerRecord, Origin};
use crate::store::{Store, write_json};
use crate::store_error::{StoreError, is_disk_full};
use crate::tar::{Limits, Refusal, TarError};
use crate::worker::{self, Confinement, Failed, WorkerError};

/// A layer that is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// fs-verity digest of the blob.
    pub blob: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Where the blob is.
    pub path: PathBuf,
}

/// Why a layer could not be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive is hostile or broken.
    #[error("the layer was refused")]
    Refused(#[source] Refusal),
    /// The archive could not be read.
    #[error("could not read the layer")]
    Read(#[source] io::Error),
    /// It is another layer than the one that was expected.
    #[error("the layer has the diff id {found}, not {expected}")]
    DiffId {
        /// What was expected.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A native layer makes another blob than it says.
    #[error("the layer does not make the blob {expected}")]
    Blob {
        /// What it says.
        expected: Digest,
    },
    /// The process that parses it failed.
    #[error(transparent)]
    Worker(WorkerError),
    /// The disk is full.
    #[error("the disk is full")]
    DiskFull(#[source] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// Converts the uncompressed tar that `reader` gives, and keeps it. Nothing holds the new blob until
    /// [`Store::pin`] does; whoever collects in between removes it. Blocks; call it from a thread that may.
    ///
    /// # Errors
    /// [`ImportError`]; nothing is left behind.
    pub fn import_layer(&self, reader: impl Read, limits: Limits) -> Result<Layer, ImportError> {
        let (record, _claim) = self.convert_layer(reader, limits, layer::Below::Nothing, |_| Ok(()))?;
        let LayerRecord { diff_id, blob, size, .. } = record;
        Ok(Layer { diff_id, blob, size, path: self.blob_path(&blob) })
    }

    /// Converts, installs and claims; `accept` sees the diff id before anything gets its final name.
    pub(crate) fn convert_layer<R: Read>(
        &self,
        reader: R,
        limits: Limits,
        below: layer::Below,
        accept: impl FnOnce(&layer::Converted) -> Result<(), ImportError>,
    ) -> Result<(LayerRecord, Claim), ImportError> {
        self.writable()?;
        let temporary = self.temporary()?;
        let out = temporary.file.try_clone().map_err(StoreError::io("open", &temporary.path))?;
        let spill = self.inner.names.temporary();
        let converted = match &self.inner.confinement {
            Confinement::None => {
                let converted = layer::convert(reader, out, &spill, limits, below);
                converted.map(|(_, converted)| converted).map_err(Failed::Layer)
            }
            Confinement::Process(program) => worker::convert(program, reader, out, &spill, limits, below),
        };
        let converted = converted.map_err(|error| match error {
            Failed::Layer(ConvertError::Tar(TarError::Refused(refusal))) => ImportError::Refused(refusal),
            Failed::Layer(ConvertError::Tar(TarError::Read(error))) => match error.downcast() {
                Ok(error) => ImportError::Worker(error),
                Err(error) => ImportError::Read(error),
            },
            Failed::Layer(ConvertError::Write(error)) if is_disk_full(&error) => ImportError::DiskFull(error),
            Failed::Layer(ConvertError::Write(error)) => {
                StoreError::io("write", &temporary.path)(error).into()
            }
            Failed::Worker(error) => ImportError::Worker(error),
        })?;
        accept(&converted)?;
        let record = LayerRecord {
            diff_id: converted.diff_id,
            blob: converted.blob,
            size: converted.size,
            origin: if converted.open { Origin::Open } else { Origin::Tar },
        };
        let claim = match self.inner.confinement {
            Confinement::None => self.install_blob(temporary, &record.blob)?,
            Confinement::Process(_) => self.install_claimed_blob(temporary, &record.blob)?,
        };
        let _lock = self.lock(FlockArg::LockShared)?;
        write_json(&self.inner.names.layer(&record.diff_id), &record)?;
        Ok((record, claim))
    }
}
