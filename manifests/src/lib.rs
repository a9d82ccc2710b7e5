//! The signed document: what a manifest may say, who may say it, and whether a host may act on it.
//!
//! ```text
//!  FILE, FILE.sig ──► verify() ─┬─ size, trust, signatures, thresholds      over the exact bytes
//!  trust.toml ──► check_trust() │
//!  Floors, HostFacts, now ──────┼─ check() ──► Manifest, or Invalid: every fault with its place
//!                               │
//!                               ├─ serial, time, audience, role by field
//!                               ▼
//!                    Verified ──► Floors::after()     or     NotAccepted: the rule that says no
//! ```
//!
//! [`check()`] is the offline half: form and sense of a manifest, for its author. [`verify`] is the whole of it, for a
//! host; a [`Verified`] comes from nowhere else. Trust documents follow each other through [`verify_trust`], and
//! [`verify_trust_chain`] where a host has missed some.
//! [`unpinned_images`] finds what is still to be pinned by digest.
//!
//! Deliberately absent: network, disk, clock and randomness. Everything is an argument, so that a decision can be
//! repeated from what is written down. There is no signing either: people sign with `ssh-keygen -Y sign` and the keys,
//! agents and hardware tokens that they have.
//!
//! **Invariant:** no byte of a document is parsed by [`verify`] before its signatures hold.

mod accept;
mod armour;
mod base64;
mod calendar;
mod chain;
mod check;
mod crypto;
mod document;
mod fault;
mod floors;
mod key;
mod language;
pub mod model;
mod nearest;
mod pin;
mod place;
mod protected;
mod reasons;
mod reference;
mod refusal;
mod relations;
mod rules;
mod sense;
mod signature;
mod standing;
mod text;
mod trust;
mod units;
mod values;
mod weight;
mod wire;
mod words;

pub use accept::{HostFacts, Verified, verify, verify_again, verify_trust};
pub use armour::{BadArmour, MAX_SIGNATURE_FILE, MAX_SIGNATURES};
pub use calendar::Calendar;
pub use chain::{ChainNotAccepted, MAX_HOPS, VerifiedChain, verify_trust_chain, verify_trust_chain_again};
pub use check::{Checked, HostDescription, SCHEMA, check, examine};
pub use document::MAX_DOCUMENT;
pub use fault::{Fault, Invalid};
pub use floors::{Floors, Freshness};
pub use key::{NotAPublicKey, PublicKey};
pub use language::{json_schema, reference};
pub use nearest::did_you_mean;
pub use pin::{UnpinnedImage, unpinned_images};
pub use protected::protected_changes;
pub use reference::{MAX_REFERENCE, NotAReference, UnpinnedRef};
pub use refusal::{NotAccepted, Refusal, Rule, RuleOutcome};
pub use signature::{
    BadSignature, BadSignatureFile, MANIFEST_NAMESPACE, SshSignature, TRUST_NAMESPACE, verify_signature,
};
pub use standing::{Standing, standing};
pub use trust::{MAX_KEYS, Recover, Role, RoleKeys, Trust, check_trust};
pub use values::{MAX_CONTAINERS, MAX_NETWORKS};
pub use words::DEFAULT_CAPABILITIES;
