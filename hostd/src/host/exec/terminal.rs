//! The terminal of a command: made in the container by the runtime, which hands over the other end, or stays between it and one
//! that is made here.
//!
//! So it is one of the container's own (`/dev/pts` there), and the command's controlling terminal: job control works, and
//! programs that ask for their terminal's name find it.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bennu_api::Size;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};
use tokio::net::UnixListener;

/// How long the runtime has to hand over the terminal.
const HAND_OVER: Duration = Duration::from_secs(20);

/// The longest message that comes with it: its name.
const MAX_NAME: usize = 4096;

/// Where a terminal is handed over: a socket that is gone with this.
pub(super) struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens, in a directory that only the daemon enters.
    pub(super) fn listen(dir: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        // The names of containers may be longer than a socket's may be (unix(7)), so this bears none.
        let path = dir.join(format!("console-{}.sock", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let _ = std::fs::remove_file(&path);
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the terminal (OCI runtime command line, "Detached", `--console-socket`).
    pub(super) async fn receive(&self) -> io::Result<Terminal> {
        let receive = async {
            let (stream, _) = self.listener.accept().await?;
            let master = stream.async_io(Interest::READABLE, || take_descriptor(&stream)).await?;
            Terminal::new(master)
        };
        tokio::time::timeout(HAND_OVER, receive).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn take_descriptor(stream: &tokio::net::UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; MAX_NAME];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().ok_or_else(|| io::Error::other("the runtime sent no terminal"))
}

/// Makes standard input the controlling terminal of a new session: so its hanging up and its size are told to whoever begins
/// it. It only asks the kernel, and may be called between fork and exec.
pub(super) fn take_standard_input() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
}

/// Our end of a terminal. When all of it is dropped, the command's end hangs up.
#[derive(Debug, Clone)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        // SAFETY: an `OwnedFd` is the same descriptor from here until it is dropped, with its registration before it.
        let registered = unsafe { AsyncFd::register(master) }?;
        Ok(Self(Arc::new(registered)))
    }

    /// A terminal of the host's, and its other end for a program to be run at.
    pub(super) fn pair(size: Size) -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let end = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        let ours = Self::new(master)?;
        ours.resize(size)?;
        Ok((ours, end))
    }

    /// What the command wrote; nothing once it has closed its end, which the kernel tells as an error of its own (pty(7)
    /// and Linux, `tty_io.c`: `EIO`).
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.async_io(Interest::READABLE, |master| Ok(rustix::io::read(master, &mut *buffer)?));
        match read.await {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(0),
            other => other,
        }
    }

    /// Types something.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.ready(Interest::WRITABLE).await?;
            match rustix::io::write(self.0.get_ref(), bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready_matching(Ready::WRITABLE),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Tells the command of another size (`SIGWINCH`).
    pub(super) fn resize(&self, Size { rows, columns }: Size) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(tcsetwinsize(self.0.get_ref(), size)?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;

    use super::*;

    #[tokio::test]
    async fn a_program_at_a_terminal_of_the_hosts_has_its_size_and_hears_of_another_one() {
        let (ours, end) = Terminal::pair(Size { rows: 50, columns: 132 }).unwrap();
        let script = "stty size; trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.1; done";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(end.try_clone().unwrap()).stdout(end);
        // SAFETY: it only asks the kernel.
        unsafe { command.pre_exec(take_standard_input) };
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let (mut said, mut buffer) = (String::new(), [0; 256]);
        loop {
            let read = ours.read(&mut buffer).await.unwrap();
            if read == 0 {
                break;
            }
            said.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
            if said.ends_with("ready\r\n") {
                ours.resize(Size { rows: 33, columns: 99 }).unwrap();
            }
        }
        assert_eq!(said, "50 132\r\nready\r\n33 99\r\n");
        assert_eq!(child.wait().await.unwrap().code(), Some(4));
    }
}
