//! What a plan is made of.

use bennu_planner::{Measured, OsSeen, Seen};
use serde::{Deserialize, Serialize};

use crate::Status;

/// What a plan is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dump {
    /// The host's status.
    pub status: Status,
    /// What is on the host.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub seen: Seen,
    /// The number that the next generation gets.
    pub next_generation: u64,
    /// How much there is of it; `None` in a dump of a `hostd` that does not measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    pub measured: Option<Measured>,
    /// The operating systems that it knows.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub os: OsSeen,
}
