//! Secrets that only the host they are meant for can read.
//!
//! ```text
//!  operator:  secret ──► seal(recipients) ──► armoured age file, in the signed manifest
//!  host:      armoured age file ──► open(identity) ──► secret, in memory only
//! ```
//! The format is age, version 1 (<https://age-encryption.org/v1>, [C2SP/age.md](https://c2sp.org/age)), with X25519
//! recipients (`age1…`), in its ASCII armour; so the `age` program can write a secret for a host, and read one with the
//! host's identity.
//!
//! **Invariants:** nothing here touches a disk or the network; a secret in the clear is wiped from memory when it is
//! dropped; what a secret was is never part of an error. The crate `age` is named in `sealed.rs` and nowhere else.
//!
//! **Absent:** passphrases, plugins, SSH keys as recipients, and giving secrets to containers, which the daemon does.

mod sealed;

pub use sealed::{Identity, NotARecipient, NotAnIdentity, OpenError, Recipient, SealError, open, seal};
pub use zeroize::Zeroizing;

/// The largest secret, in bytes.
pub const MAX_SECRET: usize = 64 << 10;
/// The most recipients of one secret.
pub const MAX_RECIPIENTS: usize = 256;
/// The largest armoured file, in bytes: a secret of [`MAX_SECRET`] bytes for [`MAX_RECIPIENTS`] takes 124 kB.
pub const MAX_ARMOURED: usize = 128 << 10;
/// The largest file with an identity that is read, in bytes: one line of 74 bytes, and comments.
pub const MAX_IDENTITY_FILE: usize = 4 << 10;
