//! What a host accepts, and beside it each refusal.

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;
use bennu_manifests::{
    Floors, HostFacts, MANIFEST_NAMESPACE, NotAccepted, Refusal, Rule, TRUST_NAMESPACE, Trust, Verified,
    check_trust, protected_changes, verify, verify_again,
};
use jiff::Timestamp;

use crate::keys::Keys;
use crate::samples::{HEADER, with_container};
use crate::trust;

struct Bench {
    keys: Keys,
    trust: Trust,
    floors: Floors,
    host: HostFacts,
    now: Timestamp,
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

impl Bench {
    /// Keys `alice`, `bob` and `carol`, of which this many must sign.
    fn new(threshold: usize) -> Self {
        let keys = Keys::new();
        let text = trust::document(&keys, 3, &["alice", "bob", "carol"], threshold, 1);
        let trust = check_trust(text.as_bytes()).expect("a trust document");
        let labels = BTreeMap::from([("site".to_owned(), "attic".to_owned())]);
        let host = HostFacts { arch: "amd64".to_owned(), labels };
        Self { keys, trust, floors: Floors::default(), host, now: time("2026-04-01T00:00:00Z") }
    }

    fn sign(&self, names: &[&str], text: &str) -> Vec<u8> {
        names.iter().flat_map(|name| self.keys.sign(name, MANIFEST_NAMESPACE, text.as_bytes())).collect()
    }

    fn verify(&self, text: &str, sig: &[u8]) -> Result<Verified, NotAccepted> {
        verify(text.as_bytes(), sig, &self.trust, &self.floors, &self.host, self.now)
    }

    /// Signed by alice.
    fn offer(&self, text: &str) -> Result<Verified, NotAccepted> {
        self.verify(text, &self.sign(&["alice"], text))
    }

    fn accept(&mut self, text: &str) {
        let verified = self.offer(text).expect("it is accepted");
        self.floors = self.floors.after(&verified, self.now);
    }
}

fn refusal(result: Result<Verified, NotAccepted>) -> Refusal {
    match result {
        Err(NotAccepted::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn rule(result: Result<Verified, NotAccepted>) -> Rule {
    refusal(result).rule
}

fn serial(number: u64) -> String {
    HEADER.replace("serial = 5", &format!("serial = {number}"))
}

#[test]
fn a_signed_manifest_is_accepted_and_every_rule_is_told() {
    let bench = Bench::new(2);
    let text = with_container("");
    let verified =
        bench.verify(&text, &bench.sign(&["carol", "alice"], &text)).expect("two of two have signed");
    assert_eq!(verified.sha256(), Digest::of(text.as_bytes()));
    assert_eq!(verified.manifest().header.serial, 5);
    let signers: Vec<&str> = verified.signers().iter().map(|name| name.as_str()).collect();
    assert_eq!(signers, ["alice", "carol"]);
    let rules: Vec<&str> = verified.rules().iter().map(|outcome| outcome.rule.code()).collect();
    let expect = [
        "trust.version",
        "trust.expired",
        "size",
        "sig.missing",
        "sig.malformed",
        "sig.untrusted",
        "sig.namespace",
        "sig.invalid",
        "sig.threshold",
        "serial.replayed",
        "serial.conflict",
        "signed-at",
        "expired",
        "audience.arch",
        "audience.labels",
        "role.os",
    ];
    assert_eq!(rules, expect);
    assert_eq!(rules, Rule::FOR_MANIFESTS.map(Rule::code), "they are asked in the order that is told");
    assert!(verified.rules().iter().all(|outcome| !outcome.detail.is_empty()));
}

#[test]
fn signatures_are_needed_and_their_form_is_exact() {
    let bench = Bench::new(1);
    let text = with_container("");
    let good = bench.sign(&["alice"], &text);
    assert!(bench.verify(&text, &good).is_ok());
    assert_eq!(rule(bench.verify(&text, b"")), Rule::SigMissing);
    assert_eq!(rule(bench.verify(&text, b"\n")), Rule::SigMalformed);
    assert_eq!(rule(bench.verify(&text, &good[..good.len() - 1])), Rule::SigMalformed);
    assert_eq!(rule(bench.verify(&text, &[&good[..], b"x"].concat())), Rule::SigMalformed);
    assert_eq!(rule(bench.verify(&text, &good.repeat(17))), Rule::SigMalformed);
    assert!(bench.verify(&text, &good.repeat(16)).is_ok());
}

#[test]
fn the_signature_is_over_these_bytes_by_a_known_key_for_this_purpose() {
    let bench = Bench::new(1);
    let text = with_container("");
    assert_eq!(rule(bench.verify(&text, &bench.sign(&["mallory"], &text))), Rule::SigUntrusted);
    assert_eq!(rule(bench.verify(&(text.clone() + " "), &bench.sign(&["alice"], &text))), Rule::SigInvalid);
    let other = bench.keys.sign("alice", TRUST_NAMESPACE, text.as_bytes());
    assert_eq!(rule(bench.verify(&text, &other)), Rule::SigNamespace);
    let other = bench.keys.sign("alice", "file", text.as_bytes());
    assert_eq!(rule(bench.verify(&text, &other)), Rule::SigNamespace);
    // A stranger's signature beside a good one changes nothing.
    assert!(bench.verify(&text, &bench.sign(&["mallory", "alice"], &text)).is_ok());
}

#[test]
fn thresholds_count_distinct_keys_of_the_role() {
    let bench = Bench::new(2);
    let text = with_container("");
    for (signers, good) in [
        (&["alice"][..], false),
        (&["alice", "alice"], false),
        (&["alice", "alice", "alice", "mallory"], false),
        (&["alice", "bob"], true),
        (&["alice", "bob", "carol"], true),
    ] {
        let result = bench.verify(&text, &bench.sign(signers, &text));
        assert_eq!(result.is_ok(), good, "{signers:?}");
        if !good {
            assert_eq!(rule(result), Rule::SigThreshold);
        }
    }
}

#[test]
fn one_key_under_two_names_counts_once_even_in_a_trust_value_that_was_not_checked() {
    let mut bench = Bench::new(2);
    let alice = bench.trust.keys[&"alice".parse().expect("a name")].clone();
    bench.trust.keys.insert("bob".parse().expect("a name"), alice);
    let text = with_container("");
    assert_eq!(rule(bench.verify(&text, &bench.sign(&["alice", "alice"], &text))), Rule::SigThreshold);
    assert!(bench.verify(&text, &bench.sign(&["alice", "carol"], &text)).is_ok());
}

#[test]
fn a_key_without_the_role_does_not_count() {
    let mut bench = Bench::new(1);
    let bob = "bob".parse().expect("a name");
    bench.trust.roles.get_mut(&bennu_manifests::Role::Deploy).expect("it is there").keys.remove(&bob);
    let text = with_container("");
    let refused = refusal(bench.verify(&text, &bench.sign(&["bob"], &text)));
    assert_eq!(refused.rule, Rule::SigThreshold);
    assert!(refused.reason.contains("none of them has signed"), "{}", refused.reason);
}

#[test]
fn nothing_is_parsed_before_its_signature_holds() {
    let bench = Bench::new(1);
    let nonsense = "this is no manifest";
    assert_eq!(rule(bench.verify(nonsense, &bench.sign(&["mallory"], nonsense))), Rule::SigUntrusted);
    assert!(matches!(bench.offer(nonsense), Err(NotAccepted::Invalid(_))));
    let large = "#".repeat(bennu_manifests::MAX_DOCUMENT + 1);
    assert_eq!(rule(bench.offer(&large)), Rule::Size);
}

#[test]
fn serials_only_grow() {
    let mut bench = Bench::new(1);
    bench.accept(&serial(5));
    assert!(bench.offer(&serial(5)).is_ok(), "the same bytes again are harmless");
    assert_eq!(rule(bench.offer(&serial(4))), Rule::SerialReplayed);
    assert_eq!(rule(bench.offer(&(serial(5) + "# other bytes\n"))), Rule::SerialConflict);
    bench.accept(&serial(7));
    assert_eq!(rule(bench.offer(&serial(5))), Rule::SerialReplayed);
    assert!(bench.offer(&serial(1).replace("demo", "another")).is_ok(), "each name has its own serials");
}

#[test]
fn expired_manifests_and_trust_documents_are_refused() {
    let mut bench = Bench::new(1);
    let at = |bench: &mut Bench, now: &str| {
        bench.now = time(now);
        bench.offer(HEADER)
    };
    assert!(at(&mut bench, "2026-06-01T11:59:59Z").is_ok());
    assert_eq!(rule(at(&mut bench, "2026-06-01T12:00:00Z")), Rule::Expired);
    bench.trust.expires = Some(time("2026-05-01T00:00:00Z"));
    assert!(at(&mut bench, "2026-04-30T23:59:59Z").is_ok());
    assert_eq!(rule(at(&mut bench, "2026-05-01T00:00:00Z")), Rule::TrustExpired);
}

#[test]
fn a_clock_that_was_turned_back_does_not_revive_an_expired_manifest() {
    let mut bench = Bench::new(1);
    bench.floors.latest_time = time("2026-07-01T00:00:00Z");
    bench.now = time("2026-04-01T00:00:00Z");
    assert_eq!(rule(bench.offer(HEADER)), Rule::Expired);
}

#[test]
fn a_stopped_clock_learns_from_what_is_accepted_but_not_a_mistyped_year() {
    let mut bench = Bench::new(1);
    bench.now = time("2024-01-01T00:00:00Z");
    bench.accept(HEADER);
    assert_eq!(bench.floors.latest_time, time("2026-03-01T12:00:00Z"));
    let typo = serial(6).replace("2026-", "2206-");
    assert_eq!(rule(bench.offer(&typo)), Rule::SignedAt);
}

#[test]
fn a_manifest_for_other_hosts_is_refused() {
    let mut bench = Bench::new(1);
    let audience = |value: &str| format!("{HEADER}audience = {value}\n");
    assert!(bench.offer(&audience("{ arch = \"amd64\", labels = { site = \"attic\" } }")).is_ok());
    assert_eq!(rule(bench.offer(&audience("{ arch = \"arm64\" }"))), Rule::AudienceArch);
    let cellar = refusal(bench.offer(&audience("{ labels = { site = \"cellar\" } }")));
    assert_eq!(cellar.rule, Rule::AudienceLabels);
    assert!(cellar.reason.contains("site=cellar") && cellar.reason.contains("attic"), "{}", cellar.reason);
    assert_eq!(
        rule(bench.offer(&audience("{ labels = { site = \"attic\", ring = \"x\" } }"))),
        Rule::AudienceLabels
    );
    bench.host.labels.clear();
    assert!(bench.offer(HEADER).is_ok());
}

#[test]
fn power_over_the_host_needs_the_os_role() {
    let mut bench = Bench::new(1);
    let harmless = with_container("add-capabilities = [\"NET_ADMIN\"]");
    let dangerous = with_container("add-capabilities = [\"NET_ADMIN\", \"SYS_ADMIN\"]");
    assert!(bench.offer(&harmless).is_ok());
    let refused = refusal(bench.offer(&dangerous));
    assert_eq!(refused.rule, Rule::RoleOs);
    assert!(
        refused.reason.contains("container.web.add-capabilities[1]: capability SYS_ADMIN"),
        "{}",
        refused.reason
    );

    let bob = std::collections::BTreeSet::from(["bob".parse().expect("a name")]);
    let role = bennu_manifests::RoleKeys { keys: bob, threshold: 1 };
    bench.trust.roles.insert(bennu_manifests::Role::Os, role);
    assert_eq!(rule(bench.offer(&dangerous)), Rule::RoleOs, "alice has the role `deploy` only");
    assert!(bench.verify(&dangerous, &bench.sign(&["alice", "bob"], &dangerous)).is_ok());
}

#[test]
fn a_protected_volume_is_changed_by_the_os_role_alone_and_left_alone_by_anybody() {
    let mut bench = Bench::new(1);
    let bob = std::collections::BTreeSet::from(["bob".parse().expect("a name")]);
    let role = bennu_manifests::RoleKeys { keys: bob, threshold: 1 };
    bench.trust.roles.insert(bennu_manifests::Role::Os, role);
    let with = |volume: &str| format!("{HEADER}allow-empty = true\n{volume}");
    let entry = "[volume.data]\nlife = \"keep\"\nsize = \"1GiB\"\nprotected = true\n";
    let now = bench.offer(&with(entry)).expect("protecting takes nothing from anybody").into_manifest();
    let offered = |text: &str, names: &[&str]| {
        let verified = bench.verify(text, &bench.sign(names, text)).expect("each is signed for itself");
        verified.require_os(&protected_changes(&now, verified.manifest()), &bench.trust).map(|()| verified)
    };
    let others = "[volume.other]\nlife = \"scratch\"\n";
    assert!(offered(&with(&format!("{others}{entry}")), &["alice"]).is_ok(), "it is as it was");
    let changes = [
        String::new(),
        others.to_owned(),
        entry.replace("protected = true\n", ""),
        entry.replace("true", "false"),
        entry.replace("keep", "scratch").replace("protected = true\n", ""),
        entry.replace("keep", "snapshot"),
        entry.replace("1GiB", "2GiB"),
        format!("{entry}destroy = true\n"),
    ];
    for changed in changes {
        let refused = refusal(offered(&with(&changed), &["alice"]));
        assert_eq!(refused.rule, Rule::RoleOs, "{changed}");
        assert!(refused.reason.starts_with("`volume.data`: "), "{}", refused.reason);
        assert!(offered(&with(&changed), &["alice", "bob"]).is_ok(), "{changed}");
    }
}

#[test]
fn what_is_set_of_the_host_is_left_out_by_the_os_role_alone() {
    let mut bench = Bench::new(1);
    let bob = std::collections::BTreeSet::from(["bob".parse().expect("a name")]);
    let role = bennu_manifests::RoleKeys { keys: bob, threshold: 1 };
    bench.trust.roles.insert(bennu_manifests::Role::Os, role);
    let with = |rest: &str| format!("{HEADER}allow-empty = true\n{rest}");
    let both = |text: &str| bench.verify(text, &bench.sign(&["alice", "bob"], text)).expect("both sign");
    let nothing = with("");
    for (set, path) in [
        ("[os]\nruntime = \"runc\"\n", "os.runtime"),
        ("[os]\nmodules = [\"wireguard\"]\n", "os.modules"),
        ("[os]\nsysctls = { \"vm.swappiness\" = \"10\" }\n", "os.sysctls"),
        ("[os]\nhost-name = \"attic\"\n", "os.host-name"),
        ("[os]\ntime-zone = \"Europe/Vienna\"\n", "os.time-zone"),
        ("[os]\ntime-servers = [\"time.example\"]\n", "os.time-servers"),
        ("[os.interface.eth0]\ndhcp = false\n", "os.interface"),
    ] {
        let now = both(&with(set)).into_manifest();
        let offered = |names: &[&str]| {
            let verified =
                bench.verify(&nothing, &bench.sign(names, &nothing)).expect("it says nothing of the host");
            verified
                .require_os(&protected_changes(&now, verified.manifest()), &bench.trust)
                .map(|()| verified)
        };
        let refused = refusal(offered(&["alice"]));
        assert_eq!(refused.rule, Rule::RoleOs, "{set}");
        assert!(refused.reason.starts_with(&format!("`{path}`: ")), "{}", refused.reason);
        assert!(offered(&["alice", "bob"]).is_ok(), "{set}");
        assert_eq!(protected_changes(&now, &now), Vec::<String>::new(), "{set}");
    }
}

#[test]
fn a_trust_document_below_its_floor_decides_nothing() {
    let mut bench = Bench::new(1);
    bench.floors.trust_version = 3;
    assert!(bench.offer(HEADER).is_ok());
    bench.floors.trust_version = 4;
    assert_eq!(rule(bench.offer(HEADER)), Rule::TrustVersion);
}

#[test]
fn floors_never_go_down() {
    let mut bench = Bench::new(1);
    bench.accept(&serial(7));
    let high = bench.floors.clone();
    let low = Bench { floors: Floors::default(), now: time("2026-03-05T00:00:00Z"), ..Bench::new(1) };
    let older = low.offer(&serial(3)).expect("new to this host");
    let after = high.after(&older, low.now);
    assert_eq!(after, high);
    assert_eq!((after.trust_version, after.serials[&"demo".parse().expect("a name")].0), (3, 7));
}

#[test]
fn floors_survive_being_written_and_read() {
    let mut bench = Bench::new(1);
    bench.accept(&serial(7));
    let json = serde_json::to_string(&bench.floors).expect("plain data");
    assert_eq!(serde_json::from_str::<Floors>(&json).expect("it was written so"), bench.floors);
}

#[test]
fn what_was_accepted_goes_on_running_after_it_expired_but_nothing_else_does() {
    let mut bench = Bench::new(1);
    let text = serial(5);
    let sig = bench.sign(&["alice"], &text);
    let again = |bench: &Bench, text: &str, sig: &[u8]| {
        verify_again(text.as_bytes(), sig, &bench.trust, &bench.floors, &bench.host)
    };
    assert_eq!(rule(again(&bench, &text, &sig)), Rule::SerialUnknown);
    bench.accept(&text);
    bench.now = time("2030-01-01T00:00:00Z");
    bench.floors.latest_time = bench.now;
    assert_eq!(rule(bench.verify(&text, &sig)), Rule::Expired);
    assert!(again(&bench, &text, &sig).is_ok());
    let other = text.clone() + "# other\n";
    assert_eq!(rule(again(&bench, &other, &sig)), Rule::SigInvalid);
    assert_eq!(rule(again(&bench, &other, &bench.sign(&["alice"], &other))), Rule::SerialUnknown);
}

#[test]
fn a_refusal_tells_its_code_and_what_held_before_it() {
    let bench = Bench::new(1);
    let refused = refusal(bench.offer(&format!("{HEADER}audience = {{ arch = \"arm64\" }}\n")));
    let json = serde_json::to_value(&refused).expect("plain data");
    assert_eq!(json["rule"], "audience.arch");
    assert_eq!(json["passed"][8]["rule"], "sig.threshold");
    assert!(refused.to_string().starts_with("audience.arch: it is for arm64"), "{refused}");
}
