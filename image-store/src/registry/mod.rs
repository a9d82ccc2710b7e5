//! A client of OCI registries.
//!
//! ```text
//!  reference ──► index ──► manifest ──► configuration, layers
//!                (each by digest; size and digest are checked while the bytes arrive)
//! ```
//! A registry is a stranger that carries bytes: nothing it says is believed unless a digest that we had before says so too.
//!
//! **Absent:** pushing, credentials, and resuming of what broke off.

mod auth;
mod client;
pub mod document;
mod error;
mod http;
mod signatures;

pub(crate) use client::Blob;
pub use client::{Client, ClientOptions, MAX_DOCUMENT, MAX_TRIES, Repository, Served};
pub use error::{ClientError, RegistryError};
