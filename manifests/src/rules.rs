//! The rules of acceptance, one function each; [`crate::accept`] says in which order they are asked.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::accept::HostFacts;
use crate::document::MAX_DOCUMENT;
use crate::floors::Floors;
use crate::key::PublicKey;
use crate::model::{Digest, Header, Manifest, Name};
use crate::refusal::{NotAccepted, Refusal, Rule, RuleOutcome};
use crate::signature::{BadSignature, SshSignature, verify_signature};
use crate::text::shown;
use crate::trust::{Role, RoleKeys, Trust};

/// How far ahead of the host's clock a document may say that it was signed: three years.
///
/// A host whose clock has stopped wakes up at the time its OS image was built, and learns the time from what it
/// accepts; so the future cannot be refused as such. But a mistyped year would be learnt too, and everything signed
/// later would seem expired for ever.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(3 * 365 * 24);

/// The rules that held so far.
#[derive(Default)]
pub(crate) struct Passed(pub(crate) Vec<RuleOutcome>);

impl Passed {
    pub(crate) fn hold(&mut self, rule: Rule, detail: impl Into<String>) {
        self.0.push(RuleOutcome { rule, detail: detail.into() });
    }

    pub(crate) fn refuse(&mut self, rule: Rule, reason: impl Into<String>) -> NotAccepted {
        let passed = std::mem::take(&mut self.0);
        NotAccepted::Refused(Refusal { rule, reason: reason.into(), passed })
    }

    /// `rule` holds with the detail, or is refused with the reason.
    pub(crate) fn decide(&mut self, rule: Rule, outcome: Result<String, String>) -> Result<(), NotAccepted> {
        match outcome {
            Ok(detail) => self.hold(rule, detail),
            Err(reason) => return Err(self.refuse(rule, reason)),
        }
        Ok(())
    }
}

pub(crate) fn trust_is_current(
    trust: &Trust,
    floors: &Floors,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    let (version, floor) = (trust.version, floors.trust_version);
    passed.decide(
        Rule::TrustVersion,
        if version >= floor {
            Ok(format!("trust document version {version}"))
        } else {
            Err(format!("the trust document has version {version}, and version {floor} was known before"))
        },
    )
}

/// Versions are taken one by one, so that each change was agreed on by those it takes the power from.
pub(crate) fn follows(current: &Trust, next: &Trust, passed: &mut Passed) -> Result<(), NotAccepted> {
    let (from, to) = (current.version, next.version);
    passed.decide(
        Rule::TrustVersion,
        if from.checked_add(1) == Some(to) {
            Ok(format!("version {to} follows {from}"))
        } else {
            Err(format!("version {to} does not follow {from}: versions are taken one by one"))
        },
    )
}

pub(crate) fn trust_is_fresh(trust: &Trust, now: Timestamp, passed: &mut Passed) -> Result<(), NotAccepted> {
    passed.decide(
        Rule::TrustExpired,
        match trust.expires {
            None => Ok("the trust document does not expire".to_owned()),
            Some(expires) if now < expires => Ok(format!("the trust document is valid until {expires}")),
            Some(expires) => Err(format!("the trust document expired at {expires}; it is {now}")),
        },
    )
}

/// The names of the trusted keys that signed `bytes`, if they are enough for `role`.
pub(crate) fn signed_by(
    role: Role,
    bytes: &[u8],
    sig: &[u8],
    namespace: &str,
    trust: &Trust,
    passed: &mut Passed,
) -> Result<BTreeSet<Name>, NotAccepted> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(passed.refuse(Rule::Size, format!("the document is larger than {MAX_DOCUMENT} bytes")));
    }
    passed.hold(Rule::Size, format!("{} bytes", bytes.len()));
    if sig.is_empty() {
        return Err(passed.refuse(Rule::SigMissing, "there is no signature"));
    }
    passed.hold(Rule::SigMissing, format!("{} bytes of signatures", sig.len()));
    let signatures =
        SshSignature::read_file(sig).map_err(|error| passed.refuse(Rule::SigMalformed, error.to_string()))?;
    passed.hold(Rule::SigMalformed, format!("signatures: {}", signatures.len()));
    // Signatures by strangers neither help nor harm: several parties may sign one file.
    let by_trusted: Vec<(&Name, &PublicKey, &SshSignature)> = signatures
        .iter()
        .filter_map(|signature| {
            let (name, key) = trust.keys.iter().find(|(_, key)| *key == signature.key())?;
            Some((name, key, signature))
        })
        .collect();
    if by_trusted.is_empty() {
        let keys: Vec<String> = signatures.iter().map(|signature| signature.key().fingerprint()).collect();
        let reason = format!("no key of the trust document has signed it, only {}", keys.join(", "));
        return Err(passed.refuse(Rule::SigUntrusted, reason));
    }
    let signers: BTreeSet<Name> = by_trusted.iter().map(|(name, ..)| (*name).clone()).collect();
    let names = signers.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    passed.hold(Rule::SigUntrusted, format!("by trusted keys: {names}"));
    for (name, key, signature) in by_trusted {
        verify_signature(key, namespace, bytes, signature).map_err(|error| {
            let rule = match error {
                BadSignature::Namespace { .. } => Rule::SigNamespace,
                _ => Rule::SigInvalid,
            };
            passed.refuse(rule, format!("key `{name}`: {}", shown(&error.to_string())))
        })?;
    }
    passed.hold(Rule::SigNamespace, format!("made for `{namespace}`"));
    passed.hold(Rule::SigInvalid, "each fits these very bytes");
    passed.decide(Rule::SigThreshold, threshold(role, trust, &signers))?;
    Ok(signers)
}

/// Whether `signers` are enough for `role`.
fn threshold(role: Role, trust: &Trust, signers: &BTreeSet<Name>) -> Result<String, String> {
    let role_name = role.as_str();
    let Some(keys) = trust.roles.get(&role) else {
        return Err(format!("the trust document gives the role `{role_name}` to nobody"));
    };
    let Count { named, distinct, needed } = count(keys, trust, signers);
    let names = named.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if distinct >= needed {
        Ok(format!("role `{role_name}` needs {needed} of its keys and has {distinct}: {names}"))
    } else if named.is_empty() {
        Err(format!("role `{role_name}` needs {needed} of its keys, and none of them has signed"))
    } else {
        Err(format!("role `{role_name}` needs {needed} of its keys, and only {distinct} signed: {names}"))
    }
}

/// How many of a role's keys are among the signers.
pub(crate) struct Count<'a> {
    /// Their names.
    pub(crate) named: Vec<&'a Name>,
    /// How many keys these are: they are counted by what they are, not by what they are called.
    pub(crate) distinct: usize,
    /// How many there must be.
    pub(crate) needed: usize,
}

pub(crate) fn count<'a>(keys: &'a RoleKeys, trust: &Trust, signers: &'a BTreeSet<Name>) -> Count<'a> {
    let named: Vec<&Name> = signers.intersection(&keys.keys).collect();
    let material = named.iter().filter_map(|name| Some(trust.keys.get(*name)?.material()));
    let distinct = material.collect::<BTreeSet<&[u8]>>().len();
    // A threshold of 0 cannot be read from a document; it is not to mean "anybody" if it ever comes from elsewhere.
    Count { named, distinct, needed: keys.threshold.max(1) }
}

pub(crate) fn serial_grows(
    header: &Header,
    sha256: Digest,
    floors: &Floors,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    let Header { name, serial, .. } = header;
    let Some((known, digest)) = floors.serials.get(name) else {
        passed.hold(Rule::SerialReplayed, format!("serial {serial} is the first of `{name}`"));
        passed.hold(Rule::SerialConflict, "no other bytes are known with it");
        return Ok(());
    };
    if serial < known {
        let reason = format!("serial {serial} of `{name}` is lower than {known}, which was accepted before");
        return Err(passed.refuse(Rule::SerialReplayed, reason));
    }
    passed.hold(Rule::SerialReplayed, format!("serial {serial} of `{name}`, {known} before"));
    passed.decide(
        Rule::SerialConflict,
        match digest {
            _ if serial > known => Ok("no other bytes are known with it".to_owned()),
            Some(digest) if sha256 == *digest => Ok("the same bytes as before".to_owned()),
            Some(digest) => Err(format!(
                "serial {serial} of `{name}` was accepted before with other bytes ({})",
                digest.short()
            )),
            None => Err(format!(
                "a trust document lowered the floor of `{name}` to {known}: a higher one is needed"
            )),
        },
    )
}

/// These are exactly the bytes with the highest serial that was accepted.
pub(crate) fn serial_is_known(
    header: &Header,
    sha256: Digest,
    floors: &Floors,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    let Header { name, serial, .. } = header;
    passed.decide(
        Rule::SerialUnknown,
        match floors.serials.get(name) {
            Some(known) if *known == (*serial, Some(sha256)) => {
                Ok(format!("serial {serial} of `{name}` was accepted before"))
            }
            _ => {
                Err(format!("serial {serial} of `{name}` with these bytes is not the last that was accepted"))
            }
        },
    )
}

pub(crate) fn not_from_far_ahead(
    signed_at: Timestamp,
    now: Timestamp,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    passed.decide(
        Rule::SignedAt,
        if signed_at.duration_since(now) <= MAX_AHEAD {
            Ok(format!("signed at {signed_at}"))
        } else {
            Err(format!("it says it was signed at {signed_at}, more than three years after now, {now}"))
        },
    )
}

pub(crate) fn not_expired(
    expires: Timestamp,
    now: Timestamp,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    passed.decide(
        Rule::Expired,
        if now < expires {
            Ok(format!("valid until {expires}"))
        } else {
            Err(format!("expired at {expires}; it is {now}"))
        },
    )
}

pub(crate) fn is_for(manifest: &Manifest, host: &HostFacts, passed: &mut Passed) -> Result<(), NotAccepted> {
    let audience = &manifest.header.audience;
    passed.decide(
        Rule::AudienceArch,
        match &audience.arch {
            None => Ok("for any architecture".to_owned()),
            Some(arch) if *arch == host.arch => Ok(format!("for {arch}")),
            Some(arch) => Err(format!("it is for {arch}, and this host is {}", shown(&host.arch))),
        },
    )?;
    let missing = audience.labels.iter().find(|(name, value)| host.labels.get(*name) != Some(value));
    passed.decide(
        Rule::AudienceLabels,
        match missing {
            None if audience.labels.is_empty() => Ok("for any host".to_owned()),
            None => Ok("the host has all labels that are asked for".to_owned()),
            Some((name, value)) => Err(match host.labels.get(name) {
                Some(own) => {
                    format!("it is for hosts with {name}={}, and this one has {}", shown(value), shown(own))
                }
                None => format!("it is for hosts with {name}={}, and this one has no {name}", shown(value)),
            }),
        },
    )
}

/// What reaches beyond containers needs the `os` role besides.
pub(crate) fn os_role_by_field(
    needs_os: &[String],
    trust: &Trust,
    signers: &BTreeSet<Name>,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    passed.decide(
        Rule::RoleOs,
        match needs_os.first() {
            None => Ok("nothing needs the role `os`".to_owned()),
            Some(path) => threshold(Role::Os, trust, signers).map_err(|reason| format!("`{path}`: {reason}")),
        },
    )
}
