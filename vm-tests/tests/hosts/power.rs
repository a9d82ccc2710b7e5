//! Reboots and power cuts: what comes back, and what does not.

use std::time::Duration;

use vm_tests::gate::Rule;
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

#[test]
fn a_volume_survives_and_nothing_else_does() -> Result<(), Failure> {
    on_host("a_volume_survives_and_nothing_else_does", |host| {
        let registry = &host.registry;
        let mounts = "volumes = [\"kept:/data\", \"fresh:/srv\"]\ntmpfs = [\"/tmp\"]\nread-only-root = false";
        let rest = format!(
            "[volume.kept]\nlife = \"keep\"\n[volume.fresh]\nlife = \"scratch\"\n{}",
            sleeper(registry, "one", mounts)
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
