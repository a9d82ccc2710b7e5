//! A state that is sealed by a TPM: what opens it, and what does not.

use std::time::Duration;

use bennu_os_image::{Keys, Variant};
use vm_tests::os::Releases;
use vm_tests::{Failure, Host, on_new_sealed_host, wait};

use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status, with_os};

/// What the host says before it waits for a key.
const PROMPT: &str = "type the recovery key";

#[test]
fn a_sealed_state_opens_for_what_is_signed_for_it_and_for_nothing_else() -> Result<(), Failure> {
    on_new_sealed_host("a_sealed_state_opens_for_what_is_signed_for_it_and_for_nothing_else", |host, keys| {
        let os = host.hostctl().status()?["os"].clone();
        assert_eq!((&os["sealed"], &os["secure_boot"]), (&true.into(), &true.into()));
        let recovery = recovery_key(&serial(host)?);
        assert_eq!(
            host.vm.guest_ok(&format!("journalctl --no-pager | grep -cF '{recovery}'; true"))?,
            "0",
            "it is shown at the console and nowhere else"
        );

        let mounts = "[volume.data]\nlife = \"keep\"\n";
        let one = sleeper(&host.registry, "one", "volumes = [\"data:/data\"]");
        let containers = format!("{mounts}{one}");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{containers}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let shell = "head -c 4096 /dev/urandom >/data/x; sync; base64 /data/x";
        let exec = ["exec", "one", "--", "busybox", "sh", "-c"];
        let words = |text: &str| -> String { text.split_whitespace().collect() };
        let block = words(&host.hostctl().run(&[&exec[..], &[shell]].concat())?.done()?.stdout);
        let is_there = |host: &Host| -> Result<bool, Failure> {
            let read = host.hostctl().run(&[&exec[..], &["base64 /data/x"]].concat())?.done()?.stdout;
            Ok(words(&read) == block)
        };
        let later =
            "systemd-cryptenroll --unlock-tpm2-device=auto --recovery-key /dev/disk/by-partlabel/bennu-data";
        assert_ne!(host.vm.guest(later)?.code, 0, "the TPM gives its key once the boot is over");

        // An OS that nobody signed measurements of is told so before the machine starts again.
        let releases = Releases::new()?;
        let boot = host.vm.boot_id()?;
        let unmeasured = Keys { measured: None, ..keys };
        let unsigned = releases.publish_signed(host, &Variant::of_version("9.0.0"), unmeasured)?;
        let file = host.signed("two.toml", &with_os(host, &releases, 2, &unsigned, &containers))?;
        host.push(&file, &[])?.done()?;
        let told = |s: &serde_json::Value| s["failure"].to_string().contains("without measurements");
        status(host, "the OS without measurements to be refused", told)?;
        assert_eq!(host.vm.boot_id()?, boot, "what runs goes on running");

        let signed = releases.publish_signed(host, &Variant::of_version("9.1.0"), keys)?;
        let file = host.signed("three.toml", &with_os(host, &releases, 3, &signed, &containers))?;
        host.push(&file, &[])?.done()?;
        let after = status(host, "the signed OS to be kept", |s| kept(s, 3))?;
        assert_eq!(
            (&after["os"]["root"], &after["os"]["sealed"]),
            (&signed.root.as_str().into(), &true.into())
        );
        assert!(is_there(host)?, "it opens by itself, for another OS, too");
        assert!(!serial(host)?.contains(PROMPT), "nobody was asked until now");

        host.vm.guest_ok("sync")?;
        host.vm.power_off();
        let found = vm_tests::disk::count(&host.vm.files().disk(), [&block])?;
        assert_eq!(found, [0], "whoever takes the disk away can read it");

        // Another mainboard, and a larger disk.
        host.vm.enlarge_disk(1 << 30)?;
        std::fs::remove_dir_all(host.vm.files().tpm())?;
        host.vm.power_on(None)?;
        asked(host, 1)?;
        host.vm.type_at_console("no such key\n")?;
        asked(host, 2)?;
        host.vm.type_at_console(&format!("{recovery}\n"))?;
        host.wait_for_api()?;
        host.wait_until_converged()?;
        assert!(is_there(host)?, "the recovery key opens it");
        host.vm.power_off();
        host.vm.power_on(None)?;
        host.wait_for_api()?;
        assert_eq!(serial(host)?.matches(PROMPT).count(), 2, "the new TPM opens it from then on");
        let size = host.vm.guest_ok("stat --file-system --format %b /state")?.parse::<u64>()?;
        assert!(
            size > (4 << 30) / 4096 + (900 << 20) / 4096,
            "it has {size} blocks on a disk with 5 GiB for it"
        );
        Ok(())
    })
}

fn serial(host: &Host) -> Result<String, Failure> {
    let bytes = std::fs::read(host.vm.files().serial())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits until the host has asked so often.
fn asked(host: &mut Host, times: usize) -> Result<(), Failure> {
    let asked = wait::until_good(
        "the host to ask for a key",
        Duration::from_secs(240),
        || Ok(serial(host).unwrap_or_default().matches(PROMPT).count()),
        |count| *count == times,
    );
    Ok(asked.map(drop)?)
}

/// The key as it was shown (systemd-cryptenroll(1): eight groups of eight letters).
fn recovery_key(serial: &str) -> String {
    let is_key = |line: &&str| line.split('-').count() == 8 && line.len() == 71;
    let keys: Vec<_> = serial.lines().map(str::trim).filter(is_key).collect();
    assert_eq!(keys.len(), 1, "it is shown once: {serial}");
    keys[0].to_owned()
}
