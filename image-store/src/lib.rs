//! Immutable bytes under their digest: fetched, verified, converted, kept and mounted.

mod check;
mod collect;
pub mod durable;
pub mod erofs;
mod import;
pub mod layer;
pub mod mount;
mod names;
mod pull;
mod pull_error;
mod record;
pub mod registry;
pub mod sha256;
mod store;
pub mod tar;
pub mod verity;

pub use check::{BadBlob, Finding};
pub use collect::GcPlan;
pub use import::{ImportError, Layer};
pub use names::{MAX_PIN_NAME, is_pin_name};
pub use pull::Progress;
pub use pull_error::{PullError, Refused};
pub use record::{Image, LayerRecord, RecordFault};
pub use store::{Checked, OpenError, Store, StoreError};
