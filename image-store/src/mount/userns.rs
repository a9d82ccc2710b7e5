//! A user namespace as a mere description of ids.

#![expect(
    unsafe_code,
    reason = "a user namespace can only be made by a process of its own, so one is forked"
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe2};

use super::IdMap;

/// A user namespace that maps `count` ids from 0 to those from `host_start`.
pub(super) fn open(map: IdMap) -> io::Result<OwnedFd> {
    let (ready, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let (hold, release) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: between fork and _exit the child makes nothing but plain system calls; it allocates nothing, takes no lock, and does
    // not return from here.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => unsafe {
            use std::os::fd::AsRawFd;
            let mut byte = [u8::from(libc::unshare(libc::CLONE_NEWUSER) == 0)];
            libc::write(tell.as_raw_fd(), byte.as_ptr().cast(), 1);
            // Its own copy of the writing end has to go, or it would wait for itself.
            libc::close(release.as_raw_fd());
            libc::read(hold.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
            libc::_exit(0);
        },
    };
    drop((tell, hold));
    let namespace = describe(child, File::from(ready), map);
    // Closing the pipe ends the child; the namespace lives on with the descriptor.
    drop(release);
    waitpid(child, None)?;
    namespace
}

fn describe(child: Pid, mut ready: File, map: IdMap) -> io::Result<OwnedFd> {
    let mut made = [0];
    ready.read_exact(&mut made)?;
    if made != [1] {
        return Err(io::Error::other("the kernel makes no user namespace"));
    }
    let line = format!("0 {} {}\n", map.host_start, map.count);
    for file in ["uid_map", "gid_map"] {
        File::options().write(true).open(format!("/proc/{child}/{file}"))?.write_all(line.as_bytes())?;
    }
    Ok(File::open(format!("/proc/{child}/ns/user"))?.into())
}
