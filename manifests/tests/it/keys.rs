//! Real keys and signatures, made by `ssh-keygen` at test time. Where it is missing the tests fail.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bennu_manifests::PublicKey;
use tempfile::TempDir;

/// A directory of keys.
pub(crate) struct Keys(TempDir);

fn ssh_keygen(arguments: &[&str], stdin: Stdio) -> Vec<u8> {
    let output = Command::new("ssh-keygen").args(arguments).stdin(stdin).output();
    let output = output.expect("ssh-keygen is needed for this test (Debian's package is openssh-client)");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Keys {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a directory for keys"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The public line of the key `name` of this type, made where it is not there yet.
    pub(crate) fn line(&self, name: &str, key_type: &str) -> String {
        let path = self.path(name);
        if !path.exists() {
            let path = path.to_str().expect("a plain path");
            ssh_keygen(&["-q", "-t", key_type, "-N", "", "-C", name, "-f", path], Stdio::null());
        }
        fs::read_to_string(path.with_extension("pub")).expect("the public key").trim().to_owned()
    }

    /// An Ed25519 key.
    pub(crate) fn public(&self, name: &str) -> PublicKey {
        self.line(name, "ed25519").parse().expect("ssh-keygen writes keys that are read")
    }

    /// The armoured signature of the key `name` over `message`.
    pub(crate) fn sign(&self, name: &str, namespace: &str, message: &[u8]) -> Vec<u8> {
        self.line(name, "ed25519");
        let file = self.path("message");
        fs::write(&file, message).expect("a file to sign");
        let (key, input) = (self.path(name), fs::File::open(&file).expect("it was written"));
        let key = key.to_str().expect("a plain path");
        ssh_keygen(&["-q", "-Y", "sign", "-n", namespace, "-f", key], input.into())
    }
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    let keys = Keys::new();
    for key_type in ["ed25519", "ecdsa"] {
        let key: PublicKey = keys.line(key_type, key_type).parse().expect("a key");
        let path = keys.path(key_type);
        let shown = ssh_keygen(&["-l", "-f", path.to_str().expect("a plain path")], Stdio::null());
        assert!(String::from_utf8_lossy(&shown).contains(&key.fingerprint()));
    }
}
