//! What became of generations.

use bennu_manifests::model::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{FetchedImage, Generation};

/// What became of the manifests handed in, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// The generations.
    pub entries: Vec<HistoryEntry>,
}

/// One generation's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HistoryEntry {
    /// The generation.
    pub generation: Generation,
    /// When its manifest was accepted.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub accepted: Timestamp,
    /// Names of the keys that signed it.
    pub signers: Vec<String>,
    /// The version of the trust document by which they counted; 0 in entries that were written before it was noted.
    #[serde(default)]
    pub trust_version: u64,
    /// When it first converged.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub converged: Option<Timestamp>,
    /// What kept it from converging last.
    pub failure: Option<String>,
    /// The fs-verity digest of the OS root that it ran on last; `None` before it was active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub root: Option<Digest>,
    /// The digest of the plan that whoever handed it in asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub require_plan: Option<Digest>,
    /// What was fetched for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetched: Vec<FetchedImage>,
}
