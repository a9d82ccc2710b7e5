//! From a declared container and its image's configuration to the runtime's `config.json`.
//!
//! What the image says is data: it fills fields, and no field of it decides what the container may do. The format is
//! the OCI runtime specification, `config.md` and `config-linux.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bennu_manifests::DEFAULT_CAPABILITIES;
use bennu_manifests::model::{Container, Name};
use oci_spec::OciSpecError;
use oci_spec::image::Config;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::seccomp;
use super::user::User;

/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files of one process: what it has, and what it may ask for (the values that systemd gives a service).
const OPEN_FILES: (u64, u64) = (1024, 524_288);

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

/// The kernel's own file systems, within which no program has its working directory.
const KERNEL_TREES: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What a specification is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The declared name, which is also the host name inside.
    pub name: &'a Name,
    /// What is declared.
    pub container: &'a Container,
    /// What the image says.
    pub image: Option<&'a Config>,
    /// The user that was found for it.
    pub user: &'a User,
    /// Where each of its volumes is on the host.
    pub volumes: &'a BTreeMap<Name, PathBuf>,
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
    /// The directory of its `resolv.conf`, `hosts` and `hostname`.
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

/// The specification.
///
/// # Errors
/// Where there is no program, or something is refused or unknown.
pub(super) fn spec(wanted: &Wanted<'_>) -> Result<Spec, SpecError> {
    let Wanted { name, container, places, .. } = wanted;
    let capabilities = capabilities(&container.add_capabilities)?;
    let root = RootBuilder::default().path(&places.rootfs).readonly(container.read_only_root).build()?;
    let sysctl = HashMap::from([
        // The network namespace is the container's own: every port in it is, and so is asking whether a host is there.
        ("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned()),
        ("net.ipv4.ping_group_range".to_owned(), "0 65535".to_owned()),
    ]);
    let linux = LinuxBuilder::default()
        .namespaces(namespaces(places)?)
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .seccomp(seccomp::profile(&capabilities)?)
        .sysctl(sysctl)
        // The unit keeps the limits and says which devices there are.
        .resources(oci_spec::runtime::LinuxResources::default())
        .build()?;
    let spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .hostname(name.as_str())
        .process(process(wanted, &capabilities)?)
        .mounts(mounts(wanted)?)
        .annotations(HashMap::new())
        .linux(linux)
        .build()?;
    Ok(spec)
}

fn namespaces(places: &Places) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let own = [Pid, Ipc, Uts, Mount, Cgroup].map(|typ| LinuxNamespaceBuilder::default().typ(typ).build());
    let kept = [(User, &places.user_namespace), (Network, &places.network_namespace)]
        .map(|(typ, path)| LinuxNamespaceBuilder::default().typ(typ).path(path).build());
    own.into_iter().chain(kept).collect()
}

fn process(wanted: &Wanted<'_>, capabilities: &BTreeSet<String>) -> Result<Process, SpecError> {
    let Wanted { name, container, image, user, .. } = wanted;
    let parsed = |names: &mut dyn Iterator<Item = &String>| names.filter_map(|c| c.parse().ok()).collect();
    let all: oci_spec::runtime::Capabilities = parsed(&mut capabilities.iter());
    // A process that is not root keeps across execve(2) only what is ambient: what is added is to hold for it too.
    let added: oci_spec::runtime::Capabilities = parsed(&mut container.add_capabilities.iter());
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(all.clone())
        .effective(all.clone())
        .permitted(all)
        .inheritable(added.clone())
        .ambient(added)
        .build()?;
    let user =
        UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(user.groups.clone()).build()?;
    let (soft, hard) = OPEN_FILES;
    let files =
        PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft).hard(hard).build()?;
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(arguments(name, container, *image)?)
        .env(environment(name, container, *image))
        .cwd(working_directory(container, *image)?)
        .capabilities(capabilities)
        .rlimits(vec![files])
        .no_new_privileges(true)
        .build()?;
    Ok(process)
}

/// Entry point and command. As everywhere, one's own entry point makes the image's command void.
fn arguments(name: &Name, container: &Container, image: Option<&Config>) -> Result<Vec<String>, SpecError> {
    let of_image = |field: Option<&Option<Vec<String>>>| field.cloned().flatten().unwrap_or_default();
    let entrypoint = || of_image(image.map(Config::entrypoint));
    let (mut arguments, fallback) = match &container.entrypoint {
        Some(own) => (own.clone(), Vec::new()),
        None => (entrypoint(), of_image(image.map(Config::cmd))),
    };
    arguments.extend(container.command.clone().unwrap_or(fallback));
    if arguments.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoProgram { name: (*name).clone() });
    }
    Ok(arguments)
}

/// The image's variables, and the manifest's over them. What is no variable is left out.
fn environment(name: &Name, container: &Container, image: Option<&Config>) -> Vec<String> {
    let defaults = [("PATH", DEFAULT_PATH), ("HOSTNAME", name.as_str())];
    let of_image = image.and_then(|image| image.env().as_ref()).into_iter().flatten();
    let of_image = of_image.filter_map(|variable| variable.split_once('='));
    let own = container.environment.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let merged: BTreeMap<_, _> = defaults.into_iter().chain(of_image).chain(own).collect();
    let sound = |(key, value): &(&str, &str)| !key.is_empty() && !key.contains('\0') && !value.contains('\0');
    merged.into_iter().filter(sound).map(|(key, value)| format!("{key}={value}")).collect()
}

/// CVE-2024-21626: a working directory under `/proc` could be an open directory of the host.
fn working_directory(container: &Container, image: Option<&Config>) -> Result<PathBuf, SpecError> {
    let of_image =
        || image.and_then(|image| image.working_dir().clone()).filter(|directory| !directory.is_empty());
    let directory = container.working_directory.clone().or_else(of_image).unwrap_or_else(|| "/".to_owned());
    let path = Path::new(&directory);
    let climbs = path.components().any(|c| c == std::path::Component::ParentDir);
    let special = KERNEL_TREES.iter().any(|tree| path.starts_with(tree));
    if !path.is_absolute() || climbs || special || directory.contains('\0') {
        return Err(SpecError::WorkingDirectory { directory });
    }
    Ok(path.to_owned())
}

fn capabilities(added: &[String]) -> Result<BTreeSet<String>, SpecError> {
    let unknown = |name: &&String| name.parse::<Capability>().is_err();
    if let Some(name) = added.iter().find(unknown) {
        return Err(SpecError::UnknownCapability { capability: name.clone() });
    }
    Ok(DEFAULT_CAPABILITIES.map(str::to_owned).into_iter().chain(added.iter().cloned()).collect())
}

fn mounts(wanted: &Wanted<'_>) -> Result<Vec<Mount>, SpecError> {
    let Wanted { container, volumes, places, .. } = wanted;
    let kernel = [
        ("/proc", "proc", "nosuid,noexec,nodev"),
        ("/dev", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"),
        ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
        ("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
        ("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
        ("/sys/fs/cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ];
    let mut mounts = Vec::new();
    for (target, kind, options) in kernel {
        mounts.push(mount(Path::new(target), kind, Path::new(kind), options)?);
    }
    // Sorted by path, so that what lies within another one is mounted after it.
    let mut declared = BTreeMap::new();
    for tmpfs in &container.tmpfs {
        let options = format!("nosuid,nodev,noexec,mode=1777,size={}", tmpfs.size);
        let target = Path::new(&tmpfs.target);
        declared.insert(target, mount(target, "tmpfs", Path::new("tmpfs"), &options)?);
    }
    for volume in &container.volumes {
        let source = volumes
            .get(&volume.volume)
            .ok_or_else(|| SpecError::NoVolume { volume: volume.volume.clone() })?;
        let access = if volume.read_only { "ro" } else { "rw" };
        // On disk the ids are the container's (0 to 65535), whichever range it has on this host.
        let options = format!("bind,{access},nosuid,nodev,private,idmap");
        let target = Path::new(&volume.target);
        declared.insert(target, mount(target, "bind", source, &options)?);
    }
    mounts.extend(declared.into_values());
    for file in ["resolv.conf", "hosts", "hostname"] {
        let target = Path::new("/etc").join(file);
        mounts.push(mount(&target, "bind", &places.files.join(file), "bind,ro,nosuid,nodev,noexec,private")?);
    }
    Ok(mounts)
}

fn mount(target: &Path, kind: &str, source: &Path, options: &str) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
}

#[cfg(test)]
pub(super) mod tests;
