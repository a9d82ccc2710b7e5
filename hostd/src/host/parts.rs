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
    /// The bridges that it is on: with one interface on each.
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

/// The instances that a part is missing of. All have to be told of that have interfaces, or somebody else's would count for one that is gone.
///
/// An interface on a bridge is one end of a pair, and both go together; so as long as there are enough ends on the bridge, nobody has to enter a
/// namespace to look for the others. What a container with the rights to do so makes of its own end, as another name, is its own affair.
///
/// # Errors
/// Where the kernel does not tell what is mounted.
pub(super) fn missing(instances: &[(Instance, Parts)]) -> io::Result<BTreeSet<Instance>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mounted: BTreeSet<&Path> =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new).collect();
    let has_mounts = |parts: &Parts| parts.mounts.iter().all(|mount| mounted.contains(mount.as_path()));
    let all: Vec<_> = instances.iter().collect();
    let short = short_bridges(&all, ports);
    let mut missing = without_interfaces(all, &short, has_interfaces_there);
    missing.extend(instances.iter().filter(|(_, parts)| !has_mounts(parts)));
    Ok(missing.into_iter().map(|(instance, _)| instance.clone()).collect())
}

/// Of these the ones whose interfaces are not there. `has_interfaces` tells it of some of them.
fn without_interfaces<'a>(
    instances: Vec<&'a (Instance, Parts)>,
    short: &BTreeMap<&str, usize>,
    has_interfaces: impl FnOnce(&[&'a (Instance, Parts)]) -> Vec<bool>,
) -> Vec<&'a (Instance, Parts)> {
    let is_on_short = |parts: &Parts| parts.bridges.iter().any(|bridge| short.contains_key(bridge.as_str()));
    let (to_ask, others): (Vec<_>, Vec<_>) = instances
        .into_iter()
        .partition(|(_, parts)| is_on_short(parts) || parts.interfaces > parts.bridges.len());
    let answers = has_interfaces(&to_ask);
    let (mut missing, mut there) = (Vec::new(), others);
    for (instance, has) in to_ask.into_iter().zip(answers) {
        if has { there.push(instance) } else { missing.push(instance) }
    }
    // Where more are gone from a bridge than are without an interface, somebody took one off, and it is not known which.
    let unexplained: BTreeSet<&str> = short
        .iter()
        .filter(|(bridge, gone)| {
            let explained = missing.iter().filter(|(_, parts)| parts.bridges.iter().any(|on| on == *bridge));
            explained.count() < **gone
        })
        .map(|(bridge, _)| *bridge)
        .collect();
    missing.extend(
        there
            .into_iter()
            .filter(|(_, parts)| parts.bridges.iter().any(|on| unexplained.contains(on.as_str()))),
    );
    missing
}

/// How many interfaces too few are on bridges, where any are: than there are instances with one.
fn short_bridges<'a>(
    instances: &[&'a (Instance, Parts)],
    ports: impl Fn(&str) -> Option<usize>,
) -> BTreeMap<&'a str, usize> {
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for bridge in instances.iter().flat_map(|(_, parts)| &parts.bridges) {
        *wanted.entry(bridge).or_default() += 1;
    }
    let short = |(bridge, count): (_, usize)| Some((bridge, count.checked_sub(ports(bridge).unwrap_or(0))?));
    wanted.into_iter().filter_map(short).filter(|(_, gone)| *gone > 0).collect()
}

/// Whether each of these has its interfaces. A thread of its own enters their namespaces and ends: it never comes back to the host's network.
fn has_interfaces_there(instances: &[&(Instance, Parts)]) -> Vec<bool> {
    if instances.is_empty() {
        return Vec::new();
    }
    std::thread::scope(|scope| {
        let looked = scope.spawn(|| instances.iter().map(|(_, parts)| has_interfaces(parts)).collect());
        looked.join().unwrap_or_else(|_| vec![true; instances.len()])
    })
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
    let table = match entered.and_then(|()| std::fs::read_to_string("/proc/thread-self/net/dev")) {
        Ok(table) => table,
        // Nothing is mounted there: whatever the namespace had, is out of reach. (setns(2), `EINVAL`: it is no namespace.)
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
            return false;
        }
        // A want of memory or of descriptors tells nothing.
        Err(_) => return true,
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

    /// Who is missed, where these bridges have so many interfaces, and these instances none of theirs.
    fn missed(instances: &[(Instance, Parts)], there: &[(&str, usize)], without: &[&str]) -> Vec<String> {
        let all: Vec<_> = instances.iter().collect();
        let ports = |bridge: &str| there.iter().find(|(name, _)| *name == bridge).map(|(_, count)| *count);
        let short = short_bridges(&all, ports);
        let missed = without_interfaces(all, &short, |asked| {
            asked.iter().map(|(instance, _)| !without.contains(&instance.to_string().as_str())).collect()
        });
        let mut names: Vec<_> = missed.into_iter().map(|(instance, _)| instance.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn who_lost_its_interface_is_missed_alone() {
        let instances =
            ["a-1", "b-1", "c-1"].map(|name| (instance(name), Parts { interfaces: 1, ..on(&["lan"]) }));
        assert_eq!(
            missed(&instances, &[("lan", 3)], &["a-1"]),
            [""; 0],
            "enough ends are there, so nobody is asked"
        );
        assert_eq!(missed(&instances, &[("lan", 2)], &["b-1"]), ["b-1"]);
        assert_eq!(
            missed(&instances, &[("lan", 1)], &["b-1"]),
            ["a-1", "b-1", "c-1"],
            "and one was taken off"
        );
    }

    #[test]
    fn a_bridge_that_is_gone_or_that_somebody_was_taken_off_is_missed_by_all_on_it() {
        let instances = [
            (instance("a-1"), on(&["whole", "gone"])),
            (instance("b-1"), on(&["whole", "short"])),
            (instance("c-1"), on(&["short"])),
            (instance("d-1"), on(&["whole"])),
        ];
        assert_eq!(missed(&instances, &[("whole", 4), ("short", 1)], &[]), ["a-1", "b-1", "c-1"]);
    }

    #[test]
    fn who_is_on_a_network_beside_the_host_is_always_asked() {
        let instances = [(instance("a-1"), Parts { interfaces: 2, ..on(&["lan"]) })];
        assert_eq!(missed(&instances, &[("lan", 1)], &["a-1"]), ["a-1"]);
        assert_eq!(missed(&instances, &[("lan", 1)], &[]), [""; 0]);
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
        let file = tempfile::NamedTempFile::new().unwrap();
        for nothing in [file.path(), Path::new("/no/such/namespace")] {
            let parts = Parts { namespace: Some(nothing.to_owned()), interfaces: 1, ..on(&[]) };
            assert!(!has_interfaces(&parts), "{}", nothing.display());
        }
    }
}
