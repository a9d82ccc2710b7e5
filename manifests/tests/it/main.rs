//! The crate from outside, as its callers use it.

mod accept;
mod check;
mod dependencies;
mod examples;
mod flips;
mod hostile;
mod keys;
mod reference;
mod samples;
mod sense;
mod soft;
mod standing;
mod t01_signers;
mod t03_replay;
mod t06_stolen_keys;
mod t08_rotation;
mod t11_audience;
mod tokens;
mod trust;
