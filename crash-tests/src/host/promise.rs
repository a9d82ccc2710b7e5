//! What a host has promised when so many steps of its updates were acknowledged.
//!
//! The host begins with nothing. It takes generation 1, then generation 2 with another OS; somebody writes to a volume; generation 3,
//! which does not do its work, is taken back; somebody rolls back to generation 1; and the trust document is replaced.

use std::ops::RangeInclusive;

/// What may be found between the end of a step and that of the next one, which may have begun.
#[derive(Debug, Clone)]
pub struct Promise {
    /// What was acknowledged last.
    pub after: &'static str,
    /// Generations that may be active once the machine has booted; 0 stands for none.
    pub active: &'static [u64],
    /// Generations that may be the one that was kept.
    pub kept: &'static [u64],
    /// Generations that are rejected.
    pub rejected: &'static [u64],
    /// A generation that may be, too.
    pub rejecting: Option<u64>,
    /// The highest serial that was accepted.
    pub serial: RangeInclusive<u64>,
    /// The version of the trust document in force.
    pub trust: RangeInclusive<u64>,
    /// Whether what was written to the volume is there.
    pub written: bool,
}

const BEGIN: Promise = Promise {
    after: "nothing",
    active: &[0, 1],
    kept: &[0, 1],
    rejected: &[],
    rejecting: None,
    serial: 0..=1,
    trust: 1..=1,
    written: false,
};
const WRITTEN: Promise = Promise {
    after: "data was written to a volume",
    active: &[2, 3],
    kept: &[2],
    rejecting: Some(3),
    serial: 2..=3,
    written: true,
    ..BEGIN
};
const ROLLED_BACK: Promise = Promise {
    after: "generation 2 is rolled back",
    active: &[1],
    kept: &[1],
    rejected: &[2, 3],
    rejecting: None,
    serial: 3..=3,
    ..WRITTEN
};

/// By the number of steps that were acknowledged.
pub const PROMISES: [Promise; 10] = [
    BEGIN,
    Promise { after: "generation 1 is kept", active: &[1, 2], kept: &[1, 2], serial: 1..=2, ..BEGIN },
    Promise { after: "generation 2 is accepted", active: &[1, 2], kept: &[1, 2], serial: 2..=2, ..BEGIN },
    Promise { after: "generation 2 is kept", active: &[2], kept: &[2], serial: 2..=2, ..BEGIN },
    WRITTEN,
    Promise { after: "generation 3 is accepted", serial: 3..=3, ..WRITTEN },
    Promise {
        after: "generation 3 is rejected",
        active: &[1, 2],
        kept: &[1, 2],
        rejected: &[3],
        rejecting: Some(2),
        serial: 3..=3,
        ..WRITTEN
    },
    ROLLED_BACK,
    Promise { after: "the OS of generation 1 runs again", trust: 1..=2, ..ROLLED_BACK },
    Promise { after: "the trust document is replaced", trust: 2..=2, ..ROLLED_BACK },
];
