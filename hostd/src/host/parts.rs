//! Whether a running instance still has all that it was made with: mounts, namespaces, interfaces.
//!
//! A container mostly goes on when somebody takes a part of it away, and fails at its next start, or can't be reached; so it is
//! looked for. What is missing can't be put back into a running instance: it is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bennu_manifests::model::NetworkKind;
use bennu_planner::Instance;
use nix::sched::{CloneFlags, setns};

use super::record::Record;
use super::{net, network, rootfs};

/// What one instance has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// Where something is mounted.
    mounts: Vec<PathBuf>,
    /// Its network namespace, where it has one of its own.
    namespace: Option<PathBuf>,
    /// How many interfaces there are in it, `eth0` upwards.
    interfaces: usize,
    /// The bridges that it is on.
    bridges: Vec<String>,
}

impl Parts {
    /// What an instance with this directory, and this one of its volumes, was made with.
    pub(super) fn of(dir: &Path, volumes: &Path, record: &Record) -> Self {
        let namespace = (record.network_kind != NetworkKind::Host).then(|| dir.join("ns/net"));
        let private = dir.join("private");
        // Made only where they are mounted.
        let volumes = std::fs::read_dir(volumes).into_iter().flatten().flatten().map(|entry| entry.path());
        let mounts = [
            Some(rootfs::path(dir)),
            record.host_start.map(|_| dir.join("ns/user")),
            namespace.clone(),
            // Made only where it is mounted.
            private.exists().then_some(private),
        ];
        let bridges = record.networks.iter().filter(|m| m.spec.kind == NetworkKind::Bridge);
        Self {
            mounts: mounts.into_iter().flatten().chain(volumes).collect(),
            namespace,
            interfaces: record.networks.len(),
            bridges: bridges.map(|m| network::interface(&m.network)).collect(),
        }
    }
}

/// The instances that a part is missing of.
///
/// # Errors
/// Where the kernel does not tell what is mounted.
pub(super) fn missing(instances: &[(Instance, Parts)]) -> io::Result<BTreeSet<Instance>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mounted: BTreeSet<&Path> =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new).collect();
    let short = short_bridges(instances, ports);
    let has_mounts = |parts: &Parts| parts.mounts.iter().all(|mount| mounted.contains(mount.as_path()));
    let has_bridges = |parts: &Parts| parts.bridges.iter().all(|bridge| !short.contains(bridge.as_str()));
    let (whole, mut missing): (Vec<_>, Vec<_>) =
        instances.iter().partition(|(_, parts)| has_mounts(parts) && has_bridges(parts));
    // A thread of its own enters the namespaces and ends: it never comes back to the host's network.
    std::thread::scope(|scope| {
        let looked = scope.spawn(|| {
            let without = whole.into_iter().filter(|(_, parts)| !has_interfaces(parts));
            without.collect::<Vec<_>>()
        });
        missing.extend(looked.join().unwrap_or_default());
    });
    Ok(missing.into_iter().map(|(instance, _)| instance.clone()).collect())
}

/// The bridges that fewer interfaces are on than there are instances with one.
fn short_bridges(instances: &[(Instance, Parts)], ports: impl Fn(&str) -> Option<usize>) -> BTreeSet<&str> {
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for bridge in instances.iter().flat_map(|(_, parts)| &parts.bridges) {
        *wanted.entry(bridge).or_default() += 1;
    }
    wanted
        .into_iter()
        .filter(|(bridge, count)| ports(bridge) < Some(*count))
        .map(|(bridge, _)| bridge)
        .collect()
}

/// How many interfaces are on a bridge; `None` where it is not there.
fn ports(bridge: &str) -> Option<usize> {
    if !net::interface_exists(bridge) {
        return None;
    }
    Some(std::fs::read_dir(Path::new("/sys/class/net").join(bridge).join("brif")).ok()?.count())
}

/// Whether the interfaces are there. The thread is in the instance's network afterwards.
fn has_interfaces(parts: &Parts) -> bool {
    let Some(namespace) = parts.namespace.as_ref().filter(|_| parts.interfaces > 0) else { return true };
    let entered = File::open(namespace).and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?));
    // What can't be entered is not judged: it is kept by a mount, which was looked at before.
    let Ok(table) = entered.and_then(|()| std::fs::read_to_string("/proc/thread-self/net/dev")) else {
        return true;
    };
    let names = interfaces(&table);
    (0..parts.interfaces).all(|number| names.contains(format!("eth{number}").as_str()))
}

/// The names in `/proc/net/dev` (proc_pid_net(5)): what stands before the first colon of a line.
fn interfaces(table: &str) -> BTreeSet<&str> {
    table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;

    fn instance(text: &str) -> Instance {
        text.parse().unwrap()
    }

    fn on(bridges: &[&str]) -> Parts {
        let bridges = bridges.iter().map(|&bridge| bridge.to_owned()).collect();
        Parts { mounts: Vec::new(), namespace: None, interfaces: 0, bridges }
    }

    #[test]
    fn an_instance_has_a_root_namespaces_and_an_interface_for_each_network() {
        let dir = Path::new("/run/bennu/instances/web-3");
        let volumes = tempfile::tempdir().unwrap();
        let data = volumes.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let parts = Parts::of(dir, volumes.path(), &record());
        let own = ["rootfs", "ns/user", "ns/net"].map(|name| dir.join(name));
        assert_eq!(parts.mounts, own.into_iter().chain([data]).collect::<Vec<_>>());
        assert_eq!((parts.interfaces, parts.bridges.len()), (2, 2));
        let bare = Record { network_kind: NetworkKind::Host, networks: vec![], host_start: None, ..record() };
        let parts = Parts::of(dir, Path::new("/no/volumes"), &bare);
        assert_eq!((parts.mounts, parts.namespace), (vec![dir.join("rootfs")], None));
    }

    #[test]
    fn a_mount_that_is_gone_is_missed_and_one_that_is_there_is_not() {
        let with = |path: &str| Parts { mounts: vec![path.into()], ..on(&[]) };
        let instances = [(instance("a-1"), with("/proc")), (instance("b-1"), with("/proc/no-such-mount"))];
        assert_eq!(missing(&instances).unwrap(), [instance("b-1")].into());
    }

    #[test]
    fn a_bridge_that_is_gone_or_that_somebody_was_taken_off_is_missed_by_all_on_it() {
        let instances = [
            (instance("a-1"), on(&["whole", "gone"])),
            (instance("b-1"), on(&["whole", "short"])),
            (instance("c-1"), on(&["short"])),
        ];
        let ports = |bridge: &str| match bridge {
            "whole" => Some(3),
            "short" => Some(1),
            _ => None,
        };
        assert_eq!(short_bridges(&instances, ports), ["gone", "short"].into());
    }

    #[test]
    fn names_of_interfaces_are_read_from_the_kernels_table() {
        let table =
            "Inter-|   Receive  |  Transmit\n face |bytes    packets|bytes\n    lo: 1 2 3\n  eth0:5 6 7\n";
        let names = interfaces(table);
        assert!(names.contains("eth0") && names.contains("lo") && !names.contains("eth1"), "{names:?}");
    }

    #[test]
    fn an_interface_is_looked_for_where_the_instance_is() {
        let own = |interfaces| Parts { namespace: Some("/proc/self/ns/net".into()), interfaces, ..on(&[]) };
        let looked = std::thread::spawn(move || (has_interfaces(&own(0)), has_interfaces(&own(100))));
        assert_eq!(looked.join().unwrap(), (true, false));
    }
}
