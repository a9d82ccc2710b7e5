//! Images copied into a layout byte for byte, so that every digest in them stays what it is.

use std::io::Write;

use bennu_manifests::model::Digest;
use oci_spec::image::ImageConfiguration;

use super::{BlobWriter, Described, LayoutWriter, WriteError};
use crate::Progress;
use crate::pull::{Documents, check_platform, documents};
use crate::pull_error::{PullError, Refused};
use crate::registry::document::{Descriptor, Platform};
use crate::source::Source;

/// Why an image was not copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// It does not come, or is not what it should be.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The layout cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Copies the image with this digest: the index, if it is one, the manifest for `platform`, its configuration and its layers.
/// What the index has for other platforms is left out. `name` is what errors call the image. Writes on the thread that it is called on.
///
/// # Errors
/// [`CopyError`]; what was copied until then is in the layout.
pub async fn copy(
    source: &Source,
    name: &str,
    digest: &Digest,
    platform: &Platform,
    layout: &mut LayoutWriter,
    progress: &(dyn Progress + Sync),
) -> Result<Described, CopyError> {
    let (Documents { index, served, manifest }, config) = described(source, name, digest, platform).await?;
    let mut described = Described::new(&served.media_type, layout.bytes(&served.bytes)?);
    if let Some(index) = index {
        described = Described::new(&index.media_type, layout.bytes(&index.bytes)?);
    }
    layout.bytes(&config)?;
    for wanted in &manifest.layers {
        if layout.has(&wanted.digest) {
            progress.layer(&wanted.digest, wanted.size, wanted.size);
            continue;
        }
        // What breaks off goes on by itself.
        fetch(source, name, wanted, Some(layout.blob()?), progress).await?;
    }
    Ok(described)
}

/// Checks that all of an image is there and has its digests, as [`copy`] would, and keeps nothing. Gives its bytes.
///
/// # Errors
/// As [`copy`].
pub async fn check(
    source: &Source,
    name: &str,
    digest: &Digest,
    platform: &Platform,
) -> Result<u64, CopyError> {
    let (Documents { index, served, manifest }, config) = described(source, name, digest, platform).await?;
    let index = index.map_or(0, |index| index.bytes.len());
    let mut bytes = (index + served.bytes.len() + config.len()) as u64;
    for wanted in &manifest.layers {
        fetch(source, name, wanted, None, &()).await?;
        bytes += wanted.size;
    }
    Ok(bytes)
}

/// What says what an image is made of: its documents and its configuration, which has to be for the platform.
async fn described(
    source: &Source,
    name: &str,
    digest: &Digest,
    platform: &Platform,
) -> Result<(Documents, Vec<u8>), PullError> {
    let documents = documents(source, name, digest, platform).await?;
    let config = source.small_blob(&documents.manifest.config).await;
    let config = config.map_err(|error| PullError::from_source(name, error))?;
    let parsed = ImageConfiguration::from_reader(&config[..]).map_err(|error| PullError::Refused {
        image: name.to_owned(),
        source: Box::new(Refused::Config(error)),
    })?;
    check_platform(name, platform, &parsed)?;
    Ok((documents, config))
}

/// One try. Only what has the right digest to its last byte is finished.
async fn fetch(
    source: &Source,
    name: &str,
    wanted: &Descriptor,
    mut to: Option<BlobWriter<'_>>,
    progress: &(dyn Progress + Sync),
) -> Result<(), CopyError> {
    let mut download = source.download(wanted);
    let mut done = 0;
    progress.layer(&wanted.digest, 0, wanted.size);
    while let Some(piece) = download.next().await.map_err(|error| PullError::from_source(name, error))? {
        if let Some(to) = &mut to {
            to.write_all(&piece).map_err(|error| to.failed(error))?;
        }
        done += piece.len() as u64;
        progress.layer(&wanted.digest, done, wanted.size);
    }
    to.map(BlobWriter::finish).transpose()?;
    Ok(())
}
