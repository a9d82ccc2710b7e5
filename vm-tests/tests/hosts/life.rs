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
