//! A test of each refusal beside what is taken. The keys are made anew for each test.

use base64::prelude::{BASE64_STANDARD, Engine};
use bennu_manifests::model::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use super::bundle::pre_authentication_encoding;
use super::*;
use crate::policy::{MAX_KEYS, NotAPolicy, Policy, RequireError, decide, governing};

/// Somebody who signs.
enum Signer {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

impl Signer {
    fn ed25519() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random numbers");
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("just made"))
    }

    fn p256() -> Self {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("random numbers");
        Self::P256(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("just made"))
    }

    fn sign(&self, message: &[u8]) -> String {
        BASE64_STANDARD.encode(match self {
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Self::P256(key) => key.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec(),
        })
    }

    fn named(&self, name: &str) -> NamedKey {
        let (kind, parts): (_, Vec<&[u8]>) = match self {
            Self::Ed25519(key) => ("ssh-ed25519", vec![key.public_key().as_ref()]),
            Self::P256(key) => ("ecdsa-sha2-nistp256", vec![b"nistp256", key.public_key().as_ref()]),
        };
        NamedKey { name: name.to_owned(), key: ssh_key(kind, &parts) }
    }
}

fn ssh_key(kind: &str, parts: &[&[u8]]) -> PublicKey {
    let mut wire = Vec::new();
    for part in [&[kind.as_bytes()], parts].concat() {
        wire.extend((part.len() as u32).to_be_bytes());
        wire.extend(part);
    }
    format!("{kind} {}", BASE64_STANDARD.encode(wire)).parse().expect("a key")
}

fn image() -> ImageRef {
    ImageRef {
        registry: "registry.example:5000".to_owned(),
        repository: "team/web".to_owned(),
        tag: None,
        digest: Digest::of(b"the image"),
    }
}

fn payload(reference: &str, digest: &str, kind: &str) -> Vec<u8> {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind}"}},"optional":{{"creator":"x"}}}}"#
    )
    .into_bytes()
}

/// A sound payload for [`image`].
fn sound() -> Vec<u8> {
    payload("registry.example:5000/team/web", &image().digest.to_string(), "cosign container image signature")
}

fn simple(signer: &Signer, payload: Vec<u8>) -> Candidate {
    Candidate::Simple { signature: signer.sign(&payload), payload }
}

fn statement(digest: &str, predicate: &str) -> Vec<u8> {
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{digest}"}},"annotations":{{}}}}],"predicateType":"{predicate}","predicate":{{}}}}"#
    )
    .into_bytes()
}

fn sound_statement() -> Vec<u8> {
    let digest = image().digest.to_string();
    statement(digest.strip_prefix("sha256:").expect("SHA-256"), "https://sigstore.dev/cosign/sign/v1")
}

fn bundle_of(signers: &[&Signer], payload: &[u8], kind: &str) -> Candidate {
    let message = pre_authentication_encoding(kind, payload);
    let signatures: Vec<_> = signers.iter().map(|s| format!(r#"{{"sig":"{}"}}"#, s.sign(&message))).collect();
    let json = format!(
        r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{{"publicKey":{{"hint":"x"}}}},"dsseEnvelope":{{"payload":"{}","payloadType":"{kind}","signatures":[{}]}}}}"#,
        BASE64_STANDARD.encode(payload),
        signatures.join(",")
    );
    Candidate::Bundle(json.into_bytes())
}

fn bundle(signer: &Signer, payload: &[u8]) -> Candidate {
    bundle_of(&[signer], payload, "application/vnd.in-toto+json")
}

#[test]
fn signatures_of_both_kinds_of_keys_and_in_both_forms_count() {
    for signer in [Signer::ed25519(), Signer::p256()] {
        let keys = [signer.named("ana")];
        for candidate in [simple(&signer, sound()), bundle(&signer, &sound_statement())] {
            let found = signers(&image(), &[candidate], &keys);
            assert_eq!(found.names.into_iter().collect::<Vec<_>>(), ["ana"]);
            assert_eq!(found.unfit, []);
        }
    }
}

#[test]
fn a_tag_in_the_payload_and_the_names_of_docker_hub_do_not_matter() {
    let signer = Signer::p256();
    let (digest, kind) = (image().digest.to_string(), "cosign container image signature");
    let tagged = simple(&signer, payload("registry.example:5000/team/web:1.0", &digest, kind));
    assert_eq!(signers(&image(), &[tagged], &[signer.named("ana")]).names.len(), 1);
    let hub =
        ImageRef { registry: "docker.io".to_owned(), repository: "library/nginx".to_owned(), ..image() };
    let signed = simple(&signer, payload("index.docker.io/library/nginx", &digest, kind));
    assert_eq!(signers(&hub, &[signed], &[signer.named("ana")]).names.len(), 1);
}

/// What a trusted key signed, and why it does not count.
fn refused(make: impl Fn(&Signer) -> Candidate) -> Unfit {
    let signer = Signer::p256();
    let found = signers(&image(), &[make(&signer)], &[signer.named("ana")]);
    assert!(found.names.is_empty(), "it was taken");
    found.unfit.into_iter().next().expect("a reason")
}

#[test]
fn a_signature_for_another_image_or_repository_or_purpose_does_not_count() {
    let (digest, kind) = (image().digest.to_string(), "cosign container image signature");
    let other = Digest::of(b"another").to_string();
    let here = "registry.example:5000/team/web";
    assert!(matches!(refused(|s| simple(s, payload(here, &other, kind))), Unfit::OtherImage { .. }));
    for reference in [
        "registry.example:5000/team/web2",
        "registry.example:5000/team",
        "registry.example/team/web",
        "evil.example/team/web",
        "registry.example:5000/x/team/web",
    ] {
        let unfit = refused(|s| simple(s, payload(reference, &digest, kind)));
        assert!(matches!(unfit, Unfit::OtherRepository { .. }), "{reference}: {unfit:?}");
    }
    for reference in ["", "web", "Registry.example:5000/team/web"] {
        let unfit = refused(|s| simple(s, payload(reference, &digest, kind)));
        assert!(matches!(unfit, Unfit::Malformed { .. }), "{reference}: {unfit:?}");
    }
    for kind in ["", "atomic container signature", "cosign container image signature "] {
        assert!(
            matches!(refused(|s| simple(s, payload(here, &digest, kind))), Unfit::Purpose { .. }),
            "{kind}"
        );
    }
}

#[test]
fn a_payload_that_says_more_than_is_understood_or_says_it_twice_does_not_count() {
    let text = String::from_utf8(sound()).expect("text");
    for (from, to) in [
        (r#""critical":{"#, r#""critical":{"expires":"now","#),
        (r#""identity":{"#, r#""identity":{"other":"x","#),
        (r#""image":{"#, r#""image":{"docker-manifest-digest":"sha256:0","#),
        (r#"{"critical""#, r#"{"critical":{},"critical""#),
        (r#"{"critical""#, r#"{"more":1,"critical""#),
        (r#""creator":"x"}}"#, r#""creator":"x"}} x"#),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from} is not there");
        let unfit = refused(|s| simple(s, changed.clone().into_bytes()));
        assert!(matches!(unfit, Unfit::Malformed { .. }), "{changed}: {unfit:?}");
    }
}

#[test]
fn no_flipped_bit_of_a_payload_or_its_signature_counts() {
    let signer = Signer::p256();
    let keys = [signer.named("ana")];
    let (payload, signature) = (sound(), signer.sign(&sound()));
    let taken = |payload: &[u8], signature: &[u8]| {
        let signature = BASE64_STANDARD.encode(signature);
        let candidate = Candidate::Simple { payload: payload.to_vec(), signature };
        !signers(&image(), &[candidate], &keys).names.is_empty()
    };
    let signature = BASE64_STANDARD.decode(signature).expect("base64");
    assert!(taken(&payload, &signature));
    for bit in 0..payload.len() * 8 {
        let mut changed = payload.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!taken(&changed, &signature), "bit {bit} of the payload");
    }
    for bit in 0..signature.len() * 8 {
        let mut changed = signature.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!taken(&payload, &changed), "bit {bit} of the signature");
    }
}

#[test]
fn a_bundle_that_signs_something_else_off_does_not_count() {
    let digest = image().digest.to_string();
    let hex = digest.strip_prefix("sha256:").expect("SHA-256");
    let provenance = statement(hex, "https://slsa.dev/provenance/v1");
    assert!(matches!(refused(|s| bundle(s, &provenance)), Unfit::Purpose { .. }));
    let other = statement(&"0".repeat(64), "https://sigstore.dev/cosign/sign/v1");
    assert!(matches!(refused(|s| bundle(s, &other)), Unfit::OtherImage { .. }));
    let kind = refused(|s| bundle_of(&[s], &sound_statement(), "application/json"));
    assert!(matches!(kind, Unfit::Purpose { .. }));
    // The same bytes, signed as they are and not as DSSE wants it.
    let raw = refused(|s| {
        let Candidate::Bundle(json) = bundle(s, &sound_statement()) else { unreachable!() };
        let text = String::from_utf8(json).expect("text");
        let at = text.find(r#""sig":""#).expect("a signature") + 7;
        let end = at + text[at..].find('"').expect("its end");
        Candidate::Bundle(format!("{}{}{}", &text[..at], s.sign(&sound_statement()), &text[end..]).into())
    });
    assert_eq!(raw, Unfit::Stranger);
    for json in ["", "{}", r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#] {
        let unfit = refused(|_| Candidate::Bundle(json.as_bytes().to_vec()));
        assert!(matches!(unfit, Unfit::Malformed { .. }), "{json}: {unfit:?}");
    }
}

#[test]
fn strangers_and_what_is_too_large_do_not_count() {
    let eve = Signer::p256();
    assert_eq!(refused(|_| simple(&eve, sound())), Unfit::Stranger);
    assert_eq!(refused(|_| bundle(&eve, &sound_statement())), Unfit::Stranger);
    assert!(matches!(refused(|s| simple(s, vec![b' '; MAX_PAYLOAD + 1])), Unfit::TooLarge { .. }));
    assert!(matches!(refused(|_| Candidate::Bundle(vec![b' '; MAX_BUNDLE + 1])), Unfit::TooLarge { .. }));
    let long = Candidate::Simple { payload: sound(), signature: "A".repeat(MAX_SIGNATURE + 1) };
    assert!(matches!(refused(|_| long.clone()), Unfit::TooLarge { .. }));
    let junk = Candidate::Simple { payload: sound(), signature: "?".to_owned() };
    assert!(matches!(refused(|_| junk.clone()), Unfit::Malformed { .. }));
}

#[test]
fn distinct_keys_are_counted_and_a_bad_signature_takes_nothing_away() {
    let (ana, ben, eve) = (Signer::ed25519(), Signer::p256(), Signer::p256());
    let keys = vec![ana.named("ana"), ana.named("ana-again"), ben.named("ben")];
    let policy = Policy::new("registry.example:5000/team", keys, 2).expect("a policy");
    let junk = Candidate::Bundle(b"{".to_vec());
    let twice =
        [junk.clone(), simple(&ana, sound()), simple(&ana, sound()), bundle(&ana, &sound_statement())];
    let error = decide(&policy, &image(), &twice).expect_err("one key only");
    assert!(error.is_refusal() && !error.is_retryable());
    assert!(error.to_string().contains("2 of the keys for registry.example:5000/team, and has 1"), "{error}");
    assert!(matches!(error, RequireError::NotSigned { unfit, .. } if unfit.len() == 1));
    let both = [simple(&eve, sound()), junk, simple(&ana, sound()), simple(&ben, sound())];
    let signers = decide(&policy, &image(), &both).expect("two keys");
    assert_eq!(signers.into_iter().collect::<Vec<_>>(), ["ana", "ben"]);
    assert!(decide(&policy, &image(), &[]).is_err(), "nobody signed");
}

#[test]
fn the_longest_prefix_that_ends_with_a_part_of_the_name_governs() {
    let key = Signer::p256();
    let policy = |prefix: &str| Policy::new(prefix, vec![key.named("ana")], 1).expect(prefix);
    let policies = [
        policy("registry.example:5000"),
        policy("registry.example:5000/team/web"),
        policy("registry.example:5000/team"),
    ];
    let governs = |name: &str| {
        let (registry, repository) = name.split_once('/').expect("a name");
        let image = ImageRef { registry: registry.into(), repository: repository.into(), ..image() };
        governing(&policies, &image).map(|policy| policy.prefix().len())
    };
    let lengths = policies.each_ref().map(|policy| Some(policy.prefix().len()));
    assert_eq!(governs("registry.example:5000/team/web"), lengths[1]);
    assert_eq!(governs("registry.example:5000/team/web/x"), lengths[1]);
    assert_eq!(governs("registry.example:5000/team/web2"), lengths[2]);
    assert_eq!(governs("registry.example:5000/teams"), lengths[0]);
    assert_eq!(governs("registry.example:50001/team"), None);
    assert_eq!(governs("other.example/team"), None);
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    let key = Signer::p256().named("ana");
    let token = NamedKey {
        name: "token".to_owned(),
        key: ssh_key("sk-ssh-ed25519@openssh.com", &[&[7; 32], b"ssh:"]),
    };
    for prefix in
        ["", "team", "registry.example/", "registry.example/A", "registry.example/a:1", "/a", "r.e/a b"]
    {
        let made = Policy::new(prefix, vec![key.clone()], 1);
        assert!(matches!(made, Err(NotAPolicy::Prefix { .. })), "{prefix}: {made:?}");
    }
    let new =
        |keys, threshold| Policy::new("registry.example", keys, threshold).expect_err("it makes no sense");
    assert!(matches!(new(vec![], 1), NotAPolicy::Keys { found: 0 }));
    assert!(matches!(new(vec![key.clone(); MAX_KEYS + 1], 1), NotAPolicy::Keys { .. }));
    assert!(matches!(new(vec![key.clone()], 0), NotAPolicy::Threshold { .. }));
    assert!(matches!(new(vec![key.clone(), key.clone()], 2), NotAPolicy::Threshold { distinct: 1, .. }));
    assert!(matches!(new(vec![key, token], 1), NotAPolicy::Key { name } if name == "token"));
}
