//! The operator's command, as an operator runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::{Error, output, tail};

/// `hostctl` for one host.
#[derive(Debug, Clone)]
pub struct Hostctl {
    /// The program.
    pub program: PathBuf,
    /// The directory of `ca.crt`, `client.crt` and `client.key`.
    pub identity: PathBuf,
    /// `https://HOST:PORT`.
    pub address: String,
}

/// What a run of `hostctl` did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The exit code; 255 where a signal ended it.
    pub code: i32,
    /// Standard output: results.
    pub stdout: String,
    /// Standard error: progress and errors.
    pub stderr: String,
}

impl Hostctl {
    /// Runs a command against the host.
    ///
    /// # Errors
    /// [`Error::Start`] alone: how it ended is in [`Ran::code`].
    pub fn run(&self, arguments: &[&str]) -> Result<Ran, Error> {
        let mut command = Command::new(&self.program);
        command.arg("--host").arg(&self.address).arg("--identity").arg(&self.identity).args(arguments);
        ran(&mut command)
    }

    /// Runs a command with `--json` that must succeed, and returns its JSON.
    ///
    /// # Errors
    /// [`Error::Answer`] where it fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        let ran = self.run(&[&["--json"], arguments].concat())?;
        if ran.code == 0 { ran.json() } else { Err(ran.unexpected(arguments)) }
    }

    /// `GET status`, as JSON.
    ///
    /// # Errors
    /// As [`Hostctl::json`].
    pub fn status(&self) -> Result<Value, Error> {
        self.json(&["status"])
    }

    /// One container of `ps`, as JSON.
    ///
    /// # Errors
    /// As [`Hostctl::json`], and [`Error::Answer`] where there is no such container.
    pub fn container(&self, name: &str) -> Result<Value, Error> {
        let listed = self.json(&["ps"])?;
        let found = listed["containers"].as_array().into_iter().flatten().find(|c| c["name"] == name);
        found.cloned().ok_or_else(|| Error::Answer {
            who: "hostctl ps".into(),
            text: format!("no container {name} in {listed}"),
        })
    }

    /// The same for the host whose API is at this port of the loopback address.
    pub fn at(&self, port: u16) -> Self {
        Self { address: format!("https://127.0.0.1:{port}"), ..self.clone() }
    }

    /// The same program with another identity.
    pub fn with_identity(&self, identity: &Path) -> Self {
        Self { identity: identity.to_owned(), ..self.clone() }
    }
}

/// Runs a command of `hostctl` that needs no host.
///
/// # Errors
/// As [`Hostctl::run`].
pub fn offline(program: &Path, arguments: &[&str]) -> Result<Ran, Error> {
    ran(Command::new(program).args(arguments))
}

fn ran(command: &mut Command) -> Result<Ran, Error> {
    // What the caller's environment says about hosts must not reach a test.
    let out = output(command.env_remove("BENNU_HOST").env_remove("BENNU_IDENTITY"))?;
    Ok(Ran {
        code: out.status.code().unwrap_or(255),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

impl Ran {
    /// Standard output as one JSON value.
    ///
    /// # Errors
    /// [`Error::Answer`] where it is none.
    pub fn json(&self) -> Result<Value, Error> {
        serde_json::from_str(&self.stdout).map_err(|error| Error::Answer {
            who: "hostctl --json".into(),
            text: format!("{error}: {}", tail(&self.stdout, 2000)),
        })
    }

    /// The code of the rule that refused, as `--json` names it; empty where none did.
    pub fn rule(&self) -> String {
        let error = self.json().map(|json| json["error"]["rule"].clone()).unwrap_or_default();
        error.as_str().unwrap_or_default().to_owned()
    }

    /// Fails unless the exit code is 0.
    ///
    /// # Errors
    /// [`Error::Answer`] with what it wrote.
    pub fn done(self) -> Result<Self, Error> {
        if self.code == 0 { Ok(self) } else { Err(self.unexpected(&[])) }
    }

    fn unexpected(&self, arguments: &[&str]) -> Error {
        let text =
            format!("exit code {}: {}{}", self.code, tail(&self.stdout, 2000), tail(&self.stderr, 2000));
        Error::Answer { who: format!("hostctl {}", arguments.join(" ")), text }
    }
}
