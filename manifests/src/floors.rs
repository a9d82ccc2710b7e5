//! Floors: what a host remembers so that nobody can take it back to something older.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::accept::Verified;
use crate::model::{Digest, Name};
use crate::trust::Trust;

/// What a host has seen at most. None of it ever goes down, but for what a newly taken trust document lowers in so many
/// words ([`Trust::recover`]).
///
/// It is to be on disk before anything acts on what raised it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Floors {
    /// The highest version of the trust document.
    pub trust_version: u64,
    /// The digest of that document where it was handed to the host; `None` where it came with its provisioning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_document: Option<Digest>,
    /// The highest serial by name of the manifest, and the digest of the bytes that had it; `None` where a trust document
    /// lowered it.
    pub serials: BTreeMap<Name, (u64, Option<Digest>)>,
    /// The latest time that was known; a clock that is behind it is wrong.
    pub latest_time: Timestamp,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            trust_version: 0,
            trust_document: None,
            serials: BTreeMap::new(),
            latest_time: Timestamp::UNIX_EPOCH,
        }
    }
}

/// Whether a manifest that runs may still be newly applied. What runs goes on running in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Freshness {
    /// It may, until then.
    Fresh {
        /// The first moment at which it is stale.
        until: Timestamp,
    },
    /// It may not, since then: nobody has said anything newer to the host in time.
    Stale {
        /// The first moment at which it was.
        since: Timestamp,
    },
}

impl Freshness {
    /// That of what expires at `expires`, on a host with these floors whose clock shows `now`.
    pub fn of(expires: Timestamp, floors: &Floors, now: Timestamp) -> Self {
        if floors.at_least(now) < expires {
            Self::Fresh { until: expires }
        } else {
            Self::Stale { since: expires }
        }
    }

    /// Whether it is stale.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}

impl Floors {
    /// The time that counts when the clock shows `now`: never earlier than the latest time known.
    pub fn at_least(&self, now: Timestamp) -> Timestamp {
        now.max(self.latest_time)
    }

    /// These floors on a host whose programs were built at `built`: it is later than that, whatever its clock says.
    #[must_use]
    pub fn built_at(self, built: Timestamp) -> Self {
        Self { latest_time: self.latest_time.max(built), ..self }
    }

    /// The floors after `verified` was accepted at `now`.
    ///
    /// A clock that runs far ahead would be remembered for ever, and everything signed later seem expired: `now`
    /// should be from a clock that was set by something better than the machine's own battery, where there is one.
    /// The time of signing counts as a time that has passed, so that a host without a clock learns what time it is.
    #[must_use]
    pub fn after(&self, verified: &Verified, now: Timestamp) -> Self {
        let header = &verified.manifest().header;
        let mut floors = self.clone();
        if verified.trust_version() > self.trust_version {
            // A host that was provisioned anew, with a trust document that it was not handed.
            (floors.trust_version, floors.trust_document) = (verified.trust_version(), None);
        }
        floors.latest_time = self.latest_time.max(now).max(header.signed_at);
        let new = (header.serial, Some(verified.sha256()));
        let known = floors.serials.entry(header.name.clone()).or_insert(new);
        if known.0 < header.serial {
            *known = new;
        }
        floors
    }

    /// The floors after the trust document `trust`, whose bytes have this digest, was taken.
    ///
    /// No time is learnt from it. What it lowers to recover from stolen keys is lowered here, once.
    #[must_use]
    pub fn after_trust(&self, trust: &Trust, document: Digest) -> Self {
        let mut floors = self.clone();
        if trust.version <= self.trust_version {
            return floors;
        }
        (floors.trust_version, floors.trust_document) = (trust.version, Some(document));
        if let Some(time) = trust.recover.time {
            floors.latest_time = floors.latest_time.min(time);
        }
        for (name, serial) in &trust.recover.serials {
            if let Some(known) = floors.serials.get_mut(name).filter(|known| known.0 > *serial) {
                *known = (*serial, None);
            }
        }
        floors
    }
}
