//! What is kept of a machine when a test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::error::tail;
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

/// What the processors were doing, as QEMU sees it: the only witness of a guest that hangs before it can speak. Asked
/// several times, so that a loop is told from a wait.
fn processors(vm: &mut Vm) -> String {
    let mut ask = |command: &str| {
        let arguments = serde_json::json!({ "command-line": command });
        match vm.qmp().and_then(|qmp| qmp.execute("human-monitor-command", arguments)) {
            Ok(text) => text.as_str().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        }
    };
    ["info registers -a", "info lapic", "info pic", "info registers -a", "info registers -a"]
        .map(&mut ask)
        .join("\n")
}

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
    let _best_effort = fs::write(directory.join("processors.txt"), processors(vm));
    for (file, command) in ASKED {
        let answer = vm.guest_within(command, Duration::from_secs(30));
        let silent = matches!(answer, Err(Error::Deadline { .. }));
        let text = answer.map_or_else(|error| error.to_string(), |output| output.text);
        let _best_effort = fs::write(directory.join(file), text);
        if silent {
            // Whoever did not answer this will not answer the others, and each would cost its deadline.
            break;
        }
    }
    for (file, arguments) in ASKED_OF_HOSTD.iter().filter(|_| hostctl.is_some()) {
        let ran = hostctl.and_then(|hostctl| hostctl.run(arguments).ok());
        let text = ran.map(|ran| ran.stdout + &ran.stderr).unwrap_or_default();
        let _best_effort = fs::write(directory.join(file), text);
    }
    directory
}

/// The end of the serial log that was kept, for whoever sees the report but not the files.
pub fn last_words(kept: &Path) -> String {
    let serial = fs::read(kept.join("serial.log")).unwrap_or_default();
    let text: String =
        String::from_utf8_lossy(&serial).chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    format!("the end of its serial log:\n{}", tail(&text, 2000))
}
