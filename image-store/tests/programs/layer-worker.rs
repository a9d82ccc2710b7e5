//! What tests start to parse layers. By another name than a worker's it does what its arguments say:
//!
//! - `confined WHAT` gives up its rights and then tries one thing, `free WHAT` tries it without;
//! - `import DIR` takes the tar on standard input into a store, with workers of its own.

#![expect(unsafe_code, reason = "executable memory is asked for as an attacker would")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use bennu_image_store::worker::{Bounds, Program, confine, run_if_asked};
use bennu_image_store::{Confinement, Store};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getppid};

fn main() {
    run_if_asked();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["import", directory] => import(Path::new(directory)),
        [how, what] => {
            // What it needs to say how it went; a confined process gets no new descriptors.
            let (parent, out) =
                (getppid(), std::io::stdout().as_fd().try_clone_to_owned().expect("duplicated"));
            if how == "confined" {
                confine(Bounds { memory: 64 << 20, file: 1 << 20 }).expect("confined");
            }
            say(attempt(what, parent), out.into());
        }
        _ => panic!("it is started by tests: {arguments:?}"),
    }
}

fn say(outcome: Result<(), Errno>, mut out: File) {
    let text = match outcome {
        Ok(()) => "done".to_owned(),
        Err(errno) => format!("{errno:?}"),
    };
    out.write_all(text.as_bytes()).expect("written");
}

fn attempt(what: &str, parent: Pid) -> Result<(), Errno> {
    let started = |error: std::io::Error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    match what {
        "read-a-file" => nix::fcntl::open("/etc/passwd", OFlag::O_RDONLY, Mode::empty()).map(drop),
        "make-a-file" => nix::fcntl::open("/tmp", OFlag::O_TMPFILE | OFlag::O_RDWR, Mode::S_IRWXU).map(drop),
        "connect" => {
            nix::sys::socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).map(drop)
        }
        "talk-to-a-neighbour" => {
            nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).map(drop)
        }
        "start-a-program" => Command::new("/bin/true").status().map(drop).map_err(started),
        "start-a-thread" => {
            let thread = std::thread::Builder::new().spawn(|| {});
            thread.map(|thread| thread.join().expect("no panic")).map_err(started)
        }
        "trace-its-parent" => nix::sys::ptrace::attach(parent),
        "signal-its-parent" => nix::sys::signal::kill(parent, Signal::SIGTERM),
        "become-root" => nix::unistd::setuid(0.into()),
        "mount" => nix::mount::umount("/bennu-is-mounted-nowhere"),
        "make-a-namespace" => nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER),
        "make-memory-executable" => {
            // SAFETY: new memory, which nobody uses.
            let memory = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if memory == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(()) }
        }
        "take-memory" => {
            let mut memory: Vec<u8> = Vec::new();
            let reserved = memory.try_reserve_exact(128 << 20).map_err(|_| Errno::ENOMEM);
            std::hint::black_box(&memory);
            reserved
        }
        other => panic!("nobody tries {other}"),
    }
}

fn import(directory: &Path) {
    let store = Store::open(directory, Confinement::Process(Program::this())).expect("a store");
    store.import_layer(std::io::stdin(), Default::default()).expect("sound");
}
