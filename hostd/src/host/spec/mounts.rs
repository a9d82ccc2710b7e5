//! What is mounted in a container.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bennu_manifests::model::{Container, NetworkKind, Scope};
use oci_spec::OciSpecError;
use oci_spec::runtime::{Mount, MountBuilder};

use super::{INIT, SpecError, Wanted, has_own_users};

/// Where the host has the program that reaps what others leave behind (Debian's `catatonit`).
const INIT_ON_HOST: &str = "/usr/bin/catatonit";

pub(super) fn mounts(wanted: &Wanted<'_>) -> Result<Vec<Mount>, SpecError> {
    let Wanted { container, volumes, places, .. } = wanted;
    let mut mounts = Vec::new();
    for (target, kind, source, options) in kernel(container, wanted.network_kind) {
        mounts.push(mount(Path::new(target), kind, Path::new(source), &options)?);
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
        let options = format!("bind,{},nosuid,nodev,private", access(volume.read_only));
        let target = Path::new(&volume.target);
        declared.insert(target, mount(target, "bind", source, &options)?);
    }
    for bind in &container.binds {
        let options = format!("rbind,{},nosuid,nodev,rprivate", access(bind.read_only));
        let target = Path::new(&bind.target);
        declared.insert(target, mount(target, "bind", Path::new(&bind.source), &options)?);
    }
    for (target, source) in wanted.files {
        declared.insert(target, mount(target, "bind", source, "bind,ro,nosuid,nodev,noexec,private")?);
    }
    for (target, source) in wanted.devices {
        declared.insert(target, mount(target, "bind", source, "bind,rw,nosuid,noexec,private")?);
    }
    mounts.extend(declared.into_values());
    let own = ["resolv.conf", "hosts", "hostname"].map(|name| (Path::new("/etc").join(name), name));
    let zone = container.time_zone.as_ref().map(|_| (PathBuf::from("/etc/localtime"), "localtime"));
    for (target, file) in own.into_iter().chain(zone) {
        mounts.push(mount(&target, "bind", &places.files.join(file), "bind,ro,nosuid,nodev,noexec,private")?);
    }
    if container.init {
        mounts.push(mount(Path::new(INIT), "bind", Path::new(INIT_ON_HOST), "bind,ro,nosuid,nodev,private")?);
    }
    Ok(mounts)
}

/// The kernel's file systems. A namespace that is the host's is not the container's to mount anew: there the host's own
/// mount is shown.
fn kernel(
    container: &Container,
    network: NetworkKind,
) -> Vec<(&'static str, &'static str, &'static str, String)> {
    let own = |target, kind, options: &str| (target, kind, kind, options.to_owned());
    let hosts = |target, options: &str| (target, "bind", target, format!("rbind,{options},rprivate"));
    let mut mounts = Vec::new();
    mounts.push(match container.pid {
        Scope::Own => own("/proc", "proc", "nosuid,noexec,nodev"),
        Scope::Host => hosts("/proc", "nosuid,noexec,nodev"),
    });
    if container.privileged {
        mounts.push(hosts("/dev", "nosuid,noexec"));
    } else {
        mounts.push(own("/dev", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"));
    }
    mounts.push(own("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"));
    match container.ipc {
        Scope::Own => {
            let shm = format!("nosuid,noexec,nodev,mode=1777,size={}", container.shm_size);
            mounts.push(("/dev/shm", "tmpfs", "tmpfs", shm));
            mounts.push(own("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"));
        }
        Scope::Host => {
            mounts.push(hosts("/dev/shm", "nosuid,noexec,nodev"));
            mounts.push(hosts("/dev/mqueue", "nosuid,noexec,nodev"));
        }
    }
    let writable = if container.privileged { "rw" } else { "ro" };
    mounts.push(match (network, has_own_users(container)) {
        (NetworkKind::Host, true) => hosts("/sys", "nosuid,noexec,nodev,rro"),
        _ => own("/sys", "sysfs", &format!("nosuid,noexec,nodev,{writable}")),
    });
    mounts.push(own("/sys/fs/cgroup", "cgroup", &format!("nosuid,noexec,nodev,relatime,{writable}")));
    mounts
}

fn access(read_only: bool) -> &'static str {
    if read_only { "ro" } else { "rw" }
}

fn mount(target: &Path, kind: &str, source: &Path, options: &str) -> Result<Mount, OciSpecError> {
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    MountBuilder::default().destination(target).typ(kind).source(source).options(options).build()
}
