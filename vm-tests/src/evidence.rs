//! What is kept of a machine when a test fails.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::hostctl::Hostctl;
use crate::programs::target_directory;
use crate::vm::Vm;

/// Commands in the guest, and the files that their output goes to.
const ASKED: &[(&str, &str)] = &[
    ("journal.txt", "journalctl --no-pager -o short-precise -n 20000"),
    (
        "units.txt",
        "systemctl --no-pager --all list-units; systemctl --no-pager --failed; systemctl list-jobs",
    ),
    ("processes.txt", "ps -e -o pid,ppid,rss,stat,cgroup,args 2>/dev/null || cat /proc/[0-9]*/stat"),
    ("network.txt", "ip address; ip route; nft list ruleset; cat /etc/resolv.conf"),
    ("mounts.txt", "cat /proc/self/mountinfo; df -h; btrfs subvolume list -o /state 2>/dev/null"),
    ("kernel.txt", "dmesg"),
];

/// Commands of `hostctl`, and the files that their output goes to.
const ASKED_OF_HOSTD: &[(&str, &[&str])] = &[
    ("status.json", &["--json", "status"]),
    ("ps.json", &["--json", "ps"]),
    ("history.json", &["--json", "history"]),
    ("dump.json", &["dump"]),
];

/// Keeps logs and state of a machine below cargo's target directory, and returns where. What cannot be had any more is
/// left out: a machine that failed may not answer.
pub fn keep(vm: &mut Vm, hostctl: Option<&Hostctl>, name: &str) -> PathBuf {
    let target = target_directory().unwrap_or_else(|_| std::env::temp_dir());
    let directory = target.join("vm-tests").join(name);
    let _absent_at_first = fs::remove_dir_all(&directory);
    let _best_effort = fs::create_dir_all(&directory);
    for file in [vm.files().serial(), vm.files().messages()] {
        let _best_effort = fs::copy(&file, directory.join(file.file_name().expect("a name was joined")));
    }
    for (file, command) in ASKED {
        let text = match vm.guest_within(command, Duration::from_secs(30)) {
            Ok(output) => output.text,
            Err(error) => error.to_string(),
        };
        let _best_effort = fs::write(directory.join(file), text);
    }
    for (file, arguments) in ASKED_OF_HOSTD.iter().filter(|_| hostctl.is_some()) {
        let ran = hostctl.and_then(|hostctl| hostctl.run(arguments).ok());
        let text = ran.map(|ran| ran.stdout + &ran.stderr).unwrap_or_default();
        let _best_effort = fs::write(directory.join(file), text);
    }
    directory
}
