//! The words that `hostd` and `hostctl` exchange: JSON over HTTP/1.1, on a Unix socket or under mutual TLS.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/manifest` | [`Submission`] | [`Accepted`], or [`Problem`] |
//! | `POST /v1/plan` | [`Submission`] | [`bennu_planner::Plan`], or [`Problem`]; nothing changes |
//! | `GET /v1/trust` | | [`TrustInForce`] |
//! | `POST /v1/trust` | [`TrustSubmission`] | [`TrustTaken`], or [`Problem`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/containers` | | [`Containers`] |
//! | `GET /v1/images` | | [`Images`] |
//! | `GET /v1/volumes` | | [`Volumes`] |
//! | `GET /v1/history` | | [`History`] |
//! | `GET /v1/logs?container=NAME&lines=N&follow=BOOL` | | a stream of [`LogLine`], one JSON value a line |
//! | `GET /v1/events?after=CURSOR&follow=BOOL` | | a stream of [`Event`], one JSON value a line |
//! | `POST /v1/exec` | [`Exec`] | a stream of [`ExecOutput`], one JSON value a line, the last an exit |
//! | `GET /v1/dump` | | [`Dump`]: what a plan is made of, for planning offline |
//!
//! Every answer that is not a success carries a [`Problem`]. **Invariant:** nothing here decides or acts.

pub mod provision;

use std::collections::BTreeMap;

use bennu_manifests::model::{Digest, ImageRef, Name, Port, VolumeLife};
use bennu_planner::{Seen, Step};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The largest request body that `hostd` reads, in bytes: a manifest of 1 MiB and its signatures, as JSON.
pub const MAX_REQUEST: usize = 4 << 20;

/// A manifest handed in, with its detached signatures.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The exact bytes that were signed.
    pub manifest: String,
    /// The content of `FILE.sig`: one or more SSH signatures.
    pub signatures: String,
}

/// A manifest was accepted; the host is on its way to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Accepted {
    /// The generation that it became, or already was.
    pub generation: u64,
    /// The SHA-256 of the manifest's bytes.
    pub manifest: Digest,
    /// Whether the same bytes had been accepted before.
    pub unchanged: bool,
}

/// A trust document with its detached signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDocument {
    /// The exact bytes that were signed.
    pub document: String,
    /// The content of `FILE.sig`: one or more SSH signatures.
    pub signatures: String,
}

/// Trust documents handed in: those that the host has missed, each the successor of the one before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustSubmission {
    /// In the order of their versions, the first one the successor of the one in force; at most
    /// [`bennu_manifests::MAX_HOPS`].
    pub chain: Vec<SignedDocument>,
}

/// A chain of trust documents was taken; the last one is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustTaken {
    /// Its version.
    pub version: u64,
    /// The generation that was accepted, not yet active, and signed by keys that do not count any more: it is given up.
    pub given_up: Option<u64>,
}

/// The trust document in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrustInForce {
    /// Its version.
    pub version: u64,
    /// From this moment nothing is newly accepted by it; `None` is never.
    pub expires: Option<Timestamp>,
    /// Its exact bytes.
    pub document: String,
    /// Its signatures; empty for the one that the host was provisioned with.
    pub signatures: String,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of answer it is.
    pub kind: ProblemKind,
    /// The stable code of the rule that refused, as `serial.replayed`; empty where no rule did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// One line for people.
    pub message: String,
    /// Errors that point into the document, rendered, where it is not valid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The kinds of [`Problem`], each with one exit code of `hostctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The document or request is not valid (exit code 2).
    Invalid,
    /// Refused for security: signature, trust, serial, expiry, digest, audience (exit code 3).
    Refused,
    /// What was asked for does not exist (exit code 5).
    NotFound,
    /// It failed (exit code 1).
    Failed,
}

/// What the host is, and whether that is what was asked of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub retry_at: Option<Timestamp>,
    /// Whether blobs are checked by the kernel on each read (fs-verity).
    pub verified_reads: bool,
    /// Containers of which a version was tried and rejected, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejection>,
    /// Past runs of jobs, the oldest first.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<Name, Vec<JobRun>>,
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
}

/// What the reading of all blobs in the background has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    /// When every blob had been read last; `None` where that never was so.
    pub completed: Option<Timestamp>,
    /// Blobs that were found bad and are not good again, by fs-verity digest.
    pub bad: Vec<Digest>,
}

/// A machine, as manifests are checked against it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct Os {
    /// `VERSION` of its os-release.
    pub version: String,
    /// The fs-verity digest of its root; `None` where it was not booted by `os-image/init`.
    pub root: Option<Digest>,
    /// The kernel's release.
    pub kernel: String,
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number on this host.
    pub number: u64,
    /// The stream of its manifest.
    pub name: Name,
    /// The serial of its manifest.
    pub serial: u64,
    /// The SHA-256 of the manifest's bytes.
    pub manifest: Digest,
    /// When its manifest expires.
    pub expires: Timestamp,
}

/// What `hostd` is doing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

/// The containers that are there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Containers {
    /// By name.
    pub containers: Vec<Container>,
}

/// One container instance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// The declared name.
    pub name: Name,
    /// `<name>-<generation>`.
    pub instance: String,
    /// The generation that made it.
    pub generation: u64,
    /// What it does, in one word.
    pub state: bennu_planner::State,
    /// What its health check says.
    #[serde(default)]
    pub health: bennu_planner::Health,
    /// Its first process on the host; 0 where there is none.
    pub pid: u32,
    /// How often it was started again since it was made.
    pub restarts: u32,
    /// Since when it is in this state.
    pub since: Option<Timestamp>,
    /// Its image.
    pub image: ImageRef,
    /// Ports published on the host.
    pub ports: Vec<Port>,
    /// Its addresses.
    pub addresses: Vec<std::net::Ipv4Addr>,
    /// Memory in use, in bytes, where it is known.
    pub memory: Option<u64>,
    /// What it has used since it was made, and uses.
    #[serde(default)]
    pub usage: Usage,
}

/// What a container uses. All of it ends with the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// How often the kernel ended one of its programs because memory ran out.
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

/// The images in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Images {
    /// By digest.
    pub images: Vec<Image>,
}

/// One image in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its layers.
    pub layers: usize,
    /// Bytes on disk of its layers; layers shared with other images are counted here too.
    pub size: u64,
    /// The containers of the active generation that use it.
    pub used_by: Vec<Name>,
}

/// The volumes on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volumes {
    /// By name.
    pub volumes: Vec<Volume>,
}

/// One volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: Name,
    /// How long it lives.
    pub life: VolumeLife,
    /// Where it is on the host.
    pub path: String,
    /// The containers that use it.
    pub used_by: Vec<Name>,
}

/// What became of the manifests handed in, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The generations.
    pub entries: Vec<HistoryEntry>,
}

/// One generation's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The generation.
    pub generation: Generation,
    /// When its manifest was accepted.
    pub accepted: Timestamp,
    /// Names of the keys that signed it.
    pub signers: Vec<String>,
    /// The version of the trust document by which they counted; 0 in entries that were written before it was noted.
    #[serde(default)]
    pub trust_version: u64,
    /// When it first converged.
    pub converged: Option<Timestamp>,
    /// What kept it from converging last.
    pub failure: Option<String>,
}

/// One line of a container's or of `hostd`'s log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// Which container wrote it; empty for `hostd`.
    pub container: String,
    /// The instance that wrote it.
    pub instance: String,
    /// What was written; bytes that are not UTF-8 are replaced.
    pub message: String,
}

/// Something that happened. A cursor is valid until the host reboots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the order of events.
    pub cursor: u64,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Happening {
    /// `hostd` started.
    Started {
        /// Its version.
        version: String,
    },
    /// A manifest was accepted as a generation.
    Accepted {
        /// The generation.
        generation: u64,
        /// The serial.
        serial: u64,
    },
    /// Another trust document is in force.
    TrustTaken {
        /// Its version.
        version: u64,
    },
    /// A manifest or a trust document was refused.
    Refused {
        /// The rule that refused it.
        rule: String,
        /// Why.
        reason: String,
    },
    /// An image is wholly in the store.
    Fetched {
        /// The image.
        image: String,
    },
    /// A step of a plan was carried out.
    Applied {
        /// The step.
        step: Box<Step>,
    },
    /// Something is not as it was left, and is put right.
    Drift {
        /// What, as a person reads it.
        what: String,
    },
    /// A blob was found to be not what its name says.
    BadBlob {
        /// Its fs-verity digest.
        blob: Digest,
        /// What is wrong with it, as a person reads it.
        damage: String,
        /// What was done about it, as a person reads it.
        outcome: String,
    },
    /// Every blob was read.
    Scrubbed {
        /// How many were bad.
        bad: u64,
    },
    /// A generation did not converge and is tried again.
    Failed {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// The health of a container changed.
    Health {
        /// The instance.
        instance: String,
        /// What it is now.
        health: bennu_planner::Health,
        /// What the check that failed said; empty where it held.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A new version of a container did not do its work, and is not tried again.
    Rejected {
        /// What is remembered of it.
        rejection: Box<Rejection>,
    },
    /// A job has ended.
    JobEnded {
        /// The job.
        job: Name,
        /// The run.
        run: JobRun,
    },
    /// Everything that the generation declares is there and running.
    Converged {
        /// The generation.
        generation: u64,
    },
}

/// A container that was tried and did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Its name.
    pub container: Name,
    /// Its image.
    pub image: ImageRef,
    /// The fingerprint of what it was made from.
    pub fingerprint: Digest,
    /// The generation that declared it.
    pub generation: u64,
    /// When it was given up.
    pub when: Timestamp,
    /// Why.
    pub why: String,
    /// The last lines that it wrote.
    pub said: Vec<String>,
}

/// One run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// Its instance, whose name its log lines bear.
    pub instance: String,
    /// When it was started.
    pub began: Timestamp,
    /// When it was seen to have ended.
    pub ended: Timestamp,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ended with code 0.
    Completed,
    /// It ended with another code or a signal, as often as it may, or did not end in its time.
    Failed,
    /// It was cut off: by a loss of power, or by hand.
    Interrupted,
}

/// A command to run inside a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container.
    pub container: Name,
    /// The program and its arguments, at least one.
    pub command: Vec<String>,
}

/// What a command wrote, or how it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ExecOutput {
    /// Bytes on standard output, in base64.
    Stdout {
        /// The bytes.
        data: String,
    },
    /// Bytes on standard error, in base64.
    Stderr {
        /// The bytes.
        data: String,
    },
    /// It ended.
    Exit {
        /// Its exit code; 128 and the signal's number where a signal ended it.
        code: i32,
    },
}

/// What a plan is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dump {
    /// The host's status.
    pub status: Status,
    /// What is on the host.
    pub seen: Seen,
    /// The number that the next generation gets.
    pub next_generation: u64,
}
