//! Immutable bytes under their digest: fetched, verified, converted, kept and mounted.
//!
//! ```text
//!  registry ─┐                                  ┌─► blobs/   EROFS, named by fs-verity digest ──► mount, overlayfs
//!  files    ─┼─► unpack ─► tar ─► EROFS writer ─┤
//!  a tar    ─┘   (one pass, every digest        ├─► layers/  diff id ─► blob
//!                 checked or computed in it)    └─► images/  documents and their layers ◄── pins/
//! ```
//! What a stranger compressed and packed is parsed in processes that can do nothing else ([`worker`]).
//!
//! [`Store`] is the directory, [`registry::Client`] and [`archive::Files`] bring images into it, [`mount::Mounts`] makes trees of
//! them, and [`Store::export`] writes them for others. What is written where is described in `docs/store-format.md`; why there is
//! an EROFS writer here, in `docs/decisions/0002-own-erofs-writer.md`.
//!
//! **Absent:** nothing from an image is ever extracted onto the host's file system, no program is run, and nothing here decides
//! which images a host should have.

pub mod archive;
mod blob;
mod budget;
mod check;
mod claim;
mod collect;
pub mod cosign;
pub mod durable;
pub mod erofs;
pub mod export;
mod fault;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod import;
pub mod layer;
pub mod leaves;
pub mod listing;
pub mod mount;
mod mounted;
mod names;
mod naming;
pub mod native;
mod pace;
mod pins;
pub mod policy;
mod pull;
mod pull_error;
mod record;
pub mod registry;
mod repair;
mod scrub;
mod sealed;
pub mod sha256;
pub mod source;
mod space;
mod spill;
mod stack;
mod store;
mod store_error;
pub mod tar;
pub mod verity;
pub mod worker;

pub use blob::Checked;
pub use check::Finding;
pub use claim::Claims;
pub use collect::{GcPlan, Held, Holder};
pub use fault::Fault;
pub use import::{ImportError, Layer};
pub use names::{MAX_PIN_NAME, is_pin_name};
pub use pace::Pace;
pub use pull::{Estimate, LayerEstimate, Progress, Way};
pub use pull_error::{PullError, Refused};
pub use record::{Image, LayerRecord, Origin, RecordFault};
pub use repair::Repair;
pub use scrub::{BadBlob, Damage, Pass, Scrubbed, Watch};
pub use space::{Room, Shortage};
pub use store::Store;
pub use store_error::{OpenError, StoreError};
pub use worker::{Confinement, WorkerError};
