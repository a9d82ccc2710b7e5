//! When a host may change, and how.

use serde::Serialize;

use crate::language::{
    Words, flag, integer, list, needed, optional, or_empty, otherwise, sub_table, table, word,
};
use crate::units::{MIB, TIB};
use crate::values::{calendar, duration, size, time_zone, url};

table! {
    /// How a container is replaced by its next version.
    pub struct Replacement {
        /// Which of the two is there first.
        pub order: Order = "order", otherwise(word("order", Order::WORDS), Order::StopFirst, "\"stop-first\""), "\"start-first\"";
        /// How long the new one has to become healthy, before the old one is taken back.
        pub deadline_ms: u64 = "deadline", otherwise(duration("from 1s to 24h", 1000, 86_400_000), 300_000, "\"5m\""), "\"1m\"";
    }
}

/// Which of two versions of a container is there first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The old one is stopped, then the new one started.
    StopFirst,
    /// The new one is started and ready before the old one is stopped.
    StartFirst,
}

impl Order {
    const WORDS: Words<Self> = &[
        ("stop-first", Self::StopFirst, "the old one is stopped, then the new one started"),
        ("start-first", Self::StartFirst, "the new one is started and ready before the old one is stopped"),
    ];
}

table! {
    /// When a host may change, and when a change is kept. All gates must say yes at once.
    pub struct Updates {
        /// How long everything has to become healthy, before the generation before is taken back.
        pub health_deadline_ms: u64 = "health-deadline", otherwise(duration("from 10s to 24h", 10_000, 86_400_000), 300_000, "\"5m\""), "\"10m\"";
        /// How long everything must stay healthy, before the change is kept.
        pub trial_ms: u64 = "trial", otherwise(duration("from 0s to 168h", 0, 604_800_000), 60_000, "\"1m\""), "\"30m\"";
        /// The change is undone unless somebody runs `hostctl confirm` within this time.
        pub confirm_within_ms: Option<u64> = "confirm-within", optional(duration("from 10s to 168h", 10_000, 604_800_000)), "\"10m\"";
        /// Times at which it may begin. Left out, it may at any time.
        pub windows: Vec<Window> = "windows", or_empty(list(sub_table::<Window>("update.windows[]"), 32)), "[{ start = \"Sat *-*-* 02:00:00\", duration = \"3h\" }]";
        /// Times at which it must not begin, whatever `windows` say.
        pub deny_windows: Vec<Window> = "deny-windows", or_empty(list(sub_table::<Window>("update.deny-windows[]"), 32)), "[{ start = \"*-12-24 00:00:00\", duration = \"72h\" }]";
        /// The free space that there must be.
        pub free_space: Option<u64> = "free-space", optional(size("a size", MIB, 1024 * TIB)), "\"2GiB\"";
        /// Whether somebody must have said yes on the host.
        pub approval: bool = "approval", otherwise(flag(), false, "false"), "true";
        /// A service that lets hosts restart one after the other.
        pub fleet_lock: Option<FleetLock> = "fleet-lock", optional(sub_table::<FleetLock>("update.fleet-lock")), "{ url = \"https://lock.example/\" }";
        /// How often one generation is tried.
        pub attempts: u64 = "attempts", otherwise(integer(1..=100), 1, "1"), "3";
        /// Try a generation that was rejected before once more.
        pub retry: bool = "retry", otherwise(flag(), false, "false"), "true";
    }
}

table! {
    /// A time that comes again.
    pub struct Window {
        /// When it begins: a calendar expression (systemd.time(7)).
        pub start: String = "start", needed(calendar()), "\"Sat *-*-* 02:00:00\"";
        /// How long it is.
        pub duration_ms: u64 = "duration", needed(duration("from 1m to 168h", 60_000, 604_800_000)), "\"3h\"";
        /// The time zone of `start`.
        pub time_zone: String = "time-zone", otherwise(time_zone(), "UTC".to_owned(), "\"UTC\""), "\"Europe/Vienna\"";
    }
}

table! {
    /// A service that lets hosts restart one after the other, by the FleetLock protocol.
    pub struct FleetLock {
        /// Where it is.
        pub url: String = "url", needed(url()), "\"https://lock.example/\"";
        /// The group of hosts that share a number of slots.
        pub group: String = "group", otherwise(crate::language::text("a group", 256), "default".to_owned(), "\"default\""), "\"web\"";
    }
}
