//! One host goes through every kind of update, and every write to its disk is recorded.

use std::fs;
use std::path::Path;
use std::process::Command;

use bennu_os_image::Variant;
use crash_tests::host::replay::Recording;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vm_tests::fixture::Fixture;
use vm_tests::host::on_recorded_host;
use vm_tests::os::Releases;
use vm_tests::signing::Key;
use vm_tests::{Error, Failure, Host, cache, run, vm};

use super::plain;
use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status, with_os};

/// The name of the recording host, for what is kept of it when it fails.
const NAME: &str = "recording_of_updates";
/// What was asked of the disk.
const LOG: &str = "log";
/// What was on the disk before, raw.
const DISK: &str = "disk.raw";
/// The roots of the OS that the host began with, `old`, and of the one that it was updated to, `new`.
const FACTS: &str = "facts.json";
/// What decides how a recording comes to be, beside the host.
const SOURCES: [&str; 2] = [include_str!("record.rs"), include_str!("../updates.rs")];

/// The recording of the host as the sources make it now, and the host, to be booted again. It is made where it is not there, which takes
/// three boots.
pub(super) fn recorded() -> Result<(Recording, Fixture), Failure> {
    let fixture = Fixture::get()?;
    let key = cache::hex(&Sha256::digest(format!("{SOURCES:?} {}", fixture.key())));
    let directory = cache::get_or_make("recordings", &key, 1, |directory| {
        record(fixture.clone(), directory)
            .map_err(|error| Error::Answer { who: NAME.to_owned(), text: error.to_string() })
    })?;
    Ok((open(&directory)?, fixture))
}

/// Reads what was recorded.
fn open(directory: &Path) -> Result<Recording, Failure> {
    let facts: Value = serde_json::from_slice(&fs::read(directory.join(FACTS))?)?;
    let root = |name: &str| -> Result<_, Failure> {
        Ok(facts[name].as_str().ok_or("a root that nobody wrote down")?.parse()?)
    };
    let [log, disk] = [LOG, DISK].map(|name| directory.join(name));
    Recording::open(&log, &disk, vm::MARK, &[root("old")?, root("new")?]).map_err(plain)
}

fn record(fixture: Fixture, directory: &Path) -> Result<(), Failure> {
    let disk = directory.join(DISK);
    let before = fixture.booted_disk();
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&before).arg(&disk))?;
    on_recorded_host(fixture, NAME, |host| {
        let roots = update(host)?;
        host.vm.power_off();
        // Sparse, as it is; of another file system, maybe.
        let (log, kept) = (host.vm.files().log(), directory.join(LOG));
        run(Command::new("cp").arg("--sparse=always").arg(&log).arg(&kept))?;
        fs::write(directory.join(FACTS), json!({ "old": roots[0], "new": roots[1] }).to_string())?;
        // One that can't be judged is not kept.
        open(directory).map(drop)
    })
}

/// Takes the host through the steps that [`crash_tests::host::STEPS`] names, and marks the end of each.
fn update(host: &mut Host) -> Result<[String; 2], Failure> {
    let releases = Releases::new()?;
    let newer = releases.publish(host, &Variant::of_version("9.0.0"))?;
    let old = format!("sha256:{}", host.fixture.disk().root_digest);
    let volume = "[volume.data]\nlife = \"keep\"\n";
    let one = sleeper(&host.registry, "one", "user = \"0:0\"\nvolumes = [\"data:/data\"]");
    let (first, two) = (format!("{SHORT}{volume}{one}"), format!("{volume}{one}"));
    // A recording says nothing about time: what is good may take as long as it likes.
    let patient = |text: String| text.replace("health-deadline = \"90s\"", "health-deadline = \"20m\"");

    host.converge("one.toml", &manifest(&host.registry, 1, &first))?;
    status(host, "the first generation to be kept", |s| kept(s, 1))?;
    host.vm.mark(1)?;

    let second = patient(with_os(host, &releases, 2, &newer, &two));
    let file = host.signed("two.toml", &second)?;
    host.push(&file, &[])?.done()?;
    host.vm.mark(2)?;
    status(host, "the new OS to be kept", |s| kept(s, 2))?;
    host.vm.mark(3)?;

    let write = "echo written >/data/written; sync";
    host.hostctl().run(&["exec", "one", "--", "sh", "-c", write])?.done()?;
    host.vm.mark(4)?;

    let ill = "health = { exec = [\"false\"], interval = \"1s\", retries = 1 }";
    let bad = with_os(host, &releases, 3, &newer, &format!("{two}{}", sleeper(&host.registry, "two", ill)));
    let bad = bad.replace("health-deadline = \"90s\"", "health-deadline = \"10s\"");
    host.push(&host.signed("three.toml", &bad)?, &[])?.done()?;
    host.vm.mark(5)?;
    let taken_back = |s: &Value| s["update"]["rejected"][0]["generation"] == 3 && kept(s, 2);
    status(host, "the bad one to be taken back", taken_back)?;
    host.vm.mark(6)?;

    host.hostctl().run(&["rollback"])?.done()?;
    host.vm.mark(7)?;
    status(host, "the old OS to be back", |s| s["os"]["root"] == old.as_str() && kept(s, 1))?;
    host.vm.mark(8)?;

    rotate(host)?;
    host.vm.mark(9)?;
    // What is still in memory is part of no promise, but of the log.
    host.vm.guest_ok("sync")?;
    Ok([old, newer.root])
}

/// The host takes the next trust document, which has another key.
fn rotate(host: &Host) -> Result<(), Failure> {
    let trust = host.directory.path().join("trust.toml");
    fs::copy(host.operator().trust(), &trust)?;
    let new = Key::generate(&host.directory.path().join("new"), "new")?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (trust, hostctl) = (text(&trust), host.hostctl());
    let replace = format!("deploy={}", new.public().display());
    hostctl.run(&["trust", "rotate", &trust, "--replace", &replace])?.done()?;
    for key in [&new, &host.operator().key()] {
        hostctl.run(&["sign", "--trust-document", "--key", &text(&key.0), &trust])?.done()?;
    }
    hostctl.run(&["trust", "push", &trust])?.done()?;
    Ok(())
}
