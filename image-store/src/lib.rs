//! Immutable bytes under their digest: fetched, verified, converted, kept and mounted.

pub mod durable;
pub mod erofs;
pub mod layer;
pub mod sha256;
pub mod tar;
pub mod verity;
