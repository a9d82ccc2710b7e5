//! QEMU's control socket: the QEMU Machine Protocol, one JSON value a line (QEMU manual, "QMP Protocol
//! Specification", version 1.0).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Error;
use crate::error::IoContext;
use crate::wait;

/// The longest line that QEMU is believed to send, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// How long QEMU may take to answer one command. Loading a snapshot answers only when it is loaded.
const ANSWER: Duration = Duration::from_secs(120);

/// A connection to one machine's control socket.
#[derive(Debug)]
pub struct Qmp {
    write: UnixStream,
    read: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects, and leaves the negotiation mode.
    ///
    /// # Errors
    /// [`Error::File`] while nobody listens on the socket.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let write = UnixStream::connect(path).doing("connect to", path)?;
        write.set_read_timeout(Some(wait::patiently(ANSWER))).doing("set a deadline on", path)?;
        let read = BufReader::new(write.try_clone().doing("share", path)?);
        let mut qmp = Self { write, read };
        qmp.line("greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returns. Events that come before the answer are passed over.
    ///
    /// # Errors
    /// [`Error::Qmp`] with QEMU's reason, also where the connection is lost.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.write.write_all(request.as_bytes()).map_err(|e| refused(command, &e))?;
        loop {
            let answer = self.line(command)?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(refused(command, &error["desc"]));
            }
        }
    }

    /// Writes the machine's memory and devices to a file, and leaves the machine stopped.
    ///
    /// `mapped-ram` gives each page a fixed place, so the file stays sparse and is read back at the speed of the
    /// page cache (QEMU manual, "Mapped-ram").
    ///
    /// # Errors
    /// [`Error::Qmp`] where QEMU cannot; [`Error::Deadline`] after five minutes.
    pub fn save(&mut self, file: &Path) -> Result<(), Error> {
        self.execute("stop", json!({}))?;
        self.mapped_ram()?;
        self.execute("migrate", json!({ "uri": format!("file:{}", file.display()) }))?;
        self.migrated("the snapshot to be written", "completed")
    }

    /// Loads what [`Qmp::save`] wrote into a machine that was started with `-incoming defer`, and lets it run.
    ///
    /// # Errors
    /// As [`Qmp::save`].
    pub fn load(&mut self, file: &Path) -> Result<(), Error> {
        self.mapped_ram()?;
        self.execute("migrate-incoming", json!({ "uri": format!("file:{}", file.display()) }))?;
        self.migrated("the snapshot to be loaded", "completed")?;
        self.execute("cont", json!({}))?;
        Ok(())
    }

    fn mapped_ram(&mut self) -> Result<(), Error> {
        let capabilities = json!({ "capabilities": [{ "capability": "mapped-ram", "state": true }] });
        self.execute("migrate-set-capabilities", capabilities).map(drop)
    }

    fn migrated(&mut self, what: &str, goal: &str) -> Result<(), Error> {
        wait::until(what, Duration::from_secs(300), || {
            let state = self.execute("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some(status) if status == goal => Ok(Some(Ok(()))),
                Some("failed" | "cancelled") => Ok(Some(Err(refused("migrate", &state)))),
                _ => Ok(None),
            }
        })?
    }

    fn line(&mut self, command: &str) -> Result<Value, Error> {
        let mut line = String::new();
        let read = std::io::Read::take(&mut self.read, MAX_LINE).read_line(&mut line);
        match read {
            Ok(0) => Err(refused(command, &"the connection was closed")),
            Ok(_) => serde_json::from_str(&line).map_err(|e| refused(command, &e)),
            Err(error) => Err(refused(command, &error)),
        }
    }
}

fn refused(command: &str, reason: &dyn std::fmt::Display) -> Error {
    Error::Qmp { command: command.to_owned(), reason: reason.to_string() }
}
