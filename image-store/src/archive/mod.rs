//! Images in files, as other programs write them.
//!
//! ```text
//!  a directory ─┐             ┌─► oci-layout, index.json ─► layout ─┐
//!               ├─► members ──┤                                     ├─► Files: names and digests ──► Source::Archive
//!  a tar ─scan──┘             └─► manifest.json ──────────► docker ─┘
//! ```
//! Three forms are told apart by looking: an OCI layout in a directory, the same in a tar (`oci-archive`), and what `docker save`
//! writes. A tar is read once, to learn where its members are; nothing is extracted, their bytes are read from where they lie.
//!
//! What is read is believed no more than what a registry serves: documents and blobs are checked against their digests by
//! [`crate::source`]. Only the list of names, `index.json` or `manifest.json`, is vouched for by nobody; whoever wants one image
//! and no other names it by its digest.

mod artifact;
mod bundle;
mod choose;
mod copy;
mod described;
mod docker;
mod layout;
mod members;
mod scan;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bennu_manifests::model::Digest;
use serde::Deserialize;

pub use artifact::{ArtifactError, Part};
pub use bundle::{
    BUNDLE, BUNDLE_VERSION, BundleError, IMAGE_SIGNATURES_TYPE, MANIFEST_TYPE, SIGNATURES_TYPE,
    SignedManifest,
};
pub use choose::ChooseError;
pub use copy::{CopyError, check, copy};
pub use described::Described;
pub(crate) use described::json;
pub use write::{BlobWriter, Form, LayoutWriter, WriteError};

use crate::registry::document::{DocumentError, INDEX_TYPES, MANIFEST_TYPES};
use crate::registry::{MAX_DOCUMENT, Served};
use crate::source::Archive;
use crate::tar::Refusal;
use members::Members;

/// The annotation of an index entry with its name or tag (OCI image specification, `annotations.md`).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation in which containerd and Docker write the whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Why files are not taken for images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A directory that is no OCI layout.
    #[error("the directory has no 'oci-layout' and is no OCI image layout")]
    NotALayout,
    /// A compressed file: its members cannot be read where they lie.
    #[error("it is compressed with {0}; decompress it first")]
    Compressed(&'static str),
    /// A tar with images that is hostile or broken.
    #[error("the archive was refused")]
    Refused(#[source] Refusal),
    /// A version of the layout that is not known.
    #[error("the layout has the version '{0}', and only 1 is known")]
    Version(String),
    /// One of its documents cannot be read as what it has to be.
    #[error("{member} is not what it should be")]
    Document {
        /// The file or member.
        member: String,
        /// What is wrong.
        #[source]
        source: DocumentError,
    },
    /// A file or member that has to be there is not.
    #[error("{0} is missing, or is no file")]
    Missing(String),
    /// A list that is longer than any program makes it.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        limit: usize,
    },
    /// Configuration and layers do not fit together.
    #[error("{0} and its layers differ in their number")]
    LayerCount(String),
    /// It cannot be read.
    #[error("could not read it")]
    Read(#[from] io::Error),
}

/// An image that files have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// Bytes of its manifest or index.
    pub size: u64,
    /// The media type that it is listed as.
    pub media_type: String,
    /// What it says to be, where it is no image to be run.
    pub artifact_type: Option<String>,
    /// Its names, as they are written there; none is more right than another.
    pub names: Vec<String>,
}

/// Files with images.
#[derive(Debug)]
pub struct Files {
    members: Members,
    images: Vec<Listed>,
    /// What does not lie under its digest.
    elsewhere: BTreeMap<Digest, Elsewhere>,
}

/// Something of an archive of Docker's.
#[derive(Debug)]
enum Elsewhere {
    /// A manifest that was made for an image.
    Manifest(Vec<u8>),
    /// A configuration or layer, by the name of its member.
    Member(Vec<u8>),
}

impl Files {
    /// Looks at what is at `path`. `None` is a tar without images, which may be a layer, or something that can be read only once.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let metadata = std::fs::metadata(path)?;
        let members = if metadata.is_dir() {
            let members = Members::Directory(path.to_owned());
            if members.len(b"oci-layout")?.is_none() {
                return Err(OpenError::NotALayout);
            }
            members
        } else if metadata.is_file() {
            let file = File::open(path)?;
            if let Some(program) = compressed_with(&file)? {
                return Err(OpenError::Compressed(program));
            }
            match scan::scan(file)? {
                Some(members) => members,
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        // Docker's newer archives are both; the layout has the documents as they were.
        let (images, elsewhere) = if members.len(b"oci-layout")?.is_some() {
            (layout::images(&members)?, BTreeMap::new())
        } else {
            docker::images(&members)?
        };
        Ok(Some(Self { members, images, elsewhere }))
    }

    /// Everything that is listed, in the order of the list.
    pub fn listed(&self) -> &[Listed] {
        &self.images
    }

    /// What is listed and says to be nothing else than an image.
    pub fn images(&self) -> impl Iterator<Item = &Listed> {
        self.images.iter().filter(|image| image.artifact_type.is_none())
    }

    /// The image that `wanted` names, or the only one. A name fits if it is the whole of what is listed, or what follows a slash
    /// there; without a tag it means `latest`. A digest, also behind an `@`, is all that counts where there is one.
    ///
    /// # Errors
    /// [`ChooseError`], which lists what there is.
    pub fn choose(&self, wanted: Option<&str>) -> Result<&Listed, ChooseError> {
        choose::choose(self.images().collect(), wanted)
    }

    /// The name of the member that has the bytes with this digest.
    fn member(&self, digest: &Digest) -> Vec<u8> {
        match self.elsewhere.get(digest) {
            Some(Elsewhere::Member(name)) => name.clone(),
            _ => format!("blobs/sha256/{}", digest.hex()).into_bytes(),
        }
    }
}

impl Archive for Files {
    fn document(&self, digest: &Digest) -> io::Result<Option<Served>> {
        let bytes = match self.elsewhere.get(digest) {
            Some(Elsewhere::Manifest(bytes)) => Some(bytes.clone()),
            // One byte more than is taken, so that the caller notices.
            _ => self.members.read(&self.member(digest), MAX_DOCUMENT as u64 + 1)?,
        };
        let listed = self.images.iter().find(|image| image.digest == *digest);
        Ok(bytes.map(|bytes| Served {
            media_type: listed.map_or_else(|| stated_type(&bytes), |listed| listed.media_type.clone()),
            bytes,
        }))
    }

    fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        self.members.open(&self.member(digest))
    }
}

/// What a document that only an index leads to says to be, or what its form says.
fn stated_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Stated {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    // What is no JSON is refused as such by whoever reads it.
    match serde_json::from_slice::<Stated>(bytes) {
        Ok(Stated { media_type: Some(stated), .. }) => stated,
        Ok(Stated { manifests: Some(_), .. }) => INDEX_TYPES[0].to_owned(),
        _ => MANIFEST_TYPES[0].to_owned(),
    }
}

/// What a file is compressed with, by its first bytes.
fn compressed_with(file: &File) -> io::Result<Option<&'static str>> {
    let mut first = [0; 6];
    let mut filled = 0;
    while filled < first.len() {
        match file.read_at(&mut first[filled..], filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(magic(&first[..filled]))
}

/// RFC 1952, section 2.3.1; RFC 8878, section 3.1.1; the file format of xz, section 2.1.1.1; bzip2, whose format has no other
/// description than its source.
fn magic(first: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
        (b"BZh", "bzip2"),
    ];
    known.into_iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, program)| program)
}
