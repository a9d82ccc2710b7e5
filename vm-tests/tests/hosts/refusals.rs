//! What a host refuses, and that nothing changes then.

use std::fs;
use std::path::Path;

use vm_tests::signing::{Key, signature};
use vm_tests::{Error, Failure, Host, on_host};

use crate::manifest::{manifest, sleeper};

/// The host runs this serial when all of these come.
const SERIAL: u64 = 5;

type Spoil = fn(&Host, &Path) -> Result<(), Error>;

/// What is pushed, the exit code and the rule that it is refused with, and how a sound manifest of the next serial,
/// already signed, becomes it.
const REFUSALS: [(&str, i32, &str, Spoil); 8] = [
    ("one without a signature", 3, "sig.missing", |_, file| rewrite(&signature(file), |_| String::new())),
    ("one signed by a key that is not trusted", 3, "sig.untrusted", |host, file| {
        Key::generate(&host.directory.path().join("stranger"), "stranger")?.sign(file)
    }),
    ("one with a changed byte", 3, "sig.invalid", |_, file| {
        rewrite(file, |text| text.replace("[container.two]", "[container.twp]"))
    }),
    ("one with a lower serial", 3, "serial.replayed", |host, file| {
        rewrite(file, |text| text.replace("serial = 6", "serial = 4"))?;
        host.operator().key().sign(file)
    }),
    ("another one with the serial that runs", 3, "serial.conflict", |host, file| {
        rewrite(file, |text| text.replace("serial = 6", "serial = 5"))?;
        host.operator().key().sign(file)
    }),
    ("one that has expired", 3, "expired", |host, file| {
        rewrite(file, |text| {
            text.replace("expires = 2036", "expires = 2026")
                .replace("01-01T00:00:00Z\n\n", "01-02T00:00:00Z\n\n")
        })?;
        host.operator().key().sign(file)
    }),
    ("one with a tag and no digest", 2, "", |host, file| {
        rewrite(file, |text| {
            let start = text.find("@sha256:").expect("images are pinned");
            text[..start].to_owned() + &text[start + "@sha256:".len() + 64..]
        })?;
        host.operator().key().sign(file)
    }),
    ("one with a key that hosts do not carry out", 2, "", |host, file| {
        rewrite(file, |text| text.replace("[container.two]\n", "[container.two]\ntty = true\n"))?;
        host.operator().key().sign(file)
    }),
];

fn rewrite(file: &Path, change: impl FnOnce(String) -> String) -> Result<(), Error> {
    let wrong = |source| Error::File { doing: "change", path: file.to_owned(), source };
    fs::write(file, change(fs::read_to_string(file).map_err(wrong)?)).map_err(wrong)
}

#[test]
fn what_is_not_sound_is_refused_by_its_rule_and_nothing_changes() -> Result<(), Failure> {
    on_host("what_is_not_sound_is_refused_by_its_rule_and_nothing_changes", |host| {
        let registry = &host.registry;
        host.converge("sound.toml", &manifest(registry, SERIAL, &sleeper(registry, "one", "")))?;
        let before = host.settled()?;
        let next = manifest(registry, SERIAL + 1, &sleeper(registry, "two", ""));

        for (what, code, rule, spoil) in REFUSALS {
            let file = host.signed("refused.toml", &next)?;
            spoil(host, &file)?;
            let ran = host.push(&file, &["--json"])?;
            assert_eq!((ran.code, ran.rule().as_str()), (code, rule), "{what}: {}{}", ran.stdout, ran.stderr);
            assert_eq!(before, host.settled()?, "{what}: nothing changed");
        }

        // It was this, and not the rest of the manifest, that was refused.
        let file = host.signed("refused.toml", &next)?;
        host.push(&file, &["--wait"])?.done()?;
        assert_eq!(host.hostctl().container("two")?["state"], "running");
        Ok(())
    })
}
