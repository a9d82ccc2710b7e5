//! Running programs, and naming the file in an I/O error.

use crate::BuildError;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Longest end of a program's standard error that an error quotes, in bytes.
const QUOTED: usize = 4096;

/// For `map_err`: what was being done to which file.
pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::File { doing, path, source }
}

/// Runs a program to its end and gives back its standard output. What it says on standard error is shown only
/// where it fails.
pub(crate) fn run(command: &mut Command) -> Result<String, BuildError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let tail = output.stderr.len().saturating_sub(QUOTED);
    let stderr = String::from_utf8_lossy(output.stderr.get(tail..).unwrap_or_default()).trim_end().to_owned();
    Err(BuildError::Program { program, status: output.status, stderr })
}
