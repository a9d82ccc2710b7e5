//! Giving up all rights but the few that parsing needs, for good.
//!
//! ```text
//!  other descriptors closed ─► no user, no groups ─► dies with its parent ─► no capabilities ─► bounds ─► no new rights ─► Landlock ─► seccomp
//! ```
//! What is left could be taken by any one of them alone; they are stacked because each has had holes. Landlock is used as far as the
//! kernel has it; all else is a must.

use std::fs::File;
use std::io;
use std::path::Path;

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, Scope};
use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::syscalls;

/// `nobody` of all distributions, and of systemd (`UID_NOBODY`): the user who owns nothing.
const NOBODY: u32 = 65534;
/// Room beside the data for the program's own text, its libraries and its stack, in bytes.
const PROGRAM: u64 = 256 << 20;

/// How much a confined process may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of memory, beside the program itself.
    pub memory: u64,
    /// Bytes of each file that it writes.
    pub file: u64,
}

/// Closes every descriptor but the three standard ones: the program that started this one may have left some open.
pub(super) fn close_others() -> Result<(), String> {
    let failed = |error: io::Error| format!("its descriptors: {error}");
    let open = std::fs::read_dir("/proc/self/fd").map_err(failed)?;
    let numbers: Vec<i32> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The one that the folder itself was read by is closed already, and so an error.
    for number in numbers.into_iter().filter(|number| *number > 2) {
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// Gives up, for good, every right of this process but to use what it has open, memory within `bounds`, and to end. The process
/// must have one thread.
///
/// # Errors
/// What the kernel refuses, as text; what was given up by then stays so.
pub fn confine(bounds: Bounds) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    let held =
        rustix::thread::capabilities(None).map_err(|error| failed("its capabilities")(error.into()))?;
    if held.effective.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let changed = nix::unistd::setgroups(&[])
            .and_then(|()| nix::unistd::setresgid(group, group, group))
            .and_then(|()| nix::unistd::setresuid(user, user, user));
        match changed {
            // In a user namespace that has no such user, or whose groups cannot be changed, it stays who it is there.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(error) => return Err(failed("its user")(error.into())),
        }
    }
    // A change of user would take this back, so it comes after that.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| failed("its end")(error.into()))?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(|error| failed("its capabilities")(error.into()))?;
    for (resource, most) in [
        (Resource::Data, bounds.memory),
        (Resource::As, bounds.memory + PROGRAM),
        (Resource::Fsize, bounds.file),
        (Resource::Core, 0),
        (Resource::Nproc, 0),
    ] {
        limit(resource, most).map_err(failed("its bounds"))?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| failed("its rights")(error.into()))?;
    no_files_and_no_network().map_err(|error| format!("Landlock: {error}"))?;
    // Landlock needed one more.
    limit(Resource::Nofile, 0).map_err(failed("its bounds"))?;
    let filter = syscalls::filter().map_err(|error| format!("seccomp: {error}"))?;
    seccompiler::apply_filter(&filter).map_err(|error| format!("seccomp: {error}"))
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// A rule set without a rule: no file is opened, made or removed, no port bound or connected to, and nobody outside signalled.
fn no_files_and_no_network() -> Result<(), landlock::RulesetError> {
    let newest = ABI::V6;
    Ruleset::default()
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?
        .restrict_self()
        .map(drop)
}

/// A file for temporary data that has no name.
pub(super) fn unnamed(directory: &Path) -> Result<File, String> {
    crate::spill::unnamed_file(directory)
        .map_err(|error| format!("its files in {}: {error}", directory.display()))
}
