//! A host under test: its machine, a registry, an operator, and `hostctl`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_os_image::{Enroll, Keys, Measured, SecureBoot};
use serde_json::Value;

use crate::error::{Error, IoContext};
use crate::evidence;
use crate::fixture::Fixture;
use crate::hostctl::{Hostctl, Ran};
use crate::machine::API;
use crate::operator::Operator;
use crate::registry::Stocked;
use crate::vm::{BOOT, Vm};
use crate::wait;

/// Why a test failed.
pub type Failure = Box<dyn std::error::Error>;

/// How long a host may take to converge, translated on a busy machine.
pub const CONVERGE: Duration = Duration::from_secs(300);

/// A host under test.
#[derive(Debug)]
pub struct Host {
    /// Its machine.
    pub vm: Vm,
    /// What it pulls from.
    pub registry: Stocked,
    /// The fixture that it came from.
    pub fixture: Fixture,
    /// A directory for the test's files.
    pub directory: tempfile::TempDir,
}

/// Runs a test on a host that was booted before and comes back in a second.
///
/// # Errors
/// What the test returns, after logs and state of the host were kept; the same happens where it panics.
pub fn on_host(name: &str, test: impl FnOnce(&mut Host) -> Result<(), Failure>) -> Result<(), Failure> {
    on_restored(Fixture::get()?, name, test)
}

/// As [`on_host`], where nothing else runs beside it: see [`Fixture::alone`].
///
/// # Errors
/// As [`on_host`].
pub fn on_host_alone(name: &str, test: impl FnOnce(&mut Host) -> Result<(), Failure>) -> Result<(), Failure> {
    on_restored(Fixture::alone()?, name, test)
}

fn on_restored(
    fixture: Fixture,
    name: &str,
    test: impl FnOnce(&mut Host) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let vm = fixture.restore()?;
    Host::new(vm, fixture)?.judge(name, test)
}

/// Runs `work` on the same host, every write to whose disk is recorded.
///
/// # Errors
/// As [`on_host`].
pub fn on_recorded_host(
    fixture: Fixture,
    name: &str,
    work: impl FnOnce(&mut Host) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let vm = fixture.restore_recorded()?;
    Host::new(vm, fixture)?.judge(name, work)
}

/// Runs a test on a host that boots from this disk (qcow2), which the test waits for.
///
/// # Errors
/// As [`on_host`].
pub fn on_host_from(
    fixture: Fixture,
    disk: &Path,
    name: &str,
    test: impl FnOnce(&mut Host) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let vm = fixture.boot_from(disk)?;
    Host::new(vm, fixture)?.judge_booted(name, BOOT, test)
}

/// Runs a test on a host at its very first boot, which the test waits for.
///
/// # Errors
/// As [`on_host`].
pub fn on_new_host(name: &str, test: impl FnOnce(&mut Host) -> Result<(), Failure>) -> Result<(), Failure> {
    let fixture = Fixture::get()?;
    let vm = fixture.first_boot()?;
    Host::new(vm, fixture)?.judge_booted(name, BOOT, test)
}

/// As [`on_new_host`], in a machine with Secure Boot, which has taken the keys by the time that the test begins.
///
/// # Errors
/// As [`on_host`].
pub fn on_new_secure_host(
    name: &str,
    test: impl FnOnce(&mut Host) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fixture = Fixture::get()?;
    let folder = tempfile::tempdir()?;
    let vm = fixture.first_secure_boot(&owner(folder.path())?)?;
    Host::new(vm, fixture)?.judge_booted(name, 2 * BOOT, test)
}

/// As [`on_new_secure_host`], in a machine that has a TPM as well, by which the host has sealed its state. The test gets the keys.
///
/// # Errors
/// As [`on_host`].
pub fn on_new_sealed_host(
    name: &str,
    test: impl FnOnce(&mut Host, Keys<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let fixture = Fixture::get()?;
    let folder = tempfile::tempdir()?;
    Measured::create(folder.path()).map_err(|source| Error::Image { source })?;
    let measured = Measured::of(folder.path()).map_err(|source| Error::Image { source })?;
    let secure_boot = owner(folder.path())?;
    let keys = Keys { secure_boot: Some(&secure_boot), measured: Some(&measured) };
    let vm = fixture.first_sealed_boot(keys)?;
    Host::new(vm, fixture)?.judge_booted(name, 3 * BOOT, |host| test(host, keys))
}

/// Makes keys for Secure Boot in a folder.
fn owner(folder: &Path) -> Result<SecureBoot, Error> {
    SecureBoot::create(folder, "Bennu tests").map_err(|source| Error::Image { source })?;
    SecureBoot::of(folder, Enroll::InVirtualMachines).map_err(|source| Error::Image { source })
}

impl Host {
    fn new(vm: Vm, fixture: Fixture) -> Result<Self, Error> {
        let directory = tempfile::tempdir().doing("make a directory in", std::env::temp_dir())?;
        Ok(Self { vm, registry: Stocked::start(directory.path())?, fixture, directory })
    }

    /// As [`Self::judge`], once the machine has booted, which may take so long, and its API answers.
    fn judge_booted(
        self,
        name: &str,
        within: Duration,
        test: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.judge(name, |host| {
            host.vm.wait_for_agent(within)?;
            host.vm.set_clock()?;
            host.wait_for_api()?;
            test(host)
        })
    }

    fn judge(
        mut self,
        name: &str,
        test: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        // The host is only looked at after a panic, never used on.
        let result = catch_unwind(AssertUnwindSafe(|| test(&mut self)));
        if !matches!(result, Ok(Ok(()))) {
            let hostctl = self.hostctl();
            let kept = evidence::keep(&mut self.vm, Some(&hostctl), name);
            eprintln!("logs and state of the host: {}\n{}", kept.display(), evidence::last_words(&kept));
        }
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// `hostctl` for this host. Its port is another one after a power cut.
    pub fn hostctl(&self) -> Hostctl {
        self.fixture.operator().hostctl(&self.fixture.programs().hostctl).at(self.vm.port(API))
    }

    /// The operator whom the host trusts.
    pub fn operator(&self) -> Operator {
        self.fixture.operator()
    }

    /// Waits until the API answers.
    ///
    /// # Errors
    /// [`Error::Deadline`].
    pub fn wait_for_api(&mut self) -> Result<(), Error> {
        let hostctl = self.hostctl();
        wait::until("the API to answer", Duration::from_secs(120), || {
            self.vm.alive()?;
            hostctl.status().map(Some)
        })
        .map(drop)
    }

    /// Waits until the host is what its newest manifest says.
    ///
    /// # Errors
    /// [`Error::Deadline`] with its last status.
    pub fn wait_until_converged(&mut self) -> Result<Value, Error> {
        let hostctl = self.hostctl();
        wait::until_good("the host to converge", CONVERGE, || hostctl.status(), |s| s["converged"] == true)
    }

    /// Writes a manifest and signs it with the trusted key.
    ///
    /// # Errors
    /// Where a file cannot be written or `ssh-keygen` refuses.
    pub fn signed(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let file = self.written(name, text)?;
        self.operator().key().sign(&file)?;
        Ok(file)
    }

    /// Writes a file of the test.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn written(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let file = self.directory.path().join(name);
        fs::write(&file, text).doing("write", &file)?;
        Ok(file)
    }

    /// `hostctl push`, with further arguments.
    ///
    /// # Errors
    /// Where `hostctl` cannot be started.
    pub fn push(&self, file: &Path, arguments: &[&str]) -> Result<Ran, Error> {
        let file = file.to_string_lossy();
        self.hostctl().run(&[&["push", &file], arguments].concat())
    }

    /// Signs a manifest, pushes it, and waits until the host is what it says.
    ///
    /// # Errors
    /// Where `hostctl` says anything but "done".
    pub fn converge(&self, name: &str, text: &str) -> Result<(), Error> {
        let file = self.signed(name, text)?;
        let timeout = wait::patiently(CONVERGE).as_secs().to_string();
        self.push(&file, &["--wait", "--timeout", &timeout])?.done().map(drop)
    }

    /// `GET /path` at a published port of the guest: status code and body.
    ///
    /// # Errors
    /// Where nobody answers within 10 s.
    pub fn http(&self, port: u16, path: &str) -> Result<(u16, String), Error> {
        crate::http::get(self.vm.port(port), path)
    }

    /// Waits until nginx serves this edition of its page on port 8080.
    ///
    /// # Errors
    /// [`Error::Deadline`] after a minute, with the last answer.
    pub fn wait_for_page(&self, edition: &str) -> Result<(), Error> {
        let shown = |(code, page): &(u16, String)| *code == 200 && page.contains(edition);
        wait::until_good("nginx's page", Duration::from_secs(60), || self.http(8080, "/"), shown).map(drop)
    }

    /// What must stay the same where a manifest is refused: generation, containers with their processes, images.
    ///
    /// # Errors
    /// Where the host does not answer.
    pub fn settled(&self) -> Result<Value, Error> {
        let hostctl = self.hostctl();
        let status = hostctl.status()?;
        let mut containers = hostctl.json(&["ps"])?;
        for container in containers["containers"].as_array_mut().into_iter().flatten() {
            // What is in use changes by itself.
            for name in ["memory", "usage"] {
                container[name] = Value::Null;
            }
        }
        let (images, volumes, history) =
            (hostctl.json(&["images"])?, hostctl.json(&["volumes"])?, hostctl.json(&["history"])?);
        let generation = [&status["generation"], &status["pending"], &status["converged"]];
        Ok(serde_json::json!([generation, containers, images, volumes, history]))
    }
}
