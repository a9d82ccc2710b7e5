//! Containers, and what they use.

use bennu_manifests::model::{Digest, ImageRef, Name, Port};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The containers that are there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Containers {
    /// By name.
    pub containers: Vec<Container>,
}

/// One container instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Container {
    /// The declared name.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Name,
    /// `<name>-<generation>`.
    pub instance: String,
    /// The generation that made it.
    pub generation: u64,
    /// What it does, in one word.
    #[cfg_attr(test, schemars(with = "crate::openapi::State"))]
    pub state: bennu_planner::State,
    /// What its health check says.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "crate::openapi::Health"))]
    pub health: bennu_planner::Health,
    /// Its first process on the host; 0 where there is none.
    pub pid: u32,
    /// How often it was started again since it was made.
    pub restarts: u32,
    /// Since when it is in this state.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub since: Option<Timestamp>,
    /// Its image.
    #[cfg_attr(test, schemars(with = "String"))]
    pub image: ImageRef,
    /// Ports published on the host.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub ports: Vec<Port>,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Memory in use, in bytes, where it is known.
    pub memory: Option<u64>,
    /// What it has used since it was made, and uses.
    #[serde(default)]
    pub usage: Usage,
}

/// What a container uses. Counters begin anew when its program is started again, unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Usage {
    /// Time of processors, in microseconds.
    pub cpu_usec: u64,
    /// Time that it was held back by its limit of processors, in microseconds.
    pub throttled_usec: u64,
    /// Memory in use, in bytes.
    pub memory: u64,
    /// The most memory that it used at once, in bytes.
    pub memory_peak: u64,
    /// The memory that it may use, in bytes; `None` is without limit.
    pub memory_limit: Option<u64>,
    /// How often the kernel ended one of its programs because memory ran out, since the instance was made: also over starts.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids: u64,
    /// How many it may have; `None` is without limit.
    pub pids_limit: Option<u64>,
    /// Bytes read from disks.
    pub read_bytes: u64,
    /// Bytes written to disks.
    pub written_bytes: u64,
}

/// A container that was tried and did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rejection {
    /// Its name.
    #[cfg_attr(test, schemars(with = "String"))]
    pub container: Name,
    /// Its image.
    #[cfg_attr(test, schemars(with = "String"))]
    pub image: ImageRef,
    /// The fingerprint of what it was made from.
    #[cfg_attr(test, schemars(with = "String"))]
    pub fingerprint: Digest,
    /// The generation that declared it.
    pub generation: u64,
    /// When it was given up.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub when: Timestamp,
    /// Why.
    pub why: String,
    /// The last lines that it wrote.
    pub said: Vec<String>,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobRun {
    /// Its instance, whose name its log lines bear.
    pub instance: String,
    /// When it was started.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub began: Timestamp,
    /// When it was seen to have ended.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub ended: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ended with code 0.
    Completed,
    /// It ended with another code or a signal, as often as it may, or did not end in its time.
    Failed,
    /// It was cut off: by a loss of power, or by hand.
    Interrupted,
}
