//! Generations that are tried, kept, and taken back, with and without another OS.

use std::time::Duration;

use bennu_os_image::Variant;
use serde_json::Value;
use vm_tests::os::{Release, Releases};
use vm_tests::registry::Stocked;
use vm_tests::{Error, Failure, Host, on_host, wait};

use crate::boot_faults::on_esp;
use crate::manifest::{manifest, sleeper, web};

/// How long a host may take to start again once or twice and to decide, translated.
const DECIDED: Duration = Duration::from_secs(600);

/// What `[update]` says in these tests: a short trial.
pub(crate) const SHORT: &str = "[update]\ntrial = \"5s\"\nhealth-deadline = \"90s\"\n";

/// A manifest with an OS of `releases`.
pub(crate) fn with_os(host: &Host, releases: &Releases, serial: u64, os: &Release, rest: &str) -> String {
    let head = format!(
        "[registry.\"{}\"]\nplain-http = true\n[os]\nimage = \"{}\"\n",
        releases.from_guest(),
        os.reference
    );
    manifest(&host.registry, serial, &format!("{head}{SHORT}{rest}"))
}

/// Waits for a status; the API may be away for as long as the machine takes to start again.
pub(crate) fn status(host: &mut Host, what: &str, good: impl Fn(&Value) -> bool) -> Result<Value, Error> {
    let hostctl = host.hostctl();
    wait::until_good(
        what,
        DECIDED,
        || {
            host.vm.alive()?;
            hostctl.status()
        },
        good,
    )
}

pub(crate) fn kept(status: &Value, generation: u64) -> bool {
    status["update"]["kept"] == generation
        && status["converged"] == true
        && status["update"]["phase"] == "settled"
}

/// A container that does this in a shell when it is to end.
fn at_its_end(registry: &Stocked, name: &str, does: &str, more: &str) -> String {
    format!(
        "[container.{name}]\nimage = \"{}\"\nvolumes = [\"data:/data\"]\nstop-signal = \"SIGTERM\"\nstop-timeout = \"60s\"\n{more}\n\
         command = [\"busybox\", \"sh\", \"-c\", \"trap '{does}; exit' TERM; while :; do sleep 1; done\"]\n",
        registry.pinned("test", "1")
    )
}

fn read(host: &Host, file: &str) -> Result<String, Failure> {
    let cat = ["exec", "slow", "--", "busybox", "cat", file];
    Ok(host.hostctl().run(&cat)?.done()?.stdout.trim().to_owned())
}

#[test]
fn a_new_os_is_tried_and_kept_and_a_rollback_brings_the_old_one_back() -> Result<(), Failure> {
    on_host("a_new_os_is_tried_and_kept_and_a_rollback_brings_the_old_one_back", |host| {
        let releases = Releases::new()?;
        let newer = releases.publish(host, &Variant::of_version("9.0.0"))?;
        let old = format!("sha256:{}", host.fixture.disk().root_digest);
        let always = format!("[volume.data]\nlife = \"keep\"\n{}", web(&host.registry, "1", ""));
        // Longer than the 20 s (`DefaultTimeoutStopSec` here) that `systemd-shutdown` gives to what no unit has ended.
        let slow = at_its_end(&host.registry, "slow", "sleep 25; echo in time >/data/ended", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{always}{slow}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;

        // Only this generation knows that the one relies on the other.
        let first = at_its_end(
            &host.registry,
            "first",
            "sleep 3; echo first >>/data/order",
            "depends-on = [\"slow\"]",
        );
        let then = at_its_end(&host.registry, "slow", "echo then >>/data/order", "");
        let two = format!("{always}{first}{then}");
        let file = host.signed("two.toml", &with_os(host, &releases, 2, &newer, &two))?;
        host.push(&file, &[])?.done()?;
        let after = status(host, "the new OS to be kept", |s| kept(s, 2))?;
        assert_eq!(after["os"]["root"], newer.root.as_str());
        assert_eq!(after["os"]["version"], "9.0.0");
        assert_eq!(after["update"]["way_back"], 1);
        host.wait_for_page("first edition")?;
        let ended = read(host, "/data/ended")?;
        assert_eq!(ended, "in time", "the machine waits for what its containers have to do in the end");
        let entries = host.vm.guest_ok(&on_esp("ls /run/look/loader/entries"))?;
        let entries: Vec<&str> = entries.lines().collect();
        assert_eq!(
            entries,
            ["bennu-0.conf", "bennu-2+3.conf"],
            "the one has all its tries, the other is the last resort"
        );

        host.hostctl().run(&["rollback"])?.done()?;
        let back = status(host, "the old OS to be back", |s| s["os"]["root"] == old.as_str() && kept(s, 1))?;
        assert_eq!(back["update"]["rejected"][0]["generation"], 2);
        host.wait_for_page("first edition")?;
        assert_eq!(read(host, "/data/order")?, "first\nthen", "as what ran until then relied on each other");
        let again = host.push(&file, &[])?;
        assert_eq!(again.code, 2, "what was given up is not tried again: {}", again.stderr);
        Ok(())
    })
}

#[test]
fn f06_an_os_that_does_not_boot_is_left_by_the_loader() -> Result<(), Failure> {
    on_host("f06_an_os_that_does_not_boot_is_left_by_the_loader", |host| {
        let releases = Releases::new()?;
        // A kernel without a first program panics, and starts again by itself.
        let broken = Variant {
            kernel_arguments: "rdinit=/missing init=/missing".into(),
            ..Variant::of_version("9.0.1")
        };
        let broken = releases.publish(host, &broken)?;
        let old = format!("sha256:{}", host.fixture.disk().root_digest);
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let boot = host.vm.boot_id()?;

        let file = host.signed("two.toml", &with_os(host, &releases, 2, &broken, &one))?;
        host.push(&file, &[])?.done()?;
        wait::until("the loader to give up", DECIDED, || {
            host.vm.alive()?;
            host.vm.wait_for_agent(Duration::from_secs(5))?;
            Ok((host.vm.boot_id()? != boot).then_some(()))
        })?;
        let back = status(host, "the old OS to do its work", |s| {
            s["converged"] == false && s["generation"]["number"] == 1
        })?;
        assert_eq!(back["os"]["root"], old.as_str());
        let waits = status(host, "the next round to wait", |s| s["update"]["phase"] == "waiting")?;
        assert!(waits["update"]["why"].as_str().is_some_and(|why| why.starts_with("pause: ")), "{waits}");
        let hostctl = host.hostctl();
        let works = |one: &Value| one["instance"] == "one-1" && one["state"] == "running";
        let one = || hostctl.container("one");
        wait::until_good("what was kept to do its work meanwhile", Duration::from_secs(120), one, works)?;
        Ok(())
    })
}

/// How long the pauses after rounds of three boots are, and somewhat more, in seconds: the clock is put forward instead of waiting.
const PAUSES: [u32; 2] = [330, 660];

/// Three cuts are a round; `BENNU_CUT_ROUNDS=2` has it do both.
#[test]
fn f07_power_cuts_before_a_new_os_is_kept_reject_nothing() -> Result<(), Failure> {
    on_host("f07_power_cuts_before_a_new_os_is_kept_reject_nothing", |host| {
        let releases = Releases::new()?;
        let newer = releases.publish(host, &Variant::of_version("9.0.0"))?;
        let old = format!("sha256:{}", host.fixture.disk().root_digest);
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let long = with_os(host, &releases, 2, &newer, &one).replace("trial = \"5s\"", "trial = \"30s\"");
        host.push(&host.signed("two.toml", &long)?, &[])?.done()?;

        let rounds = std::env::var("BENNU_CUT_ROUNDS").map_or(Ok(1), |text| text.parse())?;
        for (_, seconds) in (0..rounds).zip(PAUSES) {
            status(host, "the new OS to be tried", |s| {
                s["os"]["root"] == newer.root.as_str() && s["update"]["phase"] == "trial"
            })?;
            for _cut in 0..3 {
                host.vm.power_cut()?;
            }
            let back = status(host, "what was kept to be back", |s| s["update"]["phase"] == "waiting")?;
            assert_eq!(
                (&back["os"]["root"], back["generation"]["number"].as_u64()),
                (&old.as_str().into(), Some(1))
            );
            assert!(back["update"]["why"].as_str().is_some_and(|why| why.starts_with("pause: ")), "{back}");
            assert!(back["update"]["rejected"].as_array().is_none_or(Vec::is_empty), "{back}");
            host.vm.guest_ok(&format!("date -s @$(($(date +%s) + {seconds}))"))?;
        }
        let after = status(host, "the new OS to be kept", |s| kept(s, 2))?;
        assert_eq!(after["os"]["root"], newer.root.as_str());
        assert!(after["update"]["rejected"].as_array().is_none_or(Vec::is_empty), "{after}");
        Ok(())
    })
}

#[test]
fn containers_that_do_not_do_their_work_are_taken_back_and_a_change_nobody_confirms_is_undone()
-> Result<(), Failure> {
    on_host(
        "containers_that_do_not_do_their_work_are_taken_back_and_a_change_nobody_confirms_is_undone",
        |host| {
            let one = sleeper(&host.registry, "one", "");
            host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
            status(host, "the first generation to be kept", |s| kept(s, 1))?;

            let ill = "health = { exec = [\"false\"], interval = \"1s\", retries = 1 }";
            let two = sleeper(&host.registry, "two", ill);
            let deadline = "[update]\ntrial = \"5s\"\nhealth-deadline = \"15s\"\n";
            let bad = manifest(&host.registry, 2, &format!("{deadline}{one}{two}"));
            host.push(&host.signed("two.toml", &bad)?, &[])?.done()?;
            let back = status(host, "it to be taken back", |s| {
                s["update"]["rejected"][0]["generation"] == 2 && kept(s, 1)
            })?;
            assert_eq!(back["generation"]["number"], 1);
            let names = |host: &Host| -> Result<Vec<String>, Error> {
                let ps = host.hostctl().json(&["ps"])?;
                let all = ps["containers"].as_array().into_iter().flatten();
                Ok(all.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect())
            };
            assert_eq!(names(host)?, ["one"]);
            let same = manifest(&host.registry, 3, &format!("{one}{two}"));
            let refused = host.push(&host.signed("three.toml", &same)?, &[])?;
            assert_eq!(refused.code, 2, "the same in a newer manifest is not tried: {}", refused.stderr);

            let within = "[update]\ntrial = \"1s\"\nconfirm-within = \"20s\"\n";
            let three = sleeper(&host.registry, "three", "");
            let deadman = manifest(&host.registry, 4, &format!("{within}{one}{three}"));
            host.push(&host.signed("four.toml", &deadman)?, &[])?.done()?;
            status(host, "it to run", |s| s["generation"]["number"] == 3 && s["update"]["phase"] == "trial")?;
            status(host, "it to be undone", |s| s["update"]["rejected"][1]["generation"] == 3 && kept(s, 1))?;
            assert_eq!(names(host)?, ["one"]);

            let confirmed = manifest(
                &host.registry,
                5,
                &format!(
                    "{}{one}{three}",
                    within.replace("20s", "10m").replace("[update]\n", "[update]\nretry = true\n")
                ),
            );
            host.push(&host.signed("five.toml", &confirmed)?, &[])?.done()?;
            status(host, "it to wait for somebody", |s| {
                s["update"]["why"].as_str().is_some_and(|why| why.contains("hostctl confirm"))
            })?;
            host.hostctl().run(&["confirm"])?.done()?;
            status(host, "it to be kept", |s| kept(s, 4))?;
            assert_eq!(names(host)?, ["one", "three"]);
            Ok(())
        },
    )
}

#[test]
fn a_plan_that_was_required_is_carried_out_or_none_and_receipts_tell_what_came_of_it() -> Result<(), Failure>
{
    on_host("a_plan_that_was_required_is_carried_out_or_none_and_receipts_tell_what_came_of_it", |host| {
        let volumes = "[volume.data]\nlife = \"keep\"\n[volume.old]\nlife = \"keep\"\n";
        let writer = |host: &Host, more: &str| {
            sleeper(
                &host.registry,
                "one",
                &format!("user = \"0:0\"\nread-only-root = false\nvolumes = [\"data:/data\"]\n{more}"),
            )
        };
        let first = manifest(&host.registry, 1, &format!("{SHORT}{volumes}{}", writer(host, "")));
        host.converge("one.toml", &first)?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let written =
            ["exec", "one", "--", "sh", "-c", "head -c 8192 /dev/zero | tee /outside > /data/inside"];
        host.hostctl().run(&written)?.done()?;

        let destroy =
            volumes.replace("[volume.old]\nlife = \"keep\"", "[volume.old]\nlife = \"keep\"\ndestroy = true");
        let second = format!("{SHORT}{destroy}{}", writer(host, "environment = { A = \"b\" }"));
        let file = host.signed("two.toml", &manifest(&host.registry, 2, &second))?;
        let name = file.to_string_lossy().into_owned();
        let plan = host.hostctl().json(&["plan", &name])?;
        let digest = plan["digest"].as_str().expect("it has a digest").to_owned();
        let told = &plan["consequences"];
        assert_eq!(told["interruption"]["class"], "restart", "{plan}");
        assert_eq!(told["interruption"]["containers"], serde_json::json!(["one"]), "{plan}");
        assert_eq!(plan["fetch"]["bytes"], 0, "{plan}");
        let gone: Vec<&Value> = told["destroyed"].as_array().into_iter().flatten().collect();
        assert_eq!(gone.len(), 2, "{plan}");
        assert_eq!((&gone[0]["what"], &gone[0]["volume"]), (&"volume".into(), &"old".into()), "{plan}");
        assert_eq!((&gone[1]["what"], &gone[1]["instance"]), (&"layer".into(), &"one-1".into()), "{plan}");
        assert_eq!(gone[1]["holds"]["bytes"], 8192, "{plan}");
        assert_eq!(told["survives"][0]["volume"], "data", "{plan}");
        let host_wrote = told["written"].as_array().into_iter().flatten().find(|one| one["by"] == "host");
        assert!(host_wrote.is_some_and(|one| one["files"].as_u64() > Some(0)), "{plan}");
        let text = host.hostctl().run(&["plan", &name])?.done()?.stdout;
        assert!(text.contains(&digest) && text.contains("/outside"), "{text}");

        // Worked out from a dump it is the same plan.
        let dump = host.hostctl().run(&["dump"])?.done()?.stdout;
        let dump = host.written("dump.json", &dump)?;
        let offline = host.hostctl().json(&["plan", &name, "--state", &dump.to_string_lossy()])?;
        assert_eq!(offline["digest"], digest.as_str(), "{offline}");

        let other = format!("sha256:{}", "0".repeat(64));
        let refused = host.push(&file, &["--require-plan", &other])?;
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.contains("[plan.changed]"), "{}", refused.stderr);
        host.push(&file, &["--require-plan", &digest])?.done()?;
        status(host, "the second generation to be kept", |s| kept(s, 2))?;
        let receipts = host.hostctl().json(&["receipt", "2"])?;
        let receipt = &receipts["receipts"][0];
        assert_eq!((&receipt["change"], &receipt["plan"]), (&"active".into(), &digest.into()), "{receipt}");
        assert_eq!(receipt["interruption"], told["interruption"], "{receipt}");
        assert_eq!(receipt["destroyed"], told["destroyed"], "{receipt}");
        assert_eq!(receipt["survived"][0]["volume"], "data", "{receipt}");
        assert!(receipt["ended"].is_string(), "{receipt}");
        let text = host.hostctl().run(&["receipt"])?.done()?.stdout;
        assert!(text.contains("what one-1 wrote to its root"), "{text}");
        assert_eq!(host.hostctl().run(&["receipt", "7"])?.code, 5);

        // A situation that changes before the activation: what was taken is given up.
        let more =
            format!("{SHORT}approval = true\n[volume.extra]\nlife = \"keep\"\n{destroy}{}", writer(host, ""));
        let gated = host.signed("three.toml", &manifest(&host.registry, 3, &more))?;
        let before = host.hostctl().json(&["plan", &gated.to_string_lossy()])?;
        host.push(&gated, &["--require-plan", before["digest"].as_str().expect("a digest")])?.done()?;
        status(host, "it to wait", |s| s["update"]["phase"] == "waiting")?;
        host.vm.guest_ok("mkdir /state/volumes/extra")?;
        host.hostctl().run(&["approve"])?.done()?;
        let after = status(host, "it to be given up", |s| s["pending"].is_null())?;
        assert_eq!(after["generation"]["number"], 2);
        assert_eq!(after["update"]["phase"], "settled");
        let why = host.hostctl().json(&["why"])?;
        assert!(why["answer"].as_str().is_some_and(|answer| answer.contains("given up")), "{why}");
        Ok(())
    })
}
