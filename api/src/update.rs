//! What people are told of updates.

use bennu_manifests::model::Digest;
use bennu_planner::update::Gate;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether what runs was kept, and what is on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Update {
    /// How far the newest generation is.
    pub phase: Phase,
    /// What it waits for, for a person; empty where nothing is on its way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// By when somebody has to run `hostctl confirm`, or it is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub confirm_by: Option<Timestamp>,
    /// The last generation that was kept.
    pub kept: Option<u64>,
    /// The one that `hostctl rollback` goes back to.
    pub way_back: Option<u64>,
    /// Generations that were tried and taken back, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedGeneration>,
}

/// How far the newest generation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// What runs was kept, or is the first there is; nothing else is on its way.
    #[default]
    Settled,
    /// What it needs is being brought into the store.
    Staging,
    /// All is there; a gate says no.
    Waiting,
    /// The machine is about to start again with its OS.
    Restarting,
    /// It runs, and is kept when it does its work.
    Trial,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Settled => "settled",
            Self::Staging => "staging",
            Self::Waiting => "waiting",
            Self::Restarting => "restarting",
            Self::Trial => "on trial",
        })
    }
}

/// A generation that was tried and taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RejectedGeneration {
    /// The generation.
    pub generation: u64,
    /// The serial of its manifest.
    pub serial: u64,
    /// SHA-256 of its manifest.
    #[cfg_attr(test, schemars(with = "String"))]
    pub manifest: Digest,
    /// What it declares, whatever its header says: another manifest that declares the same is not tried either.
    #[cfg_attr(test, schemars(with = "String"))]
    pub contents: Digest,
    /// The image of its OS, where it was the OS that did not come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub os: Option<Digest>,
    /// When.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub when: Timestamp,
    /// Why.
    pub why: String,
    /// What was written last by `hostd`, and by what did not do its work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The generation that somebody said yes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// The generation.
    pub generation: u64,
}

/// What somebody's wish to go back has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RolledBack {
    /// The generation that is given up.
    pub from: u64,
    /// The one that is the active one again; the machine may have to start again first.
    pub to: u64,
}

/// The machine is about to start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Reborn {
    /// The generation that it starts with.
    pub generation: u64,
}

/// The one answer to why a host has not updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WhyNot {
    /// How far the newest generation is.
    pub phase: Phase,
    /// The newest generation that was accepted.
    pub generation: Option<u64>,
    /// The answer, for a person.
    pub answer: String,
    /// Every gate that there is for it.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub gates: Vec<Gate>,
}
