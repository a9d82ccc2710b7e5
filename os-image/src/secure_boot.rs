//! Secure Boot: the firmware starts nothing that is not signed by a key that the machine's owner has put into it.
//!
//! Keys live in a folder, with the names that are usual:
//!
//! | file | what |
//! |---|---|
//! | `db.key`, `db.crt` | the private key and certificate (PEM) that boot programs are signed with |
//! | `PK.auth`, `KEK.auth`, `db.auth` | what is put into firmware that has no owner yet (UEFI specification 2.10, section 32.3), all or none |
//! | `PK.key`, `PK.crt`, `KEK.key`, `KEK.crt` | what signs changes of them; not needed here, and best kept elsewhere |
//!
//! Whoever needs certificates of others in `db` (drivers on cards are signed by Microsoft's) makes the `.auth` files with tools of
//! their own.

use crate::BuildError;
use crate::command::{at, run};
use bennu_image_store::sha256;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variables in the order in which firmware takes them: after `PK` it wants each change signed.
const VARIABLES: [&str; 3] = ["db", "KEK", "PK"];
/// Who signs a change of a variable.
const SIGNER: [&str; 3] = ["KEK", "PK", "PK"];
/// The time of the variables that are made here. Firmware takes a change with a later one only.
const TIME: &str = "2025-01-01 00:00:00";
/// How long certificates are good for, in days. Firmware does not look at the clock; other programs do.
const DAYS: &str = "3650";

/// When a boot loader puts the keys into firmware that has no owner (systemd-boot, `loader.conf(5)`, `secure-boot-enroll`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enroll {
    /// In virtual machines, where nothing can be lost.
    InVirtualMachines,
    /// Everywhere. A machine with a card whose driver is signed by somebody else may not start any more.
    Everywhere,
}

/// A folder of keys that boot programs are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureBoot {
    folder: PathBuf,
    enroll: Enroll,
    enrolls: bool,
}

impl SecureBoot {
    /// The keys in a folder.
    ///
    /// # Errors
    /// [`BuildError::Keys`] where a file is missing that is needed.
    pub fn of(folder: &Path, enroll: Enroll) -> Result<Self, BuildError> {
        let there = |name: &str| folder.join(name).is_file();
        let missing = |name: &str| BuildError::Keys { folder: folder.to_owned(), missing: name.to_owned() };
        if let Some(name) = ["db.key", "db.crt"].into_iter().find(|name| !there(name)) {
            return Err(missing(name));
        }
        let files = VARIABLES.map(|name| format!("{name}.auth"));
        let enrolls = files.iter().any(|name| there(name));
        match files.iter().find(|name| !there(name)) {
            Some(name) if enrolls => Err(missing(name)),
            _ => Ok(Self { folder: folder.to_owned(), enroll, enrolls }),
        }
    }

    /// Makes keys in a folder, which must not have any: each of the three with a certificate of its own (RSA of 2048 bits, which all
    /// firmware knows). `owner` is what certificates are called.
    ///
    /// # Errors
    /// Where there are keys, or where a program fails.
    pub fn create(folder: &Path, owner: &str) -> Result<(), BuildError> {
        fs::create_dir_all(folder).map_err(at("make", folder))?;
        let file = |name: &str, kind: &str| folder.join(format!("{name}.{kind}"));
        if let Some(path) = VARIABLES.iter().map(|name| file(name, "key")).find(|path| path.exists()) {
            return Err(at("replace the key", &path)(std::io::ErrorKind::AlreadyExists.into()));
        }
        // Whose entry it is in the firmware's lists: any number that is not somebody else's.
        let owner_id = uuid(&sha256::digest(owner.as_bytes()).hex());
        for name in VARIABLES {
            let subject = format!("/CN={} {name}/", owner.replace(['/', '\\'], " "));
            run(Command::new("openssl")
                .args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", DAYS])
                .args(["-subj", &subject, "-keyout"])
                .arg(file(name, "key"))
                .arg("-out")
                .arg(file(name, "crt")))?;
        }
        for (name, signer) in VARIABLES.into_iter().zip(SIGNER) {
            let list = file(name, "esl");
            let mut make = Command::new("cert-to-efi-sig-list");
            run(make.args(["-g", &owner_id]).arg(file(name, "crt")).arg(&list))?;
            run(Command::new("sign-efi-sig-list")
                .args(["-t", TIME, "-g", &owner_id, "-k"])
                .arg(file(signer, "key"))
                .arg("-c")
                .arg(file(signer, "crt"))
                .arg(name)
                .arg(&list)
                .arg(file(name, "auth")))?;
            fs::remove_file(&list).map_err(at("remove", &list))?;
        }
        Ok(())
    }

    /// Signs a boot program in place.
    pub(crate) fn sign(&self, program: &Path) -> Result<(), BuildError> {
        let signed = program.with_extension("signed");
        // The signature tells when it was made. At one time for all, equal programs stay equal.
        run(Command::new("faketime")
            .env("TZ", "UTC")
            .args(["-f", TIME, "sbsign", "--key"])
            .arg(self.folder.join("db.key"))
            .arg("--cert")
            .arg(self.certificate())
            .arg("--output")
            .arg(&signed)
            .arg(program))?;
        // That key and certificate belong together is seen only here.
        run(Command::new("sbverify").arg("--cert").arg(self.certificate()).arg(&signed))?;
        fs::rename(&signed, program).map_err(at("rename", &signed))
    }

    /// Files for `loader/keys/auto` of the ESP, whence the loader puts them into the firmware.
    pub(crate) fn enrolled(&self) -> Vec<PathBuf> {
        let files = VARIABLES.iter().map(|name| self.folder.join(format!("{name}.auth")));
        files.filter(|_| self.enrolls).collect()
    }

    /// What `loader.conf` says of it.
    pub(crate) fn loader_conf(&self) -> &'static str {
        match (self.enrolls, self.enroll) {
            (false, _) => "",
            (true, Enroll::InVirtualMachines) => "secure-boot-enroll if-safe\n",
            (true, Enroll::Everywhere) => "secure-boot-enroll force\n",
        }
    }

    /// All that what is signed depends on, as parts of a key. The private key belongs to the certificate.
    pub(crate) fn parts(&self) -> Result<Vec<Vec<u8>>, BuildError> {
        let mut parts = vec![b"secure boot".to_vec(), self.loader_conf().into()];
        for path in std::iter::once(self.certificate()).chain(self.enrolled()) {
            parts.push(fs::read(&path).map_err(at("read", &path))?);
        }
        Ok(parts)
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("db.crt")
    }
}

/// The beginning of a digest in the form of a GUID.
fn uuid(hex: &str) -> String {
    let (a, rest) = hex.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, rest) = rest.split_at(4);
    format!("{a}-{b}-{c}-{d}-{}", &rest[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_made_sign_the_same_each_time_and_are_never_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = folder.path().join("keys");
        SecureBoot::create(&keys, "a fleet").expect("made");
        let secure = SecureBoot::of(&keys, Enroll::InVirtualMachines).expect("complete");
        assert_eq!(secure.enrolled().len(), 3);
        let program = |name: &str| {
            let path = folder.path().join(name);
            crate::again::assemble(&path, folder.path()).expect("assembled");
            let before = fs::read(&path).expect("there");
            secure.sign(&path).expect("signed");
            let after = fs::read(&path).expect("there");
            assert!(after.len() > before.len(), "a signature was added");
            after
        };
        let first = program("one.efi");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(first, program("two.efi"));
        SecureBoot::create(&keys, "a fleet").expect_err("they are there");

        // A key of somebody else's does not go with the certificate.
        let other = folder.path().join("other");
        SecureBoot::create(&other, "another fleet").expect("made");
        fs::copy(other.join("db.key"), keys.join("db.key")).expect("copied");
        let path = folder.path().join("three.efi");
        crate::again::assemble(&path, folder.path()).expect("assembled");
        secure.sign(&path).expect_err("they do not belong together");
    }

    #[test]
    fn what_is_missing_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = || SecureBoot::of(folder.path(), Enroll::Everywhere);
        assert!(matches!(of(), Err(BuildError::Keys { missing, .. }) if missing == "db.key"));
        for name in ["db.key", "db.crt"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(of().expect("enough to sign").loader_conf(), "");
        fs::write(folder.path().join("PK.auth"), "").expect("written");
        assert!(matches!(of(), Err(BuildError::Keys { missing, .. }) if missing == "db.auth"));
    }
}
