//! What a host refuses, and that nothing changes then.

use std::fs;
use std::path::Path;

use vm_tests::signing::{Key, signature};
use vm_tests::{Error, Failure, Host, on_host};

use crate::manifest::{manifest, sleeper};

/// The host runs serial 5 when each of these comes.
const SERIAL: u64 = 5;

/// Brings a host to [`SERIAL`], pushes what `make` writes, and demands the exit code and rule, and that nothing changed.
fn refused(
    name: &str,
    code: i32,
    rule: &str,
    make: impl FnOnce(&Host, &Path) -> Result<(), Error>,
) -> Result<(), Failure> {
    on_host(name, |host| {
        let registry = &host.registry;
        host.converge("sound.toml", &manifest(registry, SERIAL, &sleeper(registry, "one", "")))?;
        let before = host.settled()?;

        let next = manifest(registry, SERIAL + 1, &sleeper(registry, "two", ""));
        let file = host.signed("refused.toml", &next)?;
        make(host, &file)?;
        let ran = host.push(&file, &["--json"])?;
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.rule(), rule, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(before, host.settled()?, "nothing changed");

        // It was this, and not the rest of the manifest, that was refused.
        host.signed("refused.toml", &next)?;
        host.push(&file, &["--wait"])?.done()?;
        assert_eq!(host.hostctl().container("two")?["state"], "running");
        Ok(())
    })
}

fn rewrite(file: &Path, change: impl FnOnce(String) -> String) -> Result<(), Error> {
    let wrong = |source| Error::File { doing: "change", path: file.to_owned(), source };
    fs::write(file, change(fs::read_to_string(file).map_err(wrong)?)).map_err(wrong)
}

#[test]
fn an_unsigned_manifest_is_refused() -> Result<(), Failure> {
    refused("an_unsigned_manifest_is_refused", 3, "sig.missing", |_, file| {
        rewrite(&signature(file), |_| String::new())
    })
}

#[test]
fn a_manifest_signed_by_a_key_that_is_not_trusted_is_refused() -> Result<(), Failure> {
    refused("a_manifest_signed_by_a_key_that_is_not_trusted_is_refused", 3, "sig.untrusted", |host, file| {
        Key::generate(&host.directory.path().join("stranger"), "stranger")?.sign(file)
    })
}

#[test]
fn a_manifest_with_a_changed_byte_is_refused() -> Result<(), Failure> {
    refused("a_manifest_with_a_changed_byte_is_refused", 3, "sig.invalid", |_, file| {
        rewrite(file, |text| text.replace("[container.two]", "[container.twp]"))
    })
}

#[test]
fn a_lower_serial_is_refused() -> Result<(), Failure> {
    refused("a_lower_serial_is_refused", 3, "serial.replayed", |host, file| {
        rewrite(file, |text| text.replace("serial = 6", "serial = 4"))?;
        host.operator().key().sign(file)
    })
}

#[test]
fn the_same_serial_with_other_bytes_is_refused() -> Result<(), Failure> {
    refused("the_same_serial_with_other_bytes_is_refused", 3, "serial.conflict", |host, file| {
        rewrite(file, |text| text.replace("serial = 6", "serial = 5"))?;
        host.operator().key().sign(file)
    })
}

#[test]
fn an_expired_manifest_is_refused() -> Result<(), Failure> {
    refused("an_expired_manifest_is_refused", 3, "expired", |host, file| {
        rewrite(file, |text| {
            text.replace("expires = 2036", "expires = 2026")
                .replace("01-01T00:00:00Z\n\n", "01-02T00:00:00Z\n\n")
        })?;
        host.operator().key().sign(file)
    })
}

#[test]
fn a_tag_without_a_digest_is_not_valid() -> Result<(), Failure> {
    refused("a_tag_without_a_digest_is_not_valid", 2, "", |host, file| {
        rewrite(file, |text| {
            let start = text.find("@sha256:").expect("images are pinned");
            text[..start].to_owned() + &text[start + "@sha256:".len() + 64..]
        })?;
        host.operator().key().sign(file)
    })
}

#[test]
fn a_key_that_hosts_do_not_carry_out_is_not_valid() -> Result<(), Failure> {
    refused("a_key_that_hosts_do_not_carry_out_is_not_valid", 2, "", |host, file| {
        rewrite(file, |text| text.replace("[container.two]\n", "[container.two]\ntty = true\n"))?;
        host.operator().key().sign(file)
    })
}
