//! What a manifest would do to a host, and what a change has done.

use bennu_manifests::model::Digest;
use bennu_planner::{Consequences, Destroyed, Interruption, Plan, Survivor, Written};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a manifest would do; what a `hostd` does not know that is older than a field is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Planned {
    /// `steps` and `waiting`.
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, serde_json::Value>"))]
    pub plan: Plan,
    /// What `require_plan` of a [`Submission`](crate::Submission) names it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub digest: Option<Digest>,
    /// What it would fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<ToFetch>,
    /// What is interrupted, what survives, what is destroyed, and what was written outside of declared volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub consequences: Option<Consequences>,
}

/// What a plan would fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ToFetch {
    /// Bytes in all, without manifests and configurations of images; `None` where that of one image is not known.
    pub bytes: Option<u64>,
    /// The images that are not in the store.
    pub images: Vec<ImageToFetch>,
}

/// What a plan would fetch of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageToFetch {
    /// The image.
    pub image: String,
    /// Bytes of its layers that neither the store has nor an image before this one brings; `None` where it is not known.
    pub bytes: Option<u64>,
    /// Why it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Which receipts are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReceiptsQuery {
    /// Those of this generation; without it, those of the newest one that has any.
    pub generation: Option<u64>,
}

/// The receipts of one generation, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Receipts {
    /// The generation.
    pub generation: u64,
    /// One for each time that it became the active one or was taken back; the newest of them are kept.
    pub receipts: Vec<Receipt>,
}

/// What a change of generations has come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Receipt {
    /// What became of the generation.
    pub change: Change,
    /// The generation that was active before.
    pub from: Option<u64>,
    /// The generation that is active from then on.
    pub to: u64,
    /// Why it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The digest of the plan that was carried out; `None` where the host could not be looked at.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub plan: Option<Digest>,
    /// When it began: everything was fetched, and nothing kept the host from changing.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub began: Timestamp,
    /// When everything that `to` declares was there for the first time; `None` while it is not, and where something else came
    /// before. What follows is what was to be expected until then, and what came of it from then on.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub ended: Option<Timestamp>,
    /// What was interrupted.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub interruption: Interruption,
    /// What was fetched for it.
    pub fetched: Vec<FetchedImage>,
    /// Volumes that went on, with what was in them when it began.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub survived: Vec<Survivor>,
    /// What is gone, with what was in it when it began.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub destroyed: Vec<Destroyed>,
    /// What had been written outside of declared volumes when it began, and by whom.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub written: Vec<Written>,
}

/// What became of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It became the active one.
    Active,
    /// It was taken back, or is put off.
    TakenBack,
    /// It was begun again: the machine started anew, and what is not declared is gone.
    Reborn,
}

/// What was fetched of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FetchedImage {
    /// The image.
    pub image: String,
    /// Bytes of its layers that came over the network, what had to come twice counted twice.
    pub bytes: u64,
}
