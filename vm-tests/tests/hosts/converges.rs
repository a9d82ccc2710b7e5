//! The main job: a signed manifest becomes running containers.

use std::fs;
use std::time::Duration;

use vm_tests::hostctl::offline;
use vm_tests::{Error, Failure, on_host, wait};

#[test]
fn demo_manifest_converges() -> Result<(), Failure> {
    on_host("demo_manifest_converges", |host| {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/examples/demo.toml");
        let (there, here) = (host.registry.from_guest(), host.registry.from_here());
        let text = fs::read_to_string(example)?.replace("10.0.2.2:5000", &there);
        let file = host.written("demo.toml", &text)?;
        let path = file.to_string_lossy();

        let program = &host.fixture.programs().hostctl;
        assert_eq!(offline(program, &["check", &path])?.code, 2, "tags alone are not enough");
        offline(program, &["pin", "--via", &format!("{there}={here}"), &path])?.done()?;
        offline(program, &["check", &path])?.done()?;
        host.operator().key().sign(&file)?;
        let trust = host.operator().trust();
        offline(program, &["verify", "--trust", &trust.to_string_lossy(), &path])?.done()?;
        host.push(&file, &["--wait", "--timeout", "300"])?.done()?;

        let status = host.hostctl().status()?;
        assert_eq!(status["converged"], true, "{status}");
        assert_eq!(status["generation"]["serial"], 1, "{status}");
        for name in ["cache", "web"] {
            assert_eq!(host.hostctl().container(name)?["state"], "running");
        }

        host.wait_for_page("first edition")?;
        let hits = || match host.http(8080, "/cache")? {
            (200, body) => Ok(Some(body)),
            (code, text) => Err(Error::Answer { who: "nginx".into(), text: format!("{code}: {text}") }),
        };
        // redis is started before nginx and may be slower to listen.
        assert_eq!(wait::until("redis to answer", Duration::from_secs(60), hits)?, "hits: 1\n");
        assert_eq!(host.http(8080, "/cache")?, (200, "hits: 2\n".into()));

        let hostctl = host.hostctl();
        let logs = || Ok(hostctl.run(&["logs", "web"])?.done()?.stdout);
        let written = |text: &String| text.contains("hit 2");
        wait::until_good("nginx's notice in its log", Duration::from_secs(30), logs, written)?;
        Ok(())
    })
}

#[test]
fn containers_are_services_without_a_monitor_process() -> Result<(), Failure> {
    on_host("containers_are_services_without_a_monitor_process", |host| {
        let registry = &host.registry;
        let text = crate::manifest::manifest(registry, 1, &crate::manifest::sleeper(registry, "one", ""));
        host.converge("host.toml", &text)?;

        let process = host.hostctl().container("one")?["pid"].as_u64().expect("a process id");
        let parent = host.vm.guest_ok(&format!("sed -n 's/^PPid:\\t//p' /proc/{process}/status"))?;
        assert_eq!(parent, "1", "its parent is systemd");
        let cgroup = host.vm.guest_ok(&format!("cat /proc/{process}/cgroup"))?;
        assert!(cgroup.contains(".service"), "it is in a service: {cgroup}");
        // A process that ends between the list and the look at it is none that is left.
        let runtimes = "cat /proc/[0-9]*/comm 2>/dev/null | grep -c crun || true";
        assert_eq!(host.vm.guest_ok(runtimes)?, "0", "no crun is left");

        let identity =
            host.vm.guest_ok(&format!("sed -n 's/^Uid:\\t\\([0-9]*\\).*/\\1/p' /proc/{process}/status"))?;
        assert_ne!(identity, "0", "root in the container is nobody on the host");
        let privileges =
            host.vm.guest_ok(&format!("sed -n 's/^NoNewPrivs:\\t//p' /proc/{process}/status"))?;
        assert_eq!(privileges, "1");
        let written = host.hostctl().run(&["exec", "one", "--", "touch", "/srv/x"])?;
        assert_ne!(written.code, 0, "the root of a container is read-only unless it asks otherwise");
        Ok(())
    })
}
