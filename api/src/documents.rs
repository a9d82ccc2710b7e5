//! Documents handed in, and what the host says of them: manifests and trust documents.

use bennu_manifests::model::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A manifest handed in, with its detached signatures.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The exact bytes that were signed.
    pub manifest: String,
    /// The content of `FILE.sig`: one or more SSH signatures.
    pub signatures: String,
    /// The digest of the plan that is to be carried out: with another one it is refused, and given up where the plan changes
    /// before it is the active generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub require_plan: Option<Digest>,
}

/// What is asked of a bundle that is handed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BundleQuery {
    /// As that of a [`Submission`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub require_plan: Option<Digest>,
}

/// A manifest was accepted; the host is on its way to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Accepted {
    /// The generation that it became, or already was.
    pub generation: u64,
    /// The SHA-256 of the manifest's bytes.
    #[cfg_attr(test, schemars(with = "String"))]
    pub manifest: Digest,
    /// Whether the same bytes had been accepted before.
    pub unchanged: bool,
}

/// A trust document with its detached signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SignedDocument {
    /// The exact bytes that were signed.
    pub document: String,
    /// The content of `FILE.sig`: one or more SSH signatures.
    pub signatures: String,
}

/// Trust documents handed in: those that the host has missed, each the successor of the one before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TrustSubmission {
    /// In the order of their versions, the first one the successor of the one in force; at most
    /// [`bennu_manifests::MAX_HOPS`].
    pub chain: Vec<SignedDocument>,
}

/// A chain of trust documents was taken; the last one is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrustTaken {
    /// Its version.
    pub version: u64,
    /// The generation that was accepted, not yet active, and signed by keys that do not count any more: it is given up.
    pub given_up: Option<u64>,
}

/// The trust document in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrustInForce {
    /// Its version.
    pub version: u64,
    /// From this moment nothing is newly accepted by it; `None` is never.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub expires: Option<Timestamp>,
    /// Its exact bytes.
    pub document: String,
    /// Its signatures; empty for the one that the host was provisioned with.
    pub signatures: String,
}
