//! The test agent: commands in the guest without a change to the image.
//!
//! A shell loop that systemd in the guest starts from a credential (systemd.system-credentials(7),
//! `systemd.extra-unit.*`) and that speaks over a virtio-serial port. It lives in memory alone, so it comes back with
//! a snapshot, and it is gone on a machine that was not given the credential.
//!
//! ```text
//! harness → guest   ID SP base64(shell command) LF
//! guest → harness   ID SP exit-code SP base64(standard output and error) LF
//! ```
//!
//! A request whose answer was lost to a reboot is simply late: answers with another `ID` are passed over.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Error;
use crate::error::IoContext;
use crate::machine::Credential;

/// The name of the virtio-serial port.
pub const PORT: &str = "bennu.test";

/// The longest answer, in bytes of base64.
const MAX_ANSWER: u64 = 64 << 20;

const UNIT: &str = "bennu-test-agent.service";

/// The loop. `read` returns at once while nobody is connected on the other side, hence the pause. The port has its name
/// only once udev has seen it, which nothing in the early boot waits for; and a service that fails five times in ten
/// seconds is given up by default (systemd.unit(5), `StartLimitBurst=`), which an agent must never be.
const SCRIPT: &str = r#"[Unit]
Description=Test agent
DefaultDependencies=no
StartLimitIntervalSec=0
After=sysinit.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Restart=always
RestartSec=1
TimeoutStopSec=2
StandardError=journal
ExecStart=/bin/sh -c 'd=/run/bennu-test-agent; mkdir -p $$d; \
  until [ -c /dev/virtio-ports/bennu.test ]; do sleep 0.2; done; \
  exec 3<>/dev/virtio-ports/bennu.test; \
  while :; do \
    while read -r id line <&3; do \
      printf %%s "$$line" | base64 -d >$$d/command; \
      sh $$d/command >$$d/output 2>&1 </dev/null 3>&-; code=$$?; \
      { printf "%%s %%s " "$$id" "$$code"; base64 -w0 $$d/output; echo; } >&3; \
    done; \
    sleep 0.2; \
  done'
"#;

/// What a machine must be given for the agent to run in it.
pub fn credentials() -> Vec<Credential> {
    let wanted = format!("[Unit]\nWants={UNIT}\nAfter={UNIT}\n");
    vec![
        Credential::new(format!("systemd.extra-unit.{UNIT}"), SCRIPT.as_bytes().to_vec()),
        Credential::new("systemd.unit-dropin.multi-user.target", wanted.into_bytes()),
    ]
}

/// What a command in the guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output and standard error.
    pub text: String,
}

/// A connection to the agent of one machine.
#[derive(Debug)]
pub struct Agent {
    write: UnixStream,
    read: BufReader<UnixStream>,
    last: u64,
    partial: Vec<u8>,
}

impl Agent {
    /// Connects to the machine's side of the port. Whether an agent listens is shown by [`Agent::ask`] alone.
    ///
    /// # Errors
    /// [`Error::File`] where the socket is not there yet.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let write = UnixStream::connect(path).doing("connect to", path)?;
        let read = BufReader::new(write.try_clone().doing("share", path)?);
        // A number of its own for each connection, so that late answers to an earlier one are told apart.
        let last = jiff::Timestamp::now().as_microsecond().unsigned_abs();
        Ok(Self { write, read, last, partial: Vec::new() })
    }

    /// Runs a shell command in the guest.
    ///
    /// # Errors
    /// [`Error::Deadline`] where no answer comes in time; the command may still run.
    pub fn ask(&mut self, command: &str, within: Duration) -> Result<Output, Error> {
        let within = crate::wait::patiently(within);
        self.last += 1;
        let id = self.last.to_string();
        let request = format!("{id} {}\n", BASE64_STANDARD.encode(command));
        let begun = Instant::now();
        let lost = |last: String| Error::Deadline {
            what: format!("the guest to run `{command}`"),
            after: within,
            last,
        };
        self.write.set_write_timeout(Some(within)).map_err(|e| lost(e.to_string()))?;
        self.write.write_all(request.as_bytes()).map_err(|e| lost(e.to_string()))?;
        loop {
            let left = within.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            match self.line(left) {
                Ok(Some(line)) => match parse(&line, &id) {
                    Parsed::Answer(output) => return Ok(output),
                    Parsed::Late => {}
                    Parsed::Garbage => {
                        return Err(Error::Answer { who: "the test agent".into(), text: line });
                    }
                },
                Ok(None) => return Err(lost("no answer".into())),
                Err(error) => return Err(lost(error.to_string())),
            }
        }
    }

    /// One line, or `None` where it did not come in time; what came of it is kept for the next call.
    fn line(&mut self, within: Duration) -> std::io::Result<Option<String>> {
        self.read.get_ref().set_read_timeout(Some(within))?;
        match self.read.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut self.partial) {
            Ok(_) if self.partial.ends_with(b"\n") => {
                let line = std::mem::take(&mut self.partial);
                Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
            }
            Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Answer(Output),
    Late,
    Garbage,
}

fn parse(line: &str, id: &str) -> Parsed {
    let mut words = line.splitn(3, ' ');
    let (their_id, code, text) = (words.next(), words.next(), words.next().unwrap_or_default());
    if their_id != Some(id) {
        return Parsed::Late;
    }
    match (code.and_then(|c| c.parse().ok()), BASE64_STANDARD.decode(text)) {
        (Some(code), Ok(bytes)) => {
            Parsed::Answer(Output { code, text: String::from_utf8_lossy(&bytes).into_owned() })
        }
        _ => Parsed::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_code_and_text() {
        assert_eq!(parse("7 3 aGk=", "7"), Parsed::Answer(Output { code: 3, text: "hi".into() }));
        assert_eq!(parse("7 0 ", "7"), Parsed::Answer(Output { code: 0, text: String::new() }));
    }

    #[test]
    fn an_answer_to_another_request_is_passed_over() {
        assert_eq!(parse("6 0 aGk=", "7"), Parsed::Late);
    }

    #[test]
    fn an_answer_that_is_not_one_is_refused() {
        assert_eq!(parse("7 zero aGk=", "7"), Parsed::Garbage);
        assert_eq!(parse("7 0 ###", "7"), Parsed::Garbage);
    }
}
