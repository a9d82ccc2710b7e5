//! Keys that change hands: a host takes the next trust document, and forgets the keys that it leaves out.

use std::fs;
use std::path::Path;

use vm_tests::power::Action;
use vm_tests::signing::Key;
use vm_tests::{Failure, on_host};

use crate::manifest::{manifest, sleeper};

#[test]
fn a_stolen_key_is_rotated_out_and_decides_nothing_any_more() -> Result<(), Failure> {
    on_host("a_stolen_key_is_rotated_out_and_decides_nothing_any_more", |host| {
        let registry = &host.registry;
        host.converge("first.toml", &manifest(registry, 1, &sleeper(registry, "one", "")))?;
        let next = manifest(registry, 2, &sleeper(registry, "two", ""));

        let trust = host.directory.path().join("trust.toml");
        fs::copy(host.operator().trust(), &trust)?;
        let stolen = host.operator().key();
        let new = Key::generate(&host.directory.path().join("new"), "new")?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let replace = format!("deploy={}", new.public().display());
        let hostctl = host.hostctl();
        hostctl.run(&["trust", "rotate", &text(&trust), "--replace", &replace])?.done()?;

        // The new key alone does not make itself trusted.
        let sign = |key: &Key| {
            hostctl.run(&["sign", "--trust-document", "--key", &text(&key.0), &text(&trust)])?.done()
        };
        sign(&new)?;
        let ran = hostctl.run(&["trust", "push", &text(&trust), "--json"])?;
        assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
        sign(&stolen)?;
        hostctl.run(&["trust", "push", &text(&trust)])?.done()?;

        let file = host.signed("second.toml", &next)?;
        let before = host.settled()?;
        for action in [Action::Nothing, Action::HostdKilled, Action::PowerCut] {
            host.act(action)?;
            host.wait_until_converged()?;
            assert_eq!(host.hostctl().container("one")?["state"], "running", "after {action:?}");
            let ran = host.push(&file, &["--json"])?;
            assert_eq!(
                (ran.code, ran.rule().as_str()),
                (3, "sig.untrusted"),
                "after {action:?}: {}",
                ran.stderr
            );
            assert_eq!(before[0], host.settled()?[0], "the generation stays after {action:?}");
        }

        new.sign(&file)?;
        host.push(&file, &["--wait"])?.done()?;
        assert_eq!(host.hostctl().container("two")?["state"], "running");
        Ok(())
    })
}
