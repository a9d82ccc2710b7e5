//! Whether this machine really runs virtual machines.
//!
//! `/dev/kvm` may be there, open, and still run no ordinary kernel (nested virtualisation that is cut short). So the
//! image itself is booted under it once, and what came of it is remembered.

use std::fs;
use std::time::Duration;

use bennu_os_image::{Disk, Firmware};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::{Error, IoContext, run};
use crate::machine::{Accelerator, Machine};
use crate::vm::{Origin, Vm};
use crate::{cache, wait};

/// How long the guest may take under KVM until its agent answers; an ordinary machine takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(60);

/// KVM where it has booted the image on this machine, else TCG.
///
/// # Errors
/// Where the cache cannot be read or written. That KVM does not work is no error.
pub fn accelerator(disk: &Disk, firmware: &Firmware) -> Result<Accelerator, Error> {
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(Accelerator::Tcg);
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let qemu = run(std::process::Command::new("qemu-system-x86_64").arg("--version"))?;
    // A restart of this machine may be a move to another one.
    let place = [read("/proc/version"), read("/proc/sys/kernel/random/boot_id"), qemu];
    let key = cache::hex(&Sha256::digest(place.concat()));
    let directory = cache::get_or_make("kvm", &key, 4, |directory| {
        let verdict = if boots(disk, firmware) { "works" } else { "does not work" };
        let path = directory.join("verdict");
        fs::write(&path, verdict).doing("write", &path)
    })?;
    let path = directory.join("verdict");
    let verdict = fs::read_to_string(&path).doing("read", &path)?;
    Ok(if verdict == "works" { Accelerator::Kvm } else { Accelerator::Tcg })
}

fn boots(disk: &Disk, firmware: &Firmware) -> bool {
    let origin = Origin { disk: disk.qcow2.clone(), variables: firmware.vars.clone(), memory: None };
    let machine = Machine::host(&firmware.code, Accelerator::Kvm);
    let answered = Vm::start(machine, &origin).and_then(|mut vm| {
        wait::until("a guest under KVM to answer", DEADLINE, || {
            vm.alive()?;
            let state = vm.qmp()?.execute("query-status", json!({}))?;
            if state["status"] != "running" {
                // An instruction that KVM cannot run stops the machine for good.
                return Ok(Some(false));
            }
            vm.guest_within("true", Duration::from_secs(2)).map(|output| Some(output.code == 0))
        })
    });
    answered.unwrap_or(false)
}
