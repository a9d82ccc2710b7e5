//! Volumes and their snapshots.

use std::fmt;
use std::str::FromStr;

use bennu_manifests::model::{Name, VolumeLife};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// The volumes on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Volumes {
    /// By name.
    pub volumes: Vec<Volume>,
}

/// One volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Volume {
    /// Its name.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Name,
    /// How long it lives.
    #[cfg_attr(test, schemars(with = "crate::openapi::VolumeLife"))]
    pub life: VolumeLife,
    /// Where it is on the host.
    pub path: String,
    /// The containers that use it.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub used_by: Vec<Name>,
    /// Bytes that it holds, what its snapshots alone hold not included; `None` where nobody counts.
    #[serde(default)]
    pub used: Option<u64>,
    /// The most bytes that it may hold; `None` is without limit.
    #[serde(default)]
    pub size: Option<u64>,
    /// How many snapshots there are of it.
    #[serde(default)]
    pub snapshots: u64,
}

/// The snapshots of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshots {
    /// The volume.
    #[cfg_attr(test, schemars(with = "String"))]
    pub volume: Name,
    /// The oldest first.
    pub snapshots: Vec<Snapshot>,
}

/// One snapshot of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Its name, which also says when and why it was taken.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: SnapshotName,
    /// When it was taken.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub taken: Timestamp,
    /// Bytes that nothing else holds: they become free when it is removed. `None` where nobody counts.
    pub own: Option<u64>,
}

/// Which snapshot a volume is to go back to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The snapshot.
    #[cfg_attr(test, schemars(with = "String"))]
    pub snapshot: SnapshotName,
}

/// A volume holds other data than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Replaced {
    /// The volume.
    #[cfg_attr(test, schemars(with = "String"))]
    pub volume: Name,
    /// The snapshot that holds what it held before; `None` where it was empty.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub before: Option<SnapshotName>,
    /// The containers that were stopped for it; they are started again.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub stopped: Vec<Name>,
}

/// The name of a snapshot: when it was taken, in UTC to the second, and why, as `20260131T120000Z-schedule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotName {
    /// When it was taken; whole seconds.
    pub taken: Timestamp,
    /// Why.
    pub why: Why,
}

/// Why a snapshot was taken, which decides how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its schedule said so. As many are kept as the manifest says.
    Schedule,
    /// Somebody asked for it. It is kept until somebody removes it.
    Hand,
    /// The volume was restored or imported into, and this is what it held before. It is kept as one by hand.
    Replaced,
    /// What the generation of this number left when another one followed it. It is kept while a rollback may need it.
    Generation(u64),
}

/// A text that names no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotASnapshot;

impl fmt::Display for NotASnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a snapshot is named as 20260131T120000Z-hand; `hostctl volumes snapshots NAME` lists them",
        )
    }
}

impl std::error::Error for NotASnapshot {}

/// How the time is written: ISO 8601, basic format.
const FORMAT: &str = "%Y%m%dT%H%M%SZ";

impl SnapshotName {
    /// The name of a snapshot that is taken now.
    pub fn new(now: Timestamp, why: Why) -> Self {
        let whole = Timestamp::from_second(now.as_second()).expect("a second of a moment is a moment");
        Self { taken: whole, why }
    }

    /// The one a second later, for where this name is taken.
    ///
    /// # Errors
    /// At the end of time.
    pub fn later(self) -> Result<Self, jiff::Error> {
        Ok(Self { taken: self.taken.checked_add(jiff::SignedDuration::from_secs(1))?, why: self.why })
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.taken.to_zoned(TimeZone::UTC).strftime(FORMAT))?;
        match self.why {
            Why::Schedule => f.write_str("schedule"),
            Why::Hand => f.write_str("hand"),
            Why::Replaced => f.write_str("replaced"),
            Why::Generation(number) => write!(f, "generation-{number}"),
        }
    }
}

impl FromStr for SnapshotName {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        let (time, why) = text.split_once('-').ok_or(NotASnapshot)?;
        let time = jiff::civil::DateTime::strptime(FORMAT, time).map_err(|_| NotASnapshot)?;
        let taken = time.to_zoned(TimeZone::UTC).map_err(|_| NotASnapshot)?.timestamp();
        let why = match why.split_once('-') {
            None if why == "schedule" => Why::Schedule,
            None if why == "hand" => Why::Hand,
            None if why == "replaced" => Why::Replaced,
            Some(("generation", number)) => Why::Generation(number.parse().map_err(|_| NotASnapshot)?),
            _ => return Err(NotASnapshot),
        };
        let name = Self { taken, why };
        // One spelling only, so that a name that was read is the one on disk.
        if name.to_string() == text { Ok(name) } else { Err(NotASnapshot) }
    }
}

impl Serialize for SnapshotName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SnapshotName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_one_name_and_nothing_else_is_one() {
        let all = [
            "20260131T120000Z-hand",
            "20260131T120000Z-schedule",
            "19700101T000000Z-replaced",
            "20260131T120000Z-generation-7",
        ];
        for text in all {
            assert_eq!(text.parse::<SnapshotName>().expect(text).to_string(), text);
        }
        let none = [
            "",
            "..",
            "20260131T120000Z",
            "20260131T120000Z-",
            "20260131T120000Z-other",
            "2026-01-31T12:00:00Z-hand",
            "20260231T120000Z-hand",
            "20260131T120000Z-generation-07",
            "20260131T120000Z-generation-",
            "20260131T120000Z-hand/../x",
            "20260131T120000Z-hand-2",
            "20260131T12000Z-hand",
        ];
        for text in none {
            assert_eq!(text.parse::<SnapshotName>(), Err(NotASnapshot), "{text}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_times() {
        let at = |text: &str| SnapshotName::new(text.parse().expect("a time"), Why::Hand);
        let (first, second) = (at("2026-01-31T12:00:00.9Z"), at("2026-01-31T12:00:01Z"));
        assert!(first < second && first.to_string() < second.to_string());
        assert_eq!(first.later().expect("not the end of time"), second);
    }
}
