//! What keeps a container apart, and the ways through.

use serde::Serialize;

use crate::language::Words;

/// Whose namespace a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Its own.
    #[default]
    Own,
    /// The host's.
    Host,
}

impl Scope {
    pub(crate) const WORDS: Words<Self> =
        &[("own", Self::Own, "its own"), ("host", Self::Host, "the host's")];
}

/// The filter of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seccomp {
    /// What programs need, without what containers have broken out by.
    #[default]
    Default,
    /// None.
    Unconfined,
}

impl Seccomp {
    pub(crate) const WORDS: Words<Self> = &[
        ("default", Self::Default, "what programs need, without what containers have broken out by"),
        ("unconfined", Self::Unconfined, "no filter"),
    ];
}

/// A path of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bind {
    /// The path on the host: absolute, normalised.
    pub source: String,
    /// Where it appears: absolute, normalised, not `/`.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A device of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its path on the host, below `/dev`.
    pub source: String,
    /// Its path in the container, below `/dev`.
    pub target: String,
    /// What may be done with it: `r`ead, `w`rite, `m`knod, in this order.
    pub access: String,
}

/// A limit of processes (getrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Ulimit {
    /// What is enforced.
    pub soft: u64,
    /// What a program may raise `soft` to.
    pub hard: u64,
}
