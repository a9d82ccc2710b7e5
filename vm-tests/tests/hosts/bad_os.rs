//! Operating systems that are no good, in as many ways: from each the host comes back by itself, and does its work as before.

use std::time::Duration;

use bennu_os_image::Variant;
use serde_json::Value;
use vm_tests::os::Releases;
use vm_tests::{Failure, Host, on_host, wait};

use crate::boot_faults::on_esp;
use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status, with_os};

/// A file of an OS on which it is looked then, in place of every five minutes, whether the daemon is there.
fn looked_at(times: &str) -> (&'static str, String) {
    let text = format!("[Timer]\nOnBootSec=\nOnUnitInactiveSec=\nAccuracySec=1s\n{times}\n");
    ("usr/lib/systemd/system/bennu-came-up.timer.d/50-soon.conf", text)
}

/// Longer than any of the faults takes to come.
const PATIENT: &str = "[update]\ntrial = \"10m\"\nhealth-deadline = \"20m\"\n";

/// Files of an OS that has systemd do so after some time.
fn after(time: &str, what: &str) -> Vec<(&'static str, String)> {
    let service = format!("[Service]\nType=oneshot\nExecStart=/usr/bin/systemctl {what}\n");
    vec![
        ("usr/lib/systemd/system/fault.timer", format!("[Timer]\nOnBootSec={time}\nAccuracySec=1s\n")),
        ("usr/lib/systemd/system/fault.service", service),
        ("usr/lib/systemd/system/multi-user.target.d/50-fault.conf", "[Unit]\nWants=fault.timer\n".into()),
    ]
}

/// What is pushed beside the OS.
#[derive(Default)]
struct Pushed<'a> {
    /// `[update]`.
    settings: &'a str,
    /// Further tables.
    more: &'a str,
    /// Whether the loader is to give it up after its first boot, so that not all three have to be waited for.
    once: bool,
}

/// Brings a host to a first generation, pushes an OS that is no good, and waits until it is back with the old one, which works.
fn comes_back_from(host: &mut Host, bad: &Variant, pushed: &Pushed<'_>) -> Result<Value, Failure> {
    let releases = Releases::new()?;
    let bad = releases.publish(host, bad)?;
    let old = format!("sha256:{}", host.fixture.disk().root_digest);
    // It notes each of its starts in a volume that goes back with its generation.
    let notes = "volumes = [\"back:/back\"]\ncommand = [\"busybox\", \"sh\", \"-c\", \"echo start >>/back/x; exec sleep 1000000\"]";
    let one = format!("[volume.back]\nlife = \"snapshot\"\n{}", sleeper(&host.registry, "one", notes));
    host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
    status(host, "the first generation to be kept", |s| kept(s, 1))?;
    let text = with_os(host, &releases, 2, &bad, &format!("{one}{}", pushed.more));
    let text = text.replace(SHORT, pushed.settings);
    let file = host.signed("two.toml", &text)?;
    let boot = host.vm.boot_id()?;
    host.push(&file, &[])?.done()?;
    if pushed.once {
        wait::until("the bad OS to run", Duration::from_secs(300), || {
            host.vm.alive()?;
            let line = host.vm.guest_within("cat /proc/cmdline", Duration::from_secs(10))?;
            Ok(line.text.contains(&bad.root).then_some(()))
        })?;
        let entries = "/run/look/loader/entries";
        host.vm.guest_ok(&on_esp(&format!("mv {entries}/bennu-2+2-1.conf {entries}/bennu-2+0-3.conf")))?;
    }
    // Until it restarts it is still what it was.
    wait::until("the machine to be back from its bad OS", Duration::from_secs(900), || {
        host.vm.alive()?;
        let now = host
            .vm
            .guest_within("cat /proc/sys/kernel/random/boot_id /proc/cmdline", Duration::from_secs(10))?;
        Ok((!now.text.contains(&boot) && now.text.contains(&old)).then_some(()))
    })?;
    host.vm.set_clock()?;
    let back = status(host, "the old OS to do its work", |s| {
        s["os"]["root"] == old.as_str()
            && s["generation"]["number"] == 1
            && s["update"]["phase"] != "restarting"
    })?;
    let hostctl = host.hostctl();
    let works = |one: &Value| one["instance"] == "one-1" && one["state"] == "running";
    let one = || hostctl.container("one");
    wait::until_good("its container to run", Duration::from_secs(180), one, works)?;
    let starts = hostctl.run(&["exec", "one", "--", "busybox", "cat", "/back/x"])?.done()?.stdout;
    assert_eq!(starts, "start\nstart\n", "what was noted on the bad OS is gone with it");
    Ok(back)
}

/// The host says why it was taken back, with what was seen then.
fn was_rejected(back: &Value, reason: &str) {
    let rejected = &back["update"]["rejected"][0];
    assert_eq!(rejected["generation"], 2, "{back}");
    assert!(rejected["why"].as_str().is_some_and(|why| why.contains(reason)), "{rejected}");
    assert!(rejected["evidence"].as_array().is_some_and(|lines| !lines.is_empty()), "{rejected}");
}

/// Nobody can tell its fault from that of the power: it is tried again after a pause.
fn waits_for_its_next_round(host: &mut Host) -> Result<(), Failure> {
    let waits = status(host, "the next round to wait", |s| s["update"]["phase"] == "waiting")?;
    assert!(waits["update"]["why"].as_str().is_some_and(|why| why.starts_with("pause: ")), "{waits}");
    assert!(waits["update"]["rejected"].as_array().is_none_or(Vec::is_empty), "{waits}");
    Ok(())
}

#[test]
fn f06_an_os_without_a_network_is_taken_back() -> Result<(), Failure> {
    on_host("f06_an_os_without_a_network_is_taken_back", |host| {
        let silent = Variant {
            without: vec!["usr/lib/systemd/network/50-wired.network"],
            ..Variant::of_version("9.0.2")
        };
        let settings = "[update]\ntrial = \"5s\"\nhealth-deadline = \"40s\"\n";
        let back = comes_back_from(host, &silent, &Pushed { settings, ..Pushed::default() })?;
        was_rejected(&back, "router");
        let why = host.hostctl().json(&["why"])?;
        assert!(why["answer"].as_str().is_some_and(|answer| answer.contains("taken back")), "{why}");
        Ok(())
    })
}

#[test]
fn f06_an_os_on_which_the_containers_do_not_work_is_taken_back() -> Result<(), Failure> {
    on_host("f06_an_os_on_which_the_containers_do_not_work_is_taken_back", |host| {
        let ill = "health = { exec = [\"false\"], interval = \"1s\", retries = 1 }";
        let more = sleeper(&host.registry, "two", ill);
        let settings = "[update]\ntrial = \"5s\"\nhealth-deadline = \"20s\"\n";
        let newer = Variant::of_version("9.0.0");
        let back = comes_back_from(host, &newer, &Pushed { settings, more: &more, ..Pushed::default() })?;
        was_rejected(&back, "two");
        Ok(())
    })
}

#[test]
fn f06_an_os_whose_daemon_ends_again_and_again_is_taken_back() -> Result<(), Failure> {
    on_host("f06_an_os_whose_daemon_ends_again_and_again_is_taken_back", |host| {
        let crash = "[Service]\nExecStartPost=/bin/sh -c '(sleep 6; kill -9 $MAINPID) &'\n";
        let files = vec![("usr/lib/systemd/system/hostd.service.d/50-crash.conf", crash.to_owned())];
        let crashes = Variant { files, ..Variant::of_version("9.0.4") };
        // It would be well, and kept in the end.
        let settings = "[update]\ntrial = \"4m\"\nhealth-deadline = \"10m\"\n";
        let back = comes_back_from(host, &crashes, &Pushed { settings, ..Pushed::default() })?;
        was_rejected(&back, "the daemon ended 3 times");
        Ok(())
    })
}

#[test]
fn f06_an_os_without_a_daemon_is_left_by_the_loader() -> Result<(), Failure> {
    on_host("f06_an_os_without_a_daemon_is_left_by_the_loader", |host| {
        let files = vec![looked_at("OnBootSec=45s")];
        let empty = Variant { files, without: vec!["usr/bin/hostd"], ..Variant::of_version("9.0.5") };
        comes_back_from(host, &empty, &Pushed { settings: SHORT, once: true, ..Pushed::default() })?;
        waits_for_its_next_round(host)
    })
}

/// Nothing fails in it: it stands where nobody is, and feeds its watchdog.
#[test]
fn f06_an_os_that_hangs_in_its_boot_is_left_by_the_loader() -> Result<(), Failure> {
    on_host("f06_an_os_that_hangs_in_its_boot_is_left_by_the_loader", |host| {
        let (files, kernel_arguments) =
            (vec![looked_at("OnBootSec=20s")], "systemd.unit=emergency.target".into());
        let hangs = Variant { files, kernel_arguments, ..Variant::of_version("9.0.6") };
        comes_back_from(host, &hangs, &Pushed { settings: SHORT, ..Pushed::default() })?;
        waits_for_its_next_round(host)
    })
}

#[test]
fn f06_an_os_that_starts_again_in_its_trial_is_left_by_the_loader() -> Result<(), Failure> {
    on_host("f06_an_os_that_starts_again_in_its_trial_is_left_by_the_loader", |host| {
        let restless = Variant { files: after("75s", "reboot"), ..Variant::of_version("9.0.7") };
        comes_back_from(host, &restless, &Pushed { settings: PATIENT, once: true, ..Pushed::default() })?;
        waits_for_its_next_round(host)
    })
}

/// It came up, and was seen once; in its own time that is ten minutes later.
#[test]
fn f06_an_os_whose_daemon_goes_away_is_left_by_the_loader() -> Result<(), Failure> {
    on_host("f06_an_os_whose_daemon_goes_away_is_left_by_the_loader", |host| {
        let mut files = after("110s", "stop hostd.service");
        files.push(looked_at("OnBootSec=100s\nOnUnitInactiveSec=40s"));
        let leaves = Variant { files, ..Variant::of_version("9.0.9") };
        comes_back_from(host, &leaves, &Pushed { settings: PATIENT, once: true, ..Pushed::default() })?;
        waits_for_its_next_round(host)
    })
}

/// The initrd refuses it: nobody said which root it has.
#[test]
fn f06_an_os_whose_root_is_refused_is_left_by_the_loader() -> Result<(), Failure> {
    on_host("f06_an_os_whose_root_is_refused_is_left_by_the_loader", |host| {
        let two_roots = format!("bennu.root=sha256:{}", "0".repeat(64));
        let refused = Variant { kernel_arguments: two_roots, ..Variant::of_version("9.0.8") };
        comes_back_from(host, &refused, &Pushed { settings: SHORT, ..Pushed::default() })?;
        let serial = std::fs::read_to_string(host.vm.files().serial())?;
        assert_eq!(serial.matches("bennu.root= more than once").count(), 3, "{serial}");
        waits_for_its_next_round(host)
    })
}
