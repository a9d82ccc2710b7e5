//! Floors: what a host remembers so that nobody can take it back to something older.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accept::Verified;
use crate::model::{Digest, Name};
use crate::trust::Trust;

/// What a host has seen at most. None of it ever goes down.
///
/// It is to be on disk before anything acts on what raised it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Floors {
    /// The highest version of the trust document.
    pub trust_version: u64,
    /// The highest serial by name of the manifest, and the digest of the bytes that had it.
    pub serials: BTreeMap<Name, (u64, Digest)>,
    /// The latest time that was known; a clock that is behind it is wrong.
    pub latest_time: Timestamp,
}

impl Default for Floors {
    fn default() -> Self {
        Self { trust_version: 0, serials: BTreeMap::new(), latest_time: Timestamp::UNIX_EPOCH }
    }
}

impl Floors {
    /// The floors after `verified` was accepted at `now`.
    ///
    /// A clock that runs far ahead would be remembered for ever, and everything signed later seem expired: `now`
    /// should be from a clock that was set by something better than the machine's own battery, where there is one.
    /// The time of signing counts as a time that has passed, so that a host without a clock learns what time it is.
    #[must_use]
    pub fn after(&self, verified: &Verified, now: Timestamp) -> Self {
        let header = &verified.manifest().header;
        let mut floors = self.clone();
        floors.trust_version = self.trust_version.max(verified.trust_version());
        floors.latest_time = self.latest_time.max(now).max(header.signed_at);
        let known = floors.serials.entry(header.name.clone()).or_insert((header.serial, verified.sha256()));
        if known.0 < header.serial {
            *known = (header.serial, verified.sha256());
        }
        floors
    }

    /// The floors after `trust` was accepted at `now`.
    #[must_use]
    pub fn after_trust(&self, trust: &Trust, now: Timestamp) -> Self {
        Self {
            trust_version: self.trust_version.max(trust.version),
            latest_time: self.latest_time.max(now),
            serials: self.serials.clone(),
        }
    }
}
