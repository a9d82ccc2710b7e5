//! What the process is, and what it was handed.

use std::fs;

use crate::Check;

pub(crate) const CHECKS: &[Check] = &[
    ("S01", "be root of the host", || {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().nth(1) == Some("0")
    }),
    ("S02", "gain rights by setuid files", || status("NoNewPrivs:").trim() == "0"),
    ("S03", "make any system call", || status("Seccomp:").trim() == "0"),
    ("S04", "have a right that reaches beyond the container", || {
        let rights = u64::from_str_radix(status("CapBnd:").trim(), 16).unwrap_or(u64::MAX);
        // DAC_READ_SEARCH, LINUX_IMMUTABLE, NET_ADMIN, NET_RAW, SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT,
        // SYS_TIME, MKNOD, MAC_ADMIN, SYSLOG, BPF (capabilities(7)).
        [2, 9, 12, 13, 16, 17, 19, 21, 22, 25, 27, 33, 34, 39].iter().any(|right| rights >> right & 1 == 1)
    }),
    ("S05", "see processes of the host", || {
        fs::read_to_string("/proc/1/comm").is_ok_and(|comm| comm.trim() == "systemd")
    }),
    ("S06", "have a file of the host open (CVE-2024-21626)", || {
        let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let beyond =
            open.filter(|file| file.file_name().to_string_lossy().parse::<u32>().is_ok_and(|n| n > 2));
        // One of them is the directory that is being read.
        beyond.filter_map(|file| fs::read_link(file.path()).ok()).filter(|to| !to.ends_with("fd")).count() > 0
    }),
    ("S07", "have the secrets of the host's services in its environment", || {
        std::env::vars()
            .any(|(name, _)| name.starts_with("CREDENTIALS_DIRECTORY") || name.starts_with("NOTIFY_SOCKET"))
    }),
    ("S08", "see mounts of others", || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .any(|at| at.starts_with("/run/host/bennu/instances") || at.starts_with("/state"))
    }),
    ("S09", "have mounts that pass on what is mounted to the host", || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts.lines().any(|line| line.contains(" shared:"))
    }),
];

/// The value of one line of `/proc/self/status` (proc_pid_status(5)).
fn status(word: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default().to_owned()
}
