//! Errors by kind, for whoever answers with a status or an exit code.

/// What kind of failure an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was asked for, or handed in, is not valid.
    Invalid,
    /// It was refused for security.
    Refused,
    /// Something is not there.
    Missing,
    /// It did not work.
    Failed,
}
