//! T1: a manifest that is unsigned, signed by others, or by too few, has no effect.

use bennu_manifests::{
    Floors, HostFacts, MANIFEST_NAMESPACE, NotAccepted, Rule, TRUST_NAMESPACE, Trust, verify,
};

use crate::samples::HEADER;
use crate::soft::{APPLICATION, Says, Soft, sign, trust, trust_text};

/// Two of three have to sign.
fn two_of_three() -> Trust {
    trust(1, &[("deploy", &["ana", "ben", "cleo"], 2), ("trust", &["ana"], 1)])
}

fn refused_by(bytes: &[u8], sig: &[u8], trust: &Trust) -> Option<Rule> {
    let now = "2026-04-01T00:00:00Z".parse().expect("a time");
    match verify(bytes, sig, trust, &Floors::default(), &HostFacts::default(), now) {
        Ok(_) => None,
        Err(NotAccepted::Refused(refusal)) => Some(refusal.rule),
        Err(NotAccepted::Invalid(invalid)) => panic!("{invalid}"),
    }
}

fn by(names: &[&str]) -> Vec<u8> {
    sign(names, MANIFEST_NAMESPACE, HEADER)
}

fn text(file: &[u8]) -> String {
    String::from_utf8(file.to_vec()).expect("armour is text")
}

#[test]
fn t01_two_of_three_are_enough() {
    for names in [&["ana", "ben"][..], &["cleo", "ana"], &["ana", "ben", "cleo"], &["eve", "ben", "cleo"]] {
        assert_eq!(refused_by(HEADER.as_bytes(), &by(names), &two_of_three()), None, "{names:?}");
    }
}

#[test]
fn t01_none_of_24_other_ways_to_sign_is_enough() {
    use Rule::{SigInvalid, SigMalformed, SigMissing, SigNamespace, SigThreshold, SigUntrusted};
    let pair = by(&["ana", "ben"]);
    let other = HEADER.replace("serial = 5", "serial = 6");
    let elsewhere = |namespace| sign(&["ana", "ben"], namespace, HEADER);
    let swapped = text(&by(&["ana"])).replace("SIGNATURE", "MESSAGE");
    let indented = text(&pair).replace('\n', "\n ");
    let variants: [(&str, Vec<u8>, Rule); 24] = [
        ("unsigned", Vec::new(), SigMissing),
        ("a line break for a signature", b"\n".to_vec(), SigMalformed),
        ("one of two", by(&["ana"]), SigThreshold),
        ("the other of two", by(&["cleo"]), SigThreshold),
        ("one twice", by(&["ana", "ana"]), SigThreshold),
        ("one sixteen times", by(&["ana"; 16]), SigThreshold),
        ("one twice, once by OpenSSH's width and once narrower", narrower(&by(&["ana"])), SigThreshold),
        ("a stranger", by(&["eve"]), SigUntrusted),
        ("two strangers", by(&["eve", "mallory"]), SigUntrusted),
        ("one and a stranger", by(&["ana", "eve"]), SigThreshold),
        ("one and fifteen strangers", by(&[&["ana"][..], &["eve"; 15]].concat()), SigThreshold),
        ("a good pair and one that is cut short", [&pair[..], &pair[..90]].concat(), SigMalformed),
        ("more signatures than are read", by(&["ana"; 17]), SigMalformed),
        ("two, over other bytes", sign(&["ana", "ben"], MANIFEST_NAMESPACE, &other), SigInvalid),
        ("two, one over other bytes", mixed(&other), SigInvalid),
        ("two, for trust documents", elsewhere(TRUST_NAMESPACE), SigNamespace),
        ("two, for files", elsewhere("file"), SigNamespace),
        ("two, for git", elsewhere("git"), SigNamespace),
        ("two, for our namespace in capitals", elsewhere("Bennu-Manifest"), SigNamespace),
        ("two, for a namespace that ours begins", elsewhere("bennu-manifest2"), SigNamespace),
        ("two with other armour", swapped.into_bytes(), SigMalformed),
        ("two, indented", indented.into_bytes(), SigMalformed),
        ("two with a text before them", [b"signed:\n", &pair[..]].concat(), SigMalformed),
        ("two with a null byte after them", [&pair[..], b"\0"].concat(), SigMalformed),
    ];
    for (what, sig, rule) in &variants {
        assert_eq!(refused_by(HEADER.as_bytes(), sig, &two_of_three()), Some(*rule), "{what}");
    }
    assert_eq!(refused_by(HEADER.as_bytes(), &pair, &two_of_three()), None);
}

/// The signature, and itself again in lines of 64.
fn narrower(sig: &[u8]) -> Vec<u8> {
    let armour = text(sig);
    let lines: Vec<&str> = armour.lines().collect();
    let body = lines[1..lines.len() - 1].concat();
    let narrow: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    let narrow = format!("{}\n{}\n{}\n", lines[0], narrow.join("\n"), lines[lines.len() - 1]);
    [sig, narrow.as_bytes()].concat()
}

/// Ana signs the manifest, Ben another one.
fn mixed(other: &str) -> Vec<u8> {
    [by(&["ana"]), sign(&["ben"], MANIFEST_NAMESPACE, other)].concat()
}

/// RUSTSEC-2020-0024 and CVE-2026-6966: the threshold of a TUF client was met by one key's signature, repeated under
/// other key ids. Here ids are names in the trust document, and a document with one key under two names is no document.
#[test]
fn t01_rustsec_2020_0024_one_key_repeated_under_other_names_counts_once() {
    let text = trust_text(1, &[("deploy", &["ana", "ben"], 2)]);
    let twice = text.replace(&Soft::new("ben").line(), &Soft::new("ana").line());
    assert!(bennu_manifests::check_trust(twice.as_bytes()).is_err());
    // Not even where such a value came from elsewhere.
    let mut trust = two_of_three();
    let ana = trust.keys[&"ana".parse().expect("a name")].clone();
    trust.keys.insert("ben".parse().expect("a name"), ana);
    assert_eq!(refused_by(HEADER.as_bytes(), &by(&["ana"; 2]), &trust), Some(Rule::SigThreshold));
    // Nor where the second is the first one's secret, held by a token.
    trust.keys.insert("ben".parse().expect("a name"), Soft::new("ana").on_token(APPLICATION).public());
    let token = Soft::new("ana").on_token(APPLICATION).sign(MANIFEST_NAMESPACE, HEADER.as_bytes());
    let both = [by(&["ana"]), token].concat();
    assert_eq!(refused_by(HEADER.as_bytes(), &both, &trust), Some(Rule::SigThreshold));
}

#[test]
fn t01_a_token_that_nobody_touched_does_not_count() {
    let token = Soft::new("tina").on_token(APPLICATION);
    let text = trust_text(1, &[("deploy", &["tina"], 1)]).replace(&Soft::new("tina").line(), &token.line());
    let trust = bennu_manifests::check_trust(text.as_bytes()).expect("a trust document");
    let sign = |flags| {
        let says = Says { flags, counter: 1 };
        token.sign_saying(MANIFEST_NAMESPACE, HEADER.as_bytes(), says, says)
    };
    assert_eq!(refused_by(HEADER.as_bytes(), &sign(1), &trust), None);
    assert_eq!(refused_by(HEADER.as_bytes(), &sign(0), &trust), Some(Rule::SigInvalid));
}
