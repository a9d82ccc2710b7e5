//! T8: trust documents follow each other one by one, whoever hands them over in whatever order, or keeps some back.

use bennu_manifests::{
    Floors, MANIFEST_NAMESPACE, MAX_HOPS, NotAccepted, Rule, TRUST_NAMESPACE, Trust, check_trust,
    verify_trust_chain,
};
use jiff::Timestamp;

use crate::soft::{Holders, sign, trust_text};

fn now() -> Timestamp {
    "2026-04-01T00:00:00Z".parse().expect("a time")
}

/// One document of a chain: its version, whose it is, and who has signed it.
#[derive(Clone)]
struct Link {
    version: u64,
    owners: &'static [&'static str],
    threshold: usize,
    signers: &'static [&'static str],
    expires: Option<&'static str>,
    namespace: &'static str,
}

const fn link(version: u64, owners: &'static [&'static str], signers: &'static [&'static str]) -> Link {
    Link { version, owners, threshold: 1, signers, expires: None, namespace: TRUST_NAMESPACE }
}

impl Link {
    fn of(self, threshold: usize) -> Self {
        Self { threshold, ..self }
    }

    fn until(self, expires: &'static str) -> Self {
        Self { expires: Some(expires), ..self }
    }

    fn text(&self) -> String {
        let roles: [Holders<'_>; 2] = [("deploy", &["dana"], 1), ("trust", self.owners, self.threshold)];
        let text = trust_text(self.version, &roles);
        let expires = self.expires.map(|when| format!("expires = {when}\nversion"));
        text.replacen("version", expires.as_deref().unwrap_or("version"), 1)
    }

    fn sig(&self) -> Vec<u8> {
        sign(self.signers, self.namespace, &self.text())
    }
}

/// The version that is in force in the end; or which document was refused, from 1, and by which rule.
type End = Result<u64, (usize, Rule)>;

/// Where the chain ends on a host that has `current`: the version that is in force then, or where it was refused and why.
fn end(current: &Link, links: &[Link]) -> End {
    end_with(current, links, &Floors { trust_version: current.version, ..Floors::default() })
}

fn end_with(current: &Link, links: &[Link], floors: &Floors) -> End {
    let current: Trust = check_trust(current.text().as_bytes()).expect("a trust document");
    let links: Vec<(String, Vec<u8>)> = links.iter().map(|link| (link.text(), link.sig())).collect();
    let links: Vec<(&[u8], &[u8])> = links.iter().map(|(text, sig)| (text.as_bytes(), &sig[..])).collect();
    match verify_trust_chain(&current, &links, floors, now()) {
        Ok(taken) => Ok(taken.newest().version),
        Err(refused) => match refused.reason {
            NotAccepted::Refused(refusal) => Err((refused.hop, refusal.rule)),
            NotAccepted::Invalid(invalid) => panic!("link {}: {invalid}", refused.hop),
        },
    }
}

const A: &[&str] = &["ana"];
const B: &[&str] = &["ben"];
const AB: &[&str] = &["ana", "ben"];
const BC: &[&str] = &["ben", "cleo"];
const ABC: &[&str] = &["ana", "ben", "cleo"];
const PAST: &str = "2026-03-01T00:00:00Z";
const FUTURE: &str = "2026-09-01T00:00:00Z";

#[test]
fn t08_25_rotations_end_where_they_should() {
    use Rule::{
        SigMissing, SigNamespace, SigThreshold, SigUntrusted, TrustChain, TrustExpired, TrustVersion,
    };
    let start = link(1, A, A);
    let (pair, fifth) = (link(1, AB, AB).of(2), link(5, A, A));
    let other_purpose = Link { namespace: MANIFEST_NAMESPACE, ..link(2, A, A) };
    let graphs: Vec<(&str, &Link, Vec<Link>, End)> = vec![
        ("one step", &start, vec![link(2, A, A)], Ok(2)),
        ("three steps", &start, vec![link(2, A, A), link(3, A, A), link(4, A, A)], Ok(4)),
        ("to another key", &start, vec![link(2, B, AB)], Ok(2)),
        ("there and back", &start, vec![link(2, B, AB), link(3, A, AB)], Ok(3)),
        ("handed on from key to key", &start, vec![link(2, AB, AB).of(2), link(3, B, AB)], Ok(3)),
        ("threshold raised", &start, vec![link(2, ABC, ABC).of(3)], Ok(2)),
        ("threshold lowered by enough", &pair, vec![link(2, A, AB)], Ok(2)),
        ("threshold lowered by too few", &pair, vec![link(2, A, A)], Err((1, SigThreshold))),
        ("one of two replaced, signed by both sides", &pair, vec![link(2, BC, ABC).of(2)], Ok(2)),
        (
            "one of two replaced, without the one that goes",
            &pair,
            vec![link(2, BC, BC).of(2)],
            Err((1, SigThreshold)),
        ),
        (
            "one of two replaced, without the one that comes",
            &pair,
            vec![link(2, BC, AB).of(2)],
            Err((1, SigThreshold)),
        ),
        ("skipped version", &start, vec![link(3, A, A)], Err((1, TrustVersion))),
        ("a gap further on", &start, vec![link(2, A, A), link(4, A, A)], Err((2, TrustVersion))),
        ("the same version again", &start, vec![link(1, A, A)], Err((1, TrustVersion))),
        ("an older version", &fifth, vec![link(4, A, A)], Err((1, TrustVersion))),
        (
            "the right ones in the wrong order",
            &start,
            vec![link(3, A, A), link(2, A, A)],
            Err((1, TrustVersion)),
        ),
        ("one of them twice", &start, vec![link(2, A, A), link(2, A, A)], Err((2, TrustVersion))),
        ("taken over by its own new key", &start, vec![link(2, B, B)], Err((1, SigUntrusted))),
        ("new key has not agreed", &start, vec![link(2, B, A)], Err((1, SigUntrusted))),
        ("evicted key signs on", &start, vec![link(2, B, AB), link(3, A, A)], Err((2, SigUntrusted))),
        ("unsigned", &start, vec![link(2, A, &[])], Err((1, SigMissing))),
        ("signed as a manifest", &start, vec![other_purpose], Err((1, SigNamespace))),
        ("the newest is kept back", &start, vec![link(2, A, A).until(FUTURE)], Ok(2)),
        (
            "the newest is kept back until the others expire",
            &start,
            vec![link(2, A, A).until(PAST)],
            Err((1, TrustExpired)),
        ),
        ("nothing at all", &start, vec![], Err((0, TrustChain))),
    ];
    assert_eq!(graphs.len(), 25);
    for (what, current, links, expect) in graphs {
        assert_eq!(end(current, &links), expect, "{what}");
    }
}

#[test]
fn t08_documents_on_the_way_may_have_expired_the_last_may_not() {
    let start = link(1, A, A).until(PAST);
    let on_the_way = |last: &'static str| {
        [link(2, B, AB).until(PAST), link(3, B, B).until(PAST), link(4, A, AB).until(last)]
    };
    assert_eq!(end(&start, &on_the_way(FUTURE)), Ok(4));
    assert_eq!(end(&start, &on_the_way(PAST)), Err((3, Rule::TrustExpired)));
    // By the time that is known, whatever the clock says.
    let floors = Floors { latest_time: FUTURE.parse().expect("a time"), ..Floors::default() };
    assert_eq!(end_with(&start, &on_the_way(FUTURE), &floors), Err((3, Rule::TrustExpired)));
}

#[test]
fn t08_a_chain_without_end_is_refused_before_it_is_followed() {
    let start = link(1, A, A);
    let chain = |hops: u64| (2..2 + hops).map(|version| link(version, A, A)).collect::<Vec<_>>();
    let most = MAX_HOPS as u64;
    assert_eq!(end(&start, &chain(most)), Ok(1 + most));
    assert_eq!(end(&start, &chain(most + 1)), Err((0, Rule::TrustChain)));
    // Split in two it is followed, so a host is never too late.
    assert_eq!(end(&link(1 + most, A, A), &[link(2 + most, A, A)]), Ok(2 + most));
}

#[test]
fn t08_a_document_below_the_floor_leads_nowhere() {
    let floors = Floors { trust_version: 3, ..Floors::default() };
    assert_eq!(end_with(&link(2, A, A), &[link(3, A, A)], &floors), Err((0, Rule::TrustVersion)));
    assert_eq!(end_with(&link(3, A, A), &[link(4, A, A)], &floors), Ok(4));
}

#[test]
fn t08_no_byte_of_a_link_is_parsed_before_the_keys_before_it_have_signed() {
    let current = check_trust(link(1, A, A).text().as_bytes()).expect("a trust document");
    let nonsense = "not a trust document";
    let take = |names: &[&str]| {
        let sig = sign(names, TRUST_NAMESPACE, nonsense);
        let links: [(&[u8], &[u8]); 1] = [(nonsense.as_bytes(), &sig)];
        verify_trust_chain(&current, &links, &Floors::default(), now()).expect_err("it is none").reason
    };
    assert!(matches!(take(B), NotAccepted::Refused(refusal) if refusal.rule == Rule::SigUntrusted));
    assert!(matches!(take(A), NotAccepted::Invalid(_)));
}
