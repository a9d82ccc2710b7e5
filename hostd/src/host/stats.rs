//! What containers use, out of their control groups (Linux, `Documentation/admin-guide/cgroup-v2.rst`).

use std::path::Path;

use bennu_api::Usage;
use bennu_planner::Instance;

use super::{kills, unit};

/// What an instance uses, whose directory this is; what the kernel does not tell counts as nothing.
pub(super) fn usage(instance: &Instance, dir: &Path) -> Usage {
    let group = unit::group(instance);
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let number = |file: &str| read(file).trim().parse().ok();
    let (cpu, io) = (read("cpu.stat"), read("io.stat"));
    Usage {
        cpu_usec: keyed(&cpu, "usage_usec"),
        throttled_usec: keyed(&cpu, "throttled_usec"),
        memory: number("memory.current").unwrap_or(0),
        memory_peak: number("memory.peak").unwrap_or(0),
        // "max" is no number, and no limit.
        memory_limit: number("memory.max"),
        oom_kills: kills::of(dir, instance).count,
        pids: number("pids.current").unwrap_or(0),
        pids_limit: number("pids.max"),
        read_bytes: summed(&io, "rbytes"),
        written_bytes: summed(&io, "wbytes"),
    }
}

/// The number behind a word at the beginning of a line.
pub(super) fn keyed(text: &str, key: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(word, _)| *word == key).find_map(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// The sum of `KEY=NUMBER` over all lines, one for each disk.
fn summed(text: &str, key: &str) -> u64 {
    let pairs = text.split_ascii_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.filter(|(word, _)| *word == key).filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_words() {
        let cpu = "usage_usec 1234\nuser_usec 1000\nthrottled_usec 5\n";
        assert_eq!(
            (keyed(cpu, "usage_usec"), keyed(cpu, "throttled_usec"), keyed(cpu, "none")),
            (1234, 5, 0)
        );
        let io = "254:0 rbytes=10 wbytes=1 rios=2\n254:16 rbytes=5 wbytes=0 rios=1\n";
        assert_eq!((summed(io, "rbytes"), summed(io, "wbytes")), (15, 1));
    }
}
