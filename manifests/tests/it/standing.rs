//! What is said of gathered signatures agrees with what a host would say.

use bennu_manifests::{
    Floors, HostFacts, MANIFEST_NAMESPACE, Role, TRUST_NAMESPACE, check_trust, standing, verify,
};

use crate::samples::HEADER;
use crate::soft::{sign, trust};

fn names(names: &[bennu_manifests::model::Name]) -> Vec<&str> {
    names.iter().map(|name| name.as_str()).collect()
}

#[test]
fn who_has_signed_and_who_is_missing_is_told() {
    let trust = trust(4, &[("deploy", &["ana", "ben", "cleo"], 2), ("trust", &["ana"], 1)]);
    let of = |role, sig: &[u8]| {
        standing(role, HEADER.as_bytes(), sig, MANIFEST_NAMESPACE, &trust).expect("signatures")
    };
    let one = of(Role::Deploy, &sign(&["ben", "eve"], MANIFEST_NAMESPACE, HEADER));
    assert_eq!((one.trust_version, one.needed, one.enough), (4, Some(2), false));
    assert_eq!((names(&one.signed), names(&one.missing)), (vec!["ben"], vec!["ana", "cleo"]));
    assert!(of(Role::Deploy, &sign(&["ben", "cleo"], MANIFEST_NAMESPACE, HEADER)).enough);
    assert!(!of(Role::Deploy, b"").enough);
    let nobody = of(Role::Os, &sign(&["ana", "ben", "cleo"], MANIFEST_NAMESPACE, HEADER));
    assert_eq!((nobody.needed, nobody.enough), (None, false));
    let broken =
        [sign(&["ben", "cleo"], MANIFEST_NAMESPACE, HEADER), sign(&["ana"], TRUST_NAMESPACE, HEADER)];
    let broken = of(Role::Deploy, &broken.concat());
    assert_eq!((names(&broken.broken), broken.enough), (vec!["ana"], false));
    assert!(standing(Role::Deploy, b"", b"nonsense", MANIFEST_NAMESPACE, &trust).is_err());
}

/// Every set of up to four signers, good and bad.
#[test]
fn enough_is_what_a_host_would_accept() {
    let trust_text = crate::soft::trust_text(1, &[("deploy", &["ana", "ben", "cleo"], 2)]);
    let trust = check_trust(trust_text.as_bytes()).expect("a trust document");
    let now = "2026-04-01T00:00:00Z".parse().expect("a time");
    let parts: Vec<Vec<u8>> = vec![
        sign(&["ana"], MANIFEST_NAMESPACE, HEADER),
        sign(&["ben"], MANIFEST_NAMESPACE, HEADER),
        sign(&["eve"], MANIFEST_NAMESPACE, HEADER),
        sign(&["cleo"], TRUST_NAMESPACE, HEADER),
        sign(&["cleo"], MANIFEST_NAMESPACE, HEADER),
    ];
    let mut good = 0;
    for set in 0u32..1 << parts.len() {
        let sig: Vec<u8> =
            (0..parts.len()).filter(|at| set & (1 << at) != 0).flat_map(|at| parts[at].clone()).collect();
        let said = standing(Role::Deploy, HEADER.as_bytes(), &sig, MANIFEST_NAMESPACE, &trust);
        let host = HostFacts::default();
        let taken = verify(HEADER.as_bytes(), &sig, &trust, &Floors::default(), &host, now).is_ok();
        assert_eq!(said.expect("signatures").enough, taken, "set {set:b}");
        good += u32::from(taken);
    }
    assert_eq!(good, 8);
}
