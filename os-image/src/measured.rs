//! Measured boot: what a TPM will have seen when one of our boot images has started, signed, so that what is sealed to the signer is
//! given to any of them, and to nothing else.
//!
//! Keys live in a folder, beside those for Secure Boot if one likes:
//!
//! | file | what |
//! |---|---|
//! | `pcr.key`, `pcr.pub` | the private and public key (PEM, RSA of 2048 bits, which all TPMs know) |
//!
//! The boot image carries the signature and the public key as sections of its own, `.pcrsig` and `.pcrpkey` (UAPI group, Unified Kernel
//! Image); PCR 11 is where its stub measures all others to (UAPI group, Linux TPM PCR Registry).

use crate::BuildError;
use crate::base::Base;
use crate::command::{at, run};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The point of the boot at which what is sealed is given: before anything of the host's own runs, and at no later one
/// (`systemd-pcrphase-sysinit.service(8)`).
const PHASE: &str = "sysinit";

/// A folder with the key that measurements are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    folder: PathBuf,
}

impl Measured {
    /// The key in a folder.
    ///
    /// # Errors
    /// [`BuildError::Keys`] where a file is missing.
    pub fn of(folder: &Path) -> Result<Self, BuildError> {
        let measured = Self { folder: folder.to_owned() };
        let missing = ["pcr.key", "pcr.pub"].into_iter().find(|name| !folder.join(name).is_file());
        match missing {
            Some(name) => Err(BuildError::Keys { folder: folder.to_owned(), missing: name.to_owned() }),
            None => Ok(measured),
        }
    }

    /// Makes a key in a folder, which must not have one.
    ///
    /// # Errors
    /// Where there is one, or where a program fails.
    pub fn create(folder: &Path) -> Result<(), BuildError> {
        fs::create_dir_all(folder).map_err(at("make", folder))?;
        let measured = Self { folder: folder.to_owned() };
        let (key, public) = (measured.key(), measured.public());
        if key.exists() {
            return Err(at("replace the key", &key)(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut make = Command::new("openssl");
        run(make
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(&key))?;
        run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))
            .map(drop)
    }

    /// What `ukify` is told. What measures is a program of the root that is built, run on this machine; room for it is made in `work`.
    pub(crate) fn arguments(&self, base: &Base, work: &Path) -> Result<Vec<String>, BuildError> {
        let tools = work.join("measure");
        fs::create_dir(&tools).map_err(at("make", &tools))?;
        run(Command::new("tar")
            .current_dir(&tools)
            .args(["--extract", "--no-same-owner", "--file"])
            .arg(base.root())
            .args(["./usr/lib/systemd/systemd-measure", "./usr/lib/x86_64-linux-gnu"]))?;
        let program = tools.join("systemd-measure");
        // Of its own C library, whichever this machine has.
        let script = "#!/bin/sh\n\
            here=$(dirname \"$0\")/usr/lib; libraries=$here/x86_64-linux-gnu\n\
            exec \"$libraries/ld-linux-x86-64.so.2\" --library-path \"$libraries:$libraries/systemd\" \
            \"$here/systemd/systemd-measure\" \"$@\"\n";
        fs::write(&program, script).map_err(at("write", &program))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(at("write", &program))?;
        Ok(vec![
            format!("--pcr-private-key={}", self.key().display()),
            format!("--pcr-public-key={}", self.public().display()),
            "--pcr-banks=sha256".to_owned(),
            format!("--phases={PHASE}"),
            format!("--tools={}", tools.display()),
        ])
    }

    /// All that what is signed depends on, as parts of a key. The private key belongs to the public one.
    pub(crate) fn parts(&self) -> Result<Vec<Vec<u8>>, BuildError> {
        let public = self.public();
        Ok(vec![b"measured".to_vec(), PHASE.into(), fs::read(&public).map_err(at("read", &public))?])
    }

    fn key(&self) -> PathBuf {
        self.folder.join("pcr.key")
    }

    fn public(&self) -> PathBuf {
        self.folder.join("pcr.pub")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_what_is_missing_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = Measured::of(folder.path());
        assert!(matches!(missing, Err(BuildError::Keys { missing, .. }) if missing == "pcr.key"));
        Measured::create(folder.path()).expect("made");
        Measured::of(folder.path()).expect("complete");
        let key = fs::read(folder.path().join("pcr.key")).expect("there");
        Measured::create(folder.path()).expect_err("it is there");
        assert_eq!(fs::read(folder.path().join("pcr.key")).expect("there"), key);
    }
}
