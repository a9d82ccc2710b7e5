//! A real registry on the loopback address: Debian's `docker-registry`, a child of the harness.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext};
use crate::gate::Gate;
use crate::images::{self, Image};
use crate::machine::HOST_FROM_GUEST;
use crate::{cache, wait};

/// A running registry. It is ended when this value is dropped; its storage stays.
#[derive(Debug)]
pub struct Registry {
    child: Option<Child>,
    address: SocketAddr,
}

/// How a registry runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Writable,
    ReadOnly,
    /// Writable, and each answer is logged.
    Logged,
}

impl Registry {
    /// Starts a registry on a free port, with its storage below `directory` and its log in `directory/registry.log`.
    ///
    /// # Errors
    /// Where `docker-registry` is missing or ends at once.
    pub fn start(directory: &Path) -> Result<Self, Error> {
        Self::start_on(directory, &directory.join("storage"), Mode::Writable)
    }

    /// As [`Registry::start`]; the log holds a line for each answer, too, in the combined format of Apache.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub fn start_with_access_log(directory: &Path) -> Result<Self, Error> {
        Self::start_on(directory, &directory.join("storage"), Mode::Logged)
    }

    fn start_on(directory: &Path, storage: &Path, mode: Mode) -> Result<Self, Error> {
        let log = directory.join("registry.log");
        for _ in 0..5 {
            match Self::try_start(directory, storage, mode) {
                // Another process took the port between choosing and listening.
                Err(Error::Gone { serial, .. }) if serial.contains("address already in use") => {}
                other => return other,
            }
        }
        Err(Error::Answer { who: "docker-registry".into(), text: format!("see {}", log.display()) })
    }

    fn try_start(directory: &Path, storage: &Path, mode: Mode) -> Result<Self, Error> {
        let free = TcpListener::bind("127.0.0.1:0").doing("listen on", "127.0.0.1")?;
        let address = free.local_addr().doing("ask the port of", "127.0.0.1")?;
        drop(free);
        let config = directory.join("registry.yml");
        let (read_only, silent) = (mode == Mode::ReadOnly, mode != Mode::Logged);
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: {silent}}}}}\nstorage:\n  filesystem: \
             {{rootdirectory: {storage:?}}}\n  maintenance:\n    readonly: {{enabled: {read_only}}}\n\
             http: {{addr: \"{address}\"}}\n"
        );
        fs::write(&config, text).doing("write", &config)?;
        let path = directory.join("registry.log");
        let log = fs::File::create(&path).doing("make", &path)?;
        let clone = log.try_clone().doing("share", &path)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(clone).stderr(log);
        let child =
            command.spawn().map_err(|source| Error::Start { program: "docker-registry".into(), source })?;
        let mut registry = Self { child: Some(child), address };
        wait::until("the registry to listen", Duration::from_secs(30), || {
            let child = registry.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait().doing("wait for", "docker-registry")? {
                let serial = fs::read_to_string(&path).unwrap_or_default();
                return Err(Error::Gone { status: status.to_string(), serial });
            }
            Ok(TcpStream::connect(address).ok())
        })?;
        Ok(registry)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the guest calls it.
    pub fn from_guest(&self) -> String {
        format!("{HOST_FROM_GUEST}:{}", self.address.port())
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().expect("it runs until it is dropped").id()
    }

    /// Leaves it running when this value is dropped.
    pub fn detach(mut self) {
        self.child = None;
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended_already = child.kill();
            let _status = child.wait();
        }
    }
}

/// The registry that tests pull from: all images of [`images::test_recipes`], read-only, behind a gate.
#[derive(Debug)]
pub struct Stocked {
    /// What is in it.
    pub images: Vec<Image>,
    /// Between it and the guest.
    pub gate: Gate,
    _registry: Registry,
}

impl Stocked {
    /// Starts it over a storage in the cache, which is filled first where it is not there. Its configuration and log
    /// go to `directory`.
    ///
    /// # Errors
    /// As [`Registry::start`] and [`images::all`].
    pub fn start(directory: &Path) -> Result<Self, Error> {
        let images = images::all(&images::test_recipes())?;
        let digests: Vec<_> = images.iter().map(|i| format!("{}:{} {}", i.name, i.tag, i.digest)).collect();
        let key = cache::hex(&Sha256::digest(digests.join("\n")));
        let stock = cache::get_or_make("registries", &key, 3, |making| {
            let registry = Registry::start(making)?;
            images.iter().try_for_each(|image| image.push(&registry.address().to_string()))
        })?;
        let registry = Registry::start_on(directory, &stock.join("storage"), Mode::ReadOnly)?;
        let gate = Gate::open(registry.address())?;
        Ok(Self { images, gate, _registry: registry })
    }

    /// What the guest calls it.
    pub fn from_guest(&self) -> String {
        format!("{HOST_FROM_GUEST}:{}", self.gate.port())
    }

    /// What this machine calls it.
    pub fn from_here(&self) -> String {
        format!("127.0.0.1:{}", self.gate.port())
    }

    /// An image as a manifest names it, pinned.
    ///
    /// # Panics
    /// Where there is no such image: a mistake in the test.
    pub fn pinned(&self, name: &str, tag: &str) -> String {
        let image =
            self.images.iter().find(|i| i.name == name && i.tag == tag).expect("an image of the recipes");
        format!("{}/{name}:{tag}@{}", self.from_guest(), image.digest)
    }
}
