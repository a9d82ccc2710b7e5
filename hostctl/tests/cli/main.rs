//! The built command as its user meets it: arguments in, output and exit code out.

mod archives;
mod bundles;
mod documents;
mod hosts;
mod images;
mod imports;
mod provisioning;
mod registry;
mod secrets;
mod server;
mod stores;
mod toml_suite;
mod trust;
mod volumes;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command wrote and how it ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// Standard output, of a command that has to end with `code`.
    fn with(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:#?}");
        self.stdout
    }

    fn json(self, code: i32) -> serde_json::Value {
        let stdout = self.with(code);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }
}

/// A folder of its own for each test, in which commands run.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the file can be written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file can be read")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostctl"));
        command.current_dir(self.0.path()).env_remove("BENNU_HOST").env_remove("BENNU_IDENTITY");
        command.env("HOME", self.0.path()).env_remove("XDG_CONFIG_HOME");
        for logins in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "DOCKER_CONFIG"] {
            command.env_remove(logins);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, b"")
    }

    /// Runs with `input` on standard input.
    fn run_with(&self, args: &[&str], input: &[u8]) -> Ended {
        let input_file = self.path(".input");
        std::fs::write(&input_file, input).expect("the input can be written");
        let input = std::fs::File::open(&input_file).expect("it was just written");
        let output = self.command().args(args).stdin(Stdio::from(input)).output().expect("hostctl runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Ended {
            code: output.status.code().expect("no signal ended it"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// A new SSH key; its path.
    fn key(&self, name: &str) -> String {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(self.path(name))
            .status()
            .expect("ssh-keygen is installed");
        assert!(made.success());
        name.to_owned()
    }

    /// A trust document that trusts one new key `ana`.
    fn trusting_ana(&self) {
        self.key("ana");
        self.run(&["trust", "init", "--key", "ana=ana.pub", "trust.toml"]).with(0);
    }
}

/// A small manifest that is valid for a long time.
fn manifest(image: &str, serial: u64) -> String {
    format!(
        "schema = 1\nname = \"demo\" # the stream\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
         expires = 2100-01-01T00:00:00Z\n\n[container.web]\nimage = \"{image}\" # what runs\n"
    )
}

/// An image that is pinned, and nowhere.
fn pinned() -> String {
    format!("registry.example/web:1@sha256:{}", "ab".repeat(32))
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn usage_errors_end_with_2_and_versions_are_printed() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["no-such-command"]).code, 2);
    assert_eq!(desk.run(&["push"]).code, 2);
    assert_eq!(
        desk.run(&["push", "a.toml", "--timeout", "3"]).code,
        2,
        "--timeout means nothing without --wait"
    );
    assert_eq!(desk.run(&["--version"]).with(0), format!("hostctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let desk = Desk::new();
    desk.write("host.toml", &manifest(&pinned(), 1));
    let mut child = desk
        .command()
        .args(["check", "host.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("hostctl runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
