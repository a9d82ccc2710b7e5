//! Debian's `docker-registry`, and the programs that bring images into it.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program that has to succeed, in `dir`; what it printed.
pub(crate) fn run(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): cargo xtask packages installs it")
        });
    assert!(output.status.success(), "{program} {arguments:?} ended with {}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// Debian's registry on a free port; it ends with this value.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start() -> Self {
        // Another process may take the port between choosing and listening.
        (0..5).find_map(|_| Self::try_start()).expect("docker-registry listens")
    }

    fn try_start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        drop(listener);
        let config = dir.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: \
             {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            dir.path().join("storage")
        );
        std::fs::write(&config, text).expect("written");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry can be started: cargo xtask packages installs it");
        let mut registry = Self { child, address, _dir: dir };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < end, "docker-registry does not listen");
            if registry.child.try_wait().expect("it can be asked").is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}
