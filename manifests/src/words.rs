//! Closed lists of words: architectures, capabilities, signals.

use crate::document::Wrong;
use crate::fault::quoted;
use crate::nearest::{did_you_mean, nearest};

/// Architectures in the words of OCI (image specification, image-index.md, "platform", which takes them from Go).
const ARCHITECTURES: [&str; 9] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"];

/// The names that the kernel gives to architectures whose OCI name differs.
const KERNEL_ARCHITECTURES: [(&str, &str); 4] =
    [("x86_64", "amd64"), ("aarch64", "arm64"), ("i686", "386"), ("armv7l", "arm")];

/// An architecture.
pub(crate) fn read_arch(text: &str) -> Result<String, Wrong> {
    if ARCHITECTURES.contains(&text) {
        return Ok(text.to_owned());
    }
    let kernel = KERNEL_ARCHITECTURES.iter().find(|(kernel, _)| *kernel == text);
    let hint = match kernel {
        Some((_, oci)) => format!("write `{oci}`, as image registries do"),
        None => format!("one of {} is expected", ARCHITECTURES.join(", ")),
    };
    Err(Wrong::new(format!("{} is no architecture", quoted(text))).hint(hint))
}

/// All capabilities of Linux 6.12 (capabilities(7); include/uapi/linux/capability.h), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What every container may do; what it may do more is declared. All of it reaches no further than the container's own
/// user namespace.
pub const DEFAULT_CAPABILITIES: [&str; 10] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Capabilities whose reach is, or has been by way of kernel faults, beyond the container that holds them. They
/// need the threshold of the `os` role.
const DANGEROUS: [&str; 20] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// A capability, as `NET_ADMIN`.
pub(crate) fn read_capability(text: &str) -> Result<String, Wrong> {
    if CAPABILITIES.contains(&text) {
        return Ok(text.to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let hint = nearest(bare, CAPABILITIES).map(|near| format!("write `{near}`: upper case, without `CAP_`"));
    let all = if bare == "ALL" { Some("name each capability that is needed".to_owned()) } else { None };
    Err(Wrong { message: format!("{} is no capability", quoted(text)), hint: all.or(hint) })
}

/// Whether `capability` needs the `os` role.
pub(crate) fn is_dangerous(capability: &str) -> bool {
    DANGEROUS.contains(&capability)
}

/// Signals that a process can be asked to stop with (signal(7), "Standard signals").
const SIGNALS: [&str; 28] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGKILL",
    "SIGPIPE",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
/// Real-time signals above the first (signal(7), "Real-time signals"); systemd in a container stops by `SIGRTMIN+3`.
const REAL_TIME: std::ops::RangeInclusive<u8> = 1..=30;

/// A signal by its name, as `SIGTERM` or `SIGRTMIN+3`.
pub(crate) fn read_signal(text: &str) -> Result<String, Wrong> {
    let real_time = |number: u8| text == format!("SIGRTMIN+{number}");
    if SIGNALS.contains(&text) || text == "SIGRTMIN" || REAL_TIME.into_iter().any(real_time) {
        return Ok(text.to_owned());
    }
    let upper = text.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let numeric = text.bytes().all(|b| b.is_ascii_digit());
    let near = if numeric { None } else { did_you_mean(&full, SIGNALS) };
    let hint = near.unwrap_or_else(|| "write its name, as `SIGTERM`".to_owned());
    Err(Wrong::new(format!("{} is no signal", quoted(text))).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint<T: std::fmt::Debug>(result: Result<T, Wrong>) -> String {
        result.expect_err("it is refused").hint.unwrap_or_default()
    }

    #[test]
    fn lists_are_sorted_and_the_dangerous_are_capabilities() {
        assert!(CAPABILITIES.is_sorted() && DANGEROUS.is_sorted() && SIGNALS.is_sorted());
        assert!(DANGEROUS.iter().all(|capability| CAPABILITIES.contains(capability)));
    }

    #[test]
    fn words_of_the_lists_are_taken_and_others_get_a_hint() {
        assert!(
            read_capability("NET_ADMIN").is_ok()
                && read_signal("SIGRTMIN+3").is_ok()
                && read_arch("arm64").is_ok()
        );
        assert!(hint(read_capability("CAP_NET_ADMIN")).contains("`NET_ADMIN`"));
        assert!(hint(read_capability("net_admin")).contains("`NET_ADMIN`"));
        assert!(hint(read_capability("ALL")).contains("name each"));
        assert!(hint(read_signal("TERM")).contains("`SIGTERM`"));
        assert!(hint(read_signal("15")).contains("`SIGTERM`"));
        for text in ["SIGRTMIN+0", "SIGRTMIN+31", "SIGRTMIN+03", "SIGSTOP", ""] {
            assert!(read_signal(text).is_err(), "{text}");
        }
        assert!(hint(read_arch("x86_64")).contains("`amd64`"));
        assert!(read_arch("sparc").is_err());
    }
}
