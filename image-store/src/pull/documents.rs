//! The documents that say what an image is made of.

use bennu_manifests::model::Digest;

use crate::pull_error::{PullError, Refused};
use crate::registry::Served;
use crate::registry::document::{self, Document, Manifest, Platform};
use crate::source::Source;

/// The manifest of an image, and the index that led to it.
pub(crate) struct Documents {
    pub(crate) index: Option<Served>,
    pub(crate) served: Served,
    pub(crate) manifest: Manifest,
}

/// The documents of the image with this digest for a platform; `name` is what errors call it.
pub(crate) async fn documents(
    source: &Source,
    name: &str,
    digest: &Digest,
    platform: &Platform,
) -> Result<Documents, PullError> {
    let refused = |refused: Refused| PullError::Refused { image: name.to_owned(), source: Box::new(refused) };
    let fetch = async |digest: &Digest, expected: Option<&str>| {
        let served = source.document(digest, expected).await;
        let served = served.map_err(|error| PullError::from_source(name, error))?;
        let document = document::parse(&served.bytes, Some(&served.media_type));
        Ok::<_, PullError>((document.map_err(|error| refused(error.into()))?, served))
    };
    let (document, served) = fetch(digest, None).await?;
    let entries = match document {
        Document::Manifest(manifest) => return Ok(Documents { index: None, served, manifest }),
        Document::Index(entries) => entries,
    };
    let Some(entry) = platform.choose(&entries) else {
        let found = entries.iter().filter_map(|e| e.platform.as_ref());
        let found = found.map(|p| format!("{}/{}", document::shown(&p.os), document::shown(&p.architecture)));
        return Err(PullError::WrongPlatform {
            image: name.to_owned(),
            wanted: platform.to_string(),
            found: found.take(16).collect::<Vec<_>>().join(", "),
        });
    };
    let (document, child) = fetch(&entry.digest, Some(&entry.media_type)).await?;
    let Document::Manifest(manifest) = document else {
        return Err(refused(Refused::NestedIndex));
    };
    Ok(Documents { index: Some(served), served: child, manifest })
}
