//! The system calls that are left to a process that parses layers: memory, its pipes, and the file that it writes.
//!
//! An allow list; everything else fails with `EPERM`. Nothing in it opens, names, connects, starts or signals anything.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Files that are open already, and their end. `fstatfs` and `syncfs` are for the look whether the disk becomes full.
const FILES: [i64; 10] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_syncfs,
];
/// Memory, but not making it executable; see [`filter`].
const MEMORY: [i64; 4] = [libc::SYS_brk, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_madvise];
/// Time, chance, and the end of the process.
const PROCESS: [i64; 7] = [
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
/// Where `mmap(2)` and `mprotect(2)` have their protection.
const PROTECTION: u8 = 2;

/// The filter, for the architecture of this program.
pub(super) fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FILES.into_iter().chain(MEMORY).chain(PROCESS).map(|call| (call, Vec::new())).collect();
    let executable = libc::PROT_EXEC as u64;
    let never_executable = || {
        let masked = SeccompCmpOp::MaskedEq(executable);
        let condition = SeccompCondition::new(PROTECTION, SeccompCmpArgLen::Dword, masked, 0)?;
        SeccompRule::new(vec![condition])
    };
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![never_executable()?]);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?.try_into()
}
