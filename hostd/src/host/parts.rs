//! Whether a running instance still has all that it was made with: mounts, namespaces, interfaces.
//!
//! A container mostly goes on when somebody takes a part of it away, and fails at its next start, or can't be reached; so it is
//! looked for. What is missing can't be put back into a running instance: it is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bennu_manifests::model::NetworkKind;
use bennu_planner::Instance;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use super::network::{self, On};
use super::record::Record;
use super::{namespaces, rootfs};

/// Where something is mounted. Of a host with many containers that is a long list, which is read again only where it has changed.
#[derive(Debug)]
pub(super) struct Mounted(Mutex<(File, Option<Arc<BTreeSet<PathBuf>>>)>);

impl Mounted {
    /// What the calling process sees.
    ///
    /// # Errors
    /// Where there is no such list.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Mutex::new((File::open("/proc/self/mountinfo")?, None))))
    }

    fn look(&self) -> io::Result<Arc<BTreeSet<PathBuf>>> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, known) = &mut *seen;
        // It says so once, when something was mounted or unmounted since it was asked the last time (proc_pid_mounts(5)).
        let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        let changed = poll(&mut asked, PollTimeout::ZERO)? > 0;
        // Taken out: where it can't be read now, it is not known the next time either.
        let mounted = match known.take().filter(|_| !changed) {
            Some(mounted) => mounted,
            None => Arc::new(read(file)?),
        };
        *known = Some(mounted.clone());
        Ok(mounted)
    }
}

/// The mount points in a list of the kernel (proc_pid_mountinfo(5)), read from its beginning.
fn read(file: &mut File) -> io::Result<BTreeSet<PathBuf>> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    Ok(namespaces::points(&text).collect())
}

/// What one instance has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// Where something is mounted.
    mounts: Vec<PathBuf>,
    /// Its network namespace, where it has one of its own.
    namespace: Option<PathBuf>,
    /// The host's ends of its interfaces, each with the bridge that it is on.
    ends: Vec<(String, String)>,
    /// Its interfaces that have no end on the host.
    beside: Vec<String>,
}

impl Parts {
    /// What an instance with this directory, and this one of its volumes, was made with.
    ///
    /// # Errors
    /// Where a directory can't be read.
    pub(super) fn of(dir: &Path, volumes: &Path, record: &Record) -> io::Result<Self> {
        let namespace = (record.network_kind != NetworkKind::Host).then(|| dir.join("ns/net"));
        let private = dir.join("private");
        // Made only where they are mounted.
        let volumes = match std::fs::read_dir(volumes) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
        };
        let mounts = [
            Some(rootfs::path(dir)),
            record.host_start.map(|_| namespaces::of_users(dir)),
            namespace.clone(),
            // Made only where it is mounted.
            private.try_exists()?.then_some(private),
        ];
        let mounts = mounts.into_iter().flatten().chain(volumes).collect();
        let (mut ends, mut beside) = (Vec::new(), Vec::new());
        for interface in network::interfaces(record) {
            match interface.on {
                On::Bridge { bridge, end } => ends.push((end, bridge.name)),
                On::Beside { .. } => beside.push(interface.name),
            }
        }
        Ok(Self { mounts, namespace, ends, beside })
    }
}

/// The instances that a part is missing of.
///
/// An interface on a bridge is one end of a pair, and both go together, so nobody has to enter a namespace to look for the other one. What a
/// container with the rights to do so makes of its own end, as another name, is its own affair.
///
/// # Errors
/// Where the kernel does not tell what is mounted.
pub(super) fn missing(
    mounted: &Mounted,
    instances: &[(Instance, Arc<Parts>)],
) -> io::Result<BTreeSet<Instance>> {
    let mounted = mounted.look()?;
    let bridges: BTreeSet<&str> =
        instances.iter().flat_map(|(_, parts)| &parts.ends).map(|(_, bridge)| bridge.as_str()).collect();
    let ports: BTreeMap<&str, BTreeSet<OsString>> =
        bridges.into_iter().map(|bridge| (bridge, ports(bridge))).collect();
    let (whole, mut missing): (Vec<_>, Vec<_>) =
        instances.iter().partition(|(_, parts)| has_mounts(parts, &mounted) && has_ends(parts, &ports));
    missing.extend(without_interfaces_there(whole));
    Ok(missing.into_iter().map(|(instance, _)| instance.clone()).collect())
}

fn has_mounts(parts: &Parts, mounted: &BTreeSet<PathBuf>) -> bool {
    parts.mounts.iter().all(|mount| mounted.contains(mount))
}

fn has_ends(parts: &Parts, ports: &BTreeMap<&str, BTreeSet<OsString>>) -> bool {
    let on_its_bridge = |(end, bridge): &(String, String)| {
        ports.get(bridge.as_str()).is_some_and(|ports| ports.contains(OsStr::new(end)))
    };
    parts.ends.iter().all(on_its_bridge)
}

/// Of these the ones whose interfaces beside the host are not there. A thread of its own enters their namespaces and ends: it never comes
/// back to the host's network.
fn without_interfaces_there(mut instances: Vec<&(Instance, Arc<Parts>)>) -> Vec<&(Instance, Arc<Parts>)> {
    instances.retain(|(_, parts)| !parts.beside.is_empty());
    if instances.is_empty() {
        return instances;
    }
    std::thread::scope(|scope| {
        let looked = scope
            .spawn(|| -> Vec<bool> { instances.iter().map(|(_, parts)| has_interfaces(parts)).collect() });
        let has = looked.join().unwrap_or_else(|_| vec![true; instances.len()]);
        instances.iter().zip(has).filter(|(_, has)| !has).map(|(instance, _)| *instance).collect()
    })
}

/// What is on a bridge; nothing where it is not there.
fn ports(bridge: &str) -> BTreeSet<OsString> {
    let ports = std::fs::read_dir(Path::new("/sys/class/net").join(bridge).join("brif"));
    ports.into_iter().flatten().flatten().map(|port| port.file_name()).collect()
}

/// Whether the interfaces are there. The thread is in the instance's network afterwards.
fn has_interfaces(parts: &Parts) -> bool {
    let Some(namespace) = &parts.namespace else { return true };
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
    parts.beside.iter().all(|name| names.contains(name.as_str()))
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

    fn none() -> Parts {
        Parts { mounts: Vec::new(), namespace: None, ends: Vec::new(), beside: Vec::new() }
    }

    #[test]
    fn an_instance_has_a_root_namespaces_and_an_interface_for_each_network() {
        let dir = Path::new("/run/host/bennu/instances/web-3");
        let volumes = tempfile::tempdir().unwrap();
        let data = volumes.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let parts = Parts::of(dir, volumes.path(), &record()).unwrap();
        let own = ["rootfs", "ns/user", "ns/net"].map(|name| dir.join(name));
        assert_eq!(parts.mounts, own.into_iter().chain([data]).collect::<Vec<_>>());
        let bridges: Vec<_> = parts.ends.iter().map(|(_, bridge)| bridge.clone()).collect();
        assert_eq!(bridges, ["default", "back"].map(|network| network::interface(&network.parse().unwrap())));
        assert!(parts.ends.iter().all(|(end, _)| end.starts_with("veth")) && parts.beside.is_empty());
        let mut outside = record();
        outside.networks[1].spec.kind = NetworkKind::Macvlan;
        let parts = Parts::of(dir, volumes.path(), &outside).unwrap();
        assert_eq!((parts.ends.len(), parts.beside), (1, vec!["eth1".to_owned()]));
        let bare = Record { network_kind: NetworkKind::Host, networks: vec![], host_start: None, ..record() };
        let parts = Parts::of(dir, Path::new("/no/volumes"), &bare).unwrap();
        assert_eq!((parts.mounts, parts.namespace), (vec![dir.join("rootfs")], None));
    }

    #[test]
    fn a_mount_that_is_gone_is_missed_and_one_that_is_there_is_not() {
        let with = |path: &str| Arc::new(Parts { mounts: vec![path.into()], ..none() });
        let instances = [(instance("a-1"), with("/proc")), (instance("b-1"), with("/proc/no-such-mount"))];
        assert_eq!(missing(&Mounted::new().unwrap(), &instances).unwrap(), [instance("b-1")].into());
    }

    #[test]
    fn the_list_of_mounts_is_read_once_while_nothing_changes() {
        let mounted = Mounted::new().unwrap();
        let first = mounted.look().unwrap();
        assert!(first.contains(Path::new("/proc")));
        // Others may mount something on this machine meanwhile, but hardly between each two of many looks.
        let again = (0..100).any(|_| Arc::ptr_eq(&mounted.look().unwrap(), &mounted.look().unwrap()));
        assert!(again);
    }

    #[test]
    fn who_has_no_end_on_its_bridge_is_missed_alone() {
        let on = |ends: &[(&str, &str)]| Parts {
            ends: ends.iter().map(|&(end, bridge)| (end.to_owned(), bridge.to_owned())).collect(),
            ..none()
        };
        let ports = |names: &[&str]| names.iter().map(OsString::from).collect::<BTreeSet<_>>();
        let ports: BTreeMap<_, _> =
            [("front", ports(&["veth1", "veth2"])), ("back", ports(&["veth3"])), ("gone", ports(&[]))].into();
        for (ends, has) in [
            (&[("veth1", "front"), ("veth3", "back")][..], true),
            (&[("veth1", "front"), ("veth4", "back")], false),
            (&[("veth1", "back")], false),
            (&[("veth5", "gone")], false),
            (&[("veth1", "never")], false),
            (&[], true),
        ] {
            assert_eq!(has_ends(&on(ends), &ports), has, "{ends:?}");
        }
        let instances = [
            (instance("a-1"), Arc::new(on(&[("veth1", "no-such-bridge")]))),
            (instance("b-1"), Arc::new(none())),
        ];
        assert_eq!(missing(&Mounted::new().unwrap(), &instances).unwrap(), [instance("a-1")].into());
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
        let own = |name: &str| Parts {
            namespace: Some("/proc/self/ns/net".into()),
            beside: vec![name.to_owned()],
            ..none()
        };
        let instances = [("a-1", own("lo")), ("b-1", own("eth100")), ("c-1", none())]
            .map(|(name, parts)| (instance(name), Arc::new(parts)));
        assert_eq!(without_interfaces_there(instances.iter().collect()), [&instances[1]]);
        let file = tempfile::NamedTempFile::new().unwrap();
        for nothing in [file.path(), Path::new("/no/such/namespace")] {
            let parts =
                Parts { namespace: Some(nothing.to_owned()), beside: vec!["eth0".to_owned()], ..none() };
            assert!(!has_interfaces(&parts), "{}", nothing.display());
        }
    }
}
