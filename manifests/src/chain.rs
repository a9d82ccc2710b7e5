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

/// Decides whether the trust documents `links`, each with its signatures, lead from `current` to one that may be in force
/// at `now`; and gives each of them, in order.
///
/// # Errors
///
/// As for [`crate::verify_trust`], with the place in the chain; and where there are none or more than [`MAX_HOPS`].
pub fn verify_trust_chain(
    current: &Trust,
    links: &[(&[u8], &[u8])],
    floors: &Floors,
    now: Timestamp,
) -> Result<Vec<Trust>, ChainNotAccepted> {
    let mut passed = Passed::default();
    let whole = |reason| ChainNotAccepted { hop: 0, reason };
    trust_is_current(current, floors, &mut passed).map_err(whole)?;
    passed
        .decide(
            Rule::TrustChain,
            match links.len() {
                0 => Err("there is no trust document in it".to_owned()),
                many if many > MAX_HOPS => {
                    Err(format!("there are {many} trust documents, at most {MAX_HOPS} are taken at once"))
                }
                some => Ok(format!("{some} steps")),
            },
        )
        .map_err(whole)?;
    let mut taken: Vec<Trust> = Vec::new();
    let mut floors = floors.clone();
    for ((bytes, sig), hop) in links.iter().zip(1..) {
        let refused = |reason| ChainNotAccepted { hop, reason };
        let mut passed = Passed::default();
        let next = follow(bytes, sig, taken.last().unwrap_or(current), &mut passed).map_err(refused)?;
        // A document that makes the host forget a time that thieves taught it is not to seem expired because of it.
        floors = floors.after_trust(&next, Digest::of(bytes));
        if hop == links.len() {
            trust_is_fresh(&next, floors.at_least(now), &mut passed).map_err(refused)?;
        }
        taken.push(next);
    }
    Ok(taken)
}
