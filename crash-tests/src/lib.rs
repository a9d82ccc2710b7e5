//! What tests of power cuts are made of. So far the reader of the log of all writes to a device, which `qemu-storage-daemon`
//! writes with its `blklogwrites` driver under a FUSE export.
//!
//! **Absent:** nothing here runs a scenario or makes the states that a power cut may leave yet.

pub mod log;
