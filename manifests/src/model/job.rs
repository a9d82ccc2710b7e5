//! Jobs: what runs to its end.

use std::fmt;

use super::Container;
use crate::document::Wrong;
use crate::language::{Reader, flatten, integer, needed, otherwise, section_of, table};
use crate::values::{duration, read_calendar, when};

table! {
    /// A container that runs to its end. It has the keys of a container but those about staying: `restart`,
    /// `restart-attempts`, `update`, `health`, `readiness` and `replicas`.
    pub struct Job {
        /// What runs.
        pub container: Container = "", flatten::<Container>(), "";
        /// When it runs: `once` for each manifest that changes it, `boot`, or a calendar expression (systemd.time(7)).
        pub when: When = "when", needed(when()), "\"Mon *-*-* 03:00:00\"";
        /// How long it may run before it is stopped and counts as failed.
        pub deadline_ms: u64 = "deadline", otherwise(duration("from 1s to 168h", 1000, 604_800_000), 3_600_000, "\"1h\""), "\"10m\"";
        /// How often it is started again after it failed.
        pub retries: u64 = "retries", otherwise(integer(0..=100), 0, "0"), "3";
        /// How many past runs are remembered.
        pub history: u64 = "history", otherwise(integer(0..=100), 3, "3"), "10";
    }
}

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// Once for each manifest that changes it.
    Once,
    /// At each boot.
    Boot,
    /// At these times.
    Calendar(String),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Once => "once",
            Self::Boot => "boot",
            Self::Calendar(calendar) => calendar,
        })
    }
}

impl When {
    pub(crate) fn read(text: &str) -> Result<Self, Wrong> {
        match text {
            "once" => Ok(Self::Once),
            "boot" => Ok(Self::Boot),
            other => read_calendar(other).map(Self::Calendar),
        }
    }
}

impl serde::Serialize for When {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(crate) fn reader() -> impl Reader<Out = Job> {
    section_of::<Job>("job.NAME", |job| {
        let stays = &job.container;
        let staying = [
            ("restart", stays.restart != super::Restart::Always),
            ("restart-attempts", stays.restart_attempts != 0),
            ("update", stays.update.is_some()),
            ("health", stays.health.is_some()),
            ("readiness", stays.readiness.is_some()),
            ("replicas", stays.replicas != 1),
        ];
        match staying.iter().find(|(_, there)| *there) {
            Some((key, _)) => Err(Wrong::new(format!("a job ends, so it has no `{key}`"))
                .hint("leave it out; `retries` and `deadline` say what happens to a job that fails")),
            None => Ok(()),
        }
    })
}
