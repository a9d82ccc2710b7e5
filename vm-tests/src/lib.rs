//! The harness of the tests that boot: black box, through image, serial line, network and `hostctl` alone.
//!
//! ```text
//! OS image ──once──► provisioned, booted ──snapshot──► restored in a second ──► Host ──► test
//!  cached             cached: disk + memory             own overlay, own ports    │
//!                                                                                 ├── vm.guest("…")    agent
//! recipe ──mmdebstrap──► OCI layout ──skopeo──► docker-registry ──► gate ─────────┤
//!  cached                                        cached storage                   └── hostctl push …   operator
//! ```
//!
//! Tests say `on_host("name", |host| …)` and check what the host has become. A machine that cannot be started is a
//! failure and never a skip.
//!
//! **Invariant:** nothing here reads a prompt or a log to find out what a guest does: it answers through `hostctl` or
//! through the test agent. Nothing here waits without a deadline. Every server listens on the loopback address alone,
//! and every process that is started is ended by its own handle.

pub mod accelerator;
pub mod agent;
pub mod cache;
pub mod disk;
mod error;
pub mod evidence;
pub mod fixture;
pub mod gate;
pub mod host;
pub mod hostctl;
pub mod http;
pub mod image;
pub mod images;
pub mod machine;
pub mod operator;
pub mod os;
pub mod power;
pub mod programs;
pub mod qmp;
pub mod registry;
pub mod signing;
pub mod vm;
pub mod wait;

pub use error::{Error, output, run, tail};
pub use host::{Failure, Host, on_host, on_host_alone, on_new_host, on_new_sealed_host, on_new_secure_host};
pub use power::{Action, lifecycle};
