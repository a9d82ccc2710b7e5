//! Updates: a generation becomes what a host is, is kept when it does its work, and is taken back when it does not.
//!
//! ```text
//!             staged            gates open              containers alone
//!  accepted ─────────► waiting ────────────┬──────────────────────────────► on trial ──► kept
//!                                          │ another OS                      ▲    │
//!                                          └──► armed ──► the machine ───────┘    │ unhealthy, not confirmed, or
//!                                               boot entry   starts again         ▼ the OS did not come up
//!                                                                             rejected; what was kept is there again
//! ```
//! What is written down of an update under way is an [`Attempt`]. What the machine really started is said by the digest of the
//! root that runs; [`after_boot`] puts the two together after each boot, so a power cut at any point leads either to the
//! generation that was kept or to the one that is tried.
//!
//! **Invariant:** nothing here reads a clock, the boot partition or the ledger, and nothing here acts.

mod boot;
mod entries;
mod gates;
mod pointer;
mod start;
mod trial;

#[cfg(test)]
mod explore;

use std::collections::BTreeSet;

use bennu_manifests::model::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use boot::{AfterBoot, Booted, ROUNDS, after_boot};
pub use entries::{Entry, EntryName, EspStep, Rearm, TRIES, WantedEntries, esp_steps};
pub use gates::{
    Gate, GateFacts, GateKind, Lock, Room, Zones, ask_lock_again, gates, may_ask_for_lock,
    only_lock_is_closed,
};
pub use pointer::Pointer;
pub use start::{Found, Start};
pub use trial::{TrialPolicy, TrialSeen, Verdict, judge, restless};

/// A generation that is tried and not kept yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The generation.
    pub generation: u64,
    /// The root of its OS, where that is not the one of the generation that was kept, or the machine has to start again for it.
    pub os: Option<Digest>,
    /// Whether its OS runs, or none was needed: from then on it is the active generation.
    pub arrived: bool,
    /// How many rounds of boots have come to nothing; the loader makes [`TRIES`] boots in each.
    #[serde(default)]
    pub rounds: u32,
    /// How often it ran and did not do its work.
    #[serde(default)]
    pub tries: u64,
    /// Not to be tried again before this moment.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// By when somebody has to say that it is good.
    #[serde(default)]
    pub confirm_by: Option<Timestamp>,
    /// Whether somebody said that it is good.
    #[serde(default)]
    pub confirmed: bool,
    /// What answered before, and has to answer again.
    #[serde(default)]
    pub baseline: Baseline,
}

impl Attempt {
    /// The first attempt at a generation that needs `root` on a host that runs `running`; `kept` is the root of what was kept.
    pub fn at(generation: u64, root: Option<Digest>, running: Option<Digest>, kept: Option<Digest>) -> Self {
        let restarts = root.is_some() && root != running;
        // Where nothing was kept yet there is nothing that another entry would have to come before.
        let another = kept.is_some() && root != kept;
        Self::of(generation, root.filter(|_| restarts || another))
    }

    /// Whether it waits for its next round: until that begins there is no boot entry for it, and no boot is about it.
    pub fn waits(&self) -> bool {
        !self.arrived && self.not_before.is_some()
    }

    fn of(generation: u64, os: Option<Digest>) -> Self {
        Self {
            generation,
            os,
            arrived: os.is_none(),
            rounds: 0,
            tries: 0,
            not_before: None,
            confirm_by: None,
            confirmed: false,
            baseline: Baseline::default(),
        }
    }
}

/// What answered while the generation before ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Baseline {
    /// TCP ports of the host that took a connection.
    pub ports: BTreeSet<u16>,
    /// Whether the router answered.
    pub gateway: bool,
}
