//! System calls that are about more than the process that makes them.
//!
//! Where a call could succeed, its arguments make that harmless: nothing is loaded, started, mounted for long or set to another
//! value than it has.

#![expect(unsafe_code, reason = "the calls are made without what a library puts between")]

use std::ptr::{null, null_mut};

use nix::libc::{self, c_long, syscall};

use crate::Check;

pub(crate) const CHECKS: &[Check] = &[
    ("C01", "mount a file system", || {
        in_child(|| call(libc::SYS_mount, [text(c"none"), text(c"/dev/shm"), text(c"tmpfs"), 0, 0]))
    }),
    ("C02", "mount the root writable", || {
        let flags = (libc::MS_REMOUNT | libc::MS_BIND) as c_long;
        in_child(|| call(libc::SYS_mount, [text(c"none"), text(c"/"), text(c"none"), flags, 0]))
    }),
    ("C03", "mount a part of the tree elsewhere", || {
        in_child(|| {
            call(
                libc::SYS_mount,
                [text(c"/"), text(c"/dev/shm"), text(c"none"), (libc::MS_BIND | libc::MS_REC) as c_long, 0],
            )
        })
    }),
    ("C04", "begin a file system by the newer calls", || {
        call(libc::SYS_fsopen, [text(c"tmpfs"), 0, 0, 0, 0])
    }),
    ("C05", "copy the tree of mounts", || {
        // OPEN_TREE_CLONE
        call(libc::SYS_open_tree, [libc::AT_FDCWD.into(), text(c"/"), 1, 0, 0])
    }),
    ("C06", "take mounts away", || {
        in_child(|| call(libc::SYS_umount2, [text(c"/proc"), libc::MNT_DETACH.into(), 0, 0, 0]))
    }),
    ("C07", "make another root of the mounts", || {
        in_child(|| call(libc::SYS_pivot_root, [text(c"/"), text(c"/"), 0, 0, 0]))
    }),
    ("C08", "make a user namespace, and be root there", || {
        in_child(|| call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]))
    }),
    ("C09", "make a namespace of mounts", || {
        in_child(|| call(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0]))
    }),
    ("C10", "make a process in a user namespace", || {
        let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        // SAFETY: without a stack of its own the child goes on here with a copy of everything, as after fork(2).
        match unsafe { syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            // SAFETY: the child ends at once.
            0 => unsafe { libc::_exit(0) },
            result => result > 0,
        }
    }),
    ("C11", "leave its root by another one", || {
        in_child(|| {
            call(libc::SYS_chroot, [text(c"/proc"), 0, 0, 0, 0])
                && call(libc::SYS_chdir, [text(c"../../../../../../.."), 0, 0, 0, 0])
                && std::fs::symlink_metadata("state/store").is_ok()
        })
    }),
    ("C12", "open a file of the disk by its number (CVE-2014-3519)", handle),
    ("C13", "load a program into the kernel (bpf)", bpf),
    ("C14", "watch the machine's counters", || {
        // perf_event_attr of zeros but for its size: hardware cycles of all processes on the first processor.
        let mut attributes = [0u8; 128];
        attributes[4] = 128;
        call(libc::SYS_perf_event_open, [attributes.as_ptr() as c_long, -1, 0, -1, 0])
    }),
    ("C15", "add a key to the kernel's keyring, which is not of a namespace (CVE-2016-0728)", || {
        call(libc::SYS_add_key, [text(c"user"), text(c"probe"), text(c"x"), 1, -1])
    }),
    ("C16", "answer page faults of the kernel (userfaultfd)", || {
        call(libc::SYS_userfaultfd, [0, 0, 0, 0, 0])
    }),
    ("C17", "set up rings to the kernel (io_uring)", || {
        let parameters = [0u8; 120];
        call(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as c_long, 0, 0, 0])
    }),
    // A module of no bytes is refused for that only after the right to load one was looked at.
    ("C18", "load a module", || errno_of(libc::SYS_init_module, [0, 0, text(c""), 0, 0]) == libc::ENOEXEC),
    ("C19", "load another kernel", || {
        // No segments and a flag that does not exist: refused for that only after the right was looked at.
        errno_of(libc::SYS_kexec_load, [0, 0, 0, 0xff00, 0]) == libc::EINVAL
    }),
    ("C20", "turn the machine's reset key off", || {
        // LINUX_REBOOT_CMD_CAD_OFF, which is how it is already.
        call(libc::SYS_reboot, [0xfee1_dead, 672_274_793, 0, 0, 0])
    }),
    ("C21", "set the clock", clock),
    ("C22", "turn accounting off for the machine", || call(libc::SYS_acct, [0, 0, 0, 0, 0])),
    ("C23", "read the kernel's log", || {
        let mut buffer = [0u8; 256];
        // SYSLOG_ACTION_READ_ALL
        call(libc::SYS_syslog, [3, buffer.as_mut_ptr() as c_long, 256, 0, 0])
    }),
    ("C24", "use a file as swap", || errno_of(libc::SYS_swapon, [text(c"/"), 0, 0, 0, 0]) == libc::EINVAL),
    ("C25", "reach the machine's ports", || call(libc::SYS_iopl, [0, 0, 0, 0, 0])),
    ("C26", "take precedence over all others", || {
        // SAFETY: sched_param is one number.
        unsafe {
            libc::sched_setscheduler(0, libc::SCHED_FIFO, &libc::sched_param { sched_priority: 99 }) == 0
        }
    }),
    ("C27", "raise a limit that it was given", || {
        let more = libc::rlimit { rlim_cur: 1 << 22, rlim_max: 1 << 22 };
        // SAFETY: the structure lives until the call returns.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) == 0 }
    }),
    ("C28", "watch all files of a mount", || {
        // FAN_CLASS_CONTENT, which needs rights over the machine.
        call(libc::SYS_fanotify_init, [4, 0, 0, 0, 0])
    }),
    ("C29", "look for what two processes share in the kernel", || call(libc::SYS_kcmp, [1, 1, 0, 0, 0])),
    ("C30", "rename the machine", || {
        let name = "probe";
        in_child(|| call(libc::SYS_setdomainname, [name.as_ptr() as c_long, 5, 0, 0, 0]))
    }),
];

fn text(text: &'static std::ffi::CStr) -> c_long {
    text.as_ptr() as c_long
}

fn raw(number: c_long, a: [c_long; 5]) -> c_long {
    // SAFETY: pointers among the arguments are to values that live until the call returns; what a call could change is
    // said where it is listed.
    unsafe { syscall(number, a[0], a[1], a[2], a[3], a[4]) }
}

fn call(number: c_long, arguments: [c_long; 5]) -> bool {
    raw(number, arguments) >= 0
}

/// Why a call failed; 0 where it did not.
fn errno_of(number: c_long, arguments: [c_long; 5]) -> i32 {
    if call(number, arguments) { 0 } else { nix::errno::Errno::last_raw() }
}

/// Whether something succeeds in a process that ends afterwards, with a namespace of mounts of its own where it can have one: so
/// what it changes is gone with it.
fn in_child(is_open: impl FnOnce() -> bool) -> bool {
    // SAFETY: there is one thread.
    match unsafe { libc::fork() } {
        0 => {
            let (own, private) = (
                raw(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0]),
                (libc::MS_REC | libc::MS_PRIVATE) as c_long,
            );
            if own == 0 {
                call(libc::SYS_mount, [text(c"none"), text(c"/"), 0, private, 0]);
            }
            let code = i32::from(is_open());
            // SAFETY: the child ends at once.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the number is written to where it lives.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            child > 0 && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1
        }
    }
}

/// A handle of the root, opened.
fn handle() -> bool {
    // struct file_handle with room for MAX_HANDLE_SZ bytes.
    let mut handle = [0u8; 8 + 128];
    handle[..4].copy_from_slice(&128u32.to_ne_bytes());
    let mut mount = 0i32;
    let (to, id) = (handle.as_mut_ptr() as c_long, &raw mut mount as c_long);
    let named = call(libc::SYS_name_to_handle_at, [libc::AT_FDCWD.into(), text(c"/"), to, id, 0]);
    let opened = errno_of(libc::SYS_open_by_handle_at, [libc::AT_FDCWD.into(), to, 0, 0, 0]);
    // Without a handle the right to open one was looked at all the same.
    opened == 0 || (!named && !matches!(opened, libc::EPERM | libc::ENOSYS)) || opened == libc::ESTALE
}

/// A program that returns 0, as a filter of sockets.
fn bpf() -> bool {
    // BPF_ALU64 | BPF_MOV | BPF_K of register 0, and BPF_EXIT.
    let program: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
    let license = c"GPL";
    // BPF_PROG_LOAD: type, count, instructions, license (bpf(2)).
    let mut attributes = [0u64; 16];
    attributes[0] = 1 | (2 << 32);
    attributes[1] = program.as_ptr() as u64;
    attributes[2] = license.as_ptr() as u64;
    call(libc::SYS_bpf, [5, attributes.as_ptr() as c_long, 128, 0, 0])
}

/// Sets the clock to what it is.
fn clock() -> bool {
    let mut now = libc::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: both live until the calls return.
    unsafe {
        libc::gettimeofday(&raw mut now, null_mut()) == 0 && libc::settimeofday(&raw const now, null()) == 0
    }
}
