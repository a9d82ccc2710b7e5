//! Health and readiness.

use serde::Serialize;

use crate::document::Wrong;
use crate::language::{Words, deny_empty, integer, list, optional, otherwise, table, text, word};
use crate::values::{MAX_WORD, MAX_WORDS, duration, probe_url};

/// The longest time between two checks: a day.
const MAX_INTERVAL: u64 = 86_400_000;

table! {
    /// How it is found out whether a container still does its work. One of `exec`, `http` and `tcp` says how.
    pub struct Health {
        /// A program in the container; code 0 is healthy.
        pub exec: Option<Vec<String>> = "exec", optional(deny_empty(list(text("a word", MAX_WORD), MAX_WORDS), "name the program and its arguments")), "[\"pg_isready\", \"-q\"]";
        /// A page of the container; an answer from 200 to 399 is healthy. The host part is left out, or a name of it.
        pub http: Option<String> = "http", optional(probe_url()), "\"http://:8080/healthz\"";
        /// A port of the container that takes connections when it is healthy.
        pub tcp: Option<u64> = "tcp", optional(integer(1..=65535)), "5432";
        /// The time between two checks.
        pub interval_ms: u64 = "interval", otherwise(duration("from 1s to 24h between two checks", 1000, MAX_INTERVAL), 30_000, "\"30s\""), "\"10s\"";
        /// How long a check may take.
        pub timeout_ms: u64 = "timeout", otherwise(duration("a check takes from 100ms to 1h", 100, 3_600_000), 5_000, "\"5s\""), "\"2s\"";
        /// How long after its start a check that fails does not count.
        pub start_period_ms: u64 = "start-period", otherwise(duration("at most 24h", 0, MAX_INTERVAL), 0, "\"0s\""), "\"1m\"";
        /// How many checks in a row must fail.
        pub retries: u64 = "retries", otherwise(integer(1..=100), 3, "3"), "5";
        /// What happens then.
        pub on_failure: OnFailure = "on-failure", otherwise(word("consequence", OnFailure::WORDS), OnFailure::Restart, "\"restart\""), "\"report\"";
    }
}

table! {
    /// How it is found out whether a container can be reached already. One of `exec`, `http` and `tcp` says how.
    pub struct Readiness {
        /// A program in the container; code 0 is ready.
        pub exec: Option<Vec<String>> = "exec", optional(deny_empty(list(text("a word", MAX_WORD), MAX_WORDS), "name the program and its arguments")), "[\"/ready\"]";
        /// A page of the container; an answer from 200 to 399 is ready. The host part is left out, or a name of it.
        pub http: Option<String> = "http", optional(probe_url()), "\"http://:8080/ready\"";
        /// A port of the container that takes connections when it is ready.
        pub tcp: Option<u64> = "tcp", optional(integer(1..=65535)), "8080";
        /// The time between two checks.
        pub interval_ms: u64 = "interval", otherwise(duration("from 100ms to 1h between two checks", 100, 3_600_000), 1_000, "\"1s\""), "\"500ms\"";
        /// How long a check may take.
        pub timeout_ms: u64 = "timeout", otherwise(duration("a check takes from 100ms to 1h", 100, 3_600_000), 5_000, "\"5s\""), "\"2s\"";
    }
}

/// How something is found out about a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe<'a> {
    /// A program in it ends with code 0.
    Exec(&'a [String]),
    /// A page of it can be had.
    Http(&'a str),
    /// A port of it takes connections.
    Tcp(u16),
}

/// What happens to a container that is not healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is stopped and started again.
    Restart,
    /// It is reported, and runs on.
    Report,
}

impl OnFailure {
    const WORDS: Words<Self> = &[
        ("restart", Self::Restart, "it is stopped and started again"),
        ("report", Self::Report, "it is reported, and runs on"),
    ];
}

/// The only one of the three that is there.
fn the_one<'a>(
    exec: &'a Option<Vec<String>>,
    http: &'a Option<String>,
    tcp: Option<u64>,
) -> Option<Probe<'a>> {
    match (exec, http, tcp) {
        (Some(exec), None, None) => Some(Probe::Exec(exec)),
        (None, Some(http), None) => Some(Probe::Http(http)),
        (None, None, Some(tcp)) => u16::try_from(tcp).ok().map(Probe::Tcp),
        _ => None,
    }
}

fn exactly_one(probe: Option<Probe<'_>>) -> Result<(), Wrong> {
    let wrong = || Wrong::new("a check has exactly one of `exec`, `http` and `tcp`");
    probe.map(drop).ok_or_else(|| wrong().hint("keep the one that tells most"))
}

impl Health {
    /// How it is found out.
    pub fn probe(&self) -> Probe<'_> {
        the_one(&self.exec, &self.http, self.tcp).expect("checked when it was read")
    }

    pub(crate) fn one_probe(&self) -> Result<(), Wrong> {
        exactly_one(the_one(&self.exec, &self.http, self.tcp))
    }
}

impl Readiness {
    /// How it is found out.
    pub fn probe(&self) -> Probe<'_> {
        the_one(&self.exec, &self.http, self.tcp).expect("checked when it was read")
    }

    pub(crate) fn one_probe(&self) -> Result<(), Wrong> {
        exactly_one(the_one(&self.exec, &self.http, self.tcp))
    }
}
