//! Health, readiness, replacement, jobs, and what waits for what.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use vm_tests::{Error, Failure, Host, http, on_host, wait};

use crate::manifest::{manifest, sleeper, web};

const CHECKED: &str = "readiness = { http = \"http://:80/\", interval = \"200ms\" }\n\
                       health = { http = \"http://:80/\", interval = \"1s\", retries = 2, start-period = \"1m\" }\n\
                       update = { order = \"start-first\", deadline = \"2m\" }\n";

/// Asks for the page again and again while `change` runs; says how often it came, and how it did not come.
fn under_load(
    host: &mut Host,
    change: impl FnOnce(&mut Host) -> Result<(), Failure>,
) -> Result<(usize, Vec<String>), Failure> {
    let port = host.vm.port(8080);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut lost = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match http::get(port, "/") {
                    Ok((200, _)) => drop(served.fetch_add(1, Ordering::Relaxed)),
                    Ok((code, text)) => lost.push(format!("{code}: {text}")),
                    Err(error) => lost.push(error.to_string()),
                }
            }
            lost
        });
        let changed = change(host);
        stop.store(true, Ordering::Relaxed);
        let lost = load.join().expect("the load does not panic");
        changed.map(|()| (served.load(Ordering::Relaxed), lost))
    })
}

#[test]
fn start_first_loses_no_request_and_a_bad_version_is_taken_back() -> Result<(), Failure> {
    on_host("start_first_loses_no_request_and_a_bad_version_is_taken_back", |host| {
        let text = |host: &Host, serial, tag, more: &str| {
            manifest(&host.registry, serial, &web(&host.registry, tag, &format!("{CHECKED}{more}")))
        };
        let first = text(host, 1, "1", "");
        host.converge("first.toml", &first)?;
        host.wait_for_page("first edition")?;
        assert_eq!(host.hostctl().container("web")?["health"], "healthy");

        let second = text(host, 2, "2", "");
        let (served, lost) = under_load(host, |host| {
            host.converge("second.toml", &second)?;
            Ok(host.wait_for_page("second edition")?)
        })?;
        assert!(served > 10, "{served} requests are no load");
        assert_eq!(lost, Vec::<String>::new(), "of {served} requests none is lost");

        // It ends at once, so it is never ready; its restarts do not count as an end.
        let bad = text(
            host,
            3,
            "2",
            "restart = \"no\"\ncommand = [\"sh\", \"-c\", \"echo out of order; exit 3\"]\n",
        );
        let file = host.signed("bad.toml", &bad)?;
        let (_, lost) = under_load(host, |host| {
            host.push(&file, &[])?.done()?;
            let rejected = || host.hostctl().status();
            let named = |status: &serde_json::Value| status["rejected"][0]["container"] == "web";
            let status = wait::until_good("the rejection", Duration::from_secs(120), rejected, named)?;
            assert!(status["rejected"][0]["said"].to_string().contains("out of order"), "{status}");
            Ok(())
        })?;
        assert_eq!(lost, Vec::<String>::new(), "the old one goes on");
        host.wait_for_page("second edition")?;
        let said =
            |status: &serde_json::Value| status["failure"].to_string().contains("was tried and rejected");
        let hostctl = host.hostctl();
        let status = wait::until_good("the reason", Duration::from_secs(60), || hostctl.status(), said)?;
        assert_eq!(status["converged"], false, "{status}");
        Ok(())
    })
}

#[test]
fn what_fails_its_health_check_is_started_again() -> Result<(), Failure> {
    on_host("what_fails_its_health_check_is_started_again", |host| {
        let checked = "tmpfs = [\"/run\"]\ncommand = [\"sh\", \"-c\", \"touch /run/well; sleep 100000\"]\n\
                       health = { exec = [\"cat\", \"/run/well\"], interval = \"1s\", retries = 2 }\n";
        let text = manifest(&host.registry, 1, &sleeper(&host.registry, "one", checked));
        host.converge("host.toml", &text)?;
        let before = host.hostctl().container("one")?;
        assert_eq!(before["health"], "healthy", "{before}");
        host.hostctl().run(&["exec", "one", "--", "rm", "/run/well"])?.done()?;
        let again = || host.hostctl().container("one");
        let is_new = |now: &serde_json::Value| now["pid"] != before["pid"] && now["health"] == "healthy";
        wait::until_good("another process that is healthy", Duration::from_secs(90), again, is_new)?;
        let events = host.hostctl().run(&["events"])?.done()?.stdout;
        assert!(events.contains("one-1 unhealthy: code 1"), "{events}");
        Ok(())
    })
}

#[test]
fn a_container_waits_for_its_job_and_gets_its_secrets_and_configs() -> Result<(), Failure> {
    on_host("a_container_waits_for_its_job_and_gets_its_secrets_and_configs", |host| {
        let status = host.hostctl().status()?;
        let recipient = status["secrets_recipient"].as_str().expect("a recipient").to_owned();
        let plain = host.written("password", "s3cret")?;
        let encrypt =
            ["secret", "encrypt", "--recipient", &recipient, "--name", "password", &plain.to_string_lossy()];
        let secret = host.hostctl().run(&encrypt)?.done()?.stdout;
        let body = |greeting: &str| {
            let prepare = sleeper(
                &host.registry,
                "x",
                "when = \"once\"\nvolumes = [\"data:/data\"]\n\
                 command = [\"sh\", \"-c\", \"sleep 2; echo prepared > /data/state\"]\n",
            );
            let prepare = prepare.replace("[container.x]", "[job.prepare]");
            let app = sleeper(
                &host.registry,
                "app",
                "depends-on = { prepare = \"completed\" }\nvolumes = [\"data:/data:ro\"]\nuser = \"33:33\"\n\
                 secrets = [\"password\"]\nconfigs = [\"greeting:/etc/greeting\"]\non-change = \"SIGCONT\"\n\
                 environment-secrets = { PASSWORD = \"password\" }\ncommand = [\"sh\", \"-c\", \"cat /data/state; exec sleep 100000\"]\n",
            );
            format!(
                "{secret}\n[config.greeting]\ncontent = \"{greeting}\"\n[volume.data]\nlife = \"keep\"\n{prepare}{app}"
            )
        };
        host.converge("first.toml", &manifest(&host.registry, 1, &body("hello")))?;
        let hostctl = host.hostctl();
        let inside = |command: &[&str]| -> Result<String, Error> {
            let arguments = [&["exec", "app", "--"], command].concat();
            Ok(hostctl.run(&arguments)?.done()?.stdout)
        };
        let status = host.hostctl().status()?;
        assert_eq!(status["jobs"]["prepare"][0]["outcome"], "completed", "{status}");
        assert!(
            host.hostctl().run(&["logs", "app"])?.done()?.stdout.contains("prepared"),
            "the job came first"
        );
        assert_eq!(inside(&["cat", "/run/secrets/password"])?, "s3cret");
        assert_eq!(inside(&["stat", "-c", "%a %u:%g", "/run/secrets/password"])?.trim(), "400 33:33");
        assert!(inside(&["env"])?.contains("PASSWORD=s3cret"));
        assert_eq!(inside(&["cat", "/etc/greeting"])?, "hello");
        let disk = host.vm.guest("grep -rl s3cret /state 2>/dev/null | head -3")?;
        assert_eq!(disk.text, "", "the secret is in memory only");

        let before = host.hostctl().container("app")?;
        host.converge("second.toml", &manifest(&host.registry, 2, &body("good evening")))?;
        assert_eq!(inside(&["cat", "/etc/greeting"])?, "good evening");
        assert_eq!(
            host.hostctl().container("app")?["pid"],
            before["pid"],
            "a signal tells it, and nothing restarts"
        );
        let runs = host.hostctl().status()?["jobs"]["prepare"].as_array().map(Vec::len);
        assert_eq!(runs, Some(1), "the job did not change, so it does not run again");
        Ok(())
    })
}

#[test]
fn what_the_kernel_ends_for_want_of_memory_is_counted_over_restarts_and_told() -> Result<(), Failure> {
    on_host("what_the_kernel_ends_for_want_of_memory_is_counted_over_restarts_and_told", |host| {
        // Its first process itself is what grows, so it is what ends.
        let waits = "[ -e /fill/go ] && exec dd if=/dev/zero of=/fill/x bs=1024k; sleep 0.2";
        let hungry = format!(
            "limits = {{ memory = \"32MiB\", swap = \"0B\" }}\ntmpfs = [\"/fill:512MiB\"]\n\
             command = [\"sh\", \"-c\", \"while :; do {waits}; done\"]\n"
        );
        // What a unit writes down when it ends has as long as the container has to stop.
        let hungry = sleeper(&host.registry, "hungry", &hungry).replace("\"1s\"", "\"30s\"");
        host.converge("host.toml", &manifest(&host.registry, 1, &hungry))?;
        let hostctl = host.hostctl();
        let kills = |times: u64| {
            let counted = |one: &serde_json::Value| {
                one["usage"]["oom_kills"] == times && one["restarts"] == times && one["state"] == "running"
            };
            wait::until_good("the kill", Duration::from_secs(60), || hostctl.container("hungry"), counted)
        };
        hostctl.run(&["exec", "hungry", "--", "busybox", "touch", "/fill/go"])?.done()?;
        kills(1)?;
        // The daemon sees nothing of the second one.
        host.vm.guest_ok(
            "systemctl stop hostd\n\
             crun --root=/run/bennu/runtime/hungry-1 --cgroup-manager=disabled exec hungry-1 busybox touch /fill/go\n\
             until [ \"$(systemctl show -P NRestarts bennu-hungry-1.service)\" = 2 ]; do sleep 0.2; done\n\
             systemctl start hostd",
        )?;
        host.wait_for_api()?;
        kills(2)?;
        let told = || hostctl.run(&["events", "--json"])?.done().map(|events| events.stdout);
        let whole = |events: &String| {
            let events = events.lines().filter_map(|line| serde_json::from_str(line).ok());
            let kills: Vec<serde_json::Value> =
                events.filter(|one: &serde_json::Value| one["event"] == "oom-kill").collect();
            let of = |one: &serde_json::Value| one["container"] == "hungry" && one["limit"] == 32 << 20;
            kills.iter().all(of) && kills.iter().filter_map(|one| one["killed"].as_u64()).sum::<u64>() == 2
        };
        wait::until_good("both events", Duration::from_secs(60), told, whole)?;
        assert_eq!(hostctl.status()?["oom_kills"]["hungry-1"]["count"], 2);
        Ok(())
    })
}

/// Kills the first process of container `one` and waits until systemd has started it again, with nothing of the run before
/// in its way.
pub(crate) fn killed_and_started_again(host: &mut Host) -> Result<(), Failure> {
    let hostctl = host.hostctl();
    let before = hostctl.container("one")?;
    let (pid, instance) = (&before["pid"], before["instance"].as_str().expect("an instance"));
    host.vm.guest_ok(&format!("kill -9 {pid}"))?;
    let again = |now: &serde_json::Value| now["pid"] != *pid && now["pid"] != 0 && now["state"] == "running";
    let now =
        wait::until_good("another process", Duration::from_secs(90), || hostctl.container("one"), again)?;
    assert_eq!(now["restarts"], 1, "the first attempt succeeds: {now}");
    let said = host.vm.guest_ok(&format!("journalctl --output=cat --unit=bennu-{instance}.service"))?;
    assert!(!said.contains("exist"), "nothing of it was there any more: {said}");
    Ok(())
}

/// What there is of containers: what the runtime knows, mounts, control groups and processes of runtimes.
pub(crate) fn left(host: &mut Host) -> Result<String, Failure> {
    let script = "ls /run/bennu/runtime; ls -d /sys/fs/cgroup/bennu.slice/*/ | xargs -n 1 basename\n\
                  sed -n 's|.* \\(/run/host/bennu/instances/[^ ]*/rootfs\\) .*|\\1|p' /proc/mounts\n\
                  cat /proc/[0-9]*/comm | grep -E 'crun|runc' || true";
    Ok(host.vm.guest_ok(script)?)
}

#[test]
fn a_container_that_has_no_time_to_end_is_started_again_at_once() -> Result<(), Failure> {
    on_host("a_container_that_has_no_time_to_end_is_started_again_at_once", |host| {
        // No process could do anything within it, so all that a unit does by processes when it ends is cut off.
        let one = sleeper(&host.registry, "one", "").replace("\"1s\"", "\"1ms\"");
        host.converge("host.toml", &manifest(&host.registry, 1, &one))?;
        killed_and_started_again(host)?;
        assert_eq!(left(host)?.trim(), "one-1\nbennu-one-1.service\n/run/host/bennu/instances/one-1/rootfs");
        Ok(())
    })
}

#[test]
fn t18_a_container_that_ends_at_once_again_and_again_disturbs_nobody_and_fills_no_log() -> Result<(), Failure>
{
    on_host("t18_a_container_that_ends_at_once_again_and_again_disturbs_nobody_and_fills_no_log", |host| {
        let ends = "command = [\"sh\", \"-c\", \"i=0; while [ $i -lt 100 ]; do echo turn $i; i=$((i+1)); done; exit 1\"]\n";
        let all = sleeper(&host.registry, "steady", "") + &sleeper(&host.registry, "flapping", ends);
        let file = host.signed("host.toml", &manifest(&host.registry, 1, &all))?;
        host.push(&file, &[])?.done()?;
        let hostctl = host.hostctl();
        let steady = |hostctl: &vm_tests::hostctl::Hostctl| -> Result<_, Error> {
            let one = hostctl.container("steady")?;
            Ok((one["state"].clone(), one["pid"].clone(), one["restarts"].clone()))
        };
        let runs = |(state, ..): &(serde_json::Value, _, _)| state == "running";
        let before = wait::until_good("the other one", Duration::from_secs(120), || steady(&hostctl), runs)?;
        let used = "cut -d' ' -f14,15 /proc/$(systemctl show --property=MainPID --value hostd.service)/stat";
        let told = "journalctl --boot | wc -c; journalctl --boot --grep='^turn 0$' --output=cat | wc -l";
        let numbers = |host: &mut Host, command: &str| -> Result<Vec<u64>, Failure> {
            let text = host.vm.guest_ok(command)?;
            Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
        };
        let (ticks, logged) = (numbers(host, used)?, numbers(host, told)?);
        host.vm.guest_within("sleep 120", Duration::from_secs(240))?;
        let (ticks_after, logged_after) = (numbers(host, used)?, numbers(host, told)?);

        let ticks = ticks_after.iter().sum::<u64>() - ticks.iter().sum::<u64>();
        // Of 120 s, in ticks of 10 ms (proc_pid_stat(5), fields 14 and 15).
        assert!(ticks <= 240, "{ticks} ticks are more than 2 of 100");
        let (bytes, starts) = (logged_after[0] - logged[0], logged_after[1] - logged[1]);
        assert!((2..=30).contains(&starts), "{starts} starts in 120 s, with pauses that grow");
        assert!(bytes < 2 << 20, "{bytes} bytes more in the journal, where 10 MB in 10 minutes are too many");
        assert_eq!(steady(&hostctl)?, before, "the other one goes on");
        Ok(())
    })
}

#[test]
fn what_cannot_be_started_holds_up_only_what_relies_on_it() -> Result<(), Failure> {
    on_host("what_cannot_be_started_holds_up_only_what_relies_on_it", |host| {
        let serving =
            "ports = [\"8080:80\"]\ncommand = [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/etc\"]\n";
        let all = |host: &Host, broken: &str| {
            let of = |name: &str, rest: &str| sleeper(&host.registry, name, rest);
            let needs = of("needs-broken", "depends-on = [\"broken\"]\n") + &of("other", serving);
            of("broken", broken) + &needs + &of("relies", "depends-on = [\"other\"]\n")
        };
        let broken = "command = [\"/no/such/program\"]\n";
        let file = host.signed("host.toml", &manifest(&host.registry, 1, &all(host, broken)))?;
        host.push(&file, &[])?.done()?;
        let answers = || host.http(8080, "/hostname");
        wait::until_good("the others", Duration::from_secs(120), answers, |(code, _)| *code == 200)?;
        let hostctl = host.hostctl();
        let runs = || Ok(hostctl.container("relies")?["state"].clone());
        wait::until_good("what relies on them", Duration::from_secs(60), runs, |state| state == "running")?;

        let told = hostctl.run(&["status"])?.done()?.stdout;
        assert!(told.contains("broken-1") && told.contains("/no/such/program"), "it is said why: {told}");
        let ps = hostctl.run(&["ps"])?.done()?.stdout;
        assert!(!ps.contains("broken"), "neither it nor what relies on it is there: {ps}");
        host.converge("host.toml", &manifest(&host.registry, 2, &all(host, "")))?;
        Ok(())
    })
}
