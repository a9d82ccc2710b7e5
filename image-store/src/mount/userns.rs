//! A user namespace as a mere description of ids, and a network that belongs to one.

#![expect(
    unsafe_code,
    reason = "a user namespace can only be made by a process of its own, so one is forked"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, pipe2};

use super::IdMap;

/// Namespaces that no process has to be in: they live as long as these descriptors, or what is mounted by them.
#[derive(Debug)]
pub struct Namespaces {
    /// The user namespace.
    pub user: OwnedFd,
    /// The network namespace, which the user namespace owns (network_namespaces(7)); where it was asked for.
    pub network: Option<OwnedFd>,
}

/// Makes a user namespace with the ids of a container, and a network namespace in it where that is asked for.
///
/// # Errors
/// Whatever the kernel says.
pub fn namespaces(map: IdMap, network: bool) -> io::Result<Namespaces> {
    let (ready, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let flags = libc::CLONE_NEWUSER | if network { libc::CLONE_NEWNET } else { 0 };
    let parent = getpid().as_raw();
    // SAFETY: between fork and _exit the child makes nothing but plain system calls; it allocates nothing, takes no lock, and does
    // not return from here.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => unsafe {
            use std::os::fd::AsRawFd;
            let byte = [u8::from(libc::unshare(flags) == 0)];
            // It ends with its parent, and waits for no pipe to be closed: children that are made at the same time hold copies of
            // each other's pipes, and would wait for each other. Other credentials would end this (PR_SET_PDEATHSIG(2const)).
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() == parent {
                libc::write(tell.as_raw_fd(), byte.as_ptr().cast(), 1);
                libc::pause();
            }
            libc::_exit(0);
        },
    };
    drop(tell);
    let made = describe(child, File::from(ready), map, network);
    // The namespaces live on with the descriptors. One that has ended by itself is not killed.
    let _ended = kill(child, Signal::SIGKILL);
    waitpid(child, None)?;
    made
}

fn describe(child: Pid, mut ready: File, map: IdMap, network: bool) -> io::Result<Namespaces> {
    let mut made = [0];
    ready.read_exact(&mut made)?;
    if made != [1] {
        return Err(io::Error::other("the kernel makes no such namespace"));
    }
    // One write each (user_namespaces(7), "Defining user and group ID mappings").
    let line = format!("0 {} {}\n", map.host_start, map.count);
    for file in ["uid_map", "gid_map"] {
        File::options().write(true).open(format!("/proc/{child}/{file}"))?.write_all(line.as_bytes())?;
    }
    let open = |name| File::open(format!("/proc/{child}/ns/{name}")).map(OwnedFd::from);
    Ok(Namespaces { user: open("user")?, network: network.then(|| open("net")).transpose()? })
}
