//! Keys and signatures, by plain `ssh-keygen`: what an operator without our tools would do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, IoContext, run};

/// The namespace of a manifest's signature.
pub const NAMESPACE: &str = "bennu-manifest";

/// A private key; the public one is beside it, with `.pub`.
#[derive(Debug, Clone)]
pub struct Key(pub PathBuf);

impl Key {
    /// Makes an ed25519 key without a passphrase.
    ///
    /// # Errors
    /// [`Error::Program`] where the file is there already.
    pub fn generate(path: &Path, comment: &str) -> Result<Self, Error> {
        let mut command = Command::new("ssh-keygen");
        run(command.args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(path))?;
        Ok(Self(path.to_owned()))
    }

    /// The file of the public key.
    pub fn public(&self) -> PathBuf {
        with_suffix(&self.0, ".pub")
    }

    /// Signs a file into `FILE.sig`, in place of what is there.
    ///
    /// # Errors
    /// [`Error::Program`] where `ssh-keygen` refuses.
    pub fn sign(&self, file: &Path) -> Result<(), Error> {
        let signature = signature(file);
        if signature.exists() {
            fs::remove_file(&signature).doing("remove", &signature)?;
        }
        let mut command = Command::new("ssh-keygen");
        run(command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(&self.0).arg(file)).map(drop)
    }
}

/// Where the signatures of a file are.
pub fn signature(file: &Path) -> PathBuf {
    with_suffix(file, ".sig")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_the_bytes_that_were_signed_and_no_others() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("host.toml");
        let key = Key::generate(&directory.path().join("key"), "someone").expect("a key");
        fs::write(&file, "serial = 1\n").expect("the directory is writable");
        key.sign(&file).expect("the first signature");
        key.sign(&file).expect("another one in its place");
        let check = |text: &str| {
            let public = fs::read_to_string(key.public()).expect("the public key");
            let signers = directory.path().join("signers");
            fs::write(&signers, format!("someone {public}")).expect("the directory is writable");
            let mut command = Command::new("sh");
            command.args([
                "-c",
                r#"printf %s "$1" | ssh-keygen -Y verify -n bennu-manifest -I someone -f "$2" -s "$3""#,
            ]);
            run(command.arg("sh").arg(text).arg(signers).arg(signature(&file)))
        };
        check("serial = 1\n").expect("these bytes were signed");
        check("serial = 2\n").expect_err("these were not");
    }
}
