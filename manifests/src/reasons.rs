//! Why each rule exists, and what its author or operator does when it refuses.

use crate::refusal::Rule;

impl Rule {
    /// The rules that [`crate::verify`] asks, in its order. The first that does not hold ends it.
    pub const FOR_MANIFESTS: [Self; 16] = [
        Self::TrustVersion,
        Self::TrustExpired,
        Self::Size,
        Self::SigMissing,
        Self::SigMalformed,
        Self::SigUntrusted,
        Self::SigNamespace,
        Self::SigInvalid,
        Self::SigThreshold,
        Self::SerialReplayed,
        Self::SerialConflict,
        Self::SignedAt,
        Self::Expired,
        Self::AudienceArch,
        Self::AudienceLabels,
        Self::RoleOs,
    ];

    /// What would happen without it, for people.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Size => "a host reads a bounded number of bytes from whoever hands it some",
            Self::SigMissing | Self::SigInvalid => {
                "only what its signers saw is applied, to the last byte; whoever carries it can change nothing"
            }
            Self::SigMalformed => {
                "one signature has one form, so that what is compared, stored and counted is never ambiguous"
            }
            Self::SigUntrusted => "anybody has an SSH key; only those of the trust document count",
            Self::SigNamespace => {
                "a signature that was given for a mail, a commit or a trust document is none for a manifest"
            }
            Self::SigThreshold => "as long as fewer keys are stolen than must agree, a thief can do nothing",
            Self::TrustVersion => {
                "keys that were taken out of the trust document stay out, and each change was agreed on by those before it"
            }
            Self::TrustExpired => {
                "somebody who keeps new trust documents from a host can't keep old keys valid for ever"
            }
            Self::TrustChain => "a host follows a bounded number of steps for whoever hands it a chain",
            Self::SerialReplayed => {
                "an old manifest, properly signed in its day, does not bring back what was since replaced"
            }
            Self::SerialConflict => "two hosts that report one serial run the same bytes",
            Self::SerialUnknown => "after a restart nothing is applied that was not accepted before it",
            Self::Expired => {
                "somebody who keeps new manifests from a host can't pass off old ones as new for ever"
            }
            Self::SignedAt => {
                "hosts without a clock learn the time from manifests; a mistyped year would be learnt, too"
            }
            Self::AudienceArch | Self::AudienceLabels => {
                "a manifest that was signed for some hosts is not to be handed to others"
            }
            Self::RoleOs => {
                "who may deploy containers is not yet who may reach beyond them: that is asked for field by field"
            }
        }
    }

    /// What to do when it refuses, for people.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Size => "shorten it: 1 MiB is the most",
            Self::SigMissing => "sign it (`hostctl sign --key KEY FILE`), and hand over FILE.sig beside it",
            Self::SigMalformed => {
                "sign again; FILE.sig holds whole signatures as ssh-keygen writes them, and nothing between them"
            }
            Self::SigUntrusted => {
                "sign with a key of the trust document (`hostctl trust show`), or have its owners add yours (`hostctl trust add-key`)"
            }
            Self::SigNamespace => {
                "sign again with `hostctl sign` or `ssh-keygen -Y sign -n bennu-manifest`; trust documents with `--trust-document`"
            }
            Self::SigInvalid => {
                "it was changed after it was signed: sign again what you mean, or fetch both files again"
            }
            Self::SigThreshold => {
                "have the others sign, too: each signature is added to FILE.sig (`hostctl trust show` tells whose count)"
            }
            Self::TrustVersion => {
                "use the newest trust document; a host that is behind is handed each one it has missed (`hostctl trust push`)"
            }
            Self::TrustExpired => {
                "make the next version with a later `expires` (`hostctl trust rotate`), sign and push it"
            }
            Self::TrustChain => "hand over at least one trust document, and no more than 256 at once",
            Self::SerialReplayed => {
                "raise `serial` above the one that is told, and sign again; to go back, sign the old content under a new serial"
            }
            Self::SerialConflict => "raise `serial` and sign again: one serial is one document",
            Self::SerialUnknown => {
                "push the manifest again; if it is refused, what is on the disk is not what was accepted"
            }
            Self::Expired => {
                "set `expires` later, raise `serial`, and sign again; if it is not expired, look at the clock"
            }
            Self::SignedAt => "correct `signed-at`, or the clock of the host",
            Self::AudienceArch | Self::AudienceLabels => {
                "push it to a host that it is for; or change `audience`, raise `serial`, and sign again"
            }
            Self::RoleOs => "have keys of the role `os` sign, too; or leave out what needs it",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_says_why_it_is_there_and_what_to_do() {
        for rule in Rule::FOR_MANIFESTS.into_iter().chain([Rule::TrustChain, Rule::SerialUnknown]) {
            for text in [rule.why(), rule.remedy()] {
                assert!(text.len() > 20 && !text.ends_with('.'), "{rule}: {text}");
            }
        }
    }
}
