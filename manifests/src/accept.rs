//! Acceptance: whether a document may be acted on, by whom it was signed, and which rule says no.
//!
//! ```text
//! bytes, signatures ──► size ──► trust is current ──► signatures over the exact bytes ──► thresholds
//!                                                                                             │
//!                Verified ◄── role by field ◄── audience ◄── time ◄── serial ◄── parse ◄──────┘
//! ```
//!
//! **Invariant:** no byte of a document is parsed before its signatures hold, and no [`Verified`] is made but here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::check_for_hosts;
use crate::floors::Floors;
use crate::model::{Digest, Manifest, Name};
use crate::refusal::{NotAccepted, RuleOutcome};
use crate::rules::{
    Passed, follows, is_for, not_expired, not_from_far_ahead, os_role_by_field, serial_grows,
    serial_is_known, signed_by, trust_is_current, trust_is_fresh,
};
use crate::signature::{MANIFEST_NAMESPACE, TRUST_NAMESPACE};
use crate::trust::{Role, Trust, check_trust};

/// What a host is, for the audience of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostFacts {
    /// Its architecture in the words of OCI, as `amd64`.
    pub arch: String,
    /// The labels that it was provisioned with.
    pub labels: BTreeMap<String, String>,
}

/// A manifest that was signed by enough of the right keys, is valid, and is for this host now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    manifest: Manifest,
    sha256: Digest,
    signers: Vec<Name>,
    trust_version: u64,
    rules: Vec<RuleOutcome>,
}

impl Verified {
    /// What was accepted, as far as it is for this host: containers and jobs whose `on` it does not fulfil are left out.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What was accepted, by value.
    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// The digest of the exact bytes.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// The names of the keys whose signatures hold, in order.
    pub fn signers(&self) -> &[Name] {
        &self.signers
    }

    /// The version of the trust document that said so.
    pub fn trust_version(&self) -> u64 {
        self.trust_version
    }

    /// Demands the `os` role for what only a comparison shows to need it: `paths` are of entries that it changes
    /// ([`crate::protected_changes`]); `trust` is the document that it was verified by.
    ///
    /// # Errors
    ///
    /// Where there are any, and not enough keys of the role have signed.
    pub fn require_os(&self, paths: &[String], trust: &Trust) -> Result<(), NotAccepted> {
        let signers = self.signers.iter().cloned().collect();
        os_role_by_field(paths, trust, &signers, &mut Passed(self.rules.clone()))
    }

    /// Every rule that was applied, and what it found.
    pub fn rules(&self) -> &[RuleOutcome] {
        &self.rules
    }
}

/// Decides whether the manifest `bytes` with the signatures `sig` (the content of `FILE.sig`, empty where there is
/// none) may be newly applied by a host that is `host`, at `now`.
///
/// The same bytes as those with the highest serial are accepted again; so handing in a manifest twice is harmless.
///
/// # Errors
///
/// The rule that refused it, or, where the signatures hold, what is not valid in it.
pub fn verify(
    bytes: &[u8],
    sig: &[u8],
    trust: &Trust,
    floors: &Floors,
    host: &HostFacts,
    now: Timestamp,
) -> Result<Verified, NotAccepted> {
    let mut passed = Passed::default();
    let now = floors.at_least(now);
    trust_is_current(trust, floors, &mut passed)?;
    trust_is_fresh(trust, now, &mut passed)?;
    let signers = signed_by(Role::Deploy, bytes, sig, MANIFEST_NAMESPACE, trust, &mut passed)?;

    let (checked, sha256) = (check_for_hosts(bytes)?, Digest::of(bytes));
    let manifest = checked.manifest.for_host(&host.labels);
    serial_grows(&manifest.header, sha256, floors, &mut passed)?;
    not_from_far_ahead(manifest.header.signed_at, now, &mut passed)?;
    not_expired(manifest.header.expires, now, &mut passed)?;
    is_for(&manifest, host, &mut passed)?;
    os_role_by_field(&checked.needs_os, trust, &signers, &mut passed)?;
    Ok(Verified::new(manifest, sha256, signers, trust, passed))
}

/// Decides whether a manifest that this host has accepted before may go on being applied after a restart.
///
/// What runs goes on running: neither the manifest's expiry nor that of the trust document counts, and the clock is
/// not asked. Instead the bytes must be exactly those that the floors remember for its name.
///
/// # Errors
///
/// As for [`verify`].
pub fn verify_again(
    bytes: &[u8],
    sig: &[u8],
    trust: &Trust,
    floors: &Floors,
    host: &HostFacts,
) -> Result<Verified, NotAccepted> {
    let mut passed = Passed::default();
    trust_is_current(trust, floors, &mut passed)?;
    let signers = signed_by(Role::Deploy, bytes, sig, MANIFEST_NAMESPACE, trust, &mut passed)?;

    let (checked, sha256) = (check_for_hosts(bytes)?, Digest::of(bytes));
    let manifest = checked.manifest.for_host(&host.labels);
    serial_is_known(&manifest.header, sha256, floors, &mut passed)?;
    is_for(&manifest, host, &mut passed)?;
    os_role_by_field(&checked.needs_os, trust, &signers, &mut passed)?;
    Ok(Verified::new(manifest, sha256, signers, trust, passed))
}

/// Decides whether `bytes` with the signatures `sig` is the trust document that follows `current`.
///
/// It must be the very next version and have the threshold of the `trust` role by the keys of the current document
/// and by its own.
///
/// # Errors
///
/// As for [`verify`]. Only after the current keys have signed it are its bytes parsed.
pub fn verify_trust(
    bytes: &[u8],
    sig: &[u8],
    current: &Trust,
    floors: &Floors,
    now: Timestamp,
) -> Result<Trust, NotAccepted> {
    let mut passed = Passed::default();
    trust_is_current(current, floors, &mut passed)?;
    let next = follow(bytes, sig, current, &mut passed)?;
    let floors = floors.after_trust(&next, Digest::of(bytes));
    trust_is_fresh(&next, floors.at_least(now), &mut passed)?;
    Ok(next)
}

/// One step from `current` to the document `bytes`, whatever the time.
///
/// An expired document may still name its successor, or a host that slept through the change were lost.
pub(crate) fn follow(
    bytes: &[u8],
    sig: &[u8],
    current: &Trust,
    passed: &mut Passed,
) -> Result<Trust, NotAccepted> {
    signed_by(Role::Trust, bytes, sig, TRUST_NAMESPACE, current, passed)?;
    let next = check_trust(bytes)?;
    signed_by(Role::Trust, bytes, sig, TRUST_NAMESPACE, &next, passed)?;
    follows(current, &next, passed)?;
    Ok(next)
}

impl Verified {
    fn new(
        manifest: Manifest,
        sha256: Digest,
        signers: BTreeSet<Name>,
        trust: &Trust,
        passed: Passed,
    ) -> Self {
        let signers = signers.into_iter().collect();
        Self { manifest, sha256, signers, trust_version: trust.version, rules: passed.0 }
    }
}
