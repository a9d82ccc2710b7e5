//! Power cuts, kills and failing disks, tried on a store at each place where they may come.
//!
//! ```text
//!  scenario ──child process──► file system on a recorded device ──► log of writes ──► states a power cut may leave
//!                                                                                        │ each mounted
//!                                                   what the caller was told ──► check ◄─┘
//! ```
//! [`scenario`] says what is done and what the caller is told, [`native`] has the images for pulls by difference, [`disk`] records it, [`state`] makes the states, [`check`] judges
//! them. [`trace`] runs a scenario up to one of its system calls, and lets that one fail or kills the process there. The tests under `tests/` put them together. `docs/durability.md` says what is promised.
//!
//! [`host`] judges a whole host, recorded elsewhere, in the same way.
//!
//! **Absent:** no change to the store for the sake of a test. What runs is the crate as others use it.

pub mod check;
pub mod disk;
pub mod host;
pub mod log;
pub mod native;
pub mod scenario;
pub mod state;
pub mod trace;
