//! A whole host whose power goes in the middle of an update, judged without starting it.
//!
//! ```text
//!  disk before ─┐                    ┌─► view ─► fat ─► boot partition ─┐
//!  log of writes┴─► states ─► disk ──┤                                  ├─► judge ◄─ promise
//!                                    └─► mounted state partition ───────┘     │
//!                                        read by hostd's own code             └─ boots it as the loader and the daemon would
//! ```
//! What the disk and the log are is in [`crate::log`], and which states there are in [`crate::state`].

pub mod boot;
pub mod copies;
pub mod fat;
pub mod judge;
pub mod promise;
pub mod records;
pub mod replay;
pub mod view;
