//! The signed document: types, checks, signatures and trust.
pub mod model;
mod reference;

pub use reference::{MAX_REFERENCE, NotAReference, UnpinnedRef};
