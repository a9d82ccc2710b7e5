//! A client of OCI registries.

pub mod document;
