//! Ways out of a container, tried by a program inside it.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use vm_tests::{Failure, Host, on_host, programs};

use crate::manifest::{manifest, sleeper};

/// How many ways out the probe has to try, and how many of them have to be open where nothing is shut.
const TRIED: usize = 60;
const OPEN: usize = 20;

/// Puts the probe into a volume of this host.
fn place(host: &mut Host, volume: &str) -> Result<(), Failure> {
    let bytes = fs::read(programs::probe()?)?;
    let path = format!("/state/volumes/{volume}/probe");
    for (number, part) in bytes.chunks(1 << 20).enumerate() {
        let to = if number == 0 { ">" } else { ">>" };
        let text = BASE64_STANDARD.encode(part);
        host.vm.guest_ok(&format!("base64 -d {to}{path} <<'END'\n{text}\nEND\nchmod 755 {path}"))?;
    }
    Ok(())
}

/// What the probe says in a container: its lines, and the number of checks.
fn probed(host: &Host, container: &str) -> Result<(Vec<String>, usize), Failure> {
    let ran = host.hostctl().run(&["exec", container, "--", "/tools/probe"])?.done()?;
    let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    let last = lines.pop().ok_or("the probe says nothing")?;
    let count = last.split(' ').nth(1).ok_or("the probe did not end")?.parse()?;
    assert_eq!(lines.len(), count, "each check says how it ended: {lines:#?}");
    Ok((lines, count))
}

#[test]
fn t17_a_probe_with_sixty_ways_out_of_a_container_finds_them_shut() -> Result<(), Failure> {
    on_host("t17_a_probe_with_sixty_ways_out_of_a_container_finds_them_shut", |host| {
        let with = |name: &str, more: &str| {
            sleeper(&host.registry, name, &format!("volumes = [\"tools:/tools\"]\n{more}"))
        };
        // As a service of a cloud would: reachable from the host, and not from a container.
        host.vm.guest_ok(
            "set -e; ip link add cloud0 type veth peer name cloud1; ip netns add cloud; ip link set cloud1 netns cloud\n\
             ip address add 169.254.1.1/16 dev cloud0; ip link set cloud0 up; ip -n cloud link set cloud1 up\n\
             ip -n cloud address add 169.254.169.254/16 dev cloud1",
        )?;
        let all = format!(
            "[volume.tools]\nlife = \"keep\"\n{}{}{}",
            with("plain", "init = true\ntmpfs = [\"/tmp\", \"/run\"]\n"),
            with("rooted", "read-only-root = false\nuser = \"0:0\"\n"),
            with("strong", "privileged = true\nread-only-root = false\n"),
        );
        host.converge("host.toml", &manifest(&host.registry, 1, &all))?;
        place(host, "tools")?;
        let cloud = "/run/host/bennu/instances/plain-1/rootfs/usr/bin/busybox httpd -p 80 -h /etc";
        host.vm.guest_ok(&format!(
            "ip netns exec cloud {cloud}; bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'"
        ))?;

        let (lines, count) = probed(host, "plain")?;
        assert!(count >= TRIED, "{count} ways out are tried");
        let open = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| line.split(' ').nth(1) == Some("open")).cloned().collect()
        };
        assert_eq!(open(&lines), Vec::<String>::new(), "nothing is open");
        // What it says itself is open to it; nothing beyond.
        let (lines, _) = probed(host, "rooted")?;
        let beyond: Vec<_> = open(&lines).into_iter().filter(|line| !line.starts_with("F01 ")).collect();
        assert_eq!(beyond, Vec::<String>::new(), "its own root is all that it may write to");
        let (lines, _) = probed(host, "strong")?;
        let found = open(&lines);
        assert!(found.len() >= OPEN, "the probe finds what is open: {found:#?}");
        Ok(())
    })
}

#[test]
fn t16_what_broke_other_hosts_has_no_effect_on_this_one() -> Result<(), Failure> {
    on_host("t16_what_broke_other_hosts_has_no_effect_on_this_one", |host| {
        let state = "sha256sum /usr/bin/crun /etc/passwd /etc/shadow; systemctl list-units --all --plain --no-legend 'evil*'; \
                     ls -A / /etc/systemd/system /run/systemd/system /etc/cron* 2>/dev/null; cat /proc/sys/kernel/core_pattern";
        host.converge("empty.toml", &format!("allow-empty = true\n{}", manifest(&host.registry, 1, "")))?;
        let before = host.vm.guest_ok(state)?;
        // What would be a line of a unit, a specifier, a variable or a command, were it ever read as one.
        let words = "%n %H $PATH ${HOME} $(touch /evil) `touch /evil` ; touch /evil";
        let lines = "a\\n[Service]\\nExecStartPre=/bin/touch /evil";
        let print = "printf '%s|' \\\"$@\\\" \\\"$ODD\\\"; echo; exec sleep 100000";
        let data = format!(
            "command = [\"sh\", \"-c\", \"{print}\", \"sh\", \"{words}\", \"{lines}\"]\n\
             environment = {{ ODD = \"{words}\" }}\nlabels = {{ \"evil\" = \"{words}\" }}\n"
        );
        // CVE-2019-5736: the program is the runtime itself, by way of its own process.
        let runtime = "command = [\"/proc/self/exe\", \"--version\"]\nrestart = \"no\"\n";
        // CVE-2021-30465, CVE-2023-28642: a volume has a link where something is to be mounted.
        let links = "volumes = [\"shared:/data\"]\n";
        let mounted = "volumes = [\"shared:/data\"]\ntmpfs = [\"/data/etc\"]\ndepends-on = [\"links\"]\nrestart = \"no\"\n";
        let all = |more: &str| {
            let one = sleeper(&host.registry, "data", &data) + &sleeper(&host.registry, "links", links);
            format!("[volume.shared]\nlife = \"keep\"\n{one}{more}")
        };
        host.converge("data.toml", &manifest(&host.registry, 2, &all("")))?;
        let said = host.hostctl().run(&["logs", "data"])?.done()?.stdout;
        for literal in
            ["%n %H $PATH ${HOME} $(touch /evil) `touch /evil`", "[Service]", "ExecStartPre=/bin/touch"]
        {
            assert!(said.contains(literal), "{literal} is data: {said}");
        }
        let unit =
            host.vm.guest_ok("systemctl show bennu-data-2.service; systemctl cat bennu-data-2.service")?;
        assert!(!unit.contains("touch /evil"), "nothing of it is in the unit: {unit}");

        host.hostctl()
            .run(&["exec", "links", "--", "busybox", "ln", "-s", "/../../../../../../etc", "/data/etc"])?
            .done()?;
        let more = sleeper(&host.registry, "runtime", runtime) + &sleeper(&host.registry, "mounted", mounted);
        let file = host.signed("attack.toml", &manifest(&host.registry, 3, &all(&more)))?;
        host.push(&file, &["--wait", "--timeout", "60"])?;
        let mounts = host.vm.guest_ok("grep -c ' /etc tmpfs' /proc/self/mountinfo || true; findmnt -n -o SOURCE /etc || true; ls /etc/passwd")?;
        assert!(mounts.ends_with("/etc/passwd"), "the host's own files are not covered: {mounts}");

        // CVE-2024-21626: a working directory that is a file which the runtime has open.
        for (serial, directory) in ["/proc/self/fd/7", "/proc/self/fd/8", "/dev/fd/9"].iter().enumerate() {
            let leaky = sleeper(
                &host.registry,
                "leaky",
                &format!("working-directory = \"{directory}\"\nrestart = \"no\"\n"),
            );
            let text = manifest(&host.registry, 4 + serial as u64, &all(&leaky));
            let file = host.signed("leaky.toml", &text)?;
            let ran = host.push(&file, &["--wait", "--timeout", "40"])?;
            assert_ne!(ran.code, 0, "{directory}: {}", ran.stdout);
            let pid = host.hostctl().container("leaky").map(|container| container["pid"].clone());
            assert!(pid.is_err() || pid.is_ok_and(|pid| pid == 0), "no program of it runs");
        }
        assert_eq!(host.vm.guest_ok(state)?, before, "the host is as it was");
        Ok(())
    })
}

#[test]
fn limits_hold_under_load_and_what_they_end_is_told() -> Result<(), Failure> {
    on_host("limits_hold_under_load_and_what_they_end_is_told", |host| {
        let hungry = "limits = { memory = \"32MiB\", swap = \"0B\" }\ntmpfs = [\"/fill:512MiB\"]\n";
        let many = "limits = { pids = 20 }\n";
        let busy = "limits = { cpu = \"0.2\" }\ncommand = [\"sh\", \"-c\", \"while :; do :; done\"]\n";
        let all = [("hungry", hungry), ("many", many), ("busy", busy), ("other", "")];
        let all: String = all.iter().map(|(name, more)| sleeper(&host.registry, name, more)).collect();
        host.converge("host.toml", &manifest(&host.registry, 1, &all))?;
        let hostctl = host.hostctl();
        let other = hostctl.container("other")?;

        let filled = hostctl.run(&[
            "exec",
            "hungry",
            "--",
            "dd",
            "if=/dev/zero",
            "of=/fill/x",
            "bs=1024k",
            "count=128",
        ])?;
        assert_ne!(filled.code, 0, "it is ended before it has 128 MiB");
        let forks = "i=0; while [ $i -lt 40 ]; do sleep 30 & i=$((i+1)); done; wait";
        let forked = hostctl.run(&["exec", "many", "--", "sh", "-c", forks])?;
        assert_ne!(forked.code, 0, "the 20th process is one too many: {}", forked.stderr);
        let usage = |name: &str| -> Result<serde_json::Value, Failure> {
            Ok(hostctl.container(name)?["usage"].clone())
        };
        let ended = hostctl.container("hungry")?;
        assert!(ended["usage"]["oom_kills"].as_u64() >= Some(1), "{ended}");
        assert!(ended["usage"]["memory_peak"].as_u64() <= Some(32 << 20), "{ended}");
        assert!(usage("many")?["pids"].as_u64() <= Some(20));
        let busy = usage("busy")?;
        assert!(busy["throttled_usec"].as_u64() > Some(0), "{busy}");
        let shown = hostctl.run(&["ps", "--stats"])?.done()?.stdout;
        assert!(shown.contains("hungry"), "{shown}");
        assert_eq!(hostctl.container("other")?["pid"], other["pid"]);
        assert_eq!(hostctl.container("other")?["restarts"], 0);
        Ok(())
    })
}
