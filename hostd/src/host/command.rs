//! Running the programs that do what this daemon leaves to others.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// The most that is kept of what a program writes, in bytes; the rest is read and dropped.
const MAX_OUTPUT: u64 = 4 << 20;

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It can't be run or talked to.
    #[error("run {program}")]
    Run {
        /// The program.
        program: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("{program} ended with {status}: {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote, on one line.
        said: String,
    },
    /// It did not end in time, and was killed.
    #[error("{program} did not end within {} s", within.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// How long it had.
        within: Duration,
    },
}

/// Runs a program to its end and returns what it wrote to standard output.
///
/// # Errors
/// Where it can't be run, fails, or takes longer than `deadline`; it is killed then.
pub(super) async fn run(
    mut command: Command,
    input: &[u8],
    deadline: Duration,
) -> Result<Vec<u8>, CommandError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = tokio::time::timeout(deadline, talk(command, input)).await;
    let (status, output, errors) = match ended {
        Ok(result) => result.map_err(|source| CommandError::Run { program: program.clone(), source })?,
        Err(_) => return Err(CommandError::Deadline { program, within: deadline }),
    };
    if status.success() {
        return Ok(output);
    }
    // Some programs complain on standard output.
    let said = last_words(if errors.is_empty() { &output } else { &errors });
    Err(CommandError::Failed { program, status, said })
}

async fn talk(mut command: Command, input: &[u8]) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let write = async {
        // A program that does not want its input is no error of ours; how it ends tells.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ((), output, errors, status) = tokio::join!(write, bounded(stdout), bounded(stderr), child.wait());
    Ok((status?, output?, errors?))
}

async fn bounded(mut from: impl tokio::io::AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut from).take(MAX_OUTPUT).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// The last 500 characters, on one line.
fn last_words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skip = line.chars().count().saturating_sub(500);
    line.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn input_goes_in_and_output_comes_out() {
        assert_eq!(run(shell("cat"), b"words", SOON).await.unwrap(), b"words");
    }

    #[tokio::test]
    async fn a_failure_tells_how_it_ended_and_what_was_said() {
        let error = run(shell("echo why >&2; exit 3"), b"", SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh ended with exit status: 3: why");
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed() {
        let error = run(shell("exec sleep 1000"), b"", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
    }

    #[tokio::test]
    async fn more_output_than_is_kept_does_not_stop_the_program() {
        let output = run(shell("head -c 5000000 /dev/zero"), b"", SOON).await.unwrap();
        assert_eq!(output.len() as u64, MAX_OUTPUT);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        let error = run(Command::new("/no/such/program"), b"", SOON).await.unwrap_err();
        assert!(matches!(error, CommandError::Run { .. }), "{error}");
    }
}
