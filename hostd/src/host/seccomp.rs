//! Which system calls a container may make.
//!
//! An allow list. What is known and withheld fails with `EPERM`; what is not known at all fails with `ENOSYS`, which C
//! libraries take as "this kernel is older" and do without. Only the machine's own architecture is served: calls by way
//! of another one (32-bit calls on a 64-bit machine) end the process.

use std::collections::BTreeSet;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Files, directories and what is known about them.
const FILES: &str = "access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat \
    faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr \
    flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 \
    getxattr ioctl lchown lgetxattr link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat \
    mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 \
    read readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice stat \
    statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat \
    utimes vmsplice write writev";

/// Memory.
const MEMORY: &str = "brk cachestat get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret \
    mincore mlock mlock2 mlockall mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
    pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node";

/// Processes, threads, their identities and limits.
const PROCESSES: &str = "alarm arch_prctl capget capset execve execveat exit exit_group fork get_robust_list \
    get_thread_area getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid \
    getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease \
    process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list \
    set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setpgid setpriority setregid setresgid \
    setresuid setreuid setrlimit setsid setuid sigaltstack signalfd signalfd4 sysinfo tgkill times tkill uname vfork \
    wait4 waitid";

/// Sockets, message queues, shared memory and semaphores.
const TALK: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify \
    mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 recvfrom recvmmsg recvmsg \
    semctl semget semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketpair";

/// Waiting, watching and the time.
const WAITING: &str = "clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl \
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_wait \
    futex_waitv futex_wake getitimer getrandom gettimeofday inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit nanosleep poll ppoll pselect6 \
    select setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create \
    timerfd_gettime timerfd_settime";

/// What exists, is withheld, and says so. Everything here either changes the machine as a whole or has a history of
/// holes in the kernel that only programs with rights outside a container have a use for.
const WITHHELD: &str = "acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init \
    fanotify_mark finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register \
    io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie migrate_pages modify_ldt mount \
    mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open personality pidfd_getfd \
    pivot_root process_madvise quotactl quotactl_fd reboot request_key setdomainname sethostname setns settimeofday \
    statmount listmount swapoff swapon syslog umount2 unshare userfaultfd uselib ustat vhangup";

/// What a capability brings along: without these calls it would be of no use.
const WITH_CAPABILITY: &[(Capability, &str)] = &[
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::SysAdmin, SYS_ADMIN),
    (Capability::SysChroot, "chroot"),
    (Capability::SysNice, "migrate_pages move_pages process_madvise"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysTime, "adjtimex clock_adjtime clock_settime settimeofday"),
    (Capability::Syslog, "syslog"),
    (Capability::Bpf, "bpf"),
    (Capability::Perfmon, "bpf perf_event_open"),
];

const SYS_ADMIN: &str = "bpf clone3 fanotify_init fanotify_mark fsconfig fsmount fsopen fspick mount mount_setattr \
    move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns statmount \
    listmount umount2 unshare";

/// All flags of clone(2) that make a namespace: NEWTIME aside, whose bit means a signal there, and with the obsolete
/// bit for cgroup namespaces (`CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`).
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// Execution domains that personality(2) may set: Linux, with and without address randomisation, and asking which.
const PERSONALITIES: [u64; 4] = [0, 0x8, 0x0004_0000, 0xffff_ffff];

/// `AF_VSOCK` of socket(2): a channel to the hypervisor below the host.
const AF_VSOCK: u64 = 40;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile for a container with these capabilities.
///
/// # Errors
/// None that could happen: the builders ask for fields that are all given here.
pub(super) fn profile(capabilities: &BTreeSet<String>) -> Result<LinuxSeccomp, OciSpecError> {
    let has = |capability: &Capability| capabilities.contains(&capability.to_string());
    let brought: BTreeSet<&str> = WITH_CAPABILITY
        .iter()
        .filter(|(c, _)| has(c))
        .flat_map(|(_, calls)| calls.split_ascii_whitespace())
        .collect();
    let always = [FILES, MEMORY, PROCESSES, TALK, WAITING].into_iter().flat_map(str::split_ascii_whitespace);
    let allowed: BTreeSet<&str> = always.chain(brought.iter().copied()).collect();
    let withheld = WITHHELD.split_ascii_whitespace().filter(|call| !allowed.contains(call));
    let mut rules = vec![plain(allowed.iter().copied())?, refused(withheld)?];
    if has(&Capability::SysAdmin) {
        rules.push(plain(["clone"].into_iter())?);
    } else {
        rules.push(when("clone", LinuxSeccompOperator::ScmpCmpMaskedEq, CLONE_NAMESPACES, Some(0))?);
    }
    for value in PERSONALITIES {
        rules.push(when("personality", LinuxSeccompOperator::ScmpCmpEq, value, None)?);
    }
    rules.push(when("socket", LinuxSeccompOperator::ScmpCmpNe, AF_VSOCK, None)?);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(ENOSYS)
        .syscalls(rules)
        .build()
}

fn plain<'a>(names: impl Iterator<Item = &'a str>) -> Result<LinuxSyscall, OciSpecError> {
    let names: Vec<String> = names.map(str::to_owned).collect();
    LinuxSyscallBuilder::default().names(names).action(LinuxSeccompAction::ScmpActAllow).build()
}

fn refused<'a>(names: impl Iterator<Item = &'a str>) -> Result<LinuxSyscall, OciSpecError> {
    // What is allowed for some arguments fails for all others as what is not known does; it must not be named twice
    // with actions that contradict each other.
    let names: Vec<String> = names.filter(|name| *name != "personality").map(str::to_owned).collect();
    LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(EPERM)
        .build()
}

/// Allows a call when its first argument compares so.
fn when(
    name: &str,
    op: LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> Result<LinuxSyscall, OciSpecError> {
    let argument = LinuxSeccompArgBuilder::default().index(0usize).value(value).op(op);
    let argument = match value_two {
        Some(two) => argument.value_two(two),
        None => argument,
    };
    LinuxSyscallBuilder::default()
        .names(vec![name.to_owned()])
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(vec![argument.build()?])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &LinuxSeccomp, action: LinuxSeccompAction) -> BTreeSet<String> {
        let rules = profile.syscalls().iter().flatten();
        let rules = rules.filter(|rule| rule.action() == action && rule.args().is_none());
        rules.flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn nothing_is_both_allowed_and_withheld() {
        for capabilities in [BTreeSet::new(), BTreeSet::from(["SYS_ADMIN".to_owned(), "SYS_TIME".to_owned()])]
        {
            let profile = profile(&capabilities).unwrap();
            let allowed = names(&profile, LinuxSeccompAction::ScmpActAllow);
            let withheld = names(&profile, LinuxSeccompAction::ScmpActErrno);
            assert_eq!(allowed.intersection(&withheld).collect::<Vec<_>>(), Vec::<&String>::new());
        }
    }

    #[test]
    fn mounting_needs_its_capability() {
        let without = profile(&BTreeSet::new()).unwrap();
        assert!(names(&without, LinuxSeccompAction::ScmpActErrno).contains("mount"));
        let with = profile(&BTreeSet::from(["SYS_ADMIN".to_owned()])).unwrap();
        assert!(names(&with, LinuxSeccompAction::ScmpActAllow).contains("mount"));
    }

    #[test]
    fn a_namespace_can_not_be_made_without_its_capability() {
        let profile = profile(&BTreeSet::new()).unwrap();
        let clone = profile.syscalls().iter().flatten().find(|rule| rule.names() == &["clone"]).unwrap();
        let arguments = clone.args().as_ref().unwrap();
        assert_eq!((arguments[0].value(), arguments[0].value_two()), (CLONE_NAMESPACES, Some(0)));
        assert!(!names(&profile, LinuxSeccompAction::ScmpActAllow).contains("clone3"));
    }

    #[test]
    fn what_is_not_known_fails_as_on_an_older_kernel() {
        let profile = profile(&BTreeSet::new()).unwrap();
        assert_eq!(profile.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(profile.default_errno_ret(), Some(ENOSYS));
    }
}
