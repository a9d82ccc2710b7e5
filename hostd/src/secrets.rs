//! The identity that opens secrets which are encrypted for this host.
//!
//! It is made on the host, once, and never leaves it; what leaves it is its public half, the recipient that
//! `hostctl status` shows and that people encrypt for. It lies beside the provisioning document, in the part of
//! `/state` that lasts, so a host that is made anew from its manifest still opens what was encrypted for it.
//!
//! Handing secrets to containers is for [`crate::contents`].

use std::path::Path;

use bennu_secrets::{Identity, Zeroizing};

use crate::provision::{ProvisionError, read, write};

/// The name of the file, in the form of `age-keygen`, with mode 0600.
pub const FILE: &str = "age.key";

/// The identity in the folder `dir`, which is made and written down first where there is none.
///
/// # Errors
/// Where it can't be read or written, or what is there is no identity.
pub fn identity(dir: &Path) -> Result<Identity, ProvisionError> {
    let path = dir.join(FILE);
    if let Some(text) = read(&path)?.map(Zeroizing::new) {
        return Identity::from_file(&text)
            .map_err(|source| ProvisionError::SecretIdentity { path: path.clone(), source });
    }
    let new = Identity::generate();
    // On disk before anybody is told of it: a recipient whose identity is lost is a secret that is lost.
    write(&path, &new.to_file())?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_identity_for_secrets_is_made_once_for_the_owner_alone_and_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = identity(dir.path()).expect("made");
        let mode = std::fs::metadata(dir.path().join(FILE)).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = identity(dir.path()).expect("read");
        assert_eq!(again.recipient(), first.recipient());
        let sealed = bennu_secrets::seal(&[first.recipient()], b"a").expect("sealed");
        assert_eq!(bennu_secrets::open(&again, &sealed).expect("opened").as_slice(), b"a");
    }

    #[test]
    fn a_damaged_identity_for_secrets_is_an_error_and_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(FILE);
        for damaged in ["", "AGE-SECRET-KEY-1QQQ\n"] {
            std::fs::write(&path, damaged).expect("written");
            assert!(matches!(identity(dir.path()), Err(ProvisionError::SecretIdentity { .. })));
            assert_eq!(std::fs::read_to_string(&path).expect("there"), damaged);
        }
    }
}
