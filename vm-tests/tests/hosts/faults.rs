//! Containers and daemons that die.

use std::time::Duration;

use vm_tests::{Action, Failure, lifecycle, on_host, wait};

use crate::manifest::{manifest, sleeper};

#[test]
fn a_container_that_is_killed_is_restarted() -> Result<(), Failure> {
    on_host("a_container_that_is_killed_is_restarted", |host| {
        let registry = &host.registry;
        let rest = format!("{}{}", sleeper(registry, "one", ""), sleeper(registry, "other", ""));
        host.converge("host.toml", &manifest(registry, 1, &rest))?;
        let hostctl = host.hostctl();
        let (before, other) = (hostctl.container("one")?, hostctl.container("other")?);

        host.vm.guest_ok(&format!("kill -9 {}", before["pid"]))?;
        let again = wait::until_good(
            "another process of the container",
            Duration::from_secs(60),
            || hostctl.container("one"),
            |now| now["state"] == "running" && now["pid"] != before["pid"] && now["pid"] != 0,
        )?;
        assert_eq!(again["instance"], before["instance"], "the same instance, started again");
        assert_eq!(again["restarts"], 1);
        assert_eq!(hostctl.container("other")?["pid"], other["pid"]);
        host.wait_until_converged()?;
        let ran = hostctl.run(&["exec", "one", "--", "echo", "alive"])?.done()?;
        assert_eq!(ran.stdout, "alive\n");
        Ok(())
    })
}

#[test]
fn killing_hostd_leaves_containers_alone() -> Result<(), Failure> {
    on_host("killing_hostd_leaves_containers_alone", |host| {
        let registry = &host.registry;
        host.converge(
            "host.toml",
            &manifest(registry, 1, &sleeper(registry, "one", "ports = [\"8081:80\"]")),
        )?;
        let before = host.settled()?;
        lifecycle(host, &[Action::Nothing, Action::HostdKilled, Action::HostdRestarted], |host| {
            host.wait_until_converged()?;
            let after = host.settled()?;
            if after == before { Ok(()) } else { Err(Failure::from(format!("was {before:#}\nis {after:#}"))) }
        })
    })
}

#[test]
fn a_container_that_keeps_dying_is_started_ever_more_slowly() -> Result<(), Failure> {
    on_host("a_container_that_keeps_dying_is_started_ever_more_slowly", |host| {
        let registry = &host.registry;
        let file = host.signed(
            "host.toml",
            &manifest(registry, 1, &sleeper(registry, "one", "command = [\"false\"]")),
        )?;
        host.push(&file, &[])?.done()?;
        let hostctl = host.hostctl();
        let restarts = || Ok(hostctl.container("one")?["restarts"].as_u64().unwrap_or_default());
        wait::until_good("the second restart", Duration::from_secs(120), restarts, |count| *count >= 2)?;
        // Time in the guest runs as time here does; without back-off there would be dozens.
        let count: u64 = {
            host.vm.guest_ok("sleep 20")?;
            restarts().map_err(|error: vm_tests::Error| error)?
        };
        assert!(count < 15, "{count} restarts");
        Ok(())
    })
}
