//! From a declared container and its image's configuration to the runtime's `config.json`.
//!
//! What the image says is data: it fills fields, and no field of it decides what the container may do. The format is
//! the OCI runtime specification, `config.md` and `config-linux.md`.

mod mounts;
mod process;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bennu_manifests::model::{Container, Name, NetworkKind, Scope, Seccomp};
use oci_spec::OciSpecError;
use oci_spec::image::Config;
use oci_spec::runtime::{
    LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, RootBuilder, Spec, SpecBuilder,
};

pub(super) use process::DEFAULT_PATH;

use super::seccomp;
use super::user::User;

/// Where a container finds the program that reaps what its programs leave behind, if it asks for one.
const INIT: &str = "/run/bennu-init";

/// What shows or changes the kernel as a whole.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/dev/block",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What may be looked at only.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a specification is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The declared name, which is also the host name inside where none is declared.
    pub name: &'a Name,
    /// What is declared.
    pub container: &'a Container,
    /// What the image says.
    pub image: Option<&'a Config>,
    /// The user that was found for it.
    pub user: &'a User,
    /// What its networks are; where there is one of kind `host`, or none, that decides.
    pub network_kind: NetworkKind,
    /// Variables from files and secrets.
    pub variables: &'a BTreeMap<String, String>,
    /// Where each of its volumes is on the host.
    pub volumes: &'a BTreeMap<Name, PathBuf>,
    /// Configs and secrets: where they appear, and where they are on the host.
    pub files: &'a BTreeMap<PathBuf, PathBuf>,
    /// Devices: where they appear, and where there are nodes of them that belong to its user.
    pub devices: &'a BTreeMap<PathBuf, PathBuf>,
    /// Where its parts are on the host.
    pub places: &'a Places,
}

/// Where the parts of an instance are on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// The root of its file tree.
    pub rootfs: PathBuf,
    /// Its user namespace.
    pub user_namespace: PathBuf,
    /// Its network namespace, owned by its user namespace.
    pub network_namespace: PathBuf,
    /// The directory of its `resolv.conf`, `hosts`, `hostname` and `localtime`.
    pub files: PathBuf,
}

/// Why there is no specification.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Neither the manifest nor the image names a program.
    #[error("find the program of container {name}: neither the manifest nor the image names one")]
    NoProgram {
        /// The container.
        name: Name,
    },
    /// Refused: a working directory from which a program could reach the host.
    #[error(
        "refuse working directory {directory:?}: it has to be absolute, without '..', and outside of /proc, /sys and /dev"
    )]
    WorkingDirectory {
        /// The directory.
        directory: String,
    },
    /// There is no such capability.
    #[error("add capability {capability:?}: there is none of that name")]
    UnknownCapability {
        /// Its name.
        capability: String,
    },
    /// There is no such limit of processes.
    #[error("limit {limit:?}: there is no such limit of processes")]
    UnknownLimit {
        /// Its name.
        limit: String,
    },
    /// A declared volume has no place on the host.
    #[error("mount volume {volume}: it is not there")]
    NoVolume {
        /// The volume.
        volume: Name,
    },
    /// The builders of the format say that something is missing.
    #[error("put the specification together")]
    Format(#[from] OciSpecError),
}

/// Whether a container has a user namespace of its own.
pub(super) fn has_own_users(container: &Container) -> bool {
    container.user_namespace == Scope::Own && !container.privileged
}

/// What a container thinks the machine is called.
pub(super) fn hostname<'a>(name: &'a Name, container: &'a Container) -> &'a str {
    container.hostname.as_deref().unwrap_or(name.as_str())
}

/// The specification.
///
/// # Errors
/// Where there is no program, or something is refused or unknown.
pub(super) fn spec(wanted: &Wanted<'_>) -> Result<Spec, SpecError> {
    let Wanted { name, container, places, .. } = wanted;
    let capabilities = process::capabilities(container)?;
    let root = RootBuilder::default().path(&places.rootfs).readonly(container.read_only_root).build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(wanted)?)
        .sysctl(parameters(wanted))
        // The unit keeps the limits and says which devices there are.
        .resources(oci_spec::runtime::LinuxResources::default());
    let (masked, read_only): (&[&str], &[&str]) =
        if container.privileged { (&[], &[]) } else { (&MASKED, &READ_ONLY) };
    let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<Vec<_>>();
    linux = linux.masked_paths(paths(masked)).readonly_paths(paths(read_only));
    if !container.privileged && container.seccomp == Seccomp::Default {
        linux = linux.seccomp(seccomp::profile(&capabilities)?);
    }
    let spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .hostname(hostname(name, container))
        .process(process::process(wanted, &capabilities)?)
        .mounts(mounts::mounts(wanted)?)
        .annotations(HashMap::new())
        .linux(linux.build()?)
        .build()?;
    Ok(spec)
}

fn namespaces(wanted: &Wanted<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let Wanted { container, places, .. } = wanted;
    let new = [
        (Pid, container.pid == Scope::Own),
        (Ipc, container.ipc == Scope::Own),
        (Uts, true),
        (Mount, true),
        (Cgroup, true),
    ];
    let kept = [
        (User, has_own_users(container), &places.user_namespace),
        (Network, wanted.network_kind != NetworkKind::Host, &places.network_namespace),
    ];
    let new = new.into_iter().filter(|(_, own)| *own);
    let new = new.map(|(typ, _)| LinuxNamespaceBuilder::default().typ(typ).build());
    let kept = kept.into_iter().filter(|(_, own, _)| *own);
    new.chain(kept.map(|(typ, _, path)| LinuxNamespaceBuilder::default().typ(typ).path(path).build()))
        .collect()
}

/// Kernel parameters of its namespaces: those that every container has, and those that are declared.
fn parameters(wanted: &Wanted<'_>) -> HashMap<String, String> {
    let always: &[(&str, &str)] = match wanted.network_kind {
        NetworkKind::Host => &[],
        // The network namespace is the container's own: every port in it is, and so is asking whether a host is there.
        _ => &[("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 65535")],
    };
    let always = always.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
    always.chain(wanted.container.sysctls.clone()).collect()
}

#[cfg(test)]
pub(super) mod tests;
