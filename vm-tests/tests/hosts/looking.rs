//! Looking in: commands with a terminal, shells beside containers, roles, events that resume, logs on their way out.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use vm_tests::machine::HOST_FROM_GUEST;
use vm_tests::{Error, Failure, Host, on_host, output, wait};

use crate::manifest::{manifest, sleeper};

/// `hostctl` with these arguments for the host, as a command that can be given input.
fn hostctl(host: &Host, arguments: &[&str]) -> Command {
    let known = host.hostctl();
    let mut command = Command::new(&known.program);
    command.arg("--host").arg(&known.address).arg("--identity").arg(&known.identity).args(arguments);
    command.env_remove("BENNU_HOST").env_remove("BENNU_IDENTITY");
    command
}

/// Runs it with this input, which then ends.
pub(crate) fn fed(host: &Host, arguments: &[&str], input: &[u8]) -> Result<Output, Failure> {
    let mut command = hostctl(host, arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().expect("piped").write_all(input)?;
    Ok(child.wait_with_output()?)
}

/// Runs shell text in a terminal of 50 lines and 132 columns; `$HOSTCTL` is `hostctl` for the host.
pub(crate) fn in_terminal(host: &Host, script: &str) -> Result<Output, Failure> {
    let known = host.hostctl();
    let program = format!(
        "{} --host {} --identity {}",
        known.program.display(),
        known.address,
        known.identity.display()
    );
    let text = format!("stty rows 50 cols 132; HOSTCTL='{program}'; {script}");
    // `script` (util-linux) runs it in a terminal of its own, and gives its exit code.
    Ok(output(Command::new("script").args(["--quiet", "--return", "--command", &text, "/dev/null"]))?)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

#[test]
fn an_operator_talks_with_commands_in_containers_and_they_end_with_the_connection() -> Result<(), Failure> {
    on_host("an_operator_talks_with_commands_in_containers_and_they_end_with_the_connection", |host| {
        host.converge("host.toml", &manifest(&host.registry, 1, &sleeper(&host.registry, "one", "")))?;

        let ran = fed(
            host,
            &["exec", "-i", "one", "--", "sh", "-c", "cat; echo end >&2; exit 7"],
            b"\x00hello\xff",
        )?;
        assert_eq!(ran.stdout, b"\x00hello\xff", "every byte, and then the end");
        assert_eq!((text(&ran.stderr).as_str(), ran.status.code()), ("end\n", Some(7)), "{ran:?}");
        let much = vec![b'x'; 3 << 20];
        let ran = fed(host, &["exec", "-i", "one", "--", "sh", "-c", "cat | busybox wc -c"], &much)?;
        assert_eq!(text(&ran.stdout).trim(), much.len().to_string(), "{}", text(&ran.stderr));
        let ran = fed(host, &["exec", "-i", "one", "--", "sh", "-c", "kill -9 $$"], b"")?;
        assert_eq!(ran.status.code(), Some(137), "{ran:?}");
        let ran = fed(host, &["exec", "-i", "none", "--", "true"], b"")?;
        assert_eq!(ran.status.code(), Some(5), "{ran:?}");
        let ran = fed(host, &["exec", "-it", "one", "--", "true"], b"")?;
        assert_eq!(ran.status.code(), Some(2), "there is no terminal here: {ran:?}");

        let shown = in_terminal(
            host,
            "before=$(stty -g); $HOSTCTL exec -it one -- sh -c 'busybox tty; busybox stty size; exit 9'; \
             code=$?; [ \"$before\" = \"$(stty -g)\" ] && echo restored; exit $code",
        )?;
        let said = text(&shown.stdout);
        assert!(
            said.contains("/dev/pts/0") && said.contains("50 132") && said.contains("restored"),
            "{said}"
        );
        assert_eq!(shown.status.code(), Some(9), "{said}");
        let resized = in_terminal(
            host,
            // Again and again: a size that is set before the command listens tells it nothing.
            "(while sleep 5; do stty rows 33 cols 99; sleep 5; stty rows 34 cols 99; done </dev/tty) & sizes=$!; \
             $HOSTCTL exec -it one -- sh -c \
             'trap \"busybox stty size; exit 4\" WINCH; while :; do busybox sleep 1; done'; \
             code=$?; kill $sizes; exit $code",
        )?;
        assert!(text(&resized.stdout).contains(" 99\n"), "{}", text(&resized.stdout));
        assert_eq!(resized.status.code(), Some(4));

        let mut lost = hostctl(host, &["exec", "-i", "one", "--", "sleep", "4242"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let running = |host: &mut Host| {
            host.vm.guest("grep -lsz '^4242$' /proc/[0-9]*/cmdline").map(|found| found.code == 0)
        };
        wait::until_good(
            "the command to run",
            Duration::from_secs(60),
            || running(host),
            |running| *running,
        )?;
        lost.kill()?;
        lost.wait()?;
        wait::until_good(
            "the command to end",
            Duration::from_secs(60),
            || running(host),
            |running| !running,
        )?;
        assert_eq!(host.hostctl().container("one")?["state"], "running", "and the container goes on");
        Ok(())
    })
}

#[test]
fn a_debug_shell_is_beside_the_container_and_gone_after_it() -> Result<(), Failure> {
    on_host("a_debug_shell_is_beside_the_container_and_gone_after_it", |host| {
        let volume = "[volume.data]\nlife = \"keep\"\n";
        let one = sleeper(
            &host.registry,
            "one",
            "volumes = [\"data:/data\"]\nenvironment = { PASSWORD = \"hunter2\" }\n\
             command = [\"sh\", \"-c\", \"echo mine > /data/mark; exec sleep 1000000\"]\n",
        );
        host.converge("host.toml", &manifest(&host.registry, 1, &format!("{volume}{one}")))?;

        let inspected = host.hostctl().json(&["inspect", "one"])?;
        let instance = &inspected["instances"][0];
        assert_eq!(instance["unit"], "bennu-one-1.service", "{inspected}");
        let mounts = instance["mounts"].as_array().expect("what is mounted");
        let data = mounts.iter().find(|mount| mount["target"] == "/data").expect("the volume");
        assert_eq!((&data["kind"], &data["source"]), (&"volume".into(), &"data".into()), "{inspected}");
        assert!(!instance.to_string().contains("hunter2"), "values of variables are not told: {instance}");
        assert_eq!(host.hostctl().run(&["inspect", "none"])?.code, 5);

        let image = host.registry.pinned("redis", "1");
        let script = "cat /proc/1/comm; cat /target/data/mark; touch /target/x 2>/dev/null || echo read-only; \
                      id -u; ls /usr/bin/redis-server; env; touch /written && echo own";
        let ran = fed(host, &["debug-shell", "one", "--image", &image, "--", "sh", "-c", script], b"")?;
        let said = text(&ran.stdout);
        assert_eq!(ran.status.code(), Some(0), "{said}{}", text(&ran.stderr));
        for part in ["sleep\n", "mine\n", "read-only\n", "0\n", "/usr/bin/redis-server\n", "own\n"] {
            assert!(said.contains(part), "{part:?} is missing: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
        let left = || host.vm.guest("ls /run/host/bennu/debug; grep -c /run/host/bennu/debug/ /proc/mounts");
        wait::until_good("all of it to be gone", Duration::from_secs(60), left, |left| {
            left.text.trim() == "0"
        })?;
        let events = host.hostctl().run(&["events"])?.done()?.stdout;
        assert!(events.contains("operator opened a shell of") && events.contains("beside one"), "{events}");
        Ok(())
    })
}

/// An identity with a role, made by the authority that the host was provisioned with.
fn identity(host: &Host, role: &str) -> Result<PathBuf, Failure> {
    let operator = host.operator().identity();
    let authority = operator.parent().expect("DIR/operator").to_string_lossy().into_owned();
    let folder = host.directory.path().join(role);
    let arguments =
        ["identity", "--dir", &authority, "--name", role, "--role", role, &folder.to_string_lossy()];
    host.hostctl().run(&arguments)?.done()?;
    Ok(folder)
}

#[test]
fn a_role_may_do_what_it_is_for_and_no_more() -> Result<(), Failure> {
    on_host("a_role_may_do_what_it_is_for_and_no_more", |host| {
        let text = manifest(&host.registry, 1, &sleeper(&host.registry, "one", ""));
        let file = host.signed("host.toml", &text)?;
        let file = file.to_string_lossy();
        let (view, operate) = (identity(host, "view")?, identity(host, "operate")?);
        let (view, operate) = (host.hostctl().with_identity(&view), host.hostctl().with_identity(&operate));
        let refused = |ran: vm_tests::hostctl::Ran, needed: &str| {
            assert_eq!(ran.code, 3, "{ran:?}");
            assert!(ran.stderr.contains(&format!("`{needed}` is needed")), "{ran:?}");
            assert!(ran.stderr.contains("role.insufficient"), "{ran:?}");
        };
        refused(view.run(&["push", &file])?, "deploy");
        refused(operate.run(&["push", &file])?, "deploy");
        host.converge("host.toml", &text)?;
        view.run(&["status"])?.done()?;
        view.run(&["logs"])?.done()?;
        let exec = ["exec", "one", "--", "true"];
        refused(view.run(&exec)?, "operate");
        refused(view.run(&["exec", "-i", "one", "--", "true"])?, "operate");
        operate.run(&exec)?.done()?;
        let shell = ["debug-shell", "one", "--image", &host.registry.pinned("test", "1"), "--", "true"];
        refused(operate.run(&shell)?, "deploy");
        Ok(())
    })
}

#[test]
fn events_resume_over_a_restart_of_the_daemon_and_tell_of_a_gap_after_a_boot() -> Result<(), Failure> {
    on_host("events_resume_over_a_restart_of_the_daemon_and_tell_of_a_gap_after_a_boot", |host| {
        host.converge("host.toml", &manifest(&host.registry, 1, &sleeper(&host.registry, "one", "")))?;
        let events = |host: &Host, arguments: &[&str]| -> Result<Vec<Value>, Error> {
            let told = host.hostctl().run(&[&["--json", "events"], arguments].concat())?.done()?.stdout;
            Ok(told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
        };
        let kept = |status: &Value| status["update"]["kept"] == 1;
        wait::until_good("the last event", Duration::from_secs(60), || host.hostctl().status(), kept)?;
        let before = events(host, &[])?;
        let cursor = before.last().expect("it converged")["cursor"].as_str().expect("text").to_owned();
        host.vm.guest_ok("systemctl restart hostd")?;
        host.wait_for_api()?;
        let after = events(host, &["--since", &cursor])?;
        assert_eq!(after[0]["event"], "started", "what comes behind the last is the start: {after:?}");
        let all = events(host, &[])?;
        assert_eq!(all[..before.len()], before[..], "and nothing is lost");
        let other = format!("00000000:{}", cursor.split(':').nth(1).expect("a number"));
        let lost = events(host, &["--since", &other])?;
        assert_eq!(lost[0]["event"], "gap", "{lost:?}");
        // The daemon has only just started, so it may have told more since.
        assert_eq!(lost[1..=all.len()], all[..], "and after the gap comes all there is");
        Ok(())
    })
}

#[test]
fn lines_reach_a_receiver_over_a_restart_of_the_daemon() -> Result<(), Failure> {
    on_host("lines_reach_a_receiver_over_a_restart_of_the_daemon", |host| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (sender, received) = std::sync::mpsc::channel();
        // Ends with the test's process, or when the guest's connections do.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let (mut stream, mut buffer) = (stream, [0; 8192]);
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        if sender.send(buffer[..read].to_vec()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let mut got = Vec::new();
        let mut wait_for = |what: &str| -> Result<String, Error> {
            wait::until(what, Duration::from_secs(90), || {
                got.extend(received.try_iter().flatten());
                let said = String::from_utf8_lossy(&got).into_owned();
                Ok(said.contains(what).then_some(said))
            })
        };
        let forward =
            format!("[logs.forward.central]\nkind = \"syslog\"\nurl = \"tcp://{HOST_FROM_GUEST}:{port}\"\n");
        let speaker = sleeper(
            &host.registry,
            "one",
            "tmpfs = [\"/run\"]\ncommand = [\"sh\", \"-c\", \
             \"echo first words; until [ -e /run/go ]; do sleep 1; done; echo later words; exec sleep 1000000\"]\n",
        );
        host.converge("host.toml", &manifest(&host.registry, 1, &format!("{forward}{speaker}")))?;
        let said = wait_for("first words")?;
        let line = said.split("<14>1 ").find(|part| part.contains("first words")).expect("it is there");
        assert!(
            line.contains(" phoenix one ") && line.contains("instance=\"one-1\" generation=\"1\""),
            "{line}"
        );
        host.vm.guest_ok("systemctl stop hostd")?;
        host.vm.guest_ok(
            "crun --root=/run/bennu/runtime/one-1 --cgroup-manager=disabled exec one-1 touch /run/go",
        )?;
        host.vm.guest_ok(
            "until journalctl -q | grep -q 'later words'; do sleep 1; done; systemctl start hostd",
        )?;
        wait_for("later words")?;
        host.wait_for_api()?;
        let status = host.hostctl().status()?;
        assert_eq!(status["forwards"]["central"]["dropped"], 0, "{status}");
        assert_eq!(status["forwards"]["central"]["failure"], Value::Null, "{status}");
        Ok(())
    })
}

#[test]
fn the_journal_keeps_as_much_as_is_declared_and_loses_the_oldest() -> Result<(), Failure> {
    on_host("the_journal_keeps_as_much_as_is_declared_and_loses_the_oldest", |host| {
        // Lines that cannot be compressed, about 16 MiB of them, and each just below what journald takes as one (LineMax=48K):
        // translated, a process costs more than its bytes.
        let line = "echo line $i $(head -c 32000 /dev/urandom | busybox base64 -w 0)";
        let lines = format!("i=0; while [ $i -lt 400 ]; do {line}; i=$((i+1)); done");
        let wordy = format!("command = [\"sh\", \"-c\", \"{lines}; echo all said; exec sleep 100000\"]\n");
        let logs = "[logs]\nkeep = \"8MiB\"\n";
        let all = format!("{logs}{}", sleeper(&host.registry, "wordy", &wordy));
        host.converge("host.toml", &manifest(&host.registry, 1, &all))?;
        let hostctl = host.hostctl();
        let last = || hostctl.run(&["logs", "wordy", "-n", "1"])?.done().map(|ran| ran.stdout);
        wait::until_good("the last line", Duration::from_secs(120), last, |said| said.contains("all said"))?;
        let kept: u64 = host.vm.guest_ok("du -sb /run/log/journal | cut -f1")?.trim().parse()?;
        assert!(kept <= 8 << 20, "{kept} bytes are kept");
        let first = hostctl.run(&["logs", "wordy", "-n", "10000", "--grep", "^line [0-9] "])?;
        assert!(!first.stdout.contains("line 0 "), "the oldest are gone: {}", first.stdout);
        Ok(())
    })
}
