//! A host in QEMU with a registry beside it, for the demo and for trying things by hand.
//!
//! All files of a session are in one directory: the operator's keys, the trust document, the registry's storage,
//! manifests, and `session.json`, which says what runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bennu_os_image::Disk;
use serde::{Deserialize, Serialize};
use vm_tests::accelerator::accelerator;
use vm_tests::hostctl::Hostctl;
use vm_tests::images;
use vm_tests::machine::{API, HOST_FROM_GUEST, Machine};
use vm_tests::operator::Operator;
use vm_tests::registry::Registry;
use vm_tests::signing::NAMESPACE;
use vm_tests::vm::{BOOT, Origin, Vm};
use vm_tests::wait;

use crate::build::{self, Programs};
use crate::steps::Steps;
use crate::{Failure, image, packages};

/// The registry as the examples name it; its real port is chosen when it starts.
const REGISTRY_OF_EXAMPLES: &str = "10.0.2.2:5000";

/// A session that runs, with its processes in our hands.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) vm: Vm,
    pub(crate) registry: Registry,
    pub(crate) desk: Desk,
}

/// Where an operator sits: files, `hostctl`, and the addresses of host and registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Desk {
    /// The directory of the session.
    pub(crate) directory: PathBuf,
    /// The program `hostctl`.
    pub(crate) program: PathBuf,
    /// Ports on the loopback address that lead to ports of the guest, by the guest's.
    pub(crate) ports: std::collections::BTreeMap<u16, u16>,
    /// The port that the registry listens on.
    pub(crate) registry: u16,
}

impl Session {
    /// Builds, starts and provisions everything, up to a host that answers.
    ///
    /// # Errors
    /// Whatever stopped it.
    pub(crate) fn start(directory: &Path, steps: &mut Steps) -> Result<Self, Failure> {
        steps.loud("packages", || packages::install(&[packages::IMAGE, packages::TEST].concat()))?;
        let (programs, disk) = steps.loud("build", || Ok((build::programs()?, image::image()?)))?;
        let images = steps.step("container images", || Ok(images::all(&images::recipes())?))?;
        let registry = steps.step("registry", || {
            let storage = directory.join("registry");
            fs::create_dir_all(&storage)?;
            let registry = Registry::start(&storage)?;
            images.iter().try_for_each(|image| image.push(&registry.address().to_string()))?;
            Ok(registry)
        })?;
        for image in &images {
            eprintln!(
                "  {}/{}:{}  {} MiB",
                registry.from_guest(),
                image.name,
                image.tag,
                image.size.div_ceil(1 << 20)
            );
        }
        let operator = steps.step("keys", || Ok(Operator::create(directory, &programs.hostctl)?))?;
        let (vm, desk) = steps.step("boot", || boot(directory, &programs, &disk, &operator, &registry))?;
        Ok(Self { vm, registry, desk })
    }
}

fn boot(
    directory: &Path,
    programs: &Programs,
    disk: &Disk,
    operator: &Operator,
    registry: &Registry,
) -> Result<(Vm, Desk), Failure> {
    let firmware = bennu_os_image::firmware()?;
    let machine =
        Machine::host(&firmware.code, accelerator(disk, &firmware)?).provisioned(operator.document()?);
    let origin = Origin { disk: disk.qcow2.clone(), variables: firmware.vars, memory: None };
    let mut vm = Vm::start(machine, &origin)?;
    let ports = vm.machine().ports.iter().map(|guest| (*guest, vm.port(*guest))).collect();
    let desk = Desk {
        directory: directory.to_owned(),
        program: programs.hostctl.clone(),
        ports,
        registry: registry.address().port(),
    };
    let answered = wait::until("the host to answer", BOOT, || {
        vm.alive()?;
        desk.hostctl().status().map(Some)
    });
    if let Err(error) = answered {
        let kept = vm_tests::evidence::keep(&mut vm, None, "demo");
        return Err(format!("{error}\nits logs are in {}", kept.display()).into());
    }
    Ok((vm, desk))
}

impl Desk {
    /// `hostctl` for the host.
    pub(crate) fn hostctl(&self) -> Hostctl {
        Operator::of(&self.directory).hostctl(&self.program).at(self.ports[&API])
    }

    /// Writes a copy of a manifest that names the registry by its real port.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub(crate) fn take(&self, manifest: &Path) -> Result<PathBuf, Failure> {
        let name = manifest.file_name().ok_or_else(|| format!("{} is no file", manifest.display()))?;
        let text = fs::read_to_string(manifest)
            .map_err(|error| format!("cannot read {}: {error}", manifest.display()))?;
        let copy = self.directory.join(name);
        fs::write(&copy, text.replace(REGISTRY_OF_EXAMPLES, &self.registry_from_guest()))?;
        Ok(copy)
    }

    /// Pins, signs and pushes a manifest that [`Desk::take`] wrote, each by the command that an operator types, and
    /// waits until the host is what it says.
    ///
    /// # Errors
    /// Where one of the commands fails, which has said why.
    pub(crate) fn deliver(&self, file: &Path) -> Result<(), Failure> {
        let via = format!("{}=127.0.0.1:{}", self.registry_from_guest(), self.registry);
        show(Command::new(&self.program).args(["pin", "--via", &via]).arg(file))?;
        let signature = vm_tests::signing::signature(file);
        if signature.exists() {
            fs::remove_file(&signature)?;
        }
        let key = Operator::of(&self.directory).key();
        show(Command::new("ssh-keygen").args(["-Y", "sign", "-n", NAMESPACE, "-f"]).arg(key.0).arg(file))?;
        self.show(&["push", "--wait", &file.to_string_lossy()])
    }

    /// Runs `hostctl` for the host, its output on this terminal.
    ///
    /// # Errors
    /// Where it fails.
    pub(crate) fn show(&self, arguments: &[&str]) -> Result<(), Failure> {
        let hostctl = self.hostctl();
        let mut command = Command::new(&hostctl.program);
        command.env("BENNU_HOST", &hostctl.address).env("BENNU_IDENTITY", &hostctl.identity);
        show(command.args(arguments))
    }

    /// Waits until a port of the guest answers HTTP, and returns the body.
    ///
    /// # Errors
    /// Where it does not within two minutes.
    pub(crate) fn page(&self, port: u16, path: &str) -> Result<String, Failure> {
        let (port, what) = (self.ports[&port], format!("{path} to be served"));
        let page = wait::until(&what, Duration::from_secs(120), || match vm_tests::http::get(port, path)? {
            (200, body) => Ok(Some(body)),
            (code, text) => {
                Err(vm_tests::Error::Answer { who: path.to_owned(), text: format!("{code}: {text}") })
            }
        })?;
        Ok(page)
    }

    fn registry_from_guest(&self) -> String {
        format!("{HOST_FROM_GUEST}:{}", self.registry)
    }
}

/// Says what is run, and runs it on this terminal.
fn show(command: &mut Command) -> Result<(), Failure> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let name =
        Path::new(&words[0]).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    eprintln!("$ {name} {}", words[1..].join(" "));
    let status = command.status().map_err(|error| format!("cannot start {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} ended with {status}").into()) }
}
