//! What is kept and breaks later: on the boot partition, in the store, in the ledger.

use std::path::Path;
use std::time::Duration;

use bennu_os_image::Variant;
use serde_json::Value;
use vm_tests::os::Releases;
use vm_tests::{Failure, Host, on_host, wait};

use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status, with_os};

/// Waits until the host runs on this root and its container runs.
fn runs_on(host: &mut Host, root: &str) -> Result<Value, Failure> {
    let seen = status(host, "the host to run on another root", |s| s["os"]["root"] == root)?;
    let hostctl = host.hostctl();
    let works = |one: &Value| one["state"] == "running";
    wait::until_good("the container to run", Duration::from_secs(180), || hostctl.container("one"), works)?;
    Ok(seen)
}

/// A shell command with the boot partition at `/run/look`, once udev has made the link to it, which takes a while at a boot.
pub(crate) fn on_esp(what: &str) -> String {
    format!(
        "until [ -b /dev/disk/by-partlabel/bennu-esp ]; do sleep 0.1; done; mkdir -p /run/look \
         && mount /dev/disk/by-partlabel/bennu-esp /run/look && {{ {what}; }}; umount /run/look"
    )
}

/// Pushes a new OS to a host that has no room for it, neither for its image nor on the boot partition; then it has. As long as it has
/// not, nothing happens but that it is told.
fn without_room(host: &mut Host, file: &Path) -> Result<(), Failure> {
    let untouched = |host: &mut Host| -> Result<(), Failure> {
        let left = host.vm.guest_ok(&on_esp("ls -A /run/look/EFI/bennu /run/look/loader/entries"))?;
        assert_eq!(left.matches(".efi").count(), 1, "nothing is left half done: {left}");
        assert_eq!(left.matches(".conf").count(), 1, "{left}");
        assert_eq!(host.hostctl().container("one")?["state"], "running");
        Ok(())
    };
    host.vm.guest_ok(&on_esp("dd if=/dev/zero of=/run/look/filler bs=1M 2>/dev/null; ls -l /run/look"))?;
    host.vm.guest_ok(
        "free=$(df --output=avail -B 1M /state | tail -n 1); fallocate -l $((free - 64))M /state/filler",
    )?;
    host.push(file, &[])?.done()?;
    let full =
        status(host, "the full disk to be told", |s| s["failure"].to_string().contains("MiB are missing"))?;
    assert_eq!(full["generation"]["number"], 1, "{full}");
    untouched(host)?;
    host.vm.guest_ok("rm /state/filler")?;

    let told = |s: &Value| s["update"]["why"].to_string().contains("boot-space: ");
    let full = status(host, "the full boot partition to be told", told)?;
    assert_eq!(full["generation"]["number"], 1, "{full}");
    assert_eq!(full["update"]["phase"], "waiting", "{full}");
    untouched(host)?;
    host.vm.guest_ok(&on_esp("rm /run/look/filler"))?;
    Ok(())
}

#[test]
fn f08_f10_a_kept_os_whose_boot_image_is_damaged_is_left_and_mended() -> Result<(), Failure> {
    on_host("f08_f10_a_kept_os_whose_boot_image_is_damaged_is_left_and_mended", |host| {
        let releases = Releases::new()?;
        let newer = releases.publish(host, &Variant::of_version("9.0.0"))?;
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let file = host.signed("two.toml", &with_os(host, &releases, 2, &newer, &one))?;
        without_room(host, &file)?;
        status(host, "the new OS to be kept", |s| kept(s, 2))?;
        let old = format!("sha256:{}", host.fixture.disk().root_digest);
        let hex = newer.root.trim_start_matches("sha256:").to_owned();
        let sum = on_esp(&format!("sha256sum /run/look/EFI/bennu/{hex}.efi"));
        let whole = host.vm.guest_ok(&sum)?;
        // Until the daemon has served for a while it would give the entry all its tries, as it does when it is stopped in order.
        wait::until("the OS to have come up", Duration::from_secs(120), || {
            Ok((host.vm.guest_within("test -e /run/bennu/came-up", Duration::from_secs(10))?.code == 0)
                .then_some(()))
        })?;
        // One try is left, so that not all three have to be waited for.
        host.vm.guest_ok(&on_esp(
            "mv /run/look/loader/entries/bennu-2+3.conf /run/look/loader/entries/bennu-2+1-2.conf",
        ))?;
        let break_it =
            format!("dd if=/dev/zero of=/run/look/EFI/bennu/{hex}.efi bs=4k count=16 conv=notrunc; sync");
        host.vm.guest_ok(&on_esp(&break_it))?;
        assert_ne!(host.vm.guest_ok(&sum)?, whole);

        // The loader can't start it, and takes the one before.
        host.vm.power_cut()?;
        let serial = std::fs::read_to_string(host.vm.files().serial())?;
        let came_back = serial.matches("The boot loader came back").count();
        assert_eq!(came_back, 1, "the start used up its last try: {serial}");
        runs_on(host, &old)?;
        let why = host.hostctl().json(&["why"])?;
        assert_eq!(why["phase"], "waiting", "what was kept is tried again later: {why}");
        wait::until_good(
            "the boot image to be mended",
            Duration::from_secs(60),
            || host.vm.guest_ok(&sum),
            |now| *now == whole,
        )?;
        Ok(())
    })
}

#[test]
fn f09_a_daemon_that_cannot_start_says_why_over_the_network_and_starts_when_it_can() -> Result<(), Failure> {
    on_host("f09_a_daemon_that_cannot_start_says_why_over_the_network_and_starts_when_it_can", |host| {
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let pointer = "/state/ledger/pointer.json";
        host.vm.guest_ok(&format!(
            "cp {pointer} /state/good; echo '{{' >{pointer}; systemctl restart --no-block hostd"
        ))?;
        let hostctl = host.hostctl();
        let told = wait::until_good(
            "the reason to be told",
            Duration::from_secs(120),
            || hostctl.run(&["status"]),
            |ran| ran.stderr.contains("cannot start"),
        )?;
        assert!(told.stderr.contains("pointer.json"), "{}", told.stderr);
        assert_eq!(told.code, 1);
        let serial = std::fs::read_to_string(host.vm.files().serial())?;
        assert!(serial.contains("hostd cannot start"), "it stands on the console, too: {serial}");

        // There is nothing else that the loader could start: the machine goes on, and so do its containers.
        let boot = host.vm.boot_id()?;
        host.vm.guest_ok("rm -f /run/bennu/came-up; systemctl start bennu-came-up.service")?;
        let condition = "systemctl show --property=ConditionResult --value bennu-came-up.service";
        assert_eq!(host.vm.guest_ok(condition)?, "no");
        host.vm.guest_ok("systemctl is-active bennu-one-1.service")?;
        let starts = "systemctl show --property=NRestarts --value hostd.service";
        let before: u32 = host.vm.guest_ok(starts)?.parse()?;
        host.vm.guest_ok("sleep 20")?;
        let after: u32 = host.vm.guest_ok(starts)?.parse()?;
        assert!(
            after - before <= 1,
            "it tries again every half minute, not {} times in 20 s",
            after - before
        );

        host.vm.guest_ok(&format!("cp /state/good {pointer}"))?;
        status(host, "the daemon to be back", |s| kept(s, 1))?;
        assert_eq!(host.vm.boot_id()?, boot);

        // Where it is not even known who may ask over the network, whoever is at the machine is told.
        let document = "/state/identity/provision.toml";
        host.vm.guest_ok(&format!(
            "cp {document} /state/good; echo '{{' >{document}; systemctl restart --no-block hostd"
        ))?;
        let told = wait::until_good(
            "the reason to be told at the machine",
            Duration::from_secs(120),
            || host.vm.guest_within("hostctl status 2>&1", Duration::from_secs(30)),
            |said| said.text.contains("cannot start"),
        )?;
        assert!(told.text.contains("provision.toml"), "{}", told.text);
        let serial = std::fs::read_to_string(host.vm.files().serial())?;
        assert!(
            serial.matches("hostd cannot start").count() > 1 && serial.contains("provision.toml"),
            "{serial}"
        );
        host.vm.guest_ok(&format!("cp /state/good {document}"))?;
        status(host, "the daemon to be back once more", |s| kept(s, 1))?;
        Ok(())
    })
}

/// The same document with a member that nobody knows: in itself, or where it is a list in each of what is listed. Further down there
/// are maps, in which another name is another thing.
fn from_the_future(mut document: Value) -> Value {
    match &mut document {
        Value::Array(items) => items.iter().cloned().map(from_the_future).collect(),
        Value::Object(members) => {
            members
                .insert("of-a-later-version".to_owned(), serde_json::json!({ "what": ["nobody", 1, null] }));
            document
        }
        _ => document,
    }
}

#[test]
fn f11_state_of_a_later_daemon_is_read_and_what_is_not_known_is_ignored() -> Result<(), Failure> {
    on_host("f11_state_of_a_later_daemon_is_read_and_what_is_not_known_is_ignored", |host| {
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let ill =
            sleeper(&host.registry, "two", "health = { exec = [\"false\"], interval = \"1s\", retries = 1 }");
        let deadline = "[update]\ntrial = \"5s\"\nhealth-deadline = \"15s\"\n";
        let bad = host.signed("two.toml", &manifest(&host.registry, 2, &format!("{deadline}{one}{ill}")))?;
        host.push(&bad, &[])?.done()?;
        let before = status(host, "it to be taken back", |s| {
            s["update"]["rejected"][0]["generation"] == 2 && kept(s, 1)
        })?;

        host.vm.guest_ok("systemctl stop hostd")?;
        let files =
            host.vm.guest_ok("find /state -name '*.json' -not -path '/state/store/*' -size -64k | sort")?;
        let files: Vec<&str> = files.lines().collect();
        assert!(files.iter().any(|file| file.ends_with("ledger/pointer.json")), "{files:?}");
        assert!(files.iter().any(|file| file.ends_with("rejected-generations.json")), "{files:?}");
        for file in &files {
            let document: Value = serde_json::from_str(&host.vm.guest_ok(&format!("cat {file}"))?)?;
            let text = from_the_future(document).to_string().replace('\'', "'\\''");
            host.vm.guest_ok(&format!("printf %s '{text}' >{file}"))?;
        }
        host.vm.guest_ok("systemctl start hostd")?;
        host.wait_for_api()?;
        let after = status(host, "the host to be as it was", |s| kept(s, 1))?;
        for what in ["generation", "floors", "os"] {
            assert_eq!(after[what], before[what], "{what}");
        }
        assert_eq!(after["update"]["rejected"], before["update"]["rejected"]);
        let again = host.push(&bad, &[])?;
        assert_eq!(again.code, 2, "what was taken back is known: {}", again.stderr);
        Ok(())
    })
}
