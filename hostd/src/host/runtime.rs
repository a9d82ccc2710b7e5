//! How the program that makes containers is spoken to. What one of them wants otherwise than another one is here, and nowhere
//! else.
//!
//! ```text
//!        control group of the container      terminal of a command
//! crun   the unit's: it makes none            made in the container, handed over by a socket
//! runc   `container` in the unit's            runc's own, which stays between it and ours
//! ```
//! runc always makes a control group. It makes it below that of the unit, so the unit's limits and its filter of devices
//! hold, and all of it goes away with the unit. For that no process may be in the unit's own group (cgroup-v2, "No Internal
//! Process Constraint"): systemd starts runc in one beside it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_manifests::model::{Manifest, Runtime};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxIdMapping, LinuxIdMappingBuilder, LinuxResourcesBuilder,
    Spec,
};

use super::{idrange, volume};

/// The control group of a container that has one of its own, below that of its unit.
const CONTAINER: &str = "container";

/// Where systemd starts a runtime that may not be in the unit's own group.
const STARTED_IN: &str = "runtime";

/// Where control groups are (systemd mounts them there).
const CGROUPS: &str = "/sys/fs/cgroup";

/// The program.
pub(super) fn program(runtime: Runtime) -> PathBuf {
    Path::new("/").join(runtime.program())
}

/// Those that this operating system has.
pub(super) fn there() -> Vec<Runtime> {
    Runtime::ALL
        .into_iter()
        .filter(|runtime| fs::metadata(program(*runtime)).is_ok_and(|file| file.is_file()))
        .collect()
}

/// What is wrong with a manifest where only these runtimes are there.
pub(super) fn missing(manifest: &Manifest, there: &[Runtime]) -> Option<String> {
    let wanted = manifest.runtime();
    if there.contains(&wanted) {
        return None;
    }
    let there: Vec<_> = there.iter().map(ToString::to_string).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    Some(format!(
        "os.runtime: the operating system that runs has no container runtime {wanted}, but {there}; name one that is there, or an \
         `image` in [os] that has {wanted}"
    ))
}

/// The program, told all that comes before a command. It gets nothing of the daemon's own environment: runtimes wait for word from
/// the container where they find the `NOTIFY_SOCKET` of a service manager, and runc waits for ever where the container ends first.
pub(super) fn command(runtime: Runtime, state: &Path) -> Command {
    let mut command = Command::new(program(runtime));
    command.env_clear().args(options(runtime, state));
    command
}

/// What it is told before any command: where it keeps what it knows, and that the control group is not its own affair.
pub(super) fn options(runtime: Runtime, state: &Path) -> Vec<String> {
    let root = format!("--root={}", state.display());
    match runtime {
        Runtime::Crun => vec![root, "--cgroup-manager=disabled".to_owned()],
        Runtime::Runc => vec![root],
    }
}

/// The group below the unit's that systemd starts it in, where it may not be the unit's own.
pub(super) fn started_in(runtime: Runtime) -> Option<&'static str> {
    match runtime {
        Runtime::Crun => None,
        Runtime::Runc => Some(STARTED_IN),
    }
}

/// The control group of a container, given that of its unit.
pub(super) fn group(runtime: Runtime, unit: &Path) -> PathBuf {
    match runtime {
        Runtime::Crun => unit.to_owned(),
        Runtime::Runc => unit.join(CONTAINER),
    }
}

/// All that may be control groups of a container, given that of its unit.
pub(super) fn groups(unit: &Path) -> [PathBuf; 2] {
    Runtime::ALL.map(|runtime| group(runtime, unit))
}

/// What it is told so that a command that runs in the group `name` of the container's stays in it.
pub(super) fn stay_in(runtime: Runtime, name: &str) -> Option<OsString> {
    match runtime {
        Runtime::Crun => None,
        Runtime::Runc => Some(format!("--cgroup={name}").into()),
    }
}

/// Whether it hands over the other end of a terminal, and stays until its command has ended. Else it has to be run at a
/// terminal itself.
pub(super) fn hands_over_terminals(runtime: Runtime) -> bool {
    match runtime {
        Runtime::Crun => true,
        // With a socket it does not stay (runc 1.1, `utils_linux.go`, `checkTerminal`), and the command's code is lost.
        Runtime::Runc => false,
    }
}

/// Where crun keeps filters of system calls that it has made before, below where it keeps what it knows (crun,
/// `src/libcrun/seccomp.c`).
const FILTERS: &str = ".cache";

/// Has a runtime find the filters that it made for other containers: making one anew takes as long as all else of a start. What it
/// knows of a container is in a directory of its own, `own`, where it would look in vain; they are in `all`, for all.
pub(super) fn share_filters(runtime: Runtime, all: &Path, own: &Path) -> io::Result<()> {
    match runtime {
        Runtime::Crun => {}
        // It keeps none.
        Runtime::Runc => return Ok(()),
    }
    let shared = all.join(FILTERS);
    for dir in [&shared, own] {
        volume::make_dir(dir, 0o700)?;
    }
    // systemd makes that directory where it is not there, and removes it with all in it at each end: the next start after a crash of
    // the container's program is without.
    match symlink(&shared, own.join(FILTERS)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Adds to a specification what this runtime has to be told besides: the container's control group, and the ids of its users,
/// which it does not ask their namespace for.
pub(super) fn complete(
    runtime: Runtime,
    spec: &mut Spec,
    group: &Path,
    host_start: Option<u32>,
) -> Result<(), OciSpecError> {
    let (Runtime::Runc, Some(linux)) = (runtime, spec.linux_mut()) else { return Ok(()) };
    // Absolute is below the root of all groups (runc, `libcontainer/cgroups/fs2/defaultpath.go`).
    let path = Path::new("/").join(group.strip_prefix(CGROUPS).unwrap_or(group));
    let all =
        LinuxDeviceCgroupBuilder::default().allow(true).typ(LinuxDeviceType::A).access("rwm").build()?;
    linux.set_cgroups_path(Some(path));
    // It always sets a filter. The unit's own is above it and says which devices there are.
    linux.set_resources(Some(LinuxResourcesBuilder::default().devices(vec![all]).build()?));
    let mapping = host_start.map(mapping).transpose()?;
    linux.set_uid_mappings(mapping.map(|mapping| vec![mapping]));
    linux.set_gid_mappings(mapping.map(|mapping| vec![mapping]));
    Ok(())
}

fn mapping(host_start: u32) -> Result<LinuxIdMapping, OciSpecError> {
    LinuxIdMappingBuilder::default().host_id(host_start).container_id(0_u32).size(idrange::COUNT).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: &str = "/sys/fs/cgroup/bennu.slice/bennu-web-3.service";

    fn completed(runtime: Runtime, host_start: Option<u32>) -> serde_json::Value {
        let mut spec = Spec::default();
        complete(runtime, &mut spec, &group(runtime, Path::new(UNIT)), host_start).unwrap();
        serde_json::to_value(spec).unwrap()["linux"].take()
    }

    #[test]
    fn runc_is_told_of_a_group_below_the_units_of_all_devices_and_of_the_containers_ids() {
        let linux = completed(Runtime::Runc, Some(1 << 20));
        assert_eq!(linux["cgroupsPath"], "/bennu.slice/bennu-web-3.service/container");
        let all = serde_json::json!([{ "allow": true, "type": "a", "access": "rwm" }]);
        assert_eq!(linux["resources"]["devices"], all, "the filter of the unit is the one that holds");
        let ids = serde_json::json!([{ "containerID": 0, "hostID": 1 << 20, "size": idrange::COUNT }]);
        assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&ids, &ids));
        let hosts = completed(Runtime::Runc, None);
        assert!(hosts["uidMappings"].is_null(), "with the host's users nothing is mapped");
    }

    #[test]
    fn a_runtime_knows_nothing_of_the_daemons_environment() {
        for runtime in Runtime::ALL {
            let command = command(runtime, Path::new("/run/state"));
            assert!(format!("{command:?}").starts_with("env -i "), "{command:?}");
        }
    }

    #[test]
    fn filters_are_shared_where_the_runtime_keeps_any() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("web-3");
        share_filters(Runtime::Runc, dir.path(), &own).unwrap();
        assert!(!own.exists());
        for _again in 0..2 {
            share_filters(Runtime::Crun, dir.path(), &own).unwrap();
        }
        fs::write(own.join(".cache/filter"), "").unwrap();
        assert!(dir.path().join(".cache/filter").is_file());
    }

    #[test]
    fn crun_is_told_nothing_besides() {
        let mut spec = Spec::default();
        complete(Runtime::Crun, &mut spec, Path::new(UNIT), Some(1 << 20)).unwrap();
        assert_eq!(spec, Spec::default());
    }

    #[test]
    fn a_command_stays_in_its_own_group_and_the_runtime_out_of_the_units() {
        assert_eq!(stay_in(Runtime::Runc, "exec-3").unwrap(), "--cgroup=exec-3");
        assert_eq!(started_in(Runtime::Runc), Some("runtime"));
        assert_eq!((stay_in(Runtime::Crun, "exec-3"), started_in(Runtime::Crun)), (None, None));
        assert_eq!(groups(Path::new(UNIT)), [PathBuf::from(UNIT), Path::new(UNIT).join("container")]);
    }

    fn manifest(rest: &str) -> Manifest {
        let text = format!(
            "schema = 1\nname = \"test\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\n\
             expires = 2036-01-01T00:00:00Z\n{rest}"
        );
        bennu_manifests::check(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_runtime_that_is_not_there_is_named_with_those_that_are() {
        let runc = manifest("[os]\nruntime = \"runc\"\n");
        assert_eq!(missing(&runc, &[Runtime::Crun, Runtime::Runc]), None);
        assert_eq!(missing(&manifest(""), &[Runtime::Crun]), None, "the usual one needs no word");
        let why = missing(&runc, &[Runtime::Crun]).unwrap();
        assert!(
            why.starts_with("os.runtime: ") && why.contains("no container runtime runc, but crun"),
            "{why}"
        );
        assert!(missing(&runc, &[]).unwrap().contains("but none"));
    }
}
