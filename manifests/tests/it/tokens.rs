//! Signatures of hardware tokens, made by software that stands in for one, and judged by OpenSSH besides.

use std::fs;
use std::process::{Command, Stdio};

use bennu_manifests::{BadSignature, MANIFEST_NAMESPACE, SshSignature, verify_signature};

use crate::soft::{APPLICATION, Says, Soft, TOUCHED};

const MESSAGE: &[u8] = b"what is signed";

fn tokens() -> [(&'static str, Soft); 2] {
    [
        ("sk-ssh-ed25519", Soft::new("token").on_token(APPLICATION)),
        ("sk-ecdsa-sha2-nistp256", Soft::p256().on_token(APPLICATION)),
    ]
}

fn verify(key: &Soft, file: &[u8]) -> Result<(), BadSignature> {
    let [sig] = &SshSignature::read_file(file).expect("it is sound")[..] else { panic!("one signature") };
    verify_signature(&key.public(), MANIFEST_NAMESPACE, MESSAGE, sig)
}

/// Whether OpenSSH takes it.
fn openssh_takes(key: &Soft, file: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("signers"), format!("someone {}\n", key.line())).expect("written");
    fs::write(path("sig"), file).expect("written");
    fs::write(path("message"), MESSAGE).expect("written");
    let message = fs::File::open(path("message")).expect("it was written");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-Y", "verify", "-I", "someone", "-n", MANIFEST_NAMESPACE]);
    command.arg("-f").arg(path("signers")).arg("-s").arg(path("sig")).stdin(message);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.expect("ssh-keygen is needed for this test (Debian's package is openssh-client)").success()
}

#[test]
fn every_kind_of_key_is_taken_here_as_by_openssh() {
    let plain = [("ssh-ed25519", Soft::new("plain")), ("ecdsa-sha2-nistp256", Soft::p256())];
    for (kind, key) in plain.into_iter().chain(tokens()) {
        let mut file = key.sign(MANIFEST_NAMESPACE, MESSAGE);
        assert_eq!(verify(&key, &file), Ok(()), "{kind}");
        assert!(openssh_takes(&key, &file), "{kind}");
        let other = key.sign(MANIFEST_NAMESPACE, b"something else");
        assert_eq!(verify(&key, &other), Err(BadSignature::Mismatch), "{kind}");
        assert!(!openssh_takes(&key, &other), "{kind}");
        file.truncate(file.len() - 1);
        assert!(SshSignature::read_file(&file).is_err(), "{kind}");
    }
}

#[test]
fn a_token_counts_only_when_its_user_touched_it_and_it_said_so_itself() {
    let says = |flags, counter| Says { flags, counter };
    for (kind, key) in tokens() {
        let saying = |signed, told| verify(&key, &key.sign_saying(MANIFEST_NAMESPACE, MESSAGE, signed, told));
        assert_eq!(saying(says(1, 0), says(1, 0)), Ok(()), "{kind}: touched");
        assert_eq!(saying(says(5, u32::MAX), says(5, u32::MAX)), Ok(()), "{kind}: touched, PIN given");
        assert_eq!(saying(says(0, 7), says(0, 7)), Err(BadSignature::NoUserPresence), "{kind}: no touch");
        assert_eq!(saying(says(4, 7), says(4, 7)), Err(BadSignature::NoUserPresence), "{kind}: PIN only");
        assert_eq!(saying(says(0, 7), says(1, 7)), Err(BadSignature::Mismatch), "{kind}: touch made up");
        assert_eq!(saying(says(1, 7), says(5, 7)), Err(BadSignature::Mismatch), "{kind}: PIN made up");
        assert_eq!(saying(says(1, 7), says(1, 8)), Err(BadSignature::Mismatch), "{kind}: counter changed");
        let extended = key.sign_saying(MANIFEST_NAMESPACE, MESSAGE, says(0x81, 7), says(0x81, 7));
        assert!(SshSignature::read_file(&extended).is_err(), "{kind}: extension data announced");
    }
}

#[test]
fn a_token_signs_for_the_application_of_its_key_only() {
    let pairs = [
        (Soft::new("token").on_token("ssh:fleet"), Soft::new("token").on_token(APPLICATION)),
        (Soft::new("token").on_token(APPLICATION), Soft::new("token").on_token("ssh:fleet")),
    ];
    for (signer, key) in pairs {
        let file = signer.sign(MANIFEST_NAMESPACE, MESSAGE);
        assert_eq!(verify(&key, &file), Err(BadSignature::OtherKey));
        assert_eq!(verify(&signer, &file), Ok(()));
    }
    // What a website makes a token sign is for that website's name.
    let website = Soft::new("token").on_token("https://example.org");
    assert!(SshSignature::read_file(&website.sign(MANIFEST_NAMESPACE, MESSAGE)).is_err());
}

#[test]
fn a_token_and_a_plain_key_with_one_secret_are_one_signer() {
    let (plain, token) = (Soft::new("same"), Soft::new("same").on_token(APPLICATION));
    assert_ne!(plain.public(), token.public());
    assert_eq!(plain.public().material(), token.public().material());
    // And what the one signed is nothing that the other did.
    let file = plain.sign_saying(MANIFEST_NAMESPACE, MESSAGE, TOUCHED, TOUCHED);
    assert_eq!(verify(&token, &file), Err(BadSignature::OtherKey));
}
