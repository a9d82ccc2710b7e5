//! `trust`: from the first document to a rotation on a host; and what OpenSSH's own tools make of it.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Answer, Script};
use crate::{Desk, manifest, pinned};

impl Desk {
    /// A trust document of three people, two of whom must agree; `dora` has a key and no role.
    fn trusting_three(&self) {
        for name in ["ana", "ben", "cleo", "dora"] {
            self.key(name);
        }
        let keys = ["--key", "ana=ana.pub", "--key", "ben=ben.pub", "--key", "cleo=cleo.pub"];
        self.run(&[&["trust", "init", "--threshold", "2", "trust.toml"][..], &keys].concat()).with(0);
    }

    fn sign_trust(&self, names: &[&str], file: &str) {
        for name in names {
            self.run(&["sign", "--trust-document", "--key", name, file]).with(0);
        }
    }

    /// Whether `ssh-keygen -Y verify` takes the signature of `file` as that of `who`.
    fn openssh_takes(&self, who: &str, namespace: &str, file: &str) -> bool {
        let sig = format!("{file}.sig");
        let status = Command::new("ssh-keygen")
            .args(["-q", "-Y", "verify", "-f", "allowed", "-I", who, "-n", namespace, "-s", &sig])
            .current_dir(self.path(""))
            .stdin(File::open(self.path(file)).expect("the file is there"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.expect("ssh-keygen is installed").success()
    }
}

#[test]
fn what_hostctl_signed_ssh_keygen_verifies_with_the_exported_signers() {
    let desk = Desk::new();
    desk.trusting_three();
    desk.write("host.toml", &manifest(&pinned(), 1));
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    desk.sign_trust(&["ben"], "trust.toml");
    let allowed = desk.run(&["trust", "export-allowed-signers", "trust.toml"]).with(0);
    assert_eq!(allowed.lines().count(), 3);
    desk.write("allowed", &allowed);

    assert!(desk.openssh_takes("ana", "bennu-manifest", "host.toml"));
    assert!(!desk.openssh_takes("ben", "bennu-manifest", "host.toml"), "another signer");
    assert!(!desk.openssh_takes("ana", "bennu-trust", "host.toml"), "another purpose");
    assert!(!desk.openssh_takes("ana", "git", "host.toml"), "a purpose that nobody has");
    assert!(desk.openssh_takes("ben", "bennu-trust", "trust.toml"));
    desk.write("host.toml", &manifest(&pinned(), 2));
    assert!(!desk.openssh_takes("ana", "bennu-manifest", "host.toml"), "other bytes");
}

#[test]
fn openssh_is_told_what_each_key_may_sign_and_until_when() {
    let desk = Desk::new();
    desk.trusting_three();
    let rotate = ["trust", "rotate", "trust.toml"];
    desk.run(&["trust", "add-key", "trust.toml", "--key", "dora=dora.pub", "--role", "trust"]).with(0);
    desk.run(&[&rotate[..], &["--expires", "2020-01-31T12:00:00Z"]].concat()).with(0);
    let allowed = desk.run(&["trust", "export-allowed-signers", "trust.toml"]).with(0);
    let dora = allowed.lines().find(|line| line.starts_with("dora ")).expect("she has a role");
    assert!(
        dora.starts_with("dora namespaces=\"bennu-trust\",valid-before=\"20200131120000Z\" ssh-ed25519 "),
        "{dora}"
    );
    // What has expired, OpenSSH does not take either.
    desk.write("allowed", &allowed);
    desk.write("host.toml", &manifest(&pinned(), 1));
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    assert!(!desk.openssh_takes("ana", "bennu-manifest", "host.toml"));
    desk.run(&[&rotate[..], &["--expires", "never"]].concat()).with(0);
    desk.write("allowed", &desk.run(&["trust", "export-allowed-signers", "trust.toml"]).with(0));
    assert!(desk.openssh_takes("ana", "bennu-manifest", "host.toml"));
}

/// An agent that ends with the test.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let agent = Command::new("ssh-agent")
            .args(["-D", "-a"])
            .arg(socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent is installed (Debian: openssh-client)");
        let agent = Self(agent);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the agent does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_key_that_only_an_agent_holds_signs_by_its_public_half() {
    let desk = Desk::new();
    desk.trusting_ana();
    desk.write("host.toml", &manifest(&pinned(), 1));
    let socket = desk.path("agent.sock");
    let _agent = Agent::start(&socket);
    let add = |args: &[&str]| {
        let mut command = Command::new("ssh-add");
        command.args(args).current_dir(desk.path("")).env("SSH_AUTH_SOCK", &socket);
        assert!(command.stderr(Stdio::null()).status().expect("ssh-add is installed").success());
    };
    add(&["-q", "ana"]);
    std::fs::remove_file(desk.path("ana")).expect("the private key is there");
    let sign = || {
        let mut command = desk.command();
        command.args(["sign", "--key", "ana.pub", "host.toml"]).env("SSH_AUTH_SOCK", &socket);
        command.stdin(Stdio::null()).output().expect("hostctl runs").status.code()
    };
    assert_eq!(sign(), Some(0));
    assert_eq!(desk.run(&["verify", "--trust", "trust.toml", "host.toml"]).code, 0);
    add(&["-q", "-D"]);
    assert_eq!(sign(), Some(1), "an agent without the key cannot sign");
    assert_eq!(desk.run(&["verify", "--trust", "trust.toml", "host.toml"]).code, 0, "what is there stays");
}

#[test]
fn a_rotation_says_who_must_sign_and_whether_it_is_enough() {
    let desk = Desk::new();
    desk.trusting_three();
    desk.key("ben2");
    let first = desk.read("trust.toml");
    let rotate = ["trust", "rotate", "trust.toml", "--remove", "cleo", "--replace", "ben=ben2.pub", "--json"];
    let json = desk.run(&rotate).json(0);
    assert_eq!((&json["version"], &json["kept"]), (&2.into(), &"trust.1.toml".into()));
    assert_eq!(desk.read("trust.1.toml"), first);
    let before = &json["signatures"]["before"];
    assert_eq!((&before["needed"], &before["missing"]), (&2.into(), &json!(["ana", "ben", "cleo"])));
    let own = &json["signatures"]["own"];
    assert_eq!((&own["needed"], &own["missing"]), (&2.into(), &json!(["ana", "ben"])));

    let enough = |names: &[&str]| {
        let _ = std::fs::remove_file(desk.path("trust.toml.sig"));
        desk.sign_trust(names, "trust.toml");
        desk.run(&["trust", "show", "trust.toml", "--json"]).json(0)["signatures"]["enough"].clone()
    };
    assert_eq!(enough(&[]), false);
    assert_eq!(enough(&["ana", "ben"]), false, "the new ben has not agreed");
    assert_eq!(enough(&["ana", "ben2"]), false, "one of the old ones only");
    assert_eq!(enough(&["ana", "ben2", "cleo"]), true);
    let shown = desk.run(&["trust", "show", "trust.toml"]).with(0);
    for part in [
        "trust.toml: version 2, never expires\n",
        "KEY  ROLES              TYPE         FINGERPRINT\n",
        "trust   2      ana, ben\n",
        "  by version 1: 2 of ana, ben, cleo; signed: ana, cleo\n",
        "  by version 2: 2 of ana, ben; signed: ana, ben\n",
        "they suffice: `hostctl trust push` hands it over\n",
    ] {
        assert!(shown.contains(part), "{part} is missing from {shown}");
    }
    // It is no draft any more: the next change is another version.
    let json = desk.run(&["trust", "rotate", "trust.toml", "--threshold", "deploy=1", "--json"]).json(0);
    assert_eq!((&json["version"], &json["kept"]), (&3.into(), &"trust.2.toml".into()));
    assert!(desk.path("trust.2.toml.sig").exists() && !desk.path("trust.toml.sig").exists());
    let json = desk.run(&["trust", "rotate", "trust.toml", "--threshold", "os=1", "--json"]).json(0);
    assert_eq!(
        (&json["version"], &json["kept"]),
        (&3.into(), &Value::Null),
        "a draft stays the same version"
    );
}

#[test]
fn changes_keep_comments_and_what_makes_no_sense_changes_nothing() {
    let desk = Desk::new();
    desk.trusting_three();
    let text =
        format!("# our fleet\n{}", desk.read("trust.toml").replace("[key.ana]", "[key.ana] # the boss"));
    desk.write("trust.toml", &text);
    let run = |args: &[&str]| desk.run(&[&["trust"][..], args].concat());
    for (args, code) in [
        (&["rotate", "trust.toml", "--remove", "zoe"][..], 5),
        (&["rotate", "trust.toml", "--replace", "zoe=dora.pub"], 5),
        (&["rotate", "trust.toml", "--remove", "ana", "--remove", "ben"], 2),
        (&["rotate", "trust.toml", "--threshold", "os=4"], 2),
        (&["rotate", "trust.toml", "--threshold", "os"], 2),
        (&["rotate", "trust.toml", "--threshold", "root=1"], 2),
        (&["rotate", "trust.toml", "--expires", "soon"], 2),
        (&["rotate", "trust.toml", "--replace", "ana=ben.pub"], 2),
        (&["add-key", "trust.toml", "--key", "ana=dora.pub", "--role", "os"], 2),
        (&["add-key", "trust.toml", "--key", "dora=ana.pub", "--role", "os"], 2),
        (&["add-key", "trust.toml", "--key", "dora=dora.pub", "--role", "boss"], 2),
        (&["add-key", "trust.toml", "--key", "dora=dora.pub"], 2),
        (&["rotate", "other.toml"], 5),
    ] {
        assert_eq!(run(args).code, code, "{args:?}");
        assert_eq!(desk.read("trust.toml"), text, "{args:?}");
        assert!(!desk.path("trust.1.toml").exists(), "{args:?}");
    }
    run(&["add-key", "trust.toml", "--key", "dora=dora.pub", "--role", "os,deploy"]).with(0);
    let after = desk.read("trust.toml");
    for part in
        ["# our fleet\n", "[key.ana] # the boss\n", "version = 2\n", "[key.dora]\npublic = \"ssh-ed25519 "]
    {
        assert!(after.contains(part), "{part} is missing from {after}");
    }
    assert_eq!(after.matches("\"cleo\", \"dora\"").count(), 2, "{after}");
    // Another document under the name of the version that is kept is not overwritten.
    let desk = Desk::new();
    desk.trusting_three();
    desk.write("trust.1.toml", "something else");
    assert_eq!(desk.run(&["trust", "rotate", "trust.toml", "--remove", "cleo"]).code, 2);
    assert_eq!(desk.read("trust.1.toml"), "something else");
}

/// A desk with versions 1 to 3, signed, and a host that has version `has`.
fn with_host_at(has: usize) -> (Desk, Arc<Script>) {
    let desk = Desk::new();
    desk.trusting_three();
    for threshold in ["deploy=1", "deploy=3"] {
        desk.run(&["trust", "rotate", "trust.toml", "--threshold", threshold]).with(0);
        desk.sign_trust(&["ana", "ben"], "trust.toml");
    }
    let file = ["", "trust.1.toml", "trust.2.toml", "trust.toml"][has];
    let in_force = json!({ "version": has, "expires": null, "document": desk.read(file), "signatures": "" });
    let script = Script::new(move |asked| match asked.line.as_str() {
        "GET /v1/trust" => Answer::json(200, &in_force),
        "POST /v1/trust" => Answer::json(200, &json!({ "version": 3, "given_up": 7 })),
        other => panic!("{other}"),
    });
    script.on_socket(&desk.path("host.sock"));
    (desk, script)
}

const PUSH: [&str; 7] =
    ["trust", "push", "trust.toml", "trust.1.toml", "trust.2.toml", "--host", "host.sock"];

#[test]
fn a_host_is_handed_the_versions_that_it_has_missed_in_their_order() {
    let (desk, script) = with_host_at(1);
    let said = desk.run(&PUSH).with(0);
    let expect = "version 3 is in force; 2 documents taken\n\
                  generation 7 is given up: whoever signed it is not trusted any more\n";
    assert_eq!(said, expect);
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    let body: Value = serde_json::from_slice(&asked[1].body).expect("JSON");
    let chain = body["chain"].as_array().expect("a chain");
    for (link, file) in chain.iter().zip(["trust.2.toml", "trust.toml"]) {
        assert_eq!(link["document"], desk.read(file));
        assert_eq!(link["signatures"], desk.read(&format!("{file}.sig")));
    }
    assert_eq!(chain.len(), 2);

    let (desk, script) = with_host_at(3);
    assert_eq!(desk.run(&PUSH).with(0), "version 3 is in force; it was before\n");
    assert_eq!(script.asked().len(), 1, "nothing is handed over");
}

#[test]
fn a_trust_document_that_forks_or_is_not_signed_is_not_handed_over() {
    let (desk, script) = with_host_at(2);
    desk.write("trust.2.toml", &(desk.read("trust.2.toml") + "# another one\n"));
    let json = desk.run(&[&PUSH[..], &["--json"]].concat()).json(3);
    assert_eq!(json["error"]["rule"], "trust.version");
    std::fs::remove_file(desk.path("trust.toml.sig")).expect("it was signed");
    let json = desk.run(&["trust", "push", "trust.toml", "--host", "host.sock", "--json"]).json(3);
    assert_eq!(json["error"]["rule"], "sig.missing");
    assert!(script.asked().iter().all(|asked| asked.line == "GET /v1/trust"));
}

#[test]
fn each_rule_is_told_with_why_it_is_there_and_what_to_do() {
    let desk = Desk::new();
    desk.trusting_three();
    desk.write("host.toml", &manifest(&pinned(), 1));
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    let verify = ["verify", "--trust", "trust.toml", "host.toml", "--now", "2026-06-01T00:00:00Z"];
    let said = desk.run(&verify).with(3);
    for part in [
        "sig.invalid      ok  ",
        "sig.threshold    NO  role `deploy` needs 2",
        "role.os          --  not asked\n",
    ] {
        assert!(said.contains(part), "{part} is missing from {said}");
    }
    assert!(!said.contains("why"), "{said}");
    let explained = desk.run(&[&verify[..], &["--explain"]].concat()).with(3);
    assert_eq!(explained.matches("    why   ").count(), 16, "{explained}");
    assert!(explained.contains("    else  have the others sign, too"), "{explained}");
    let json = desk.run(&[&verify[..], &["--explain", "--json"]].concat()).json(3);
    assert_eq!(json["explained"].as_array().map(Vec::len), Some(16));
    assert_eq!(json["not_asked"][0], "serial.replayed");
    desk.run(&["sign", "--key", "cleo", "host.toml"]).with(0);
    let said = desk.run(&[&verify[..], &["--explain"]].concat()).with(0);
    assert!(!said.contains("not asked") && said.contains("accepted, signed by ana, cleo"), "{said}");
}
