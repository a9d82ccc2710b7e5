//! The user and network namespaces of an instance: made once, kept by a mount, so that they outlive every process in
//! them and a container that is started again finds its network as it left it.
//!
//! The network namespace is owned by the user namespace: what the container's root may do to a network it may do to
//! this one and to no other.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use bennu_image_store::mount::{IdMap, Namespaces, namespaces};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use super::idrange;

/// The namespaces of an instance. They live as long as these descriptors, or the mounts by which they are kept.
#[derive(Debug)]
pub(super) struct Made {
    user: Option<OwnedFd>,
    network: Option<OwnedFd>,
}

/// Makes both namespaces. The ids of the user namespace are the range that begins at `host_start`; where that is `None` there is none,
/// and its users are the host's. Nor is there a network namespace where `own_network` does not ask for it.
///
/// # Errors
/// Whatever the kernel says.
pub(super) fn create(host_start: Option<u32>, own_network: bool) -> io::Result<Made> {
    match host_start {
        Some(host_start) => {
            let Namespaces { user, network } =
                namespaces(IdMap { host_start, count: idrange::COUNT }, own_network)?;
            Ok(Made { user: Some(user), network })
        }
        None => Ok(Made { user: None, network: own_network.then(network_of_the_hosts).transpose()? }),
    }
}

impl Made {
    /// Where other processes find the network namespace while this is there; `None` where there is none.
    pub(super) fn network(&self) -> Option<PathBuf> {
        self.network.as_ref().map(path_of)
    }

    /// Keeps them at `user` and `net` in `dir`, which exists and is empty.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(super) fn keep(&self, dir: &Path) -> io::Result<()> {
        for (name, namespace) in [("user", &self.user), ("net", &self.network)] {
            let Some(namespace) = namespace else { continue };
            let kept = dir.join(name);
            File::create(&kept)?;
            mount(Some(&path_of(namespace)), &kept, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        Ok(())
    }
}

/// What leads any process to what this one has open (proc_pid_fd(5)).
fn path_of(namespace: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()).into()
}

/// A network namespace that the host's own users own. A thread of its own goes there and ends.
fn network_of_the_hosts() -> io::Result<OwnedFd> {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
    });
    made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Where the user namespace of the instance in this directory is kept.
pub(super) fn of_users(dir: &Path) -> PathBuf {
    dir.join("ns/user")
}

/// Whether a namespace is kept at this path.
pub(super) fn is_kept(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC)
}

/// Unmounts everything that is mounted at or below `dir`, the last first; with nothing mounted it does nothing.
///
/// # Errors
/// Whatever the kernel says.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    let mut ended = Ok(());
    for mounted in below(&std::fs::read_to_string("/proc/self/mountinfo")?, dir).into_iter().rev() {
        // Detached: an open file in a mount must not keep an instance from being taken down. One that stays keeps no other.
        ended = ended.and(umount2(&mounted, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW));
    }
    Ok(ended?)
}

/// The mount points at or below `dir` in the order in which they were mounted (proc_pid_mountinfo(5)). Names on the way
/// to an instance hold none of the characters that are escaped there.
fn below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    points(mountinfo).filter(|point| point.starts_with(dir)).collect()
}

/// The mount points in a list of the kernel.
pub(super) fn points(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found_and_others_are_not() {
        let text = "22 1 0:5 / /run rw - tmpfs tmpfs rw\n\
                    30 22 0:30 / /run/host/bennu/instances/web-1/rootfs rw - overlay overlay rw\n\
                    31 22 0:4 net:[1] /run/host/bennu/instances/web-1/ns/net rw - nsfs nsfs rw\n\
                    32 22 0:4 net:[1] /run/host/bennu/instances/web-10/ns/net rw - nsfs nsfs rw\n";
        let found = below(text, Path::new("/run/host/bennu/instances/web-1"));
        let expected = ["/run/host/bennu/instances/web-1/rootfs", "/run/host/bennu/instances/web-1/ns/net"]
            .map(PathBuf::from);
        assert_eq!(found, expected);
    }

    #[test]
    fn an_ordinary_file_keeps_no_namespace_and_the_kernels_own_does() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_kept(dir.path()) && !is_kept(&dir.path().join("none")));
        assert!(is_kept(Path::new("/proc/self/ns/net")));
    }
}
