//! The user and network namespaces of an instance: made once, kept by a mount, so that they outlive every process in
//! them and a container that is started again finds its network as it left it.
//!
//! The network namespace is owned by the user namespace: what the container's root may do to a network it may do to
//! this one and to no other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::idrange;

/// How long the helper has to be in its namespaces.
const DEADLINE: Duration = Duration::from_secs(30);

/// Enters new namespaces and runs a program there (util-linux).
const UNSHARE: &str = "/usr/bin/unshare";

/// Repeats what it reads, which tells that it runs, and ends when nothing more comes.
const ECHO: &str = "/usr/bin/cat";

/// Makes both namespaces and keeps them at `user` and `net` in `dir`, which exists and is empty. The ids of the user
/// namespace are the range that begins at `host_start`; where that is `None` there is none, and its users are the host's. Nor
/// is there a network namespace where `own_network` does not ask for it.
///
/// # Errors
/// Whatever the kernel says.
pub(super) async fn create(dir: &Path, host_start: Option<u32>, own_network: bool) -> io::Result<()> {
    if host_start.is_none() && !own_network {
        return Ok(());
    }
    let mut helper = Command::new(UNSHARE)
        .args(host_start.map(|_| "--user"))
        .args(own_network.then_some("--net"))
        .args(["--", ECHO])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let made = tokio::time::timeout(DEADLINE, keep(&mut helper, dir, host_start, own_network)).await;
    drop(helper.stdin.take());
    helper.start_kill()?;
    helper.wait().await?;
    made.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn keep(helper: &mut Child, dir: &Path, host_start: Option<u32>, own_network: bool) -> io::Result<()> {
    // Once the byte comes back the program runs, so the namespaces are there.
    let gone = || io::Error::other("unshare ended before its time");
    helper.stdin.as_mut().ok_or_else(gone)?.write_all(b"x").await?;
    helper.stdout.as_mut().ok_or_else(gone)?.read_exact(&mut [0]).await?;
    let process = PathBuf::from("/proc").join(helper.id().ok_or_else(gone)?.to_string());
    if let Some(host_start) = host_start {
        // One write each (user_namespaces(7), "Defining user and group ID mappings").
        let map = format!("0 {host_start} {}\n", idrange::COUNT);
        std::fs::write(process.join("uid_map"), &map)?;
        std::fs::write(process.join("gid_map"), &map)?;
    }
    for name in host_start.map(|_| "user").into_iter().chain(own_network.then_some("net")) {
        let kept = dir.join(name);
        File::create(&kept)?;
        mount(Some(&process.join("ns").join(name)), &kept, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    }
    Ok(())
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
    for mounted in below(&std::fs::read_to_string("/proc/self/mountinfo")?, dir).into_iter().rev() {
        // Detached: an open file in a mount must not keep an instance from being taken down.
        umount2(&mounted, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

/// The mount points at or below `dir` in the order in which they were mounted (proc_pid_mountinfo(5)). Names on the way
/// to an instance hold none of the characters that are escaped there.
fn below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_found_and_others_are_not() {
        let text = "22 1 0:5 / /run rw - tmpfs tmpfs rw\n\
                    30 22 0:30 / /run/bennu/instances/web-1/rootfs rw - overlay overlay rw\n\
                    31 22 0:4 net:[1] /run/bennu/instances/web-1/ns/net rw - nsfs nsfs rw\n\
                    32 22 0:4 net:[1] /run/bennu/instances/web-10/ns/net rw - nsfs nsfs rw\n";
        let found = below(text, Path::new("/run/bennu/instances/web-1"));
        let expected =
            ["/run/bennu/instances/web-1/rootfs", "/run/bennu/instances/web-1/ns/net"].map(PathBuf::from);
        assert_eq!(found, expected);
    }

    #[test]
    fn an_ordinary_file_keeps_no_namespace_and_the_kernels_own_does() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_kept(dir.path()) && !is_kept(&dir.path().join("none")));
        assert!(is_kept(Path::new("/proc/self/ns/net")));
    }
}
