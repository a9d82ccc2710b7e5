//! Limits of a container.

use crate::language::{integer, optional, table};
use crate::units::{MIB, TIB};
use crate::values::{cpu, cpu_set, size_or_bytes};

/// The most processes that Linux numbers at all (PID_MAX_LIMIT of include/linux/threads.h).
const MAX_PIDS: u64 = 4 * 1024 * 1024;

table! {
    /// Limits of one container; what is left out is no limit of its own.
    #[derive(Default)]
    pub struct Limits {
        /// Memory. A container that needs more is ended by the kernel.
        pub memory: Option<u64> = "memory", optional(size_or_bytes("memory", MIB, 1024 * TIB)), "\"256MiB\"";
        /// Memory above which the kernel slows it down and takes pages back, before `memory` ends it.
        pub memory_reservation: Option<u64> = "memory-reservation", optional(size_or_bytes("memory", MIB, 1024 * TIB)), "\"128MiB\"";
        /// Swap space beside its memory.
        pub swap: Option<u64> = "swap", optional(size_or_bytes("swap", 0, 1024 * TIB)), "\"0B\"";
        /// CPUs, in thousandths in this crate.
        pub cpu_millis: Option<u64> = "cpu", optional(cpu()), "\"0.5\"";
        /// Its part of the CPUs when others want them, too; 100 is the middle.
        pub cpu_weight: Option<u64> = "cpu-weight", optional(integer(1..=10_000)), "200";
        /// The CPUs that it may run on: numbers and ranges.
        pub cpuset: Option<String> = "cpuset", optional(cpu_set()), "\"0-1,3\"";
        /// Its part of the disks when others want them, too; 100 is the middle.
        pub io_weight: Option<u64> = "io-weight", optional(integer(1..=10_000)), "50";
        /// Processes and threads.
        pub pids: Option<u64> = "pids", optional(integer(1..=MAX_PIDS)), "100";
    }
}
