//! The OCI image layout (OCI image specification, `image-layout.md`).

use serde::Deserialize;

use super::members::Members;
use super::{CONTAINERD_NAME, Listed, OpenError, REF_NAME};
use crate::registry::MAX_DOCUMENT;
use crate::registry::document::{self, Document, DocumentError, INDEX_TYPES, shown};

/// The images that `index.json` lists.
pub(super) fn images(members: &Members) -> Result<Vec<Listed>, OpenError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let layout: Layout = parsed("oci-layout", &read(members, "oci-layout")?)?;
    if !layout.image_layout_version.starts_with("1.") {
        return Err(OpenError::Version(shown(&layout.image_layout_version)));
    }
    let bytes = read(members, "index.json")?;
    let document = document::parse(&bytes, Some(INDEX_TYPES[0])).map_err(faulty("index.json"))?;
    let Document::Index(entries) = document else {
        unreachable!("what is served as an index is read as an index");
    };
    // What only this list is asked for.
    #[derive(Deserialize)]
    struct Kinds {
        manifests: Vec<Kind>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        artifact_type: Option<String>,
    }
    let kinds: Kinds = parsed("index.json", &bytes)?;
    let listed = entries.into_iter().zip(kinds.manifests).map(|(entry, kind)| Listed {
        digest: entry.digest,
        size: entry.size,
        media_type: entry.media_type,
        artifact_type: kind.artifact_type,
        names: [CONTAINERD_NAME, REF_NAME]
            .iter()
            .filter_map(|name| entry.annotations.get(*name).cloned())
            .collect(),
    });
    Ok(listed.collect())
}

/// A small document, whole.
pub(super) fn read(members: &Members, name: &str) -> Result<Vec<u8>, OpenError> {
    let limit = MAX_DOCUMENT as u64;
    let bytes = members.read(name.as_bytes(), limit + 1)?;
    let bytes = bytes.ok_or_else(|| OpenError::Missing(shown(name)))?;
    if bytes.len() as u64 > limit {
        return Err(OpenError::TooMany { what: "bytes in a document", limit: MAX_DOCUMENT });
    }
    Ok(bytes)
}

pub(super) fn parsed<'a, T: Deserialize<'a>>(name: &str, bytes: &'a [u8]) -> Result<T, OpenError> {
    serde_json::from_slice(bytes).map_err(|error| faulty(name)(error.into()))
}

pub(super) fn faulty(name: &str) -> impl FnOnce(DocumentError) -> OpenError {
    let member = shown(name);
    move |source| OpenError::Document { member, source }
}
