//! The words that `hostd` and `hostctl` exchange: JSON over HTTP/1.1, on a Unix socket or under mutual TLS.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/manifest` | [`Submission`] | [`Accepted`], or [`Problem`] |
//! | `POST /v1/bundle?require_plan=DIGEST` | a bundle, which is a tar | [`Accepted`], or [`Problem`] |
//! | `POST /v1/plan` | [`Submission`] | [`Planned`], or [`Problem`]; nothing changes |
//! | `GET /v1/trust` | | [`TrustInForce`] |
//! | `POST /v1/trust` | [`TrustSubmission`] | [`TrustTaken`], or [`Problem`] |
//! | `GET /v1/status` | | [`Status`] |
//! | `GET /v1/containers` | | [`Containers`] |
//! | `GET /v1/images` | | [`Images`] |
//! | `GET /v1/volumes` | | [`Volumes`] |
//! | `GET /v1/volumes/NAME/snapshots` | | [`Snapshots`] |
//! | `POST /v1/volumes/NAME/snapshots` | | [`Snapshot`]: one is taken |
//! | `DELETE /v1/volumes/NAME/snapshots/SNAPSHOT` | | nothing |
//! | `POST /v1/volumes/NAME/restore` | [`Restore`] | [`Replaced`] |
//! | `GET /v1/volumes/NAME/export?snapshot=SNAPSHOT` | | a tar; it is whole where the answer ends as HTTP says it does |
//! | `POST /v1/volumes/NAME/import?replace=BOOL` | a tar | [`Replaced`] |
//! | `GET /v1/files?container=NAME&path=PATH` | | a tar of what is at this path in a running container |
//! | `GET /v1/why` | | [`WhyNot`] |
//! | `POST /v1/approve`, `POST /v1/confirm` | | [`Confirmed`] |
//! | `POST /v1/rollback` | | [`RolledBack`] |
//! | `POST /v1/rebirth` | | [`Reborn`] |
//! | `GET /v1/history` | | [`History`] |
//! | `GET /v1/receipts?generation=N` | | [`Receipts`] |
//! | `GET /v1/logs?container=NAME&lines=N&follow=BOOL` | | a stream of [`LogLine`], one JSON value a line |
//! | `GET /v1/events?after=CURSOR&follow=BOOL` | | a stream of [`Event`], one JSON value a line |
//! | `POST /v1/exec` | [`Exec`] | a stream of [`ExecOutput`], one JSON value a line, the last an exit |
//! | `GET /v1/dump` | | [`Dump`]: what a plan is made of, for planning offline |
//! ```text
//! operations   every request: its method, path, the role that it needs; routes and OpenAPI are made from it
//! role         what a client may do, and how its certificate says so
//! documents, plan, problem, status, containers, inspect, store, history, logs, events, exec, dump   bodies and answers
//! ```
//!
//! Every answer that is not a success carries a [`Problem`]. **Invariant:** nothing here decides or acts.

mod containers;
mod documents;
mod dump;
mod events;
mod exec;
mod history;
mod inspect;
mod logs;
#[cfg(test)]
mod openapi;
mod operations;
mod plan;
mod problem;
pub mod provision;
mod role;
mod status;
mod store;
mod update;
mod volumes;

pub use containers::{Container, Containers, JobRun, Outcome, Rejection, Usage};
pub use documents::{
    Accepted, BundleQuery, SignedDocument, Submission, TrustInForce, TrustSubmission, TrustTaken,
};
pub use dump::Dump;
pub use events::{Cursor, Event, EventsQuery, Happening, NotACursor};
pub use exec::{
    Exec, ExecOutput, FromCommand, MAX_MESSAGE, STDERR, STDOUT, Size, Start, Terminal, ToCommand,
};
pub use history::{History, HistoryEntry};
pub use inspect::{Inspected, InspectedInstance, Joined, Mounted};
pub use logs::{LogLine, LogsQuery};
pub use operations::{Method, Operation};
pub use plan::{Change, FetchedImage, ImageToFetch, Planned, Receipt, Receipts, ReceiptsQuery, ToFetch};
pub use problem::{Problem, ProblemKind};
pub use role::{NotARole, Role};
pub use status::{Activity, ForwardStatus, Generation, Machine, OomKills, Os, Scrub, Status};
pub use store::{Image, Images};
pub use update::{Confirmed, Phase, Reborn, RejectedGeneration, RolledBack, Update, WhyNot};
pub use volumes::{NotASnapshot, Replaced, Restore, Snapshot, SnapshotName, Snapshots, Volume, Volumes, Why};

/// The largest request body that `hostd` reads, in bytes: a manifest of 1 MiB and its signatures, as JSON.
pub const MAX_REQUEST: usize = 4 << 20;

/// The description of all requests as OpenAPI 3.1, made from [`Operation`] and the types here by a test.
pub const OPENAPI: &str = include_str!("../openapi.json");
