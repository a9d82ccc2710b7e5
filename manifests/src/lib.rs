//! The signed document: types, checks, signatures and trust.
mod armour;
mod check;
mod container;
mod crypto;
mod document;
mod fault;
mod key;
pub mod model;
mod nearest;
mod reference;
mod relations;
mod signature;
mod text;
mod units;
mod wire;
mod words;

pub use armour::{BadArmour, MAX_SIGNATURE_FILE, MAX_SIGNATURES};
pub use check::{MAX_CONTAINERS, MAX_NETWORKS, SCHEMA, check};
pub use document::MAX_DOCUMENT;
pub use fault::{Fault, Invalid};
pub use key::{NotAPublicKey, PublicKey};
pub use reference::{MAX_REFERENCE, NotAReference, UnpinnedRef};
pub use signature::{
    BadSignature, BadSignatureFile, MANIFEST_NAMESPACE, SshSignature, TRUST_NAMESPACE, verify_signature,
};
