//! What a manifest sets of the host itself.

use std::time::Duration;

use vm_tests::{Failure, on_host, wait};

use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status};

#[test]
fn what_is_set_of_the_host_holds_and_a_network_that_cuts_it_off_is_taken_back() -> Result<(), Failure> {
    on_host("what_is_set_of_the_host_holds_and_a_network_that_cuts_it_off_is_taken_back", |host| {
        let one = sleeper(&host.registry, "one", "");
        let link = host.vm.guest_ok("basename $(dirname /sys/class/net/*/device | head -n 1)")?;
        let before = host.vm.guest_ok("cat /proc/sys/vm/swappiness; cat /proc/sys/kernel/hostname")?;
        let set = format!(
            "{SHORT}[os]\nmodules = [\"dummy\"]\nsysctls = {{ \"vm.swappiness\" = \"13\" }}\nhost-name = \"attic.example\"\n\
             time-servers = [\"192.0.2.1\"]\n[os.interface.office]\nvlan = 20\nparent = \"{link}\"\ndhcp = false\n\
             addresses = [\"192.0.2.10/24\"]\n{one}"
        );
        host.converge("set.toml", &manifest(&host.registry, 1, &set))?;
        let is = "cat /proc/sys/vm/swappiness; cat /proc/sys/kernel/hostname; test -d /sys/module/dummy && echo loaded; \
                  timedatectl show-timesync -p SystemNTPServers --value";
        assert_eq!(host.vm.guest_ok(is)?, "13\nattic.example\nloaded\n192.0.2.1");
        let office = wait::until("the VLAN to have its address", Duration::from_secs(60), || {
            let shown = host.vm.guest_ok("ip -d -o link show office; ip -o address show office")?;
            Ok(Some(shown).filter(|shown| shown.contains("192.0.2.10/24")))
        })?;
        assert!(office.contains(&format!("office@{link}")) && office.contains("id 20"), "{office}");
        status(host, "it to be kept", |s| kept(s, 1))?;

        // By hand, and put right.
        host.vm.guest_ok("sysctl -q vm.swappiness=99; rm /run/systemd/network/40-bennu-office.network")?;
        wait::until("both to be put right", Duration::from_secs(120), || {
            let files = host.vm.guest_ok("cat /proc/sys/vm/swappiness; ls /run/systemd/network")?;
            Ok((files.starts_with("13\n") && files.contains("40-bennu-office.network")).then_some(()))
        })?;

        // A router that there is not: nobody reaches the host, which finds that out by itself.
        let lost = format!(
            "[update]\ntrial = \"5s\"\nhealth-deadline = \"20s\"\n[os.interface.{link}]\ndhcp = false\n\
             addresses = [\"192.0.2.20/24\"]\ngateway = \"192.0.2.1\"\n{one}"
        );
        host.push(&host.signed("lost.toml", &manifest(&host.registry, 2, &lost))?, &[])?.done()?;
        let cut = format!("ip -o -4 address show {link}");
        wait::until("the host to be cut off", Duration::from_secs(60), || {
            Ok(host.vm.guest_ok(&cut)?.contains("192.0.2.20/24").then_some(()))
        })?;
        let back = status(host, "it to be taken back", |s| {
            s["update"]["rejected"][0]["generation"] == 2 && kept(s, 1)
        })?;
        let why = back["update"]["rejected"][0]["why"].as_str().unwrap_or_default();
        assert!(why.contains("router"), "{why}");
        assert!(host.vm.guest_ok(is)?.starts_with("13\n"), "all of what was set before is set again");

        host.converge("none.toml", &manifest(&host.registry, 3, &format!("{SHORT}{one}")))?;
        assert_eq!(
            host.vm.guest_ok("cat /proc/sys/vm/swappiness; cat /proc/sys/kernel/hostname")?,
            before,
            "as it was"
        );
        assert_eq!(host.vm.guest_ok("ls /run/systemd/network; ip link show office 2>/dev/null || true")?, "");
        let plan = host.push(
            &host.signed(
                "wrong.toml",
                &manifest(&host.registry, 4, &set.replace("swappiness", "swapiness")),
            )?,
            &[],
        )?;
        plan.done()?;
        let failed = status(host, "it to be taken back", |s| s["update"]["rejected"][1]["generation"] == 4)?;
        let why = failed["update"]["rejected"][1]["why"].as_str().unwrap_or_default();
        assert!(why.contains("no parameter vm.swapiness"), "{why}");
        Ok(())
    })
}
