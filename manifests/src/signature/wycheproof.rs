//! The vectors of Project Wycheproof, through the form that keys and signatures have in SSH.
//!
//! SSHSIG wraps a message before it is signed, so a vector, which was signed bare, cannot be put into a file of
//! signatures. All else is the code that hosts run: the reading of the key and of the signature, and the arithmetic.

use super::{Scheme, holds};
use crate::key::{ECDSA_P256, ED25519, PublicKey};
use crate::wire::put_string;

/// One vector, and whether it is to hold.
struct Vector {
    number: usize,
    valid: bool,
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

fn vectors(file: &str) -> Vec<Vector> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [number, result, key, message, signature] =
                line.split(' ').collect::<Vec<_>>()[..].try_into().expect("five columns");
            let valid = match result {
                "valid" => true,
                "invalid" => false,
                other => panic!("{other}"),
            };
            let number = number.parse().expect("a number");
            Vector { number, valid, key: hex(key), message: hex(message), signature: hex(signature) }
        })
        .collect()
}

fn hex(digits: &str) -> Vec<u8> {
    if digits == "-" {
        return Vec::new();
    }
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// Whether the key in these fields and the signature in this form hold for the bare message.
fn verifies(key_fields: &[&[u8]], key_type: &str, signature: &[u8], message: &[u8]) -> bool {
    let (mut key, mut inner) = (Vec::new(), Vec::new());
    put_string(&mut key, key_type.as_bytes());
    key_fields.iter().for_each(|field| put_string(&mut key, field));
    put_string(&mut inner, key_type.as_bytes());
    put_string(&mut inner, signature);
    let Ok(key) = PublicKey::from_wire(&key) else { return false };
    Scheme::from_wire(&inner, &key).is_ok_and(|scheme| holds(&key, &scheme, message))
}

fn p256_verifies(vector: &Vector, r: &[u8], s: &[u8]) -> bool {
    let mut numbers = Vec::new();
    put_string(&mut numbers, &mpint(r));
    put_string(&mut numbers, &mpint(s));
    verifies(&[b"nistp256", &vector.key], ECDSA_P256, &numbers, &vector.message)
}

/// A number of any size in its shortest form (RFC 4251, section 5).
fn mpint(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let sign = bytes.get(start).is_some_and(|first| first & 0x80 != 0);
    [if sign { &[0][..] } else { &[] }, &bytes[start..]].concat()
}

#[test]
fn ed25519_agrees_with_all_151_wycheproof_vectors() {
    let vectors = vectors(include_str!("../../tests/wycheproof/ed25519.txt"));
    assert_eq!((vectors.len(), vectors.iter().filter(|v| v.valid).count()), (151, 88));
    for v in vectors {
        assert_eq!(verifies(&[&v.key], ED25519, &v.signature, &v.message), v.valid, "vector {}", v.number);
    }
}

/// Signatures as two numbers of 32 bytes. One of another length has no form in SSH, and none of them is valid.
#[test]
fn p256_agrees_with_all_262_wycheproof_vectors_of_plain_numbers() {
    let vectors = vectors(include_str!("../../tests/wycheproof/p256-p1363.txt"));
    assert_eq!((vectors.len(), vectors.iter().filter(|v| v.valid).count()), (262, 173));
    for v in vectors {
        let even = v.signature.len() % 2 == 0;
        let (r, s) = v.signature.split_at(v.signature.len() / 2);
        let found = even && r.len() == 32 && p256_verifies(&v, r, s);
        assert_eq!(found, v.valid, "vector {}", v.number);
    }
}

/// Signatures in DER. SSH has its own form of the numbers; those whose DER is sound are brought into it, the others are
/// about reading DER, which nothing here does.
#[test]
fn p256_agrees_with_all_wycheproof_vectors_whose_numbers_can_be_told() {
    let vectors = vectors(include_str!("../../tests/wycheproof/p256-der.txt"));
    assert_eq!((vectors.len(), vectors.iter().filter(|v| v.valid).count()), (484, 174));
    let mut told = 0;
    for v in vectors {
        let Some((r, s)) = der(&v.signature) else {
            assert!(!v.valid, "vector {} is valid, and its numbers were not found", v.number);
            continue;
        };
        told += 1;
        assert_eq!(p256_verifies(&v, r, s), v.valid, "vector {}", v.number);
    }
    assert!(told > 200, "{told}");
}

/// The two positive integers of a sequence in DER (X.690, sections 8.3, 8.9 and 10.1).
fn der(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, rest) = element(bytes, 0x30)?;
    let (r, after) = element(body, 2)?;
    let (s, end) = element(after, 2)?;
    let sound = |n: &[u8]| match n {
        [] => false,
        [0, second, ..] => second & 0x80 != 0,
        [first, ..] => first & 0x80 == 0,
    };
    (rest.is_empty() && end.is_empty() && sound(r) && sound(s)).then_some((r, s))
}

fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    match bytes {
        [found, length, rest @ ..] if *found == tag && *length < 0x80 => {
            rest.split_at_checked(usize::from(*length))
        }
        _ => None,
    }
}
