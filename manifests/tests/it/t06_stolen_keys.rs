//! T6: stolen keys below a threshold do nothing. T7: a stolen threshold does what its role may, and no more; the next trust
//! document takes it back.

use std::collections::BTreeSet;

use bennu_manifests::model::Digest;
use bennu_manifests::{
    ChainNotAccepted, Floors, HostFacts, MANIFEST_NAMESPACE, NotAccepted, Rule, TRUST_NAMESPACE, Trust,
    verify, verify_trust, verify_trust_chain,
};
use jiff::Timestamp;

use crate::samples::{HEADER, image, with_container};
use crate::soft::{Holders, sign, trust, trust_text};

/// What a manifest may say beside its header, and whether that needs the role `os`. Keys that are marked as needing it in the
/// reference of the language come from there ([`marked`]); here is what no single key says, and what needs nothing.
fn fields() -> Vec<(String, bool)> {
    let mut fields: Vec<(String, bool)> = [
        "allow-empty = true\n",
        "[network.front]\nsubnet = \"10.20.0.0/24\"\n",
        "[network.back]\ninternal = true\n",
        "[volume.data]\nlife = \"keep\"\n",
        "[volume.data]\nlife = \"keep\"\ndestroy = true\n",
        "[registry.\"registry.example:5000\"]\nplain-http = true\n",
    ]
    .map(|lines| (format!("{HEADER}{lines}"), false))
    .into();
    for (lines, needs_os) in [
        ("", false),
        ("command = [\"/bin/sh\"]", false),
        ("user = \"0:0\"", false),
        ("environment = { A = \"b\" }", false),
        ("ports = [\"80:80\"]", false),
        ("read-only-root = false", false),
        ("tmpfs = [\"/run\"]", false),
        ("limits = { memory = \"1GiB\" }", false),
        ("restart = \"no\"", false),
        ("volumes = [\"data:/data\"]\n[volume.data]\nlife = \"keep\"", false),
        ("add-capabilities = [\"NET_ADMIN\", \"SYS_NICE\"]", false),
        ("add-capabilities = [\"NET_ADMIN\", \"SYS_ADMIN\"]", true),
    ] {
        fields.push((with_container(lines), needs_os));
    }
    for capability in [
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "DAC_READ_SEARCH",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "PERFMON",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_MODULE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    ] {
        fields.push((with_container(&format!("add-capabilities = [\"{capability}\"]")), true));
    }
    fields
}

/// Every key that the reference marks with **os**, in a document with its own example.
fn marked() -> Vec<(String, String)> {
    let reference = bennu_manifests::reference();
    let (mut table, mut key, mut found) = ("", None, Vec::new());
    let mut lines = reference.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = heading.trim_matches('`').trim_matches(['[', ']']);
        } else if let Some(heading) = line.strip_prefix("### ") {
            key = heading.contains("**os**").then_some(heading);
        } else if let (Some(heading), "```toml") = (key, line) {
            let example: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((format!("[{table}] {heading}"), in_table(table, &example.join("\n"))));
            key = None;
        }
    }
    found
}

/// A document that says this in this table, with what such a table can't be without.
fn in_table(table: &str, lines: &str) -> String {
    let header = match table {
        "The document" => return format!("{HEADER}{lines}\n"),
        other => other.replace("NAME", "x"),
    };
    let needed = match table {
        "container.NAME" | "job.NAME" => image(),
        "volume.NAME" => "life = \"keep\"\n".to_owned(),
        "network.NAME" => "parent = \"eth0\"\nsubnet = \"10.0.0.0/24\"\n".to_owned(),
        _ => String::new(),
    };
    format!("{HEADER}[{header}]\n{needed}{lines}\n")
}

/// Each role has three keys, of which two must agree; one key has two roles.
const ROLES: [Holders<'static>; 3] = [
    ("deploy", &["dana", "dirk", "both"], 2),
    ("os", &["olaf", "olga", "both"], 2),
    ("trust", &["tara", "theo", "tina"], 2),
];
const KEYS: [&str; 8] = ["dana", "dirk", "both", "olaf", "olga", "tara", "theo", "tina"];

fn now() -> Timestamp {
    "2026-04-01T00:00:00Z".parse().expect("a time")
}

fn refused_by(text: &str, names: &[&str], trust: &Trust, floors: &Floors) -> Option<Rule> {
    let sig = sign(names, MANIFEST_NAMESPACE, text);
    match verify(text.as_bytes(), &sig, trust, floors, &HostFacts::default(), now()) {
        Ok(_) => None,
        Err(NotAccepted::Refused(refusal)) => Some(refusal.rule),
        Err(NotAccepted::Invalid(invalid)) => panic!("{}", invalid.render("host.toml", text)),
    }
}

#[test]
fn t06_one_stolen_key_of_two_that_are_needed_does_nothing() {
    let trust = trust(1, &ROLES);
    for name in KEYS {
        for (text, _) in fields() {
            assert!(refused_by(&text, &[name], &trust, &Floors::default()).is_some(), "{name}: {text}");
            // Nor twice.
            assert!(refused_by(&text, &[name, name], &trust, &Floors::default()).is_some(), "{name}: {text}");
        }
        let next = trust_text(2, &[("deploy", &[name], 1), ("trust", &[name], 1)]);
        let sig = sign(&[name], TRUST_NAMESPACE, &next);
        assert!(verify_trust(next.as_bytes(), &sig, &trust, &Floors::default(), now()).is_err(), "{name}");
    }
}

/// Every set of stolen keys against every field.
#[test]
fn t07_no_set_of_stolen_keys_reaches_beyond_its_roles() {
    let trust = trust(1, &ROLES);
    let fields = fields();
    assert!(fields.iter().filter(|(_, os)| *os).count() > 20, "the matrix covers what needs the role `os`");
    let has = |set: &BTreeSet<&str>, role: usize| {
        ROLES[role].1.iter().filter(|name| set.contains(**name)).count() >= ROLES[role].2
    };
    let (mut accepted, mut refused) = (0, 0);
    for set in 1u32..1 << KEYS.len() {
        let names: Vec<&str> = (0..KEYS.len()).filter(|at| set & (1 << at) != 0).map(|at| KEYS[at]).collect();
        let stolen: BTreeSet<&str> = names.iter().copied().collect();
        let (deploy, os) = (has(&stolen, 0), has(&stolen, 1));
        // One snippet of each kind is enough for most sets; all of them where it matters.
        let wanted = if deploy && !os { fields.len() } else { 0 };
        let some = fields.iter().enumerate().filter(|(at, _)| *at < wanted || [0, 6, 17].contains(at));
        for (_, (text, needs_os)) in some {
            let expect = if !deploy {
                vec![Rule::SigThreshold]
            } else if *needs_os && !os {
                vec![Rule::RoleOs]
            } else {
                vec![]
            };
            let found = refused_by(text, &names, &trust, &Floors::default());
            assert_eq!(found.into_iter().collect::<Vec<_>>(), expect, "{names:?}: {text}");
            if expect.is_empty() { accepted += 1 } else { refused += 1 }
        }
    }
    assert!(accepted > 100 && refused > 1000, "{accepted} accepted, {refused} refused");
}

/// Every key that the language marks; those that hosts do not carry out yet are refused for that in any case, and are
/// covered from the day they are.
#[test]
fn t07_no_key_that_needs_the_os_role_is_taken_from_who_may_deploy() {
    let trust = trust(1, &ROLES);
    let marked = marked();
    assert!(marked.len() >= 20, "the reference is read: {marked:?}");
    let taken = |text: &str, names: &[&str]| {
        let sig = sign(names, MANIFEST_NAMESPACE, text);
        verify(text.as_bytes(), &sig, &trust, &Floors::default(), &HostFacts::default(), now())
    };
    for (key, text) in &marked {
        if let Err(invalid) = bennu_manifests::check(text.as_bytes()) {
            panic!("{key}: {}", invalid.render("host.toml", text));
        }
        let by_all = taken(text, &KEYS);
        match taken(text, &["dana", "dirk", "both", "olaf"]) {
            Ok(_) if by_all.is_ok() => {
                // `both` has the role `os`, so with olaf there are two of its keys.
                assert!(
                    matches!(
                        taken(text, &["dana", "dirk", "both"]),
                        Err(NotAccepted::Refused(refusal)) if refusal.rule == Rule::RoleOs
                    ),
                    "{key}"
                );
            }
            Err(NotAccepted::Invalid(invalid)) => {
                let later = "is not carried out by hosts of this release";
                assert!(invalid.errors.iter().any(|fault| fault.message.contains(later)), "{key}: {invalid}");
                for names in [&["dana", "dirk"][..], &["olaf", "olga"], &KEYS] {
                    assert!(taken(text, names).is_err(), "{key}: {names:?}");
                }
            }
            other => panic!("{key}: {other:?}"),
        }
    }
}

#[test]
fn t07_who_may_deploy_and_change_the_os_may_not_change_whom_the_host_trusts() {
    let trust = trust(1, &ROLES);
    let next = trust_text(2, &[("deploy", &["dana", "dirk"], 1), ("trust", &["dana"], 1)]);
    let take = |names: &[&str]| {
        let sig = sign(names, TRUST_NAMESPACE, &next);
        verify_trust(next.as_bytes(), &sig, &trust, &Floors::default(), now())
    };
    assert!(take(&["dana", "dirk", "both", "olaf", "olga"]).is_err());
    assert!(take(&["dana", "dirk", "both", "olaf", "olga", "tara"]).is_err());
    assert!(take(&["tara", "theo"]).is_err(), "the new document's own key has not signed");
    assert!(take(&["tara", "theo", "dana"]).is_ok());
}

/// The drill: dana and dirk are stolen; version 2 puts others in their place, and a host that was off until version 6
/// catches up in one go.
#[test]
fn t07_a_rotation_evicts_stolen_keys_in_one_step_and_a_late_host_catches_up() {
    let stolen = trust(1, &ROLES);
    let bad = with_container("command = [\"/bin/mine\"]");
    assert_eq!(
        refused_by(&bad, &["dana", "dirk"], &stolen, &Floors::default()),
        None,
        "it is what they may do"
    );

    let good: [Holders<'_>; 3] = [("deploy", &["dora", "dave", "both"], 2), ROLES[1], ROLES[2]];
    let texts: Vec<String> = (2..=6).map(|version| trust_text(version, &good)).collect();
    let links: Vec<(String, Vec<u8>)> =
        texts.iter().map(|text| (text.clone(), sign(&["tara", "theo"], TRUST_NAMESPACE, text))).collect();
    let floors = Floors { trust_version: 1, ..Floors::default() };
    for length in 1..=5 {
        let links: Vec<(&[u8], &[u8])> =
            links.iter().take(length).map(|(text, sig)| (text.as_bytes(), &sig[..])).collect();
        let taken = verify_trust_chain(&stolen, &links, &floors, now()).expect("each step is signed");
        let newest = taken.newest();
        assert_eq!((taken.steps().len(), newest.version), (length, 1 + length as u64));
        let floors = floors.after_chain(&taken);
        assert_eq!(refused_by(&bad, &["dana", "dirk"], newest, &floors), Some(Rule::SigUntrusted));
        assert_eq!(refused_by(&bad, &["dana", "both"], newest, &floors), Some(Rule::SigThreshold));
        assert_eq!(refused_by(&bad, &["dora", "dave"], newest, &floors), None);
        // The old trust document itself is of no use any more.
        assert_eq!(refused_by(&bad, &["dana", "dirk"], &stolen, &floors), Some(Rule::TrustVersion));
    }
}

/// Who holds the keys for a while can use up the serials and drag the time ahead; the document that evicts them says what
/// to forget, or no honest manifest would ever be accepted again.
#[test]
fn t07_what_thieves_taught_a_host_is_forgotten_where_the_next_trust_document_says_so() {
    let stolen = trust(1, &ROLES);
    let mut floors = Floors { trust_version: 1, ..Floors::default() };
    for year in [2029, 2031, 2033] {
        let serial = i64::MAX.unsigned_abs() - 2050 + year;
        let text = HEADER
            .replace("serial = 5", &format!("serial = {serial}"))
            .replace("2026-03-01", &format!("{}-01-01", year - 1))
            .replace("2026-06-01", &format!("{year}-01-01"));
        let sig = sign(&["dana", "dirk"], MANIFEST_NAMESPACE, &text);
        let verified =
            verify(text.as_bytes(), &sig, &stolen, &floors, &HostFacts::default(), now()).expect("they may");
        floors = floors.after(&verified, verified.manifest().header.signed_at);
    }
    assert!(floors.latest_time > "2031-12-01T00:00:00Z".parse().expect("a time"));

    let good: [Holders<'_>; 3] = [("deploy", &["dora", "dave"], 2), ROLES[1], ROLES[2]];
    let honest = HEADER.replace("serial = 5", "serial = 42");
    let after = |recover: &str| {
        let text =
            trust_text(2, &good).replacen("version", "expires = 2027-01-01T00:00:00Z\nversion", 1) + recover;
        let sig = sign(&["tara", "theo"], TRUST_NAMESPACE, &text);
        let links: [(&[u8], &[u8]); 1] = [(text.as_bytes(), &sig)];
        let taken = verify_trust_chain(&stolen, &links, &floors, now())?;
        Ok::<_, ChainNotAccepted>((taken.newest().clone(), floors.after_chain(&taken)))
    };
    let refused = after("").expect_err("by the time that thieves taught, this very document has expired");
    assert!(matches!(refused.reason, NotAccepted::Refused(r) if r.rule == Rule::TrustExpired));
    let time = "[recover]\ntime = 2026-03-20T00:00:00Z\n";
    let (newest, floors_then) = after(time).expect("it is taken");
    assert_eq!(refused_by(&honest, &["dora", "dave"], &newest, &floors_then), Some(Rule::SerialReplayed));
    let (newest, floors_then) = after(&format!("{time}serials = {{ demo = 41 }}\n")).expect("it is taken");
    assert_eq!(refused_by(&honest, &["dora", "dave"], &newest, &floors_then), None);
    for (serial, rule) in [(40, Rule::SerialReplayed), (41, Rule::SerialConflict)] {
        let old = honest.replace("serial = 42", &format!("serial = {serial}"));
        assert_eq!(refused_by(&old, &["dora", "dave"], &newest, &floors_then), Some(rule), "{serial}");
    }
    // It is lowered once: the same document does not lower what was raised after it.
    let raised = Floors { latest_time: now(), ..floors_then.clone() };
    assert_eq!(raised.after_trust(&newest, Digest::of(b"")), raised);
    // And nothing is raised by it.
    let young = Floors { trust_version: 1, ..Floors::default() };
    let after = young.after_trust(&newest, Digest::of(b""));
    assert_eq!((after.latest_time, after.serials.len()), (young.latest_time, 0));
}
