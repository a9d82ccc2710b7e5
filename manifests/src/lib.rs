//! Placeholder.
pub mod model;
