//! What the host is, and what it is doing.

use std::collections::BTreeMap;

use bennu_manifests::model::{Digest, Name};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{JobRun, Rejection, Update};

/// What the host is, and whether that is what was asked of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// The name that the host was provisioned with.
    pub host: String,
    /// The version of `hostd`.
    pub version: String,
    /// The OS that runs.
    pub os: Os,
    /// The generation that is active; `None` before the first.
    pub generation: Option<Generation>,
    /// The generation that is accepted and not active yet.
    pub pending: Option<Generation>,
    /// Whether everything that the newest accepted manifest declares is there and running.
    pub converged: bool,
    /// Whether the active manifest has expired: it keeps running and is not newly applied.
    pub stale: bool,
    /// What is being done now.
    pub activity: Activity,
    /// What keeps the host from converging, with its reason.
    pub failure: Option<String>,
    /// When the next attempt is made after a failure.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub retry_at: Option<Timestamp>,
    /// Whether blobs are checked by the kernel on each read (fs-verity).
    pub verified_reads: bool,
    /// Containers of which a version was tried and rejected, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejection>,
    /// Past runs of jobs, the oldest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, Vec<JobRun>>"))]
    pub jobs: BTreeMap<Name, Vec<JobRun>>,
    /// What became of the lines for each receiver of logs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, ForwardStatus>"))]
    pub forwards: BTreeMap<Name, ForwardStatus>,
    /// Instances of which the kernel ended programs because memory ran out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub oom_kills: BTreeMap<String, OomKills>,
    /// What is known of the blobs of the store from reading them.
    #[serde(default)]
    pub scrub: Scrub,
    /// Whom a secret has to be encrypted for so that this host can open it: an age recipient, `age1…`. Empty where the
    /// host has no identity for secrets, which is so for a `hostd` that knows of none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secrets_recipient: String,
    /// The machine, for checks before a manifest is handed in.
    #[serde(default)]
    pub machine: Machine,
    /// Whether what runs was kept, and what is on its way.
    #[serde(default)]
    pub update: Update,
}

/// What became of the lines for a receiver of logs, since the daemon began to send to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ForwardStatus {
    /// Lines that it took.
    pub sent: u64,
    /// Lines that it did not get: it was away for too long, or refused them.
    pub dropped: u64,
    /// Bytes that wait for it.
    pub waiting: u64,
    /// Why it takes none now.
    pub failure: Option<String>,
}

/// Programs of an instance that the kernel ended because memory ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OomKills {
    /// How many, since the instance was made.
    pub count: u64,
    /// When the last of them was noticed.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub last: Timestamp,
    /// The memory that it may use, in bytes; `None` is without limit, where the whole host ran out of it.
    pub limit: Option<u64>,
}

/// What the reading of all blobs in the background has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Scrub {
    /// When every blob had been read last; `None` where that never was so.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub completed: Option<Timestamp>,
    /// Blobs that were found bad and are not good again, by fs-verity digest.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub bad: Vec<Digest>,
}

/// A machine, as manifests are checked against it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Machine {
    /// Its architecture in the words of OCI; empty where it is not known.
    pub arch: String,
    /// The labels that it was provisioned with.
    pub labels: BTreeMap<String, String>,
    /// Its memory, in bytes; 0 where it is not known.
    pub memory: u64,
    /// Its processors; 0 where they are not known.
    pub cpus: u64,
}

/// The OS that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Os {
    /// `VERSION` of its os-release.
    pub version: String,
    /// The fs-verity digest of its root; `None` where it was not booted by `os-image/init`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub root: Option<Digest>,
    /// The kernel's release.
    pub kernel: String,
    /// Whether the firmware starts only what is signed by whom it trusts (Secure Boot).
    #[serde(default)]
    pub secure_boot: bool,
    /// Whether the host's state is encrypted with a key that its TPM gives to boot images which are signed for it.
    #[serde(default)]
    pub sealed: bool,
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Generation {
    /// Its number on this host.
    pub number: u64,
    /// The stream of its manifest.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Name,
    /// The serial of its manifest.
    pub serial: u64,
    /// The SHA-256 of the manifest's bytes.
    #[cfg_attr(test, schemars(with = "String"))]
    pub manifest: Digest,
    /// When its manifest expires.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub expires: Timestamp,
}

/// What `hostd` is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "phase")]
pub enum Activity {
    /// Nothing; it waits for a change or a timer.
    #[default]
    Idle,
    /// It is fetching what a generation needs; what runs is untouched.
    Fetching {
        /// The image that is fetched.
        image: String,
        /// Which of the images it is, from 1.
        number: usize,
        /// How many are to be fetched.
        of: usize,
        /// Bytes fetched of this image so far.
        done: u64,
        /// Bytes of this image, where they are known.
        total: u64,
    },
    /// It is carrying out a plan.
    Applying {
        /// The step, as a person reads it.
        step: String,
        /// Which step it is, from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
}
