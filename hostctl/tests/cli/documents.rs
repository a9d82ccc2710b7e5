//! `check`, `sign`, `verify`, `trust`, `debug`.

use std::process::{Command, Stdio};

use crate::{Desk, manifest, pinned};

#[test]
fn a_valid_manifest_is_summed_up() {
    let desk = Desk::new();
    desk.write("host.toml", &manifest(&pinned(), 7));
    let expect = "host.toml:7:12: note: nothing can reach container `web`\n\
                  7 | [container.web]\n  |            ^^^\n  \
                  = help: publish a port with `ports`, or let another container join its network\n\
                  host.toml is valid\n\
                  manifest  demo serial 7\n\
                  expires   2100-01-01T00:00:00Z\n\
                  declares  1 container: web\n          1 network: default\n          0 volumes\n";
    assert_eq!(desk.run(&["check", "host.toml"]).with(0), expect);
    let json = desk.run(&["check", "host.toml", "--json"]).json(0);
    assert_eq!((&json["valid"], &json["serial"]), (&true.into(), &7.into()));
}

#[test]
fn remarks_are_errors_where_they_are_asked_to_be() {
    let desk = Desk::new();
    let text = manifest(&pinned(), 7) + "ports = [\"80:80\"]\n";
    desk.write("host.toml", &text);
    assert!(desk.run(&["check", "--strict", "host.toml"]).with(0).starts_with("host.toml is valid\n"));
    desk.write("host.toml", &(text + "tty = true\nprivileged = true\n"));
    let shown = desk.run(&["check", "host.toml"]).with(0);
    assert!(shown.contains("warning: `container.web.tty` is not carried out"), "{shown}");
    assert!(shown.contains("host.toml is valid, and hosts of this release refuse it\n"), "{shown}");
    assert!(shown.contains("needs role os  container.web.privileged\n"), "{shown}");
    let strict = desk.run(&["check", "--strict", "host.toml"]);
    assert_eq!((strict.code, strict.stdout.as_str()), (2, ""));
    assert!(strict.stderr.contains("is valid, with 1 remark"), "{}", strict.stderr);
    let json = desk.run(&["check", "host.toml", "--json"]).json(0);
    assert_eq!(json["needs_os"], serde_json::json!(["container.web.privileged"]));
    assert_eq!(json["not_yet"][0]["line"], 10);
}

#[test]
fn a_manifest_is_checked_for_one_host() {
    let desk = Desk::new();
    desk.write("host.toml", &(manifest(&pinned(), 7) + "limits = { memory = \"2GiB\" }\n"));
    desk.write("small.json", "{ \"memory\": 1073741824, \"arch\": \"amd64\" }");
    desk.write("other.json", "{ \"memmory\": 1 }");
    assert_eq!(desk.run(&["check", "host.toml"]).code, 0);
    let small = desk.run(&["check", "--host-facts", "small.json", "host.toml"]);
    assert_eq!(small.code, 2);
    assert!(small.stderr.contains("the host has 1024 MiB of memory"), "{}", small.stderr);
    let other = desk.run(&["check", "--host-facts", "other.json", "host.toml"]);
    assert!(other.code == 2 && other.stderr.contains("holds no facts of a host"), "{}", other.stderr);
}

#[test]
fn the_schema_is_printed_for_editors() {
    let schema = Desk::new().run(&["schema"]).json(0);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["container"]["additionalProperties"]["properties"]["image"].is_object());
}

#[test]
fn errors_point_into_the_file() {
    let desk = Desk::new();
    desk.write("host.toml", &manifest("registry.example/web:1", 7).replace("serial", "seriall"));
    let ended = desk.run(&["check", "host.toml"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    for part in [
        "host.toml:3:1: error:",
        "3 | seriall = 7",
        "host.toml:8:9: error:",
        "hostctl: host.toml is not valid:",
    ] {
        assert!(ended.stderr.contains(part), "{part} is missing from {}", ended.stderr);
    }
    let json = desk.run(&["check", "host.toml", "--json"]).json(2);
    assert_eq!(json["error"]["kind"], "invalid");
    assert!(json["error"]["errors"].as_array().is_some_and(|errors| errors.iter().any(|e| e["line"] == 8)));
}

#[test]
fn a_missing_file_ends_with_5_and_a_huge_one_with_2() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["check", "host.toml"]).code, 5);
    desk.write("huge.toml", &"#".repeat((1 << 20) + 1));
    let ended = desk.run(&["check", "huge.toml"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (2, "hostctl: huge.toml is larger than 1048576 bytes\n"));
}

#[test]
fn what_is_signed_verifies_and_what_was_changed_does_not() {
    let desk = Desk::new();
    desk.trusting_ana();
    desk.write("host.toml", &manifest(&pinned(), 1));
    let verify = ["verify", "--trust", "trust.toml", "host.toml", "--now", "2026-06-01T00:00:00Z"];
    let unsigned = desk.run(&verify).with(3);
    assert!(unsigned.ends_with("refused by rule sig.missing\n"), "{unsigned}");

    let signed = desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    assert!(
        signed.starts_with("signed by SHA256:") && signed.ends_with("1 signature in host.toml.sig\n"),
        "{signed}"
    );
    let verdict = desk.run(&verify).with(0);
    for part in ["sig.threshold    ok  ", "expired          ok  ", "accepted, signed by ana: sha256:"] {
        assert!(verdict.contains(part), "{part} is missing from {verdict}");
    }
    let json = desk.run(&[&verify[..], &["--json"]].concat()).json(0);
    assert_eq!((&json["accepted"], &json["signers"][0]), (&true.into(), &"ana".into()));

    let expired = ["verify", "--trust", "trust.toml", "host.toml", "--now", "2100-01-01T00:00:00Z"];
    assert!(desk.run(&expired).with(3).ends_with("refused by rule expired\n"));

    desk.write("host.toml", &manifest(&pinned(), 2));
    let changed = desk.run(&[&verify[..], &["--json"]].concat()).json(3);
    assert_eq!((&changed["accepted"], &changed["error"]["rule"]), (&false.into(), &"sig.invalid".into()));
}

#[test]
fn floors_and_the_audience_count_where_they_are_given() {
    let desk = Desk::new();
    desk.trusting_ana();
    let audience = "\n[audience]\narch = \"arm64\"\nlabels = { site = \"attic\" }\n";
    desk.write("host.toml", &(manifest(&pinned(), 3) + audience));
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    let rule = |more: &[&str]| {
        let verify =
            ["verify", "--trust", "trust.toml", "host.toml", "--json", "--now", "2026-06-01T00:00:00Z"];
        let ended = desk.run(&[&verify[..], more].concat());
        let code = ended.code;
        let json = ended.json(code);
        (code, json["error"]["rule"].as_str().unwrap_or_default().to_owned())
    };
    let refused = |rule: &str| (3, rule.to_owned());
    assert_eq!(rule(&[]), (0, String::new()));
    assert_eq!(rule(&["--arch", "amd64"]), refused("audience.arch"));
    assert_eq!(rule(&["--arch", "arm64", "--label", "site=attic"]), (0, String::new()));
    assert_eq!(rule(&["--label", "site=cellar"]), refused("audience.labels"));
    let digest = format!("sha256:{}", "0".repeat(64));
    let floors = format!(
        "{{\"trust-version\": 1, \"serials\": {{\"demo\": [4, \"{digest}\"]}}, \"latest-time\": \"2026-01-01T00:00:00Z\"}}"
    );
    desk.write("floors.json", &floors);
    assert_eq!(rule(&["--floors", "floors.json"]), refused("serial.replayed"));
}

#[test]
fn a_signature_by_a_stranger_is_not_trusted() {
    let desk = Desk::new();
    desk.trusting_ana();
    desk.key("eve");
    desk.write("host.toml", &manifest(&pinned(), 1));
    desk.run(&["sign", "--key", "eve", "host.toml"]).with(0);
    let verdict = desk.run(&["verify", "--trust", "trust.toml", "host.toml"]).with(3);
    assert!(verdict.ends_with("refused by rule sig.untrusted\n"), "{verdict}");
}

#[test]
fn signatures_add_up_and_stale_ones_are_dropped() {
    let desk = Desk::new();
    for name in ["ana", "ben"] {
        desk.key(name);
    }
    let keys = ["--key", "ana=ana.pub", "--key", "ben=ben.pub"];
    desk.run(&[&["trust", "init", "--threshold", "2", "trust.toml"][..], &keys].concat()).with(0);
    desk.write("host.toml", &manifest(&pinned(), 1));
    let sign =
        |key: &str| desk.run(&["sign", "--key", key, "host.toml", "--json"]).json(0)["signatures"].clone();
    let accepted = || desk.run(&["verify", "--trust", "trust.toml", "host.toml"]).code;
    assert_eq!(sign("ana"), 1);
    assert_eq!(accepted(), 3, "two keys are needed");
    assert_eq!(sign("ana"), 1, "the same key signs once");
    assert_eq!(sign("ben"), 2);
    assert_eq!(accepted(), 0);
    desk.write("host.toml", &manifest(&pinned(), 2));
    assert_eq!(sign("ben"), 1, "ana signed other bytes");
    assert_eq!(sign("ana"), 2);
    assert_eq!(accepted(), 0);
}

#[test]
fn ssh_keygen_and_hostctl_sign_the_same() {
    let desk = Desk::new();
    desk.trusting_ana();
    desk.write("host.toml", &manifest(&pinned(), 1));
    let signed = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-q", "-n", "bennu-manifest", "-f", "ana", "host.toml"])
        .current_dir(desk.path(""))
        .stdin(Stdio::null())
        .status()
        .expect("ssh-keygen is installed");
    assert!(signed.success());
    assert_eq!(desk.run(&["verify", "--trust", "trust.toml", "host.toml"]).code, 0);
    let theirs = desk.read("host.toml.sig");
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    assert_eq!(desk.read("host.toml.sig"), theirs, "ed25519 signatures of the same bytes are the same");

    let key = desk.read("ana.pub");
    let debug = |namespace: &str| {
        let verify = ["debug", "verify-signature", "--key", key.trim(), "--namespace", namespace];
        desk.run(&[&verify[..], &["host.toml", "host.toml.sig"]].concat()).code
    };
    assert_eq!(debug("bennu-manifest"), 0);
    assert_eq!(debug("bennu-trust"), 3);
}

#[test]
fn a_document_that_is_not_valid_is_signed_with_a_note() {
    let desk = Desk::new();
    desk.key("ana");
    desk.write("host.toml", "schema = 1\n");
    let ended = desk.run(&["sign", "--key", "ana", "host.toml"]);
    assert!(ended.stderr.starts_with("note: hosts will refuse host.toml:"), "{}", ended.stderr);
    ended.with(0);
}

#[test]
fn a_trust_document_is_written_once_and_signed_as_such() {
    let desk = Desk::new();
    desk.trusting_ana();
    let again = desk.run(&["trust", "init", "--key", "ana=ana.pub", "trust.toml"]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("trust.toml is there already"), "{}", again.stderr);
    let more = desk.run(&["trust", "init", "--key", "ana=ana.pub", "--threshold", "2", "other.toml"]);
    assert_eq!(more.code, 2, "two of one key can never sign");
    assert!(!desk.path("other.toml").exists());
    let secret = desk.run(&["trust", "init", "--key", "ana=ana", "other.toml"]);
    assert_eq!(secret.code, 2);
    assert!(secret.stderr.contains("it is the file that ends in .pub"), "{}", secret.stderr);

    desk.run(&["sign", "--key", "ana", "--trust-document", "trust.toml"]).with(0);
    let key = desk.read("ana.pub");
    let verify = ["debug", "verify-signature", "--key", key.trim(), "--namespace", "bennu-trust"];
    assert_eq!(desk.run(&[&verify[..], &["trust.toml", "trust.toml.sig"]].concat()).code, 0);
}

#[test]
fn toml_becomes_json_that_names_types_or_is_refused() {
    let desk = Desk::new();
    let json = desk.run_with(&["debug", "toml-json"], b"a = [1, 2.5]\n").json(0);
    assert_eq!(json["a"][0], serde_json::json!({ "type": "integer", "value": "1" }));
    assert_eq!(json["a"][1], serde_json::json!({ "type": "float", "value": "2.5" }));
    for wrong in [&b"a = 1\na = 2\n"[..], b"a = ", b"\xff"] {
        assert_eq!(desk.run_with(&["debug", "toml-json"], wrong).code, 2);
    }
}
