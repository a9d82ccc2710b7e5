//! Mounts, from nothing to systemd's root.

use crate::{Because, Failure, because};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, execv, mkdir};
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

const SYSROOT: &str = "/sysroot";
const STATE: &str = "/state";
/// Holds the upper directories of the throw-away overlays. It stays mounted below `/run` so that an operator can
/// see what was written outside of any volume.
const SCRATCH: &str = "/scratch";
/// Where [`SCRATCH`] ends up in the root.
const SCRATCH_IN_ROOT: &str = "/sysroot/run/bennu-scratch";
/// The share of memory that may be written to `/etc` and `/var` together.
const SCRATCH_SIZE: &str = "mode=0755,size=25%,nr_inodes=200k";
const SYSTEMD: &CStr = c"/usr/lib/systemd/systemd";

/// Mounts `/proc`, `/sys` and `/dev`.
pub(crate) fn mount_kernel_file_systems() -> Result<(), Failure> {
    let strict = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    attach("proc", "/proc", "proc", strict, "")?;
    attach("sysfs", "/sys", "sysfs", strict, "")?;
    attach("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=0755")?;
    Ok(())
}

/// Whether the loader counts the tries of the entry that was started, so that it takes another one when they are used up. Needs
/// the module `efivarfs`.
pub(crate) fn is_counted_entry() -> Result<bool, Because> {
    const VARIABLES: &str = "/sys/firmware/efi/efivars";
    mount(Some("efivarfs"), VARIABLES, Some("efivarfs"), MsFlags::MS_RDONLY, None::<&str>)
        .map_err(|error| because("mount the firmware's variables", error))?;
    Ok(Path::new(VARIABLES).join("LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f").exists())
}

/// Mounts the state partition at [`STATE`].
pub(crate) fn mount_state(device: &Path) -> Result<(), Failure> {
    let device = device.to_str().ok_or("the state partition's device has no plain name")?;
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach(device, STATE, "btrfs", flags, "")?;
    Ok(())
}

/// Mounts the root from the open blob, with everything that belongs below it.
pub(crate) fn mount_root(blob: &File) -> Result<(), Failure> {
    // By descriptor, so that what was measured is what is mounted, whatever happens to the name. Not by that of `self`: the name
    // stays in the table of mounts, and whoever reads it there would find a descriptor of its own. mkfs.btrfs(8) does, and took the
    // device that it had open for mounted.
    let source = format!("/proc/1/fd/{}", blob.as_raw_fd());
    attach(&source, SYSROOT, "erofs", MsFlags::MS_RDONLY | MsFlags::MS_NODEV, "")?;
    attach("scratch", SCRATCH, "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, SCRATCH_SIZE)?;
    for name in ["etc", "var"] {
        let (upper, work) = (format!("{SCRATCH}/{name}"), format!("{SCRATCH}/.{name}"));
        make_dir(&upper)?;
        make_dir(&work)?;
        let target = format!("{SYSROOT}/{name}");
        let options = format!("lowerdir={target},upperdir={upper},workdir={work}");
        attach("overlay", &target, "overlay", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options)?;
    }
    // systemd takes a /run that is mounted already as it is.
    let run = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    attach("tmpfs", "/sysroot/run", "tmpfs", run, "mode=0755,size=20%,nr_inodes=800k")?;
    make_dir(SCRATCH_IN_ROOT)?;
    shift(SCRATCH, SCRATCH_IN_ROOT)?;
    shift(STATE, "/sysroot/state")?;
    Ok(())
}

/// What the boot image's stub hands over to the initrd (systemd-stub(7), "Companion Files"), for a TPM, where it carries that.
const MEASUREMENTS: [&str; 2] = ["tpm2-pcr-signature.json", "tpm2-pcr-public-key.pem"];

/// Puts what was signed of the boot where systemd's programs look for it.
pub(crate) fn keep_measurements() -> Result<(), Failure> {
    for name in MEASUREMENTS {
        let (from, to) = (Path::new("/.extra").join(name), Path::new("/sysroot/run/systemd").join(name));
        if from.exists() {
            make_dir("/sysroot/run/systemd")?;
            std::fs::copy(&from, &to).map_err(|error| because(format!("copy {}", from.display()), error))?;
        }
    }
    Ok(())
}

/// Makes the mounted root `/`, frees the initrd's memory and becomes systemd.
pub(crate) fn switch_to_systemd() -> Result<Infallible, Failure> {
    for name in ["dev", "proc", "sys"] {
        shift(&format!("/{name}"), &format!("{SYSROOT}/{name}"))?;
    }
    // The initrd is a tmpfs that stays below the root for ever; what it holds would never be freed. The running
    // program keeps its own file until it becomes another.
    for path in ["/init", "/modules"] {
        std::fs::remove_file(path).map_err(|error| because(format!("remove {path}"), error))?;
    }
    std::fs::remove_dir_all("/lib").map_err(|error| because("remove the initrd's modules", error))?;
    chdir(SYSROOT).map_err(|error| because("enter the root", error))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|error| because("move the root to /", error))?;
    chroot(".").map_err(|error| because("change the root", error))?;
    chdir("/").map_err(|error| because("enter the root", error))?;
    execv(SYSTEMD, &[SYSTEMD]).map_err(|error| because("start systemd", error).into())
}

fn attach(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<(), Because> {
    make_dir(target)?;
    mount(Some(source), target, Some(kind), flags, Some(options))
        .map_err(|error| because(format!("mount {kind} at {target}"), error))
}

fn shift(from: &str, to: &str) -> Result<(), Because> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|error| because(format!("move {from} to {to}"), error))
}

/// Makes a directory unless it is there.
fn make_dir(path: &str) -> Result<(), Because> {
    match mkdir(path, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(because(format!("make {path}"), error)),
    }
}
