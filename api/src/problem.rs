//! Why a request was not carried out.

use serde::{Deserialize, Serialize};

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// What kind of answer it is.
    pub kind: ProblemKind,
    /// The stable code of the rule that refused, as `serial.replayed`; empty where no rule did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// One line for people.
    pub message: String,
    /// Errors that point into the document, rendered, where it is not valid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Problem {
    /// One that no rule has a code for, and no document has a place for.
    pub fn new(kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { kind, rule: String::new(), message: message.into(), detail: String::new() }
    }
}

/// The kinds of [`Problem`], each with one exit code of `hostctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The document or request is not valid (exit code 2).
    Invalid,
    /// Refused for security: signature, trust, serial, expiry, digest, audience (exit code 3).
    Refused,
    /// What was asked for does not exist (exit code 5).
    NotFound,
    /// It failed (exit code 1).
    Failed,
}
