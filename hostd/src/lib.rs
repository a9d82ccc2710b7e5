//! The host daemon: makes a machine what its one signed manifest says, and keeps it so.
//!
//! ```text
//! server ──► core::submit ──► ledger (bytes, floors, pointer)
//!                verify            │
//!                guard             ▼
//!            reconcile: stage (fetch all) ──► activate ──► observe ──► bennu_planner::plan ──► apply ──► observe …
//!                            store                          host           pure                 host
//! ```
//!
//! **Invariants:** nothing is acted on that is not in the ledger; nothing that runs is touched before everything that
//! the new generation needs is verified in the store; everything that changes the machine goes through [`host`];
//! containers belong to systemd, so the daemon may be killed at any point.

mod apply;
pub mod bundle;
mod calendar;
mod carry_out;
pub mod contents;
pub mod core;
mod debug_shell;
pub mod departure;
mod disk;
pub mod events;
mod fetch;
mod foresee;
pub mod forward;
pub mod health;
pub mod host;
pub mod jobs;
pub mod kills;
pub mod ledger;
pub mod os;
pub mod pins;
pub mod provision;
pub mod reconcile;
pub mod registries;
pub mod rejections;
mod remembered;
pub mod rescue;
pub mod scrub;
pub mod sealed;
pub mod secrets;
pub mod server;
pub mod update;
pub mod volumes;
