//! What must be true on a host that booted. Each test has a machine of its own.

mod access;
mod boot_faults;
mod boots;
mod builds;
mod changes;
mod converges;
mod data;
mod drift;
mod escapes;
mod faults;
mod integrity;
mod isolation;
mod leaks;
mod life;
mod looking;
mod manifest;
mod networks;
mod postgres;
mod power;
mod pulls;
mod refusals;
mod replay;
mod rotation;
mod runtimes;
mod secure_boot;
mod updates;
