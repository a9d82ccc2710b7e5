//! Volumes: how full they may be, snapshots, going back, data out and in.

use std::time::Duration;

use serde_json::Value;
use vm_tests::{Action, Failure, Host, lifecycle, on_host, wait};

use crate::manifest::{allow_empty, manifest, sleeper};

/// A container `one` with the volume `data` at `/data`, the volume declared by these lines.
fn with_data(host: &Host, serial: u64, volume: &str) -> String {
    let rest =
        format!("[volume.data]\n{volume}\n{}", sleeper(&host.registry, "one", "volumes = [\"data:/data\"]"));
    manifest(&host.registry, serial, &rest)
}

/// Runs a shell line in the container `one`.
fn inside(host: &Host, line: &str) -> Result<vm_tests::hostctl::Ran, Failure> {
    Ok(host.hostctl().run(&["exec", "one", "--", "sh", "-c", line])?)
}

/// What is in `/data/x` of the container `one`, once it runs.
fn content(host: &Host) -> Result<String, Failure> {
    let hostctl = host.hostctl();
    let read = || hostctl.run(&["exec", "one", "--", "cat", "/data/x"]);
    let ran =
        wait::until_good("the container to answer", Duration::from_secs(90), read, |ran| ran.code == 0)?;
    Ok(ran.stdout.trim().to_owned())
}

fn volume(host: &Host) -> Result<Value, Failure> {
    let listed = host.hostctl().json(&["volumes", "ls"])?;
    let found = listed["volumes"].as_array().into_iter().flatten().find(|v| v["name"] == "data");
    Ok(found.cloned().ok_or_else(|| format!("no volume data in {listed}"))?)
}

fn snapshots(host: &Host, of: &str) -> Result<Vec<String>, Failure> {
    let listed = host.hostctl().json(&["volumes", "snapshots", "data"])?;
    let names = listed["snapshots"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str());
    Ok(names.filter(|name| name.ends_with(of)).map(ToOwned::to_owned).collect())
}

#[test]
fn a_volume_holds_no_more_than_its_size_and_a_changed_size_restarts_nothing() -> Result<(), Failure> {
    on_host("a_volume_holds_no_more_than_its_size_and_a_changed_size_restarts_nothing", |host| {
        host.converge("first.toml", &with_data(host, 1, "life = \"keep\"\nsize = \"32MiB\""))?;
        let full = inside(host, "dd if=/dev/zero of=/data/big bs=1M count=64")?;
        assert!(full.code != 0 && full.stderr.contains("quota exceeded"), "{full:?}");
        host.vm.guest_ok("dd if=/dev/zero of=/state/elsewhere bs=1M count=64 && rm /state/elsewhere")?;
        let counted = || {
            volume(host).map_err(|e| vm_tests::Error::Answer { who: "volumes".into(), text: e.to_string() })
        };
        let is_full = |v: &Value| v["used"].as_u64().is_some_and(|used| used > 16 << 20);
        let now = wait::until_good("the volume to be counted", Duration::from_secs(60), counted, is_full)?;
        assert_eq!(now["size"], 32 << 20, "{now}");

        let before = host.hostctl().container("one")?;
        host.converge("second.toml", &with_data(host, 2, "life = \"keep\"\nsize = \"128MiB\""))?;
        inside(host, "dd if=/dev/zero of=/data/big bs=1M count=64 && sync")?.done()?;
        assert_eq!(host.hostctl().container("one")?["pid"], before["pid"], "nothing restarts");

        let smaller = host.signed("third.toml", &with_data(host, 3, "life = \"keep\"\nsize = \"16MiB\""))?;
        let refused = host.push(&smaller, &[])?;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains("declare a larger `size`"), "{}", refused.stderr);
        host.act(Action::PowerCut)?;
        host.wait_until_converged()?;
        let full = inside(host, "dd if=/dev/zero of=/data/more bs=1M count=128")?;
        assert!(full.code != 0 && full.stderr.contains("quota exceeded"), "the limit survives: {full:?}");
        let page = host.vm.guest_ok("hostctl --json volumes")?;
        assert!(page.contains("\"size\": 134217728"), "{page}");
        Ok(())
    })
}

#[test]
fn a_volume_goes_back_to_a_snapshot_and_its_container_with_it() -> Result<(), Failure> {
    on_host("a_volume_goes_back_to_a_snapshot_and_its_container_with_it", |host| {
        let kept = "life = \"snapshot\"\nsnapshots = { schedule = \"minutely\", keep = 2 }";
        host.converge("first.toml", &with_data(host, 1, kept))?;
        let by_schedule = |host: &Host| snapshots(host, "-schedule");
        let first = by_schedule(host)?;
        assert!(!first.is_empty(), "the first one is taken at once");

        inside(host, "echo first > /data/x")?.done()?;
        let hostctl = host.hostctl();
        let taken =
            hostctl.json(&["volumes", "snapshot", "data"])?["name"].as_str().unwrap_or_default().to_owned();
        inside(host, "echo second > /data/x")?.done()?;
        let before = hostctl.container("one")?;
        let restored = hostctl.json(&["volumes", "restore", "data", &taken])?;
        assert_eq!(restored["stopped"], serde_json::json!(["one"]), "{restored}");
        assert_eq!(content(host)?, "first");
        assert_ne!(hostctl.container("one")?["pid"], before["pid"]);
        let replaced = restored["before"].as_str().unwrap_or_default().to_owned();
        hostctl.run(&["volumes", "restore", "data", &replaced])?.done()?;
        assert_eq!(content(host)?, "second");

        // Time goes on in the guest alone: three minutes later the schedule has made its own and dropped the older.
        let now = jiff::Timestamp::now().as_second();
        host.vm.guest_ok(&format!("date --set=@{}", now + 180))?;
        let again = || {
            by_schedule(host)
                .map_err(|e| vm_tests::Error::Answer { who: "volumes".into(), text: e.to_string() })
        };
        let other = |names: &Vec<String>| names.len() == 2 && names.iter().all(|name| !first.contains(name));
        wait::until_good("another snapshot", Duration::from_secs(120), again, other)?;

        lifecycle(host, &[Action::Reboot], |host| -> Result<(), Failure> {
            host.wait_until_converged()?;
            assert_eq!(content(host)?, "second");
            assert_eq!(snapshots(host, "-hand")?, std::slice::from_ref(&taken));
            Ok(())
        })?;
        let hostctl = host.hostctl();
        hostctl.run(&["volumes", "rm-snapshot", "data", &taken])?.done()?;
        assert_eq!(hostctl.run(&["volumes", "restore", "data", &taken])?.code, 5);

        // What generation 1 leaves is kept when the next one comes.
        host.converge("second.toml", &with_data(host, 2, &kept.replace("keep = 2", "keep = 1")))?;
        assert_eq!(snapshots(host, "-generation-1")?.len(), 1);
        let destroys = manifest(&host.registry, 3, "[volume.data]\nlife = \"snapshot\"\ndestroy = true\n");
        host.converge("third.toml", &allow_empty(&destroys))?;
        assert_eq!(
            host.vm
                .guest_ok("ls /state/snapshots /state/volumes")?
                .lines()
                .filter(|l| !l.ends_with(':') && !l.is_empty())
                .count(),
            0
        );
        Ok(())
    })
}

#[test]
fn a_volume_is_carried_to_another_one_byte_for_byte() -> Result<(), Failure> {
    on_host("a_volume_is_carried_to_another_one_byte_for_byte", |host| {
        let body = format!(
            "[volume.data]\nlife = \"keep\"\n[volume.other]\nlife = \"keep\"\n{}{}",
            sleeper(&host.registry, "one", "volumes = [\"data:/data\"]"),
            sleeper(&host.registry, "two", "volumes = [\"other:/data\"]")
        );
        host.converge("host.toml", &manifest(&host.registry, 1, &body))?;
        inside(
            host,
            "echo carried > /data/x; mkdir /data/d; echo deep > /data/d/y; chown -R 33:33 /data/d; sync",
        )?
        .done()?;
        let hostctl = host.hostctl();
        let file = host.directory.path().join("data.tar");
        let file = file.to_string_lossy();
        hostctl.run(&["volumes", "export", "data", "--out", &file])?.done()?;
        hostctl.run(&["volumes", "import", "other", &file])?.done()?;
        let read = || {
            hostctl.run(&["exec", "two", "--", "sh", "-c", "cat /data/x /data/d/y; stat -c %u:%g /data/d/y"])
        };
        let ran =
            wait::until_good("the container to answer", Duration::from_secs(90), read, |ran| ran.code == 0)?;
        assert_eq!(ran.stdout, "carried\ndeep\n33:33\n");

        // Files of a container are what it sees: its image, and what is mounted in it.
        let out = host.directory.path().join("out");
        hostctl.run(&["cp", "two:/data", &out.to_string_lossy()])?.done()?;
        assert_eq!(std::fs::read_to_string(out.join("d/y"))?, "deep\n");
        inside(host, "ln -s /proc/1/root/etc/shadow /data/out; ln -s /etc/passwd /data/in")?.done()?;
        let passwd = hostctl.run(&["cp", "one:/data/in", "-"])?.done()?.stdout;
        assert!(passwd.contains("/etc/passwd") && !passwd.contains("root:"), "a link is a link: {passwd:?}");
        let through =
            hostctl.run(&["cp", "one:/etc/passwd", &host.directory.path().to_string_lossy()])?.done()?;
        assert!(through.stdout.contains("1 file,"), "{through:?}");
        assert_eq!(
            hostctl.run(&["cp", "one:/data/none", &out.with_extension("x").to_string_lossy()])?.code,
            5
        );

        let full = hostctl.run(&["volumes", "import", "other", &file])?;
        assert!(full.code == 2 && full.stderr.contains("--replace"), "{full:?}");
        let cut = host.directory.path().join("cut.tar");
        std::fs::write(&cut, &std::fs::read(&*file)?[..700])?;
        let refused = hostctl.run(&["volumes", "import", "other", "--replace", &cut.to_string_lossy()])?;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert_eq!(read()?.done()?.stdout, "carried\ndeep\n33:33\n", "what was there is there");
        hostctl.run(&["volumes", "import", "other", "--replace", &file])?.done()?;
        assert_eq!(hostctl.run(&["volumes", "export", "none"])?.code, 5);
        let left = || host.vm.guest_ok("ls -A /state/volumes");
        wait::until_good("nothing but volumes", Duration::from_secs(30), left, |l| !l.contains(".incoming"))
            .map(drop)?;
        Ok(())
    })
}

#[test]
fn a_volume_and_a_host_path_are_shared_as_declared() -> Result<(), Failure> {
    on_host("a_volume_and_a_host_path_are_shared_as_declared", |host| {
        host.vm.guest_ok("mkdir -p /run/shown && echo shown > /run/shown/x")?;
        let body = format!(
            "[volume.data]\nlife = \"keep\"\n{}{}{}",
            sleeper(&host.registry, "one", "volumes = [\"data:/data\"]"),
            sleeper(&host.registry, "two", "volumes = [\"data:/data\"]"),
            sleeper(
                &host.registry,
                "three",
                "volumes = [\"data:/data:ro\"]\nbinds = [\"/run/shown:/srv:ro\"]"
            ),
        );
        host.converge("host.toml", &manifest(&host.registry, 1, &body))?;
        let hostctl = host.hostctl();
        let run = |name: &str, line: &str| hostctl.run(&["exec", name, "--", "sh", "-c", line]);
        run("one", "echo shared > /data/x; chown 33:33 /data/x")?.done()?;
        assert_eq!(
            run("two", "cat /data/x; stat -c %u:%g /data/x; echo both >> /data/x")?.done()?.stdout,
            "shared\n33:33\n"
        );
        assert_eq!(run("three", "cat /data/x /srv/x")?.done()?.stdout, "shared\nboth\nshown\n");
        assert_ne!(run("three", "echo no > /data/y")?.code, 0, "read-only is read-only");
        assert_ne!(run("three", "echo no > /srv/y")?.code, 0, "read-only is read-only");
        Ok(())
    })
}
