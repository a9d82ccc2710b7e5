//! The unified kernel image: one UEFI program that holds the kernel, its initrd and its command line.

use crate::base::Base;
use crate::command::{at, run};
use crate::initrd::{self, Entry};
use crate::{BuildError, Inputs, Variant, recipe};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the kernel is told besides its root: messages of note go to the serial line and the screen, a panic starts the
/// machine again, and security modules that nothing here configures stay out (AppArmor and BPF cost seconds under emulation).
/// A process gets into another control group without a grace period of RCU, which whatever systemd starts would wait for
/// (Linux, `cgroup-v2`, "favordynmods"): every container's start, and each service of the boot.
const COMMAND_LINE: &str = "console=tty0 console=ttyS0,115200 loglevel=4 panic=10 lsm=landlock,lockdown,yama \
                            cgroup_favordynmods=true systemd.show_status=error systemd.log_color=0 systemd.firstboot=no";

/// How hard zstd tries with the initrd: two thirds of it go, and a kernel unpacks it in a blink.
const INITRD_LEVEL: i32 = 12;

/// The whole command line for a root of this fs-verity digest.
pub(crate) fn command_line(root_digest: &str, variant: &Variant) -> String {
    format!("bennu.root=sha256:{root_digest} {COMMAND_LINE} {}", variant.kernel_arguments)
        .trim_end()
        .to_owned()
}

/// Builds the initrd and the image in `work`, and gives back the image's path.
pub(crate) fn build(
    base: &Base,
    inputs: &Inputs<'_>,
    root_digest: &str,
    variant: &Variant,
    work: &Path,
) -> Result<PathBuf, BuildError> {
    let initrd = work.join("initrd");
    let packed = zstd::bulk::compress(&initrd::pack(&contents(base, inputs.init)?), INITRD_LEVEL);
    fs::write(&initrd, packed.map_err(at("compress", &initrd))?).map_err(at("write", &initrd))?;
    let release = work.join("os-release");
    fs::write(&release, recipe::os_release(&variant.version)).map_err(at("write", &release))?;
    let uki = work.join("bennu.efi");
    let argument = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let measured = match inputs.keys.measured {
        Some(measured) => measured.arguments(base, work)?,
        None => Vec::new(),
    };
    // The distribution's own interpreter, which its `python3-pefile` belongs to: another one may come first in `PATH`.
    run(Command::new("/usr/bin/python3")
        .env("SOURCE_DATE_EPOCH", crate::base::EPOCH.to_string())
        .arg(base.ukify())
        .arg("build")
        .arg(argument("linux", &base.kernel()))
        .arg(argument("initrd", &initrd))
        .arg(argument("stub", &base.efi("linuxx64.efi.stub")))
        .arg(argument("output", &uki))
        .arg(format!("--os-release=@{}", release.display()))
        .arg(format!("--uname={}", base.kernel_release()?))
        .arg(format!("--cmdline={}", command_line(root_digest, variant)))
        .args(measured))?;
    fs::remove_file(&initrd).map_err(at("remove", &initrd))?;
    if let Some(keys) = inputs.keys.secure_boot {
        keys.sign(&uki)?;
    }
    Ok(uki)
}

fn contents(base: &Base, init: &Path) -> Result<Vec<Entry>, BuildError> {
    let read = |path: &Path| fs::read(path).map_err(at("read", path));
    let list = base.module_list()?;
    // A line is a pattern and the modules for it (see `init/src/modules.rs`).
    let modules: BTreeSet<&str> = list.lines().flat_map(|line| line.split_whitespace().skip(1)).collect();
    let mut entries = vec![
        Entry { path: "init".into(), mode: 0o755, data: read(init)? },
        Entry { path: "modules".into(), mode: 0o644, data: list.clone().into_bytes() },
    ];
    for path in modules {
        let data = read(&base.module(path))?;
        entries.push(Entry { path: path.trim_start_matches('/').into(), mode: 0o644, data });
    }
    Ok(entries)
}
