//! What was written.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which lines are asked for: `GET /v1/logs?…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogsQuery {
    /// Whose: that of a container, or `hostd`, the daemon itself. Left out: those of all containers, in the order in which
    /// they were written.
    pub container: Option<String>,
    /// How many of the latest there are, at most 100000.
    #[serde(default = "some_lines")]
    pub lines: u32,
    /// Whether to go on with what is written.
    #[serde(default)]
    pub follow: bool,
    /// None that is older, in whole seconds.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub since: Option<Timestamp>,
    /// None that is newer, in whole seconds; not with `follow`.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub until: Option<Timestamp>,
    /// None that this does not match: a Perl-compatible regular expression (pcre2pattern(3)).
    pub grep: Option<String>,
}

fn some_lines() -> u32 {
    200
}

/// One line of a container's or of `hostd`'s log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LogLine {
    /// When it was written.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub time: Timestamp,
    /// Which container wrote it; empty for `hostd`.
    pub container: String,
    /// The instance that wrote it.
    pub instance: String,
    /// What was written; bytes that are not UTF-8 are replaced.
    pub message: String,
    /// How grave it is, from 0 (emergency) to 7 (debug), as the journal has it (`PRIORITY`; RFC 5424, section 6.2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// The generation of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The digest of the instance's image, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The process that wrote it, on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The fields of the line, where it is one JSON object: as they were written.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}
