//! The host daemon: makes a machine what its one signed manifest says, and keeps it so.
//!
//! ```text
//! accept (verify, floors) ──► ledger ──► observe ──► bennu_planner::plan ──► apply ──► observe …
//!                                        host::*      pure                   host::*
//! ```

pub mod host;
