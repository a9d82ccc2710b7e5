//! The ladder: image built once → provisioned and booted once → restored by each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_os_image::{Disk, Keys, SecureBoot};
use sha2::{Digest, Sha256};

use crate::accelerator::accelerator;
use crate::error::{Error, IoContext, run};
use crate::hostctl::Hostctl;
use crate::machine::{API, Accelerator, Machine, PROVISION};
use crate::operator::Operator;
use crate::programs::Programs;
use crate::vm::{BOOT, Origin, Vm};
use crate::{cache, image, wait};

/// A host that was provisioned, booted, and stopped as it was when it was idle.
#[derive(Debug, Clone)]
pub struct Fixture {
    directory: PathBuf,
    machine: Machine,
    firmware_variables: PathBuf,
    disk: Disk,
    programs: Programs,
}

/// What decides how a fixture comes to be, beside the image: with another text there is another fixture.
const SOURCES: [&str; 4] = [
    include_str!("fixture.rs"),
    include_str!("machine.rs"),
    include_str!("agent.rs"),
    include_str!("operator.rs"),
];

impl Fixture {
    /// Finds the fixture for the image as the sources make it now, or makes it, which takes a boot.
    ///
    /// It has one processor where its instructions are translated: tests run side by side, and two processors that wait for each
    /// other's turn on the same two of this machine make a boot take longer, not shorter.
    ///
    /// # Errors
    /// Where the image cannot be built or does not boot.
    pub fn get() -> Result<Self, Error> {
        Self::with(|machine| match machine.accelerator {
            Accelerator::Kvm => machine,
            Accelerator::Tcg => Machine { cpus: 1, ..machine },
        })
    }

    /// As [`Fixture::get`], for a machine beside which nothing else runs: it has two processors.
    ///
    /// # Errors
    /// As [`Fixture::get`].
    pub fn alone() -> Result<Self, Error> {
        Self::with(|machine| machine)
    }

    fn with(change: impl FnOnce(Machine) -> Machine) -> Result<Self, Error> {
        let programs = Programs::build()?;
        let disk = image::disk(&programs, Keys::default(), &|_| {})?;
        let firmware = image::firmware()?;
        let accelerator = accelerator(&disk, &firmware)?;
        let qemu = run(std::process::Command::new("qemu-system-x86_64").arg("--version"))?;
        // Keys and certificates are made anew each month, long before they expire.
        let month = jiff::Zoned::now().strftime("%Y-%m").to_string();
        let bare = change(Machine::host(&firmware.code, accelerator));
        let text = format!("{SOURCES:?} {} {accelerator:?} {} {qemu} {month}", disk.key, bare.cpus);
        let key = cache::hex(&Sha256::digest(text));
        let directory = cache::get_or_make("hosts", &key, 3, |directory| {
            let operator = Operator::create(directory, &programs.hostctl)?;
            let machine = bare.clone().provisioned(operator.document()?);
            let origin = Origin { disk: disk.qcow2.clone(), variables: firmware.vars.clone(), memory: None };
            boot_and_stop(directory, machine, &origin, &operator.hostctl(&programs.hostctl))
        })?;
        let machine = bare.provisioned(Operator::of(&directory).document()?);
        Ok(Self { directory, machine, firmware_variables: firmware.vars, disk, programs })
    }

    /// The booted host, as it was.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn restore(&self) -> Result<Vm, Error> {
        self.restored(self.machine.clone())
    }

    /// The same, every write to its disk recorded from now on. What is on its disk now is [`Fixture::booted_disk`].
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn restore_recorded(&self) -> Result<Vm, Error> {
        self.restored(Machine { recorded: true, ..self.machine.clone() })
    }

    fn restored(&self, machine: Machine) -> Result<Vm, Error> {
        let memory = Some(self.directory.join("memory"));
        let origin = Origin { disk: self.booted_disk(), variables: self.booted_variables(), memory };
        let mut vm = Vm::start(machine, &origin)?;
        vm.wait_for_agent(Duration::from_secs(60))?;
        vm.set_clock()?;
        Ok(vm)
    }

    /// The same machine from this disk (qcow2), through the firmware. Nothing is waited for.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn boot_from(&self, disk: &Path) -> Result<Vm, Error> {
        let origin = Origin { disk: disk.to_owned(), variables: self.booted_variables(), memory: None };
        Vm::start(self.machine.clone(), &origin)
    }

    /// The disk of the booted host, qcow2.
    pub fn booted_disk(&self) -> PathBuf {
        self.directory.join("disk.qcow2")
    }

    fn booted_variables(&self) -> PathBuf {
        self.directory.join("variables.fd")
    }

    /// What it is kept under, which says what it was made of.
    pub fn key(&self) -> String {
        self.directory.file_name().expect("a key").to_string_lossy().into_owned()
    }

    /// The disk as it was built, with the same provisioning document, for its first boot.
    ///
    /// # Errors
    /// Where QEMU refuses.
    pub fn first_boot(&self) -> Result<Vm, Error> {
        let disk = self.disk.qcow2.clone();
        let origin = Origin { disk, variables: self.firmware_variables.clone(), memory: None };
        Vm::start(self.machine.clone(), &origin)
    }

    /// A disk of which all that boots is signed, in a machine whose firmware has no owner yet, for its first boot. The loader puts the
    /// keys into the firmware, which starts nothing else from then on.
    ///
    /// # Errors
    /// Where the disk cannot be built, or QEMU refuses.
    pub fn first_secure_boot(&self, keys: &SecureBoot) -> Result<Vm, Error> {
        let firmware = image::secure_firmware()?;
        let disk =
            image::disk(&self.programs, Keys { secure_boot: Some(keys), ..Keys::default() }, &|_| {})?.qcow2;
        let machine = Machine { firmware: firmware.code, secure_boot: true, ..self.machine.clone() };
        Vm::start(machine, &Origin { disk, variables: firmware.vars, memory: None })
    }

    /// A disk whose boot image is signed for Secure Boot and for a TPM, with room for a sealed state, in a machine that has both, of a host
    /// that is told to seal its state, for its first boot.
    ///
    /// # Errors
    /// Where the disk cannot be built, or QEMU refuses.
    pub fn first_sealed_boot(&self, keys: Keys<'_>) -> Result<Vm, Error> {
        let firmware = image::secure_firmware()?;
        let disk = image::disk(&self.programs, keys, &|_| {})?.qcow2;
        let document = [&b"seal = \"tpm2\"\n"[..], &self.operator().document()?].concat();
        let mut machine = self.machine.clone();
        machine.credentials.retain(|credential| credential.name != PROVISION);
        let machine =
            Machine { firmware: firmware.code, secure_boot: true, tpm: true, room: 4 << 30, ..machine };
        Vm::start(machine.provisioned(document), &Origin { disk, variables: firmware.vars, memory: None })
    }

    /// Whom the host trusts.
    pub fn operator(&self) -> Operator {
        Operator::of(&self.directory)
    }

    /// Our programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The disk that it was made from.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }
}

fn boot_and_stop(
    directory: &Path,
    machine: Machine,
    origin: &Origin,
    hostctl: &Hostctl,
) -> Result<(), Error> {
    let mut vm = Vm::start(machine, origin)?;
    let booted = boot(&mut vm, hostctl);
    if booted.is_err() {
        let kept = crate::evidence::keep(&mut vm, None, "fixture");
        eprintln!("the host did not come up; see {}", kept.display());
    }
    booted?;
    vm.qmp()?.save(&directory.join("memory"))?;
    vm.power_off();
    for (from, to) in [(vm.files().disk(), "disk.qcow2"), (vm.files().variables(), "variables.fd")] {
        fs::copy(&from, directory.join(to)).doing("copy", &from)?;
    }
    Ok(())
}

fn boot(vm: &mut Vm, hostctl: &Hostctl) -> Result<(), Error> {
    vm.wait_for_agent(BOOT)?;
    vm.set_clock()?;
    let hostctl = hostctl.at(vm.port(API));
    wait::until("the API to answer", Duration::from_secs(120), || hostctl.status().map(Some))?;
    // What starts late would otherwise run in every test.
    wait::until_good(
        "the boot to be finished",
        Duration::from_secs(180),
        || vm.guest("systemctl list-jobs --no-legend | grep -v bennu-test-agent | grep ."),
        |jobs| jobs.code == 1,
    )?;
    vm.guest_ok("sync").map(drop)
}
