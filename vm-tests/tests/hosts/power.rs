//! Reboots and power cuts: what comes back, and what does not.

use std::time::Duration;

use vm_tests::gate::Rule;
use vm_tests::registry::Stocked;
use vm_tests::{Action, Error, Failure, Host, lifecycle, on_host, wait};

use crate::manifest::{cache, manifest, sleeper, web};

#[test]
fn the_same_generation_runs_after_a_reboot_without_a_registry() -> Result<(), Failure> {
    on_host("the_same_generation_runs_after_a_reboot_without_a_registry", |host| {
        let registry = &host.registry;
        let rest = format!("{}{}", cache(registry), web(registry, "1", "depends-on = [\"cache\"]"));
        host.converge("host.toml", &manifest(registry, 1, &rest))?;
        registry.gate.rule(Rule::BreakAfter(0));
        let generation = host.hostctl().status()?["generation"].clone();
        let mut hits = 0;

        lifecycle(host, &[Action::Nothing, Action::Reboot, Action::PowerCut], |host| -> Result<(), Failure> {
            let status = host.wait_until_converged()?;
            assert_eq!(status["generation"], generation);
            // The counter is in a volume that is kept, and redis writes each hit down before it answers.
            hits += 1;
            let answer = wait::until("nginx and redis to answer", Duration::from_secs(90), || counted(host))?;
            assert_eq!(answer, format!("hits: {hits}\n"));
            Ok(())
        })
    })
}

fn counted(host: &Host) -> Result<Option<String>, Error> {
    let (code, body) = host.http(8080, "/cache")?;
    if code == 200 { Ok(Some(body)) } else { Err(Error::Answer { who: "nginx".into(), text: body }) }
}

/// A container that takes a time to end, in seconds, and writes its name down then.
fn ending(registry: &Stocked, name: &str, after: u8, more: &str) -> String {
    let script =
        format!("trap 'sleep {after}; echo {name} >>/data/ends; sync; exit' TERM; sleep 100000 & wait");
    let keys = format!(
        "volumes = [\"ends:/data\"]\nstop-signal = \"SIGTERM\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n{more}"
    );
    sleeper(registry, name, &keys).replace("stop-timeout = \"1s\"", "stop-timeout = \"30s\"")
}

#[test]
fn a_volume_survives_and_nothing_else_does() -> Result<(), Failure> {
    on_host("a_volume_survives_and_nothing_else_does", |host| {
        let registry = &host.registry;
        let mounts = "volumes = [\"kept:/data\", \"fresh:/srv\"]\ntmpfs = [\"/tmp\"]\nread-only-root = false";
        // Told at once, the one that takes no time would be the first.
        let rest = format!(
            "[volume.kept]\nlife = \"keep\"\n[volume.ends]\nlife = \"keep\"\n[volume.fresh]\nlife = \"scratch\"\n{}{}{}",
            sleeper(registry, "one", mounts),
            ending(registry, "db", 0, ""),
            ending(registry, "app", 2, "depends-on = [\"db\"]"),
        );
        host.converge("host.toml", &manifest(registry, 1, &rest))?;
        let undeclared = ["/srv/x", "/tmp/x", "/var/x"];
        for path in ["/data/x"].iter().chain(&undeclared) {
            let shell = format!("echo written >{path}; sync");
            host.hostctl().run(&["exec", "one", "--", "sh", "-c", &shell])?.done()?;
        }
        host.vm.guest_ok("for f in /etc/x /var/x /var/lib/x /run/x; do echo written >$f; done; sync")?;

        lifecycle(host, &[Action::Reboot, Action::PowerCut], |host| -> Result<(), Failure> {
            host.wait_until_converged()?;
            let kept = host.hostctl().run(&["exec", "one", "--", "cat", "/data/x"])?.done()?;
            assert_eq!(kept.stdout, "written\n");
            let ends = host.hostctl().run(&["exec", "app", "--", "cat", "/data/ends"])?.done()?;
            assert_eq!(
                ends.stdout, "app\ndb\n",
                "what depends on another one ends first, and a power cut tells nobody"
            );
            for path in undeclared {
                let read = host.hostctl().run(&["exec", "one", "--", "cat", path])?;
                assert_ne!(read.code, 0, "{path} survived");
            }
            let left = host.vm.guest("ls /etc/x /var/x /var/lib/x /run/x 2>/dev/null")?;
            assert_eq!(left.text, "", "the host forgets what is not declared");
            Ok(())
        })
    })
}

#[test]
fn what_is_thrown_away_cannot_be_read_from_the_disk() -> Result<(), Failure> {
    on_host("what_is_thrown_away_cannot_be_read_from_the_disk", |host| {
        let registry = &host.registry;
        let mounts = "volumes = [\"kept:/data\", \"fresh:/srv\"]\nread-only-root = false";
        let rest = format!(
            "[volume.kept]\nlife = \"keep\"\n[volume.fresh]\nlife = \"scratch\"\n{}",
            sleeper(registry, "one", mounts)
        );
        host.converge("host.toml", &manifest(registry, 1, &rest))?;
        let written = |path: &str| -> Result<String, Failure> {
            let shell = format!("head -c 4096 /dev/urandom >{path}; sync; base64 {path}");
            let block =
                host.hostctl().run(&["exec", "one", "--", "busybox", "sh", "-c", &shell])?.done()?.stdout;
            Ok(block.split_whitespace().collect())
        };
        let [kept, fresh, root] = [written("/data/x")?, written("/srv/x")?, written("/var/x")?];
        // What is counted is what a thief of the disk would find.
        host.vm.guest_ok("sync")?;
        host.vm.power_off();
        let disk = host.vm.files().disk();
        let found = vm_tests::disk::count(&disk, [&kept, &fresh, &root])?;
        assert_eq!(found, [1, 0, 0], "a volume that is kept, one that is not, and the container's own root");
        Ok(())
    })
}

#[test]
fn a_rebirth_leaves_what_is_declared_and_its_receipt_tells_what_was_lost() -> Result<(), Failure> {
    on_host("a_rebirth_leaves_what_is_declared_and_its_receipt_tells_what_was_lost", |host| {
        let registry = &host.registry;
        let body = "[volume.kept]\nlife = \"keep\"\n";
        let one = sleeper(registry, "one", "volumes = [\"kept:/data\"]\nread-only-root = false");
        let text = manifest(registry, 1, &format!("[update]\ntrial = \"1s\"\n{body}{one}"));
        host.converge("host.toml", &text)?;
        let settled = |status: &serde_json::Value| status["update"]["phase"] == "settled";
        let hostctl = host.hostctl();
        wait::until_good(
            "the generation to be kept",
            Duration::from_secs(120),
            || hostctl.status(),
            settled,
        )?;
        let shell = "head -c 8192 /dev/zero | tee /var/x >/data/x";
        host.hostctl().run(&["exec", "one", "--", "sh", "-c", shell])?.done()?;

        let before = host.vm.boot_id()?;
        host.hostctl().run(&["rebirth"])?.done()?;
        host.vm.wait_for_boot(&before)?;
        host.wait_until_converged()?;
        // The kernel puts XTS together of parts where it was asked for it before it had the processor's own.
        let slow = "! grep -q '^flags.* aes ' /proc/cpuinfo || ! grep 'xts(ecb' /proc/crypto";
        assert_eq!(host.vm.guest_ok(slow)?, "", "what is thrown away is encrypted by software");
        let left = host.hostctl().run(&["exec", "one", "--", "sh", "-c", "ls /data/x /var/x"])?;
        assert_eq!(left.stdout, "/data/x\n", "{}", left.stderr);
        let told = || host.hostctl().json(&["receipt"]);
        // That of the activation stands before it.
        let ended = |told: &serde_json::Value| told["receipts"][1]["ended"].is_string();
        let told = wait::until_good("the receipt", Duration::from_secs(60), told, ended)?;
        let receipt = &told["receipts"][1];
        assert_eq!((&receipt["change"], &receipt["to"]), (&"reborn".into(), &1.into()), "{receipt}");
        assert_eq!(receipt["interruption"]["class"], "reboot", "{receipt}");
        assert_eq!(receipt["survived"][0]["volume"], "kept", "{receipt}");
        let destroyed = receipt["destroyed"].as_array().expect("what is gone");
        let layer = destroyed.iter().find(|gone| gone["what"] == "layer").expect("what the container wrote");
        assert_eq!(layer["holds"]["bytes"], 8192, "{receipt}");
        Ok(())
    })
}

#[test]
fn f6_a_kernel_that_hangs_is_reset_by_the_watchdog_and_everything_runs_again() -> Result<(), Failure> {
    on_host("f6_a_kernel_that_hangs_is_reset_by_the_watchdog_and_everything_runs_again", |host| {
        host.converge("host.toml", &manifest(&host.registry, 1, &sleeper(&host.registry, "one", "")))?;
        host.vm.power_on_with_watchdog()?;
        host.wait_for_api()?;
        host.wait_until_converged()?;
        let before = host.vm.boot_id()?;
        // A panic that nothing follows: all processors stand still for ever, but for the watchdog.
        let said = host.vm.guest_ok(
            "cat /sys/class/watchdog/watchdog0/state; echo 0 >/proc/sys/kernel/panic; cat /proc/sys/kernel/panic\n\
             (sleep 1; echo c >/proc/sysrq-trigger) </dev/null >/dev/null 2>&1 &",
        )?;
        assert_eq!(said, "active\n0");
        host.vm.wait_for_boot(&before)?;
        host.wait_for_api()?;
        host.wait_until_converged()?;
        assert_eq!(host.hostctl().container("one")?["state"], "running");
        let serial = std::fs::read_to_string(host.vm.files().serial())?;
        assert!(
            serial.contains("sysrq triggered crash"),
            "it was the crash that ended the boot before: {serial}"
        );
        Ok(())
    })
}
