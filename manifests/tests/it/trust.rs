//! Trust documents and how they follow each other.

use bennu_manifests::model::Digest;
use bennu_manifests::{
    Floors, MANIFEST_NAMESPACE, NotAccepted, Rule, TRUST_NAMESPACE, Trust, check_trust, verify_trust,
};
use jiff::Timestamp;

use crate::keys::Keys;

/// A trust document of this version with these keys, all of which have each role with these thresholds.
pub(crate) fn document(keys: &Keys, version: u64, names: &[&str], deploy: usize, trust: usize) -> String {
    let lines = names.iter().map(|name| format!("[key.{name}]\npublic = \"{}\"\n", keys.public(name)));
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "schema = 1\nversion = {version}\n{}[role.deploy]\nkeys = [{list}]\nthreshold = {deploy}\n\
         [role.trust]\nkeys = [{list}]\nthreshold = {trust}\n",
        lines.collect::<String>()
    )
}

fn read(text: &str) -> Trust {
    check_trust(text.as_bytes()).unwrap_or_else(|invalid| panic!("{}", invalid.render("trust.toml", text)))
}

fn now() -> Timestamp {
    "2026-04-01T00:00:00Z".parse().expect("a time")
}

fn sign(keys: &Keys, names: &[&str], text: &str) -> Vec<u8> {
    names.iter().flat_map(|name| keys.sign(name, TRUST_NAMESPACE, text.as_bytes())).collect()
}

fn rule(result: Result<Trust, NotAccepted>) -> Rule {
    match result {
        Err(NotAccepted::Refused(refusal)) => refusal.rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_next_version_needs_the_old_keys_and_the_new_ones() {
    let keys = Keys::new();
    let current = read(&document(&keys, 1, &["alice", "bob"], 1, 2));
    let next = document(&keys, 2, &["carol"], 1, 1);
    let take = |signers: &[&str]| {
        verify_trust(next.as_bytes(), &sign(&keys, signers, &next), &current, &Floors::default(), now())
    };
    let taken = take(&["alice", "bob", "carol"]).expect("everybody has signed");
    assert_eq!(taken.version, 2);
    assert_eq!(rule(take(&["alice", "carol"])), Rule::SigThreshold);
    assert_eq!(rule(take(&["alice", "alice", "carol"])), Rule::SigThreshold);
    assert_eq!(rule(take(&["alice", "bob"])), Rule::SigUntrusted);
    assert_eq!(rule(take(&["carol"])), Rule::SigUntrusted);
    assert_eq!(rule(take(&[])), Rule::SigMissing);
    let floors = Floors::default().after_trust(&taken, Digest::of(next.as_bytes()));
    let again =
        verify_trust(next.as_bytes(), &sign(&keys, &["alice", "bob"], &next), &current, &floors, now());
    assert_eq!(rule(again), Rule::TrustVersion, "the current document is older than one that was known");
}

#[test]
fn versions_are_taken_one_by_one() {
    let keys = Keys::new();
    let current = read(&document(&keys, 5, &["alice"], 1, 1));
    for (version, good) in [(4, false), (5, false), (6, true), (7, false)] {
        let next = document(&keys, version, &["alice"], 1, 1);
        let result = verify_trust(
            next.as_bytes(),
            &sign(&keys, &["alice"], &next),
            &current,
            &Floors::default(),
            now(),
        );
        assert_eq!(result.is_ok(), good, "version {version}");
        if !good {
            assert_eq!(rule(result), Rule::TrustVersion);
        }
    }
}

#[test]
fn a_signature_over_a_manifest_is_none_over_a_trust_document() {
    let keys = Keys::new();
    let current = read(&document(&keys, 1, &["alice"], 1, 1));
    let next = document(&keys, 2, &["alice"], 1, 1);
    let sig = keys.sign("alice", MANIFEST_NAMESPACE, next.as_bytes());
    let result = verify_trust(next.as_bytes(), &sig, &current, &Floors::default(), now());
    assert_eq!(rule(result), Rule::SigNamespace);
}

#[test]
fn an_expired_document_may_name_its_successor_but_not_one_that_is_expired_too() {
    let keys = Keys::new();
    let expires =
        |text: String, when: &str| text.replacen("version", &format!("expires = {when}\nversion"), 1);
    let old = read(&expires(document(&keys, 1, &["alice"], 1, 1), "2026-03-01T00:00:00Z"));
    for (when, good) in [("2026-05-01T00:00:00Z", true), ("2026-04-01T00:00:00Z", false)] {
        let next = expires(document(&keys, 2, &["alice"], 1, 1), when);
        let result =
            verify_trust(next.as_bytes(), &sign(&keys, &["alice"], &next), &old, &Floors::default(), now());
        assert_eq!(result.is_ok(), good, "{when}");
    }
}

#[test]
fn a_signed_document_that_is_not_valid_is_said_to_be_so() {
    let keys = Keys::new();
    let current = read(&document(&keys, 1, &["alice"], 1, 1));
    let next = document(&keys, 2, &["alice"], 2, 1);
    let result =
        verify_trust(next.as_bytes(), &sign(&keys, &["alice"], &next), &current, &Floors::default(), now());
    assert!(matches!(result, Err(NotAccepted::Invalid(_))), "{result:?}");
}
