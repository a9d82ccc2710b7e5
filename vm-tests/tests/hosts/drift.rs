//! What somebody changes by hand on a host that is as it should be.

use std::time::Duration;

use vm_tests::{Failure, on_host, wait};

use crate::manifest::{manifest, sleeper};

/// How long a host may take to see that something was changed (it looks every 30 s) and to put it right.
const REPAIR: Duration = Duration::from_secs(120);

#[test]
fn what_is_changed_by_hand_is_put_right_and_reported() -> Result<(), Failure> {
    on_host("what_is_changed_by_hand_is_put_right_and_reported", |host| {
        let names = ["stopped", "torn", "still"];
        let all = names.map(|name| sleeper(&host.registry, name, ""));
        let still = "[network.apart]\nisolated = true\n".to_owned()
            + &sleeper(&host.registry, "lone", "networks = [\"apart\"]\nports = [\"8081:80\"]\n");
        host.converge("host.toml", &manifest(&host.registry, 1, &format!("{}{still}", all.concat())))?;
        let hostctl = host.hostctl();
        let before = hostctl.container("still")?["pid"].clone();
        let rules = host.vm.guest_ok("nft --stateless list table inet bennu")?;

        // The unit last: its end is told to the daemon, which looks at once.
        host.vm.guest_ok(
            "set -e\n\
             umount -l /run/host/bennu/instances/torn-1/rootfs\n\
             nft flush chain inet bennu forward; nft flush map inet bennu anywhere\n\
             echo 0 >/proc/sys/net/ipv4/ip_forward\n\
             for port in /sys/class/net/bn-*/brif/*/isolated; do echo 0 >$port; done\n\
             systemd-run --quiet --slice=bennu.slice --unit=miner sleep 100000\n\
             mkdir /sys/fs/cgroup/bennu.slice/by-hand; sleep 100001 </dev/null >/dev/null 2>&1 &\n\
             echo $! >/sys/fs/cgroup/bennu.slice/by-hand/cgroup.procs\n\
             systemctl stop bennu-stopped-1.service",
        )?;
        let wrong = "a=$(systemctl is-active bennu-stopped-1.service); [ $a = active ] || echo stopped unit: $a\n\
             mountpoint -q /run/host/bennu/instances/torn-1/rootfs || echo no mount\n\
             [ $(cat /proc/sys/net/ipv4/ip_forward) = 1 ] || echo no forwarding\n\
             [ $(cat /sys/class/net/bn-*/brif/*/isolated | grep -c 1) = 1 ] || echo not kept apart\n\
             ls -d /sys/fs/cgroup/bennu.slice/miner* /sys/fs/cgroup/bennu.slice/by-hand 2>/dev/null\n\
             true";
        let still_wrong = || host.vm.guest_ok(wrong);
        wait::until_good("the host to be as it was", REPAIR, still_wrong, String::is_empty)?;
        host.wait_until_converged()?;
        let now = host.vm.guest_ok("nft --stateless list table inet bennu")?;
        assert_eq!(now, rules, "the same rules, and the same published port");

        // Alone, for a container that starts brings names back with it.
        host.vm.guest_ok("kill -9 $(cat /run/bennu/names/aardvark.pid)")?;
        let events = || Ok(hostctl.run(&["events"])?.done()?.stdout);
        let restored = |events: &String| events.contains("Restore  names");
        let events = wait::until_good("names to be restored", REPAIR, events, restored)?;
        for drift in [
            "Stop  stopped-1",
            "Start  stopped-1",
            "Stop  torn-1  a part of it is missing",
            "Restore  firewall",
            "Stop  miner.service  no container",
            "Stop  by-hand  no container",
        ] {
            let told =
                events.lines().any(|line| line.to_lowercase().contains("drift") && line.contains(drift));
            assert!(told, "{drift:?} is reported as drift: {events}");
        }
        assert_eq!(hostctl.container("still")?["pid"], before, "nobody else is disturbed");
        let reached = || hostctl.run(&["exec", "still", "--", "nslookup", "-type=a", "torn"]);
        wait::until_good("names to be answered", REPAIR, reached, |ran| ran.code == 0)?;

        // Who answers for names runs, and nobody knows of it: another one could not have the same address.
        let known = "/run/bennu/names/aardvark.pid";
        host.vm.guest_ok(&format!("rm {known}"))?;
        let the_one = format!(
            "[ \"$(grep -lsx aardvark-dns /proc/[0-9]*/comm)\" = \"/proc/$(cat {known})/comm\" ] && echo known || true"
        );
        let answers = || host.vm.guest_ok(&the_one);
        wait::until_good("one to answer that is known", REPAIR, answers, |said| said == "known")?;
        wait::until_good("names to be answered again", REPAIR, reached, |ran| ran.code == 0)?;

        // What takes a network from all that are on it.
        host.vm.guest_ok("ip link delete $(ls /sys/class/net | grep -m1 '^bn-')")?;
        wait::until_good("a new bridge", REPAIR, reached, |ran| ran.code == 0)?;
        let bridges = || host.vm.guest_ok("ls -d /sys/class/net/bn-* | wc -l");
        wait::until_good("both bridges", REPAIR, bridges, |count| count == "2")?;
        host.wait_until_converged()?;
        Ok(())
    })
}
