//! Programs that must succeed.

use std::process::{Command, Stdio};

use crate::Failure;

/// Runs a program and gives what it wrote to standard output.
///
/// # Errors
/// Where it cannot be started or fails, with the end of what it said.
pub(super) fn read(command: &mut Command) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start {name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program for its effects.
///
/// # Errors
/// As [`read`].
pub(super) fn succeed(command: &mut Command) -> Result<(), Failure> {
    read(command).map(drop)
}
