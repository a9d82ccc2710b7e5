//! What is asked of a host, over its Unix socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::server::{Answer, Asked, Script};
use crate::{Desk, manifest, pinned};

const ZERO: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn generation(number: u64) -> Value {
    json!({
        "number": number, "name": "demo", "serial": number, "manifest": ZERO, "expires": "2100-01-01T00:00:00Z",
    })
}

fn status(
    active: Option<u64>,
    pending: Option<u64>,
    converged: bool,
    activity: &Value,
    failure: Option<&str>,
) -> Value {
    json!({
        "host": "attic-1", "version": "0.1.0",
        "os": { "version": "13 (trixie)", "root": null, "kernel": "6.12.41" },
        "generation": active.map(generation), "pending": pending.map(generation), "converged": converged,
        "stale": false, "activity": activity, "failure": failure, "retry_at": null, "verified_reads": true,
        "secrets_recipient": "age1example",
    })
}

fn problem(kind: &str, rule: &str, message: &str) -> Value {
    json!({ "kind": kind, "rule": rule, "message": message })
}

/// A desk with a host on `host.sock` that answers by `answer`.
fn with_host(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Desk, Arc<Script>) {
    let desk = Desk::new();
    let script = Script::new(answer);
    script.on_socket(&desk.path("host.sock"));
    (desk, script)
}

/// A desk with a signed manifest besides.
fn with_push(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Desk, Arc<Script>) {
    let (desk, script) = with_host(answer);
    desk.key("ana");
    desk.write("host.toml", &manifest(&pinned(), 3));
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    (desk, script)
}

fn accepted(generation: u64) -> Answer {
    Answer::json(200, &json!({ "generation": generation, "manifest": ZERO, "unchanged": false }))
}

#[test]
fn status_is_shown_as_it_was_sent() {
    let idle = json!({ "phase": "idle" });
    let (desk, script) = with_host(move |_| Answer::json(200, &status(Some(3), None, true, &idle, None)));
    let expect = format!(
        "host        attic-1\n\
         os          13 (trixie), kernel 6.12.41\n\
         hostd       0.1.0\n\
         generation  3, demo serial 3, valid until 2100-01-01T00:00:00Z, {ZERO}\n\
         state       converged\n\
         reads       verified by the kernel\n\
         secrets     encrypt them for age1example\n"
    );
    assert_eq!(desk.run(&["status", "--host", "host.sock"]).with(0), expect);
    assert_eq!(script.asked()[0].line, "GET /v1/status");
    let json = desk.run(&["status", "--host", "host.sock", "--json"]).json(0);
    assert_eq!((&json["host"], &json["generation"]["serial"]), (&"attic-1".into(), &3.into()));
    let by_environment =
        desk.command().arg("status").env("BENNU_HOST", "host.sock").output().expect("it runs");
    assert_eq!(String::from_utf8_lossy(&by_environment.stdout), expect);
}

#[test]
fn containers_are_a_table() {
    let containers = json!({ "containers": [
        { "name": "web", "instance": "web-3", "generation": 3, "state": "running", "pid": 4711, "restarts": 0,
          "since": null, "image": pinned(), "memory": 32_505_856_u64, "addresses": ["10.88.0.2"],
          "ports": [{ "address": null, "host": 8080, "container": 80, "protocol": "tcp" },
                    { "address": "127.0.0.1", "host": 53, "container": 53, "protocol": "udp" }] },
        { "name": "job", "instance": "job-1", "generation": 1, "state": "failed", "pid": 0, "restarts": 12,
          "since": null, "image": pinned(), "memory": null, "addresses": [], "ports": [] },
    ]});
    let (desk, _) = with_host(move |_| Answer::json(200, &containers));
    let expect = "\
NAME  STATE    SINCE  RESTARTS   PID  MEMORY  PORTS                            ADDRESS    IMAGE
web   running  -             0  4711  31 MiB  8080->80,127.0.0.1:53->53/udp  10.88.0.2  registry.example/web:1@abababababab
job   failed   -            12     -       -  -                              -          registry.example/web:1@abababababab
";
    let squeeze = |text: &str| {
        text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let shown = desk.run(&["ps", "--host", "host.sock"]).with(0);
    assert_eq!(squeeze(&shown), squeeze(expect));
    // Columns begin at the same place in every line.
    let starts: Vec<_> = shown.lines().map(|line| line.find("registry").or(line.find("IMAGE"))).collect();
    assert!(starts.iter().all(|start| *start == starts[0]), "{shown}");
}

#[test]
fn a_manifest_is_handed_over_with_its_signatures() {
    let (desk, script) = with_push(|_| accepted(4));
    let out = desk.run(&["push", "host.toml", "--host", "host.sock"]).with(0);
    assert_eq!(out, "generation 4 accepted\n");
    let asked = &script.asked()[0];
    assert_eq!(asked.line, "POST /v1/manifest");
    let body: Value = serde_json::from_slice(&asked.body).expect("it is JSON");
    assert_eq!(body["manifest"], desk.read("host.toml"));
    assert_eq!(body["signatures"], desk.read("host.toml.sig"));
}

#[test]
fn an_unsigned_manifest_is_not_even_sent() {
    let (desk, script) = with_host(|_| accepted(4));
    desk.write("host.toml", &manifest(&pinned(), 3));
    let ended = desk.run(&["push", "host.toml", "--host", "host.sock"]);
    let expect = "hostctl: host.toml is not signed: there is no host.toml.sig [sig.missing]\n  \
                  help: hostctl sign --key KEY host.toml\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (3, expect));
    assert!(script.asked().is_empty());
}

#[test]
fn what_a_host_says_no_to_has_the_documented_exit_code() {
    for (kind, code) in [("invalid", 2), ("refused", 3), ("not-found", 5), ("failed", 1)] {
        let (desk, _) =
            with_push(move |_| Answer::json(400, &problem(kind, "serial.replayed", "serial 3 is old")));
        let ended = desk.run(&["push", "host.toml", "--host", "host.sock"]);
        let expect = "hostctl: serial 3 is old [serial.replayed]\n";
        assert_eq!((ended.code, ended.stderr.as_str()), (code, expect));
        let json = desk.run(&["push", "host.toml", "--host", "host.sock", "--json"]).json(code);
        assert_eq!(
            (&json["error"]["kind"], &json["error"]["rule"]),
            (&kind.into(), &"serial.replayed".into())
        );
    }
}

#[test]
fn waiting_ends_when_the_host_has_converged() {
    let polls = AtomicUsize::new(0);
    let (desk, _) = with_push(move |asked| {
        if asked.line.starts_with("POST") {
            return accepted(4);
        }
        let fetching = |done| json!({ "phase": "fetching", "image": "registry.example/web", "number": 1, "of": 2, "done": done, "total": 2048 });
        let applying = json!({ "phase": "applying", "step": "   Start  web-4  new", "number": 2, "of": 3 });
        let idle = json!({ "phase": "idle" });
        let status = match polls.fetch_add(1, Ordering::SeqCst) {
            0 => status(Some(3), Some(4), true, &fetching(0), None),
            1 => status(Some(3), Some(4), true, &fetching(100), None),
            2 => status(Some(3), Some(4), false, &idle, Some("the registry does not answer")),
            3 => status(Some(3), Some(4), false, &fetching(1024), None),
            4 => status(Some(4), None, false, &applying, None),
            _ => status(Some(4), None, true, &idle, None),
        };
        Answer::json(200, &status)
    });
    let ended = desk.run(&["push", "host.toml", "--host", "host.sock", "--wait", "--timeout", "60"]);
    let expect = "fetching image 1/2 registry.example/web, 0 B of 2.0 KiB\n\
                  not yet: the registry does not answer\n\
                  fetching image 1/2 registry.example/web, 1.0 KiB of 2.0 KiB\n\
                  step 2/3 Start  web-4  new\n";
    assert_eq!(ended.stderr, expect);
    let out = ended.with(0);
    assert!(out.starts_with("generation 4 converged after "), "{out}");
}

#[test]
fn waiting_ends_with_4_and_the_reason_when_time_is_up() {
    let idle = json!({ "phase": "idle" });
    let (desk, _) = with_push(move |asked| match asked.line.starts_with("POST") {
        true => accepted(4),
        false => Answer::json(200, &status(Some(3), Some(4), false, &idle, Some("no such image"))),
    });
    let push = ["push", "host.toml", "--host", "host.sock", "--wait", "--timeout", "1"];
    let ended = desk.run(&push);
    assert_eq!(ended.code, 4);
    let last = "hostctl: generation 4 has not converged within 1 s: no such image\n";
    assert!(
        ended.stderr.starts_with("not yet: no such image\n") && ended.stderr.contains(last),
        "{}",
        ended.stderr
    );
    let json = desk.run(&[&push[..], &["--json"]].concat()).json(4);
    assert_eq!(json["error"]["kind"], "waiting");
}

#[test]
fn waiting_ends_when_another_manifest_came_after() {
    let idle = json!({ "phase": "idle" });
    let (desk, _) = with_push(move |asked| match asked.line.starts_with("POST") {
        true => accepted(4),
        false => Answer::json(200, &status(Some(3), Some(5), false, &idle, None)),
    });
    let ended = desk.run(&["push", "host.toml", "--host", "host.sock", "--wait"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("generation 5 was accepted after it"), "{}", ended.stderr);
}

#[test]
fn exec_passes_bytes_and_the_exit_code_on() {
    let output = [
        json!({ "kind": "stdout", "data": "AP8K" }),
        json!({ "kind": "stderr", "data": "b29wcwo=" }),
        json!({ "kind": "exit", "code": 42 }),
    ];
    let (desk, script) = with_host(move |_| Answer::lines(&output));
    let run = |args: &[&str]| desk.command().args(args).output().expect("hostctl runs");
    let exec = ["exec", "--host", "host.sock", "web", "--", "cat", "-A", "--host"];
    let ended = run(&exec);
    assert_eq!(ended.status.code(), Some(42));
    assert_eq!((ended.stdout, ended.stderr), (b"\x00\xff\n".to_vec(), b"oops\n".to_vec()));
    let body: Value = serde_json::from_slice(&script.asked()[0].body).expect("it is JSON");
    assert_eq!(body, json!({ "container": "web", "command": ["cat", "-A", "--host"] }));
}

#[test]
fn exec_without_such_a_container_or_without_an_end_fails() {
    let missing = problem("not-found", "", "container web is not there");
    let (desk, _) = with_host(move |_| Answer::json(404, &missing));
    assert_eq!(desk.run(&["exec", "--host", "host.sock", "web", "--", "true"]).code, 5);
    assert_eq!(desk.run(&["exec", "--host", "host.sock", "No Name", "--", "true"]).code, 5);
    let (desk, _) = with_host(|_| Answer::lines(&[json!({ "kind": "stdout", "data": "AP8K" })]));
    let ended =
        desk.command().args(["exec", "--host", "host.sock", "web", "--", "true"]).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("ended the stream before the command ended"));
}

#[test]
fn logs_and_events_are_lines() {
    let (desk, script) = with_host(|asked| {
        if asked.line.contains("/v1/logs") {
            return Answer::lines(&[json!({
                "time": "2026-06-01T12:00:00.5Z", "container": "web", "instance": "web-3", "message": "a\u{1b}[31mb",
            })]);
        }
        Answer::lines(&[
            json!({ "cursor": "1f2e3d4c:1", "time": "2026-06-01T12:00:00Z", "event": "accepted", "generation": 3, "serial": 9 }),
            json!({ "cursor": "1f2e3d4c:2", "time": "2026-06-01T12:00:01Z", "event": "refused", "rule": "expired", "reason": "too late" }),
            json!({
                "cursor": "1f2e3d4c:3", "time": "2026-06-01T12:00:02Z", "event": "oom-kill", "container": "web",
                "instance": "web-3", "killed": 2, "limit": 32 << 20,
            }),
        ])
    });
    let logs = desk.run(&["logs", "--host", "host.sock", "-n", "5"]).with(0);
    assert_eq!(logs, "2026-06-01T12:00:00Z  web  a\u{fffd}[31mb\n");
    assert_eq!(
        desk.run(&["logs", "--host", "host.sock", "web"]).with(0),
        "2026-06-01T12:00:00Z  a\u{fffd}[31mb\n"
    );
    let asked: Vec<_> = script.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(
        asked,
        ["GET /v1/logs?lines=5&follow=false", "GET /v1/logs?lines=100&follow=false&container=web"]
    );
    let events = desk.run(&["events", "--host", "host.sock"]).with(0);
    assert_eq!(
        events,
        "2026-06-01T12:00:00Z  accepted   generation 3, serial 9\n\
         2026-06-01T12:00:01Z  refused    expired: too late\n\
         2026-06-01T12:00:02Z  oom kill   web-3: 2 programs were ended because its 32 MiB of memory ran out\n"
    );
    let json = desk.run(&["events", "--host", "host.sock", "--json"]).with(0);
    assert_eq!(json.lines().count(), 3);
}

fn dump() -> Value {
    let seen = json!({ "images": [], "instances": {}, "networks": {}, "volumes": {}, "published": [] });
    let idle = json!({ "phase": "idle" });
    json!({ "status": status(None, None, false, &idle, None), "seen": seen, "next_generation": 1 })
}

#[test]
fn a_plan_is_made_here_from_a_dump() {
    let (desk, _) = with_host(|_| Answer::json(200, &dump()));
    let text = desk.run(&["dump", "--host", "host.sock"]).with(0);
    desk.write("dump.json", &text);
    desk.write("host.toml", &manifest(&pinned(), 1));
    let plan = desk.run(&["plan", "host.toml", "--state", "dump.json"]).with(0);
    for part in [
        "   Fetch  registry.example/web:1@sha256:",
        "   Start  web-1  new\n",
        "1 image to fetch, 1 instance to start\n",
    ] {
        assert!(plan.contains(part), "{part:?} is missing from {plan}");
    }
    let json = desk.run(&["plan", "host.toml", "--state", "dump.json", "--json"]).json(0);
    assert_eq!(json["steps"][0]["step"], "fetch");
    desk.write("dump.json", "{}");
    assert_eq!(desk.run(&["plan", "host.toml", "--state", "dump.json"]).code, 2);
}

#[test]
fn a_plan_is_asked_of_the_host() {
    let (desk, script) = with_push(|_| Answer::json(200, &json!({ "steps": [], "waiting": [] })));
    assert_eq!(desk.run(&["plan", "host.toml", "--host", "host.sock"]).with(0), "nothing to do\n");
    assert_eq!(script.asked()[0].line, "POST /v1/plan");
}

/// What is told of a restart of `web` that destroys a volume.
fn consequences() -> Value {
    json!({
        "interruption": { "class": "restart", "containers": ["web"], "handed_over": ["api"] },
        "survives": [{ "volume": "data", "holds": { "bytes": 2048, "at_least": true } }],
        "destroyed": [
            { "what": "volume", "volume": "old", "holds": null },
            { "what": "layer", "instance": "web-1", "holds": { "bytes": 1024 } },
            { "what": "host", "holds": { "bytes": 5 } },
        ],
        "written": [
            { "by": "container", "instance": "web-1", "amount": { "bytes": 1024 }, "files": 1, "removed": 2,
              "places": [{ "path": "/tmp/a\u{1b}", "bytes": 1024, "files": 1 }] },
            { "by": "host", "amount": { "bytes": 5 }, "files": 2,
              "places": [{ "path": "/var/log/journal", "bytes": 5, "files": 2, "unit": "systemd-journald.service" }] },
        ],
    })
}

const ENDS: &str = "what web-1 wrote to its root, 1.0 KiB
             what was written to /etc and /var of the host, 5 B
written      web-1: 1.0 KiB in 1 file, 2 removed
               /tmp/a\u{fffd}  1.0 KiB
             the host: 5 B in 2 files
               /var/log/journal  5 B, of systemd-journald.service
";

#[test]
fn a_plan_tells_what_it_comes_to() {
    let fetch = json!({ "bytes": null, "images": [
        { "image": "registry.example/web", "bytes": 31_000_000 },
        { "image": "registry.example/db", "bytes": null, "unknown": "no answer" },
    ]});
    let plan = json!({
        "steps": [], "waiting": [], "digest": ZERO, "fetch": fetch, "consequences": consequences(),
    });
    let (desk, _) = with_push(move |_| Answer::json(200, &plan));
    let told = desk.run(&["plan", "host.toml", "--host", "host.sock"]).with(0);
    let expect = format!(
        "interrupts  restart: web
            handed over without a gap: api
fetches     not known how much
            30 MiB  registry.example/web
            not known: no answer  registry.example/db
survives    volume data, at least 2.0 KiB
destroys    volume old and all data in it, not known how much
            {}plan        {ZERO}
",
        // One column less than in a receipt.
        ENDS.replace("\n ", "\n").replace("written      ", "written     ")
    );
    assert_eq!(told, expect);
    let json = desk.run(&["plan", "host.toml", "--host", "host.sock", "--json"]).json(0);
    assert_eq!(json["consequences"], {
        let mut told = consequences();
        told["written"][1]["removed"] = 0.into();
        told
    });
}

#[test]
fn a_receipt_tells_what_came_of_a_change() {
    let told = consequences();
    let receipt = json!({
        "change": "taken-back", "from": 4, "to": 3, "reason": "web is not healthy", "plan": ZERO,
        "began": "2026-06-01T12:00:00Z", "ended": "2026-06-01T12:00:42Z", "interruption": told["interruption"],
        "fetched": [{ "image": "registry.example/web", "bytes": 2048 }],
        "survived": told["survives"], "destroyed": told["destroyed"], "written": told["written"],
    });
    let (desk, script) = with_host(move |asked| match asked.line.ends_with("=9") {
        true => Answer::json(404, &problem("not-found", "", "there is no receipt of generation 9")),
        false => Answer::json(200, &json!({ "generation": 4, "receipts": [receipt] })),
    });
    let expect = format!(
        "change       generation 4 was taken back for generation 3
reason       web is not healthy
began        2026-06-01T12:00:00Z
took         42s
plan         {ZERO}
interrupted  restart: web
             handed over without a gap: api
fetched      2.0 KiB
             2.0 KiB  registry.example/web
survived     volume data, at least 2.0 KiB
destroyed    volume old and all data in it, not known how much
             {ENDS}"
    );
    assert_eq!(desk.run(&["receipt", "--host", "host.sock"]).with(0), expect);
    assert_eq!(desk.run(&["receipt", "9", "--host", "host.sock"]).code, 5);
    let asked: Vec<_> = script.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(asked, ["GET /v1/receipts", "GET /v1/receipts?generation=9"]);
}

#[test]
fn a_plan_can_be_required_and_what_was_given_up_is_not_waited_for() {
    let idle = json!({ "phase": "idle" });
    let (desk, script) = with_push(move |asked| {
        let mut entry = json!({
            "generation": generation(4), "accepted": "2026-06-01T12:00:00Z", "signers": [], "converged": null,
            "failure": "the plan a is required, and the host would carry out b",
        });
        entry["require_plan"] = ZERO.into();
        match asked.line.as_str() {
            "POST /v1/manifest" => accepted(4),
            "GET /v1/history" => Answer::json(200, &json!({ "entries": [entry] })),
            _ => Answer::json(200, &status(Some(3), None, true, &idle, None)),
        }
    });
    let push = ["push", "host.toml", "--host", "host.sock", "--wait", "--require-plan", ZERO];
    let ended = desk.run(&push);
    let expect =
        "hostctl: generation 4 was given up: the plan a is required, and the host would carry out b\n";
    assert_eq!((ended.code, ended.stderr.as_str()), (3, expect));
    let body: Value = serde_json::from_slice(&script.asked()[0].body).expect("it is JSON");
    assert_eq!(body["require_plan"], ZERO);
    assert_eq!(desk.run(&["push", "host.toml", "--host", "host.sock", "--require-plan", "sha256:0"]).code, 2);
}

#[test]
fn a_host_that_is_not_there_is_told_with_what_to_do() {
    let desk = Desk::new();
    let ended = desk.run(&["status", "--host", "no.sock"]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("no answer from no.sock") && ended.stderr.contains("is hostd running"),
        "{ended:?}"
    );
    // The port was free a moment ago, and nobody else is told of it.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    desk.trusting_ana();
    desk.run(&["provision", "--dir", "d", "--name", "a", "--trust", "trust.toml"]).with(0);
    let url = format!("https://127.0.0.1:{port}");
    let ended = desk.run(&["status", "--host", &url, "--identity", "d/operator"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("nothing listens there"), "{ended:?}");
    for (address, part) in
        [("http://127.0.0.1:1", "certificates on both sides"), ("https://a@b/c", "https://HOST:PORT")]
    {
        let ended = desk.run(&["status", "--host", address]);
        assert!(ended.code == 2 && ended.stderr.contains(part), "{ended:?}");
    }
    let ended = desk.run(&["status", "--host", &url]);
    assert!(ended.code == 1 && ended.stderr.contains("--identity"), "{ended:?}");
}

#[test]
fn something_else_than_a_host_is_seen_as_such() {
    let (desk, _) =
        with_host(|_| Answer { status: 200, media_type: "text/html".into(), body: b"<html>".to_vec() });
    let ended = desk.run(&["status", "--host", "host.sock"]);
    assert!(ended.code == 1 && ended.stderr.contains("does not speak the API of this hostctl"), "{ended:?}");
    let (desk, _) =
        with_host(|_| Answer { status: 502, media_type: "text/html".into(), body: b"<html>".to_vec() });
    let ended = desk.run(&["status", "--host", "host.sock"]);
    assert!(ended.code == 1 && ended.stderr.contains("502"), "{ended:?}");
}
