//! Paths that lead to the host or to the kernel as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::Check;

pub(crate) const CHECKS: &[Check] = &[
    ("F01", "write to the root", || fs::write("/probe", "x").is_ok()),
    ("F02", "write where the kernel keeps what handles crashes (core_pattern)", || {
        writable("/proc/sys/kernel/core_pattern")
    }),
    ("F03", "write where the kernel keeps what loads modules", || writable("/proc/sys/kernel/modprobe")),
    ("F04", "write to sysrq-trigger", || writable("/proc/sysrq-trigger")),
    ("F05", "read the kernel's memory (kcore)", || reads("/proc/kcore")),
    ("F06", "read the keys of others", || reads("/proc/keys")),
    ("F07", "read the kernel's timers", || reads("/proc/timer_list")),
    ("F08", "read which interrupts come, by which keys can be guessed", || reads("/proc/interrupts")),
    ("F09", "read how much power the machine takes (CVE-2020-8694)", || {
        lists("/sys/devices/virtual/powercap")
    }),
    ("F10", "read the firmware's tables", || lists("/sys/firmware")),
    ("F11", "write below /sys", || writable("/sys/kernel/mm/transparent_hugepage/enabled")),
    ("F12", "write to the control group (CVE-2022-0492)", || writable("/sys/fs/cgroup/cgroup.procs")),
    ("F13", "make a control group", || {
        let made = fs::create_dir("/sys/fs/cgroup/probe").is_ok();
        let _gone = fs::remove_dir("/sys/fs/cgroup/probe");
        made
    }),
    ("F14", "see another control group than its own", || {
        exists("/sys/fs/cgroup/bennu.slice") || exists("/sys/fs/cgroup/init.scope")
    }),
    ("F15", "see the host's state", || exists("/state") || exists("/run/host/bennu/instances")),
    ("F16", "walk to the host's state from the working directory (CVE-2024-21626)", || {
        exists("/proc/self/cwd/../../../../../../../../state/store")
    }),
    ("F17", "reach the daemon's or the system's socket", || {
        ["/run/bennu/hostd.sock", "/run/hostd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private"]
            .iter()
            .any(exists)
    }),
    ("F18", "change the files that the host put into it", || {
        ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"].iter().any(|path| writable(path))
    }),
    ("F19", "write to the program that reaps for it, which is the host's", || writable("/run/bennu-init")),
    ("F20", "write to the program that it was started by (CVE-2019-5736)", || writable("/proc/1/exe")),
    ("F21", "make a node of a disk", || usable_node(SFlag::S_IFBLK, 254, 0)),
    ("F22", "make a node of memory", || usable_node(SFlag::S_IFCHR, 1, 1)),
    ("F23", "open a disk of the host", || {
        let mut nodes = fs::read_dir("/dev").into_iter().flatten().flatten();
        nodes.any(|node| node.file_type().is_ok_and(|kind| kind.is_block_device()) && reads(node.path()))
    }),
    ("F24", "open memory, ports or the kernel's log", || {
        ["/dev/mem", "/dev/port", "/dev/kmsg"].iter().any(|path| File::open(path).is_ok())
    }),
    ("F25", "open a device that makes interfaces, machines or mounts", || {
        ["/dev/net/tun", "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/vhost-net"]
            .iter()
            .any(|path| File::open(path).is_ok())
    }),
    ("F26", "read where the kernel's functions are", || {
        let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        symbols.lines().any(|line| !line.starts_with("0000000000000000"))
    }),
    ("F27", "read or write another process's memory on the host by /proc", || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut others = processes.filter(|p| p.file_name().to_string_lossy().parse::<u32>().is_ok());
        others.any(|p| fs::read_to_string(p.path().join("comm")).is_ok_and(|comm| comm.trim() == "hostd"))
    }),
];

fn exists(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Opened, never written to: what is open is harmless that way.
fn writable(path: &str) -> bool {
    OpenOptions::new().write(true).open(path).is_ok()
}

fn reads(path: impl AsRef<Path>) -> bool {
    File::open(path).is_ok_and(|mut file| file.read(&mut [0; 16]).is_ok_and(|length| length > 0))
}

fn lists(path: &str) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

fn usable_node(kind: SFlag, major: u64, minor: u64) -> bool {
    ["/dev/shm/probe-node", "/tmp/probe-node", "/run/probe-node"].iter().any(|path| {
        let made = mknod(*path, kind, Mode::S_IRUSR, makedev(major, minor)).is_ok();
        let opened = made && File::open(path).is_ok();
        let _gone = fs::remove_file(path);
        opened
    })
}
