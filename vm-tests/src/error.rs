//! Why the harness could not do something.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Why the harness could not do something. A test treats each of these as a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or socket could not be read, written or opened.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// Verb and object, as in `read the log`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started: most likely its package is missing.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("{program} ended with {status}:\n{text}")]
    Program {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it wrote.
        text: String,
    },
    /// The OS image could not be built.
    #[error("cannot build the OS image")]
    Image {
        /// What the builder said.
        source: bennu_os_image::BuildError,
    },
    /// QEMU's control socket refused a command.
    #[error("QEMU refused {command}: {reason}")]
    Qmp {
        /// The command.
        command: String,
        /// What QEMU said.
        reason: String,
    },
    /// The machine is not there any more.
    #[error("the machine ended with {status}; its serial line ends with:\n{serial}")]
    Gone {
        /// How QEMU ended.
        status: String,
        /// The end of the serial log and of QEMU's own messages.
        serial: String,
    },
    /// A condition did not come true in time.
    #[error("waited {} s for {what}; last seen: {last}", after.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What was seen instead.
        last: String,
    },
    /// Something answered in a way that the harness does not understand.
    #[error("{who} answered something unexpected: {text}")]
    Answer {
        /// Who answered.
        who: String,
        /// What it said, shortened.
        text: String,
    },
}

/// Adds what was being done, and to which file, to an I/O error.
pub(crate) trait IoContext<T> {
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn doing(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::File { doing, path: path.as_ref().to_owned(), source })
    }
}

/// Runs a program to its end, its standard input closed, and returns what it wrote.
///
/// # Errors
/// [`Error::Start`] where it could not be started.
pub fn output(command: &mut Command) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).output().map_err(|source| Error::Start { program, source })
}

/// Runs a program that must succeed, and returns its standard output.
///
/// # Errors
/// As [`output`], and [`Error::Program`] with the end of what it wrote where it fails.
pub fn run(command: &mut Command) -> Result<String, Error> {
    let out = output(command)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let mut program = vec![command.get_program().to_string_lossy().into_owned()];
    program.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Err(Error::Program { program: program.join(" "), status: out.status, text: tail(&text, 4096).to_owned() })
}

/// The last `most` bytes of a text, from the beginning of a character.
pub fn tail(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_text_begins_at_a_character() {
        assert_eq!(tail("äöü", 3), "ü");
        assert_eq!(tail("ab", 10), "ab");
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_what_it_wrote() {
        let error = run(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).expect_err("exit 3");
        assert!(matches!(error, Error::Program { ref text, .. } if text == "why\n"), "{error}");
    }
}
