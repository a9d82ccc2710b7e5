//! What must be true on a host that booted. Each test has a machine of its own.

mod access;
mod boots;
mod changes;
mod converges;
mod faults;
mod integrity;
mod isolation;
mod life;
mod manifest;
mod power;
mod pulls;
mod refusals;
mod rotation;
