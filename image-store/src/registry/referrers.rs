//! What refers to a manifest: signatures, patches, whatever else somebody attached to an image.
//!
//! ```text
//!  /v2/NAME/referrers/sha256:<hex> ───► index ────► manifests whose subject is the image
//!   (or NAME:sha256-<hex> where the registry has no such endpoint)
//! ```
//! Distribution specification 1.1, "Listing Referrers" and "Referrers Tag Schema". Who lists them is a stranger: what the list names is
//! asked for by its digest, and whether it refers to the image is for its own manifest to say.

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;
use serde::Deserialize;

use super::client::{Client, MAX_DOCUMENT, Repository};
use super::document::INDEX_TYPES;
use super::error::RegistryError;
use super::mirror::Place;

/// An entry of a list of referrers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Referrer {
    /// The digest of its manifest.
    pub(crate) digest: Digest,
    /// What it says to be; empty where nothing is said.
    #[serde(default)]
    pub(crate) artifact_type: String,
    /// Those of its manifest.
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Client {
    /// What the registry itself lists as referring to a manifest; nothing where it lists nothing.
    pub(super) async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Referrer>, RegistryError> {
        none_where_missing(self.retrying(|| self.listed_at(Place::own(repository), subject, "")).await)
    }

    /// The same, of the artifact type `kind` where whoever lists them can choose, and from whichever mirror has a list: for what is
    /// nothing but help, so that it does not matter who leaves something out. Nobody is asked twice, and a mirror that cannot say is
    /// no worse for what it is there for.
    pub(crate) async fn helpful_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        kind: &str,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let query = format!("?artifactType={kind}");
        let mut listed = Ok(Vec::new());
        for place in self.places(repository, false) {
            listed = none_where_missing(self.listed_at(place, subject, &query).await);
            if listed.as_ref().is_ok_and(|listed| !listed.is_empty()) {
                break;
            }
        }
        listed
    }

    async fn listed_at(
        &self,
        place: Place,
        subject: &Digest,
        query: &str,
    ) -> Result<Vec<Referrer>, RegistryError> {
        let list = async |what: String| {
            let response = self.get(&place, &what, &[INDEX_TYPES[0]]).await?;
            let too_large = || RegistryError::TooLarge { what, limit: MAX_DOCUMENT as u64 };
            response.bytes(MAX_DOCUMENT).await?.ok_or_else(too_large)
        };
        let listed = match list(format!("referrers/{subject}{query}")).await {
            // Registries that do not know the endpoint say so in several ways; a list may be kept under a tag then.
            Err(RegistryError::NotFound { .. } | RegistryError::Status { status: 400..=499, .. }) => {
                list(format!("manifests/{}", tag(subject))).await
            }
            other => other,
        };
        #[derive(Deserialize)]
        struct Referrers {
            manifests: Vec<Referrer>,
        }
        // What is no list names nothing; an image may happen to have such a tag.
        Ok(serde_json::from_slice::<Referrers>(&listed?).map_or_else(|_| Vec::new(), |list| list.manifests))
    }
}

/// The tag under which the list is kept where a registry does not make it itself.
pub(crate) fn tag(subject: &Digest) -> String {
    subject.to_string().replace(':', "-")
}

fn none_where_missing(listed: Result<Vec<Referrer>, RegistryError>) -> Result<Vec<Referrer>, RegistryError> {
    match listed {
        Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
        other => other,
    }
}
