//! Pure decisions: what a host has to do to become what its manifest says.
//!
//! ```text
//! wanted (a verified manifest, resolved) ─┐
//! seen   (what the host is)  ─────────────┼──► plan() ──► Plan { steps, waiting }
//! now    (an argument)       ─────────────┘
//! ```
//!
//! **Invariant:** nothing in this crate reads a clock, a disk, a bus or the environment, and nothing in it acts.
//! A plan leaves its executor no choice: it can be printed before anything happens, and applying it in order, or
//! any prefix of it followed by a new plan, leads to the same end.

mod address;
mod choose;
mod consequences;
mod guard;
mod plan;
mod seen;
mod settings;
mod start;
mod step;
mod together;
pub mod update;
mod wanted;

pub use consequences::{
    Amount, Class, Consequences, Destroyed, Doomed, Interruption, Layer, Measured, OsSeen, Place, SeenVolume,
    Survivor, Writer, Written, came_out, consequences, interruption, written,
};
pub use guard::{Danger, guard};
pub use plan::plan;
pub use seen::{
    Astray, Health, Instance, NotAnInstance, Published, Quota, Seen, SeenInstance, SeenNetwork, State,
};
pub use settings::{LOADED, NotASetting, Setting, plain, settings};
pub use step::{Plan, Reason, Step, Waiting, WaitsFor};
pub use together::{departures, needed, together};
pub use wanted::{Wanted, contents, fingerprint};
