//! The signed document: types, checks, signatures and trust.
mod accept;
mod armour;
mod check;
mod container;
mod crypto;
mod document;
mod fault;
mod floors;
mod key;
pub mod model;
mod nearest;
mod pin;
mod reference;
mod refusal;
mod relations;
mod signature;
mod text;
mod trust;
mod units;
mod wire;
mod words;

pub use accept::{HostFacts, Verified, verify, verify_again, verify_trust};
pub use armour::{BadArmour, MAX_SIGNATURE_FILE, MAX_SIGNATURES};
pub use check::{MAX_CONTAINERS, MAX_NETWORKS, SCHEMA, check};
pub use document::MAX_DOCUMENT;
pub use fault::{Fault, Invalid};
pub use floors::Floors;
pub use key::{NotAPublicKey, PublicKey};
pub use pin::{UnpinnedImage, unpinned_images};
pub use reference::{MAX_REFERENCE, NotAReference, UnpinnedRef};
pub use refusal::{NotAccepted, Refusal, Rule, RuleOutcome};
pub use signature::{
    BadSignature, BadSignatureFile, MANIFEST_NAMESPACE, SshSignature, TRUST_NAMESPACE, verify_signature,
};
pub use trust::{MAX_KEYS, Role, RoleKeys, Trust, check_trust};
