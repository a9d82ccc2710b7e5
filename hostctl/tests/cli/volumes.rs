//! `volumes` and `cp`, against a host that says what a test wants it to say.

use serde_json::json;

use crate::Desk;
use crate::server::{Answer, Script};

fn bytes(body: &[u8]) -> Answer {
    Answer { status: 200, media_type: "application/x-tar".to_owned(), body: body.to_vec() }
}

fn with_host(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> (Desk, std::sync::Arc<Script>) {
    let desk = Desk::new();
    let script = Script::new(move |asked| answer(&asked.line));
    script.on_socket(&desk.path("host.sock"));
    (desk, script)
}

#[test]
fn volumes_are_a_table_with_and_without_the_word_for_it() {
    let volumes = json!({ "volumes": [
        { "name": "data", "life": "keep", "path": "/state/volumes/data", "used_by": ["db", "web"],
          "used": 2_147_483_648_u64, "size": 10_737_418_240_u64, "snapshots": 7 },
        { "name": "tmp", "life": "scratch", "path": "/state/scratch/x/tmp", "used_by": [] },
    ]});
    let (desk, script) = with_host(move |_| Answer::json(200, &volumes));
    let squeeze = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let expect = [
        "NAME LIFE USED SIZE SNAPSHOTS USED BY PATH",
        "data keep 2.0 GiB 10 GiB 7 db,web /state/volumes/data",
        "tmp scratch - - 0 - /state/scratch/x/tmp",
    ];
    for arguments in [&["volumes", "--host", "host.sock"][..], &["volumes", "ls", "--host", "host.sock"]] {
        assert_eq!(squeeze(&desk.run(arguments).with(0)), expect);
    }
    assert!(script.asked().iter().all(|asked| asked.line == "GET /v1/volumes"));
}

#[test]
fn a_restore_says_what_became_of_the_volume_and_who_was_started_again() {
    let replaced = json!({ "volume": "data", "before": "20260131T120000Z-replaced", "stopped": ["db"] });
    let (desk, script) = with_host(move |_| Answer::json(200, &replaced));
    let said =
        desk.run(&["volumes", "restore", "data", "20260130T000000Z-schedule", "--host", "host.sock"]).with(0);
    assert_eq!(
        said,
        "volume data holds what it held in 20260130T000000Z-schedule\n\
         what it held before is snapshot 20260131T120000Z-replaced\nstarted again: db\n"
    );
    let asked = &script.asked()[0];
    assert_eq!(asked.line, "POST /v1/volumes/data/restore");
    assert_eq!(asked.body, br#"{"snapshot":"20260130T000000Z-schedule"}"#);
    let wrong = desk.run(&["volumes", "restore", "data", "yesterday", "--host", "host.sock"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("hostctl volumes snapshots"), "{}", wrong.stderr);
}

#[test]
fn an_export_is_a_file_that_is_whole_and_none_where_the_host_says_no() {
    let (desk, script) = with_host(|line| match line {
        "GET /v1/volumes/data/export?snapshot=20260130T000000Z-hand" => bytes(b"the archive"),
        _ => Answer::json(404, &json!({ "kind": "not-found", "message": "there is no volume none" })),
    });
    let wanted =
        ["volumes", "export", "data", "20260130T000000Z-hand", "--out", "data.tar", "--host", "host.sock"];
    assert_eq!(desk.run(&wanted).with(0), "data.tar  11 B\n");
    assert_eq!(desk.read("data.tar"), "the archive");
    let none = desk.run(&["volumes", "export", "none", "--out", "none.tar", "--host", "host.sock"]);
    assert_eq!(none.code, 5, "{}", none.stderr);
    assert!(!desk.path("none.tar").exists());
    let asked = script.asked().len();
    assert_eq!(
        desk.run(&["volumes", "export", "../x", "--host", "host.sock"]).code,
        5,
        "no such name is asked for"
    );
    assert_eq!(script.asked().len(), asked);
}

#[test]
fn what_a_host_sends_for_a_copy_is_not_believed() {
    let (desk, script) =
        with_host(|line| if line.ends_with("%2Ftar") { bytes(&[7; 2048]) } else { bytes(b"raw") });
    let raw = desk.run(&["cp", "web:/etc/a b", "-", "--host", "host.sock"]).with(0);
    assert_eq!(raw, "raw");
    assert_eq!(script.asked()[0].line, "GET /v1/files?container=web&path=%2Fetc%2Fa%20b");
    let refused = desk.run(&["cp", "web:/tar", "out", "--host", "host.sock"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(!desk.path("out").exists());
    for wrong in ["web", "web:relative", ":/etc"] {
        let said = desk.run(&["cp", wrong, "out", "--host", "host.sock"]);
        assert!(said.code == 2 || said.code == 5, "{wrong}: {}", said.code);
    }
}
