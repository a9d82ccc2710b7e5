//! From power on to a host that can be asked.

use vm_tests::{Failure, Host, on_host, on_new_host};

#[test]
fn boots_and_is_reachable() -> Result<(), Failure> {
    on_new_host("boots_and_is_reachable", |host| {
        let status = host.hostctl().status()?;
        assert_eq!(status["host"], "phoenix");
        assert_eq!(status["generation"], serde_json::Value::Null, "a new host has accepted nothing");
        assert_eq!(status["verified_reads"], true, "the store of the image has fs-verity");

        let root = &host.fixture.disk().root_digest;
        assert_eq!(status["os"]["root"], format!("sha256:{root}"), "it runs the root that was built");
        let command_line = host.vm.guest_ok("cat /proc/cmdline")?;
        assert!(command_line.contains(root.as_str()), "the command line names the root: {command_line}");

        let failed = host.vm.guest_ok("systemctl --failed --plain --no-legend --no-pager")?;
        assert_eq!(failed, "", "no unit failed");

        for part in ["pkg:deb/debian/systemd@", "pkg:deb/debian/linux-image-", "pkg:cargo/tokio@"] {
            host.vm.guest_ok(&format!("grep -qF '{part}' /usr/share/bennu/sbom.spdx.json"))?;
        }
        Ok(())
    })
}

#[test]
fn the_root_cannot_be_written() -> Result<(), Failure> {
    on_host("the_root_cannot_be_written", |host| {
        for path in ["/usr/bin/x", "/usr/lib/x", "/x"] {
            let output = host.vm.guest(&format!("touch {path}"))?;
            assert_ne!(output.code, 0, "{path} can be written");
            assert!(output.text.contains("Read-only file system"), "{path}: {}", output.text);
        }
        let remount = host.vm.guest("mount -o remount,rw / && touch /usr/bin/x")?;
        assert_ne!(remount.code, 0, "the root is no file system that could be written: {}", remount.text);
        Ok(())
    })
}

#[test]
fn the_state_fills_a_disk_that_was_made_larger() -> Result<(), Failure> {
    on_host("the_state_fills_a_disk_that_was_made_larger", |host| {
        const MORE: u64 = 4 << 30;
        let size = |host: &mut Host| -> Result<u64, Failure> {
            let text = host.vm.guest_ok("stat --file-system --format '%b %S' /state")?;
            let numbers = text.split(' ').map(str::parse).collect::<Result<Vec<u64>, _>>()?;
            Ok(numbers.iter().product())
        };
        let kept = "cat /state/kept; cmp -n 1048576 /dev/zero /state/kept.img && echo same";
        host.vm.guest_ok("echo kept >/state/kept && head -c 1048576 /dev/zero >/state/kept.img && sync")?;
        let before = size(host)?;
        host.vm.power_off();
        host.vm.enlarge_disk(MORE)?;
        host.vm.power_on(None)?;
        host.wait_for_api()?;
        let after = size(host)?;
        let grown = after - before;
        // The image has room for a partition table at its end.
        assert!(grown.abs_diff(MORE) <= 2 << 20, "the state has {grown} bytes more");
        assert_eq!(host.vm.guest_ok(kept)?, "kept\nsame");
        let scratch = host.vm.guest_ok("stat --format %s /state/scratch.img")?.parse::<u64>()?;
        assert!(scratch > before / 4, "what is thrown away has its part of it: {scratch} bytes");

        // UEFI specification 2.10, section 5.3.1: the second table is at the end of the disk.
        let second = "tail -c 512 /dev/vda | head -c 8; partx --show --noheadings --output NAME /dev/vda";
        assert_eq!(host.vm.guest_ok(second)?, "EFI PARTbennu-esp\nbennu-state");
        host.vm.power_off();
        host.vm.power_on(None)?;
        host.wait_for_api()?;
        assert_eq!(size(host)?, after, "there is nothing left to fill");
        assert_eq!(host.vm.guest_ok(kept)?, "kept\nsame");
        Ok(())
    })
}

/// What `hostd` may use of the processor in half a minute, in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15): a
/// third of a hundredth, translated, so that one wake-up that falls on a tick does not count as work.
const MOST_TICKS: u64 = 10;
/// How many half minutes are looked at.
const WINDOWS: usize = 4;

#[test]
fn hostd_idles() -> Result<(), Failure> {
    on_host("hostd_idles", |host| {
        let registry = &host.registry;
        let text = crate::manifest::manifest(registry, 1, &crate::manifest::sleeper(registry, "one", ""));
        host.converge("host.toml", &text)?;

        let process = host.vm.guest_ok("systemctl show --property=MainPID --value hostd.service")?;
        // What converging left to do (writing back, closing connections) is done within the first ten seconds. Of some windows the
        // least counts: what others take from this machine meanwhile looks like work in the guest, and work that the daemon does
        // is in each of them.
        host.vm.guest_ok("sleep 10")?;
        let window = format!(
            "cut -d' ' -f14,15 /proc/{process}/stat; sleep 30; cut -d' ' -f14,15 /proc/{process}/stat"
        );
        let mut least = u64::MAX;
        for _ in 0..WINDOWS {
            let text = host.vm.guest_ok(&window)?;
            let ticks: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [user_before, system_before, user_after, system_after] = ticks[..] else {
                panic!("two lines of two numbers, not {text:?}")
            };
            least = least.min((user_after + system_after) - (user_before + system_before));
            if least <= MOST_TICKS {
                break;
            }
        }
        assert!(least <= MOST_TICKS, "{least} ticks of 10 ms in 30 s");

        let resident = host
            .vm
            .guest_ok(&format!("sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/{process}/status"))?;
        let resident: u64 = resident.parse()?;
        assert!(resident < 22 * 1024, "{resident} KiB resident");
        Ok(())
    })
}
