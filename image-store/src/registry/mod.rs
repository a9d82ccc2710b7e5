//! A client of OCI registries.
//!
//! ```text
//!  reference ──► index ──► manifest ──► configuration, layers
//!                (each by digest; size and digest are checked while the bytes arrive)
//! ```
//! A registry is a stranger that carries bytes: nothing it says is believed unless a digest that we had before says so too.
//!
//! **Absent:** pushing, and running programs that know credentials.

mod auth;
mod blob;
mod client;
pub mod config;
mod credentials;
pub mod document;
mod error;
mod http;
mod login;
mod mirror;
mod options;
mod proxy;
mod reach;
mod referrers;
mod retry;
mod signatures;
mod tls;

pub(crate) use auth::{read_challenge, read_token};
pub(crate) use blob::Blob;
pub use client::{Client, MAX_DOCUMENT, Repository, Served};
pub use credentials::{Credentials, MAX_SECRET, NotCredentials};
pub use error::{ClientError, RegistryError};
pub use options::{ClientOptions, Patience};
pub use proxy::{NotAProxy, Proxies};
pub(crate) use referrers::{Referrer, tag as referrers_tag};
pub use retry::MAX_TRIES;
pub use tls::{MAX_PEM, NotTls, Tls};
