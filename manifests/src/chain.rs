//! A chain of trust documents: from the one that a host has to the newest, step by step.
//!
//! ```text
//! current ──► link 1 ──► link 2 ──► … ──► link n      each with the thresholds of the one before it and its own
//!                                           └─ not expired
//! ```
//!
//! A host that was off while keys changed several times is handed all the documents it has missed. Those on the way may
//! have expired meanwhile, or it could never catch up; the last one, which is to be in force, may not.
//!
//! **Invariant:** the whole chain is taken or nothing of it, and no byte of a link is parsed before the keys of the link
//! before it have signed it.

use jiff::Timestamp;

use crate::accept::follow;
use crate::floors::Floors;
use crate::model::Digest;
use crate::refusal::{NotAccepted, Rule};
use crate::rules::{Passed, trust_is_current, trust_is_fresh};
use crate::trust::Trust;

/// The most documents that are taken at once (The Update Framework, section 5.3, asks for some such bound; this one is
/// far above what a fleet rotates in its life).
pub const MAX_HOPS: usize = 256;

/// A chain that was not taken; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("trust document {hop} of the chain was not accepted")]
pub struct ChainNotAccepted {
    /// Which document it was, from 1; 0 where the chain as a whole is meant.
    pub hop: usize,
    /// Why.
    #[source]
    pub reason: NotAccepted,
}

/// A chain that leads from the trust document of a host to a newer one; it comes from nowhere else than from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedChain {
    steps: Vec<(Trust, Digest)>,
}

impl VerifiedChain {
    /// Each document, in order; at least one.
    pub fn steps(&self) -> impl ExactSizeIterator<Item = &Trust> {
        self.steps.iter().map(|(trust, _)| trust)
    }

    /// The last one, which is to be in force.
    pub fn newest(&self) -> &Trust {
        &self.steps.last().expect("an empty chain is refused").0
    }
}

impl Floors {
    /// The floors after each document of `chain` was taken, one after the other.
    #[must_use]
    pub fn after_chain(&self, chain: &VerifiedChain) -> Self {
        chain.steps.iter().fold(self.clone(), |floors, (trust, digest)| floors.after_trust(trust, *digest))
    }
}

/// Decides whether the trust documents `links`, each with its signatures, lead from `current` to one that may be in force
/// at `now`.
///
/// # Errors
///
/// As for [`crate::verify_trust`], with the place in the chain; and where there are none or more than [`MAX_HOPS`].
pub fn verify_trust_chain(
    current: &Trust,
    links: &[(&[u8], &[u8])],
    floors: &Floors,
    now: Timestamp,
) -> Result<VerifiedChain, ChainNotAccepted> {
    let mut passed = Passed::default();
    let whole = |reason| ChainNotAccepted { hop: 0, reason };
    trust_is_current(current, floors, &mut passed).map_err(whole)?;
    has_a_length(links.len(), 1..=MAX_HOPS, &mut passed).map_err(whole)?;
    let chain = walk(current, links)?;
    // A document that makes the host forget a time that thieves taught it is not to seem expired because of it.
    let floors = floors.after_chain(&chain);
    let last = |reason| ChainNotAccepted { hop: links.len(), reason };
    trust_is_fresh(chain.newest(), floors.at_least(now), &mut passed).map_err(last)?;
    Ok(chain)
}

/// Verifies again, after a restart, the trust documents that a host has taken since the one it was provisioned with. What
/// has expired counts: it was in force, and is until the next one comes.
///
/// # Errors
///
/// As for [`verify_trust_chain`].
pub fn verify_trust_chain_again(
    provisioned: &Trust,
    links: &[(&[u8], &[u8])],
) -> Result<VerifiedChain, ChainNotAccepted> {
    let whole = |reason| ChainNotAccepted { hop: 0, reason };
    has_a_length(links.len(), 1..=usize::MAX, &mut Passed::default()).map_err(whole)?;
    walk(provisioned, links)
}

fn has_a_length(
    length: usize,
    taken: std::ops::RangeInclusive<usize>,
    passed: &mut Passed,
) -> Result<(), NotAccepted> {
    passed.decide(
        Rule::TrustChain,
        match length {
            0 => Err("there is no trust document in it".to_owned()),
            some if taken.contains(&some) => Ok(format!("steps: {some}")),
            many => Err(format!("there are {many} trust documents, at most {MAX_HOPS} are taken at once")),
        },
    )
}

fn walk(from: &Trust, links: &[(&[u8], &[u8])]) -> Result<VerifiedChain, ChainNotAccepted> {
    let mut steps: Vec<(Trust, Digest)> = Vec::new();
    for ((bytes, sig), hop) in links.iter().zip(1..) {
        let before = steps.last().map_or(from, |(trust, _)| trust);
        let next = follow(bytes, sig, before, &mut Passed::default())
            .map_err(|reason| ChainNotAccepted { hop, reason })?;
        steps.push((next, Digest::of(bytes)));
    }
    Ok(VerifiedChain { steps })
}
