//! Refusals: the rules that a document can fail, each with a code that is never renamed.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::fault::Invalid;

/// A rule of acceptance. Its code is what programs look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The document is small enough to be looked at.
    Size,
    /// There is a signature.
    SigMissing,
    /// The signatures are in the exact form.
    SigMalformed,
    /// At least one signature is by a key of the trust document.
    SigUntrusted,
    /// Signatures by trusted keys were made for this purpose.
    SigNamespace,
    /// Signatures by trusted keys fit these bytes.
    SigInvalid,
    /// Enough distinct keys of the role have signed.
    SigThreshold,
    /// The trust document is not older than one that was known before, and a new one is the next one.
    TrustVersion,
    /// The trust document has not expired.
    TrustExpired,
    /// A chain of trust documents has a length that is taken.
    TrustChain,
    /// The serial is not lower than the highest that was accepted.
    SerialReplayed,
    /// The same serial means the same bytes.
    SerialConflict,
    /// For what was accepted before: it was.
    SerialUnknown,
    /// The document has not expired.
    Expired,
    /// The time of signing is not absurdly far ahead.
    SignedAt,
    /// The architecture is that of the host.
    AudienceArch,
    /// The host has the labels that are asked for.
    AudienceLabels,
    /// What needs the `os` role has its threshold.
    RoleOs,
}

impl Rule {
    /// The code, as `sig.missing`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::SigMissing => "sig.missing",
            Self::SigMalformed => "sig.malformed",
            Self::SigUntrusted => "sig.untrusted",
            Self::SigNamespace => "sig.namespace",
            Self::SigInvalid => "sig.invalid",
            Self::SigThreshold => "sig.threshold",
            Self::TrustVersion => "trust.version",
            Self::TrustExpired => "trust.expired",
            Self::TrustChain => "trust.chain",
            Self::SerialReplayed => "serial.replayed",
            Self::SerialConflict => "serial.conflict",
            Self::SerialUnknown => "serial.unknown",
            Self::Expired => "expired",
            Self::SignedAt => "signed-at",
            Self::AudienceArch => "audience.arch",
            Self::AudienceLabels => "audience.labels",
            Self::RoleOs => "role.os",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

/// A rule that held, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleOutcome {
    /// The rule.
    pub rule: Rule,
    /// What it found, for people.
    pub detail: String,
}

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{rule}: {reason}")]
pub struct Refusal {
    /// The rule.
    pub rule: Rule,
    /// Why it did not hold, for people.
    pub reason: String,
    /// The rules that held before it, in order.
    pub passed: Vec<RuleOutcome>,
}

/// A document that was not accepted. The two reasons are kept apart, because only the second one is its
/// author's mistake: it was properly signed and makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// Refused for security.
    #[error("refused by rule {}", .0.rule)]
    Refused(#[source] Refusal),
    /// Signed by who may sign it, but not valid.
    #[error("it is signed as it should be, but not valid")]
    Invalid(#[source] Invalid),
}

impl From<Invalid> for NotAccepted {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}
