//! Damage of every kind to what was signed and to its signature: none of it is accepted.

use bennu_manifests::{
    BadSignature, Floors, HostFacts, MANIFEST_NAMESPACE, PublicKey, SshSignature, check_trust, verify,
    verify_signature,
};

use crate::keys::Keys;
use crate::samples::{HEADER, full};
use crate::soft::{APPLICATION, Soft};
use crate::trust;

#[test]
fn t02_every_bit_flip_of_a_2_kb_manifest_is_refused() {
    let keys = Keys::new();
    let trust = trust::document(&keys, 1, &["alice"], 1, 1);
    let trust = check_trust(trust.as_bytes()).expect("a trust document");
    let labels =
        [("site", "attic"), ("example.org/ring", "early")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let host = HostFacts { arch: "amd64".to_owned(), labels: labels.into() };
    let now = "2026-04-01T00:00:00Z".parse().expect("a time");
    let text = full() + &format!("# {}\n", "padding ".repeat(80));
    let sig = keys.sign("alice", MANIFEST_NAMESPACE, text.as_bytes());
    let accepted = |bytes: &[u8]| verify(bytes, &sig, &trust, &Floors::default(), &host, now).is_ok();
    let mut bytes = text.into_bytes();
    assert!(bytes.len() > 2000, "{} bytes", bytes.len());
    assert!(accepted(&bytes));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(!accepted(&bytes), "bit {bit} of byte {at}");
            bytes[at] ^= 1 << bit;
        }
    }
    assert!(!accepted(&bytes[..bytes.len() - 1]));
    assert!(accepted(&bytes));
}

fn holds(key: &PublicKey, message: &[u8], file: &[u8]) -> bool {
    let Ok(signatures) = SshSignature::read_file(file) else { return false };
    !signatures.is_empty()
        && signatures.iter().all(|sig| verify_signature(key, MANIFEST_NAMESPACE, message, sig).is_ok())
}

#[test]
fn t02_every_other_value_of_every_byte_of_a_signature_is_refused() {
    let keys = Keys::new();
    for key_type in ["ed25519", "ecdsa"] {
        let key: PublicKey = keys.line(key_type, key_type).parse().expect("a key");
        let message = b"a message";
        let mut file = keys.sign(key_type, MANIFEST_NAMESPACE, message);
        assert!(holds(&key, message, &file), "{key_type}");
        assert!(!holds(&key, b"another message", &file), "{key_type}");
        for at in 0..file.len() {
            let byte = file[at];
            for other in (0..=255).filter(|other| *other != byte) {
                file[at] = other;
                assert!(!holds(&key, message, &file), "{key_type}: byte {at} as {other}");
            }
            file[at] = byte;
        }
        for cut in 0..file.len() {
            assert!(!holds(&key, message, &file[..cut]), "{key_type}: {cut} bytes of it");
        }
    }
}

#[test]
fn a_signature_is_for_one_key_one_purpose_and_one_message() {
    let keys = Keys::new();
    let (alice, bob) = (keys.public("alice"), keys.public("bob"));
    let file = keys.sign("alice", MANIFEST_NAMESPACE, b"message");
    let [sig] = &SshSignature::read_file(&file).expect("it is sound")[..] else { panic!("one signature") };
    assert_eq!((sig.key(), sig.namespace()), (&alice, MANIFEST_NAMESPACE));
    assert_eq!(verify_signature(&alice, MANIFEST_NAMESPACE, b"message", sig), Ok(()));
    assert_eq!(verify_signature(&bob, MANIFEST_NAMESPACE, b"message", sig), Err(BadSignature::OtherKey));
    assert_eq!(verify_signature(&alice, MANIFEST_NAMESPACE, b"massage", sig), Err(BadSignature::Mismatch));
    let namespace = verify_signature(&alice, "other", b"message", sig);
    assert!(matches!(namespace, Err(BadSignature::Namespace { .. })), "{namespace:?}");
}

#[test]
fn keys_and_hashes_that_are_not_taken_are_refused() {
    let keys = Keys::new();
    let rsa = keys.line("rsa", "rsa");
    assert!(rsa.parse::<PublicKey>().is_err());
    assert!(SshSignature::read_file(&keys.sign("rsa", MANIFEST_NAMESPACE, b"message")).is_err());
}

/// A file of several signatures, all of them needed; one of a token, whose flags and counter can flip, too.
#[test]
fn t02_every_bit_flip_of_a_signature_file_of_three_kinds_of_keys_is_refused() {
    let signers =
        [("ana", Soft::new("ana")), ("ben", Soft::p256()), ("cleo", Soft::new("cleo").on_token(APPLICATION))];
    let keys: String =
        signers.iter().map(|(name, key)| format!("[key.{name}]\npublic = \"{}\"\n", key.line())).collect();
    let trust = format!(
        "schema = 1\nversion = 1\n{keys}[role.deploy]\nkeys = [\"ana\", \"ben\", \"cleo\"]\nthreshold = 3\n"
    );
    let trust = check_trust(trust.as_bytes()).expect("a trust document");
    let (text, now) = (HEADER.as_bytes(), "2026-04-01T00:00:00Z".parse().expect("a time"));
    let accepted =
        |sig: &[u8]| verify(text, sig, &trust, &Floors::default(), &HostFacts::default(), now).is_ok();
    let mut sig: Vec<u8> = signers.iter().flat_map(|(_, key)| key.sign(MANIFEST_NAMESPACE, text)).collect();
    assert!(accepted(&sig));
    for at in 0..sig.len() {
        for bit in 0..8 {
            sig[at] ^= 1 << bit;
            assert!(!accepted(&sig), "bit {bit} of byte {at}");
            sig[at] ^= 1 << bit;
        }
    }
    assert!(accepted(&sig));
}
