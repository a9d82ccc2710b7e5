//! What must hold for any bytes at all that a host or an operator is given. A property that does not hold panics.
//!
//! ```text
//!  fuzz/corpus/TARGET ──┬─► cargo test: each kept input once, in tests/corpus.rs
//!                       └─► cargo xtask fuzz: libFuzzer goes on from them, src/bin/TARGET.rs
//! ```
//! An input that was found to break something is kept in the corpus of its target, named after what it broke.
//!
//! **Absent:** whether what is accepted is right. That is for the tests of each crate; here nothing panics, hangs, grows
//! without bound or shows what it must not.

pub mod images;

use std::collections::BTreeMap;

use bennu_image_store::cosign::{Candidate, NamedKey, signers};
use bennu_image_store::registry::document::{INDEX_TYPES, MANIFEST_TYPES, parse};
use bennu_import::{ComposeOptions, NoFiles};
use bennu_manifests::model::{Digest, ImageRef};
use bennu_manifests::{
    Invalid, MANIFEST_NAMESPACE, PublicKey, SshSignature, UnpinnedRef, check, check_trust, unpinned_images,
    verify_signature,
};
use jiff::Timestamp;

/// A target: its name, and what it does with an input. `src/bin` has a program of each name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 12] = [
    ("manifest", manifest),
    ("trust", trust),
    ("signatures", signatures),
    ("reference", reference),
    ("registry", registry),
    ("secret", secret),
    ("compose", compose),
    ("layer", images::layer),
    ("pull", images::pull),
    ("blob", images::blob),
    ("record", images::record),
    ("patch", images::patch),
];

/// A manifest, and the images that are to be pinned in it.
pub fn manifest(data: &[u8]) {
    if let Err(invalid) = check(data) {
        points_into(&invalid, data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match unpinned_images(text) {
        Ok(images) => {
            for image in images {
                assert!(text.get(image.span.clone()).is_some(), "{:?} is not in the text", image.span);
            }
        }
        Err(invalid) => points_into(&invalid, data),
    }
}

/// A trust document.
pub fn trust(data: &[u8]) {
    if let Err(invalid) = check_trust(data) {
        points_into(&invalid, data);
    }
}

/// Every fault lies in the text, and is shown without what would move a terminal's cursor.
fn points_into(invalid: &Invalid, data: &[u8]) {
    assert!(!invalid.errors.is_empty(), "refused without a reason");
    let Ok(text) = std::str::from_utf8(data) else { return };
    for fault in &invalid.errors {
        assert!(text.get(fault.span.clone()).is_some(), "{:?} is not in the text", fault.span);
        assert!(fault.line >= 1 && fault.column >= 1);
        assert!(fault.line <= 1 + text.bytes().filter(|b| *b == b'\n').count(), "line {}", fault.line);
    }
    let shown = invalid.render("f", text);
    assert!(shown.len() <= 256 << 10, "{} bytes are shown", shown.len());
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "a control character is shown");
    assert!(!shown.contains(['\u{202e}', '\u{2066}', '\u{200f}']), "a bidirectional character is shown");
}

/// A file of SSH signatures, and a line with a public key.
pub fn signatures(data: &[u8]) {
    if let Ok(found) = SshSignature::read_file(data) {
        for signature in &found {
            // Whether it holds is of no interest, for the message is none.
            let _ = verify_signature(signature.key(), MANIFEST_NAMESPACE, b"", signature);
        }
    }
    if let Some(key) = std::str::from_utf8(data).ok().and_then(|line| line.parse::<PublicKey>().ok()) {
        assert_eq!(key.to_string().parse::<PublicKey>().as_ref(), Ok(&key), "a key reads as another one");
    }
}

/// A reference to an image, pinned or not, and a digest.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<UnpinnedRef>() {
        assert_eq!(reference.to_string(), text, "a reference has one form");
        assert_eq!(
            reference.digest.is_some(),
            text.parse::<ImageRef>().is_ok(),
            "pinned means with a digest"
        );
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text, "a digest has one form");
    }
}

/// What a registry serves: manifests, indexes, configurations, signatures of images, and what it says of who may pull.
pub fn registry(data: &[u8]) {
    bennu_image_store::fuzzing::authentication(&String::from_utf8_lossy(data), data);
    for served in [None, Some(MANIFEST_TYPES[0]), Some(MANIFEST_TYPES[1]), Some(INDEX_TYPES[0])] {
        if let Err(error) = parse(data, served) {
            assert!(!error.to_string().contains(char::is_control), "a control character is shown");
        }
    }
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXXJ2dOar+m2w6HnhRRp5tHX8tzNRKG5ZRSKKS7TLLb";
    let keys = [NamedKey { name: "ana".to_owned(), key: line.parse().expect("a key") }];
    let image = ImageRef {
        registry: "registry.example".to_owned(),
        repository: "web".to_owned(),
        tag: None,
        digest: Digest::of(b""),
    };
    let simple =
        Candidate::Simple { payload: data.to_vec(), signature: String::from_utf8_lossy(data).into_owned() };
    let found = signers(&image, &[Candidate::Bundle(data.to_vec()), simple], &keys);
    assert!(found.names.is_empty(), "nobody has the private key");
    assert!(
        found.unfit.iter().all(|u| !u.to_string().contains(char::is_control)),
        "a control character is shown"
    );
}

/// A secret in its armour.
pub fn secret(data: &[u8]) {
    // The example of age's own documentation; nothing is encrypted for it but a few inputs of the corpus.
    const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
    let identity = bennu_secrets::Identity::from_file(IDENTITY).expect("an identity");
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(secret) = bennu_secrets::open(&identity, text)
    {
        assert!(secret.len() <= bennu_secrets::MAX_SECRET);
    }
}

/// A Compose file: what it becomes is TOML that can be laid out again, whatever else it is.
pub fn compose(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let options = ComposeOptions {
        file: "compose.yml".to_owned(),
        name: None,
        project: "demo".to_owned(),
        now: Timestamp::UNIX_EPOCH,
        environment: BTreeMap::new(),
    };
    if let Ok(imported) = bennu_import::compose(text, &options, &NoFiles)
        && let Err(error) = bennu_import::layout(&imported.manifest, "f")
    {
        panic!("what was written is no TOML: {error}\n{}", imported.manifest);
    }
}

/// Breaks on one word, which can only be found letter by letter. `cargo xtask fuzz` runs it to see that breakage is
/// found.
pub fn canary(data: &[u8]) {
    for (place, letter) in b"ash".iter().enumerate() {
        if data.get(place) != Some(letter) {
            return;
        }
    }
    panic!("the canary was found");
}
