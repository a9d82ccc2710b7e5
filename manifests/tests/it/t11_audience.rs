//! T11: a manifest for others has no effect here.

use bennu_manifests::{Floors, HostFacts, MANIFEST_NAMESPACE, NotAccepted, Rule, verify};

use crate::samples::HEADER;
use crate::soft::{sign, trust};

/// What refuses a manifest with this audience on an `amd64` host with the labels `fleet=north` and `site=attic`.
fn refused_by(audience: &str) -> Option<Rule> {
    let text = format!("{HEADER}audience = {audience}\n");
    let labels = [("fleet", "north"), ("site", "attic")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let host = HostFacts { arch: "amd64".to_owned(), labels: labels.into() };
    let sig = sign(&["ana"], MANIFEST_NAMESPACE, &text);
    let now = "2026-04-01T00:00:00Z".parse().expect("a time");
    let trust = trust(1, &[("deploy", &["ana"], 1)]);
    match verify(text.as_bytes(), &sig, &trust, &Floors::default(), &host, now) {
        Ok(_) => None,
        Err(NotAccepted::Refused(refusal)) => Some(refusal.rule),
        Err(NotAccepted::Invalid(invalid)) => panic!("{audience}: {invalid}"),
    }
}

#[test]
fn t11_audiences_that_the_host_belongs_to_are_served() {
    for audience in [
        "{}",
        "{ arch = \"amd64\" }",
        "{ labels = { site = \"attic\" } }",
        "{ arch = \"amd64\", labels = { fleet = \"north\", site = \"attic\" } }",
    ] {
        assert_eq!(refused_by(audience), None, "{audience}");
    }
}

#[test]
fn t11_none_of_12_wrong_audiences_is_served() {
    let wrong = [
        ("another architecture", "{ arch = \"arm64\" }", Rule::AudienceArch),
        ("a narrower one of the same family", "{ arch = \"386\" }", Rule::AudienceArch),
        ("another fleet", "{ labels = { fleet = \"south\" } }", Rule::AudienceLabels),
        ("another host", "{ labels = { host = \"h-17\" } }", Rule::AudienceLabels),
        (
            "the right fleet, another site",
            "{ labels = { fleet = \"north\", site = \"cellar\" } }",
            Rule::AudienceLabels,
        ),
        (
            "the right labels and one more",
            "{ labels = { fleet = \"north\", role = \"db\" } }",
            Rule::AudienceLabels,
        ),
        (
            "the right labels, another architecture",
            "{ arch = \"riscv64\", labels = { fleet = \"north\" } }",
            Rule::AudienceArch,
        ),
        ("a value that only begins alike", "{ labels = { fleet = \"northern\" } }", Rule::AudienceLabels),
        ("a value that ours begins", "{ labels = { fleet = \"nor\" } }", Rule::AudienceLabels),
        ("a value in capitals", "{ labels = { fleet = \"NORTH\" } }", Rule::AudienceLabels),
        ("a pattern", "{ labels = { fleet = \"*\" } }", Rule::AudienceLabels),
        ("label and value exchanged", "{ labels = { north = \"fleet\" } }", Rule::AudienceLabels),
    ];
    for (what, audience, rule) in wrong {
        assert_eq!(refused_by(audience), Some(rule), "{what}");
    }
}
