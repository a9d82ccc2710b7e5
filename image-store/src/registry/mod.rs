//! A client of OCI registries.
//!
//! ```text
//!  reference ──► index ──► manifest ──► configuration, layers
//!                (each by digest; size and digest are checked while the bytes arrive)
//! ```
//! A registry is a stranger that carries bytes: nothing it says is believed unless a digest that we had before says so too.
//!
//! **Absent:** pushing, running programs that know credentials, and resuming of what broke off.

mod auth;
mod client;
mod credentials;
pub mod document;
mod error;
mod http;
mod signatures;

pub(crate) use auth::{read_challenge, read_token};
pub(crate) use client::Blob;
pub use client::{Client, ClientOptions, MAX_DOCUMENT, MAX_TRIES, Repository, Served};
pub use credentials::{Credentials, MAX_SECRET, NotCredentials};
pub use error::{ClientError, RegistryError};
