//! Pulls that fail or are cut short.

use std::time::Duration;

use vm_tests::gate::Rule;
use vm_tests::signing::{Key, signature};
use vm_tests::{Failure, on_host, wait};

use crate::manifest::{manifest, sleeper, web};

/// Somewhere inside the layers of nginx, in bytes.
const MIDDLE: u64 = 6 << 20;

#[test]
fn a_pull_that_fails_leaves_the_old_generation_running() -> Result<(), Failure> {
    on_host("a_pull_that_fails_leaves_the_old_generation_running", |host| {
        let registry = &host.registry;
        host.converge("first.toml", &manifest(registry, 1, &sleeper(registry, "one", "")))?;
        let before = host.hostctl().json(&["ps"])?;
        let process = host.hostctl().container("one")?["pid"].clone();

        registry.gate.rule(Rule::BreakAfter(MIDDLE));
        let changed = sleeper(registry, "one", "environment = { CHANGED = \"yes\" }");
        let file = host
            .signed("second.toml", &manifest(registry, 2, &format!("{changed}{}", web(registry, "1", ""))))?;
        let ran = host.push(&file, &["--wait", "--timeout", "45"])?;
        assert_eq!(ran.code, 4, "{}{}", ran.stdout, ran.stderr);

        let status = host.hostctl().status()?;
        assert_eq!(status["converged"], false);
        assert_eq!(status["generation"]["serial"], 1, "the old one is active: {status}");
        assert_eq!(status["pending"]["serial"], 2, "the new one is accepted: {status}");
        let reason = status["failure"].as_str().unwrap_or_default();
        assert!(reason.contains("nginx"), "the reason names the image: {reason:?}");
        let after = host.hostctl().json(&["ps"])?;
        assert_eq!(
            after["containers"].as_array().map(Vec::len),
            before["containers"].as_array().map(Vec::len)
        );
        assert_eq!(host.hostctl().container("one")?["pid"], process, "the old container was not touched");

        registry.gate.rule(Rule::Open);
        host.wait_until_converged()?;
        host.wait_for_page("first edition")?;
        Ok(())
    })
}

#[test]
fn a_power_cut_in_the_middle_of_a_pull_then_converges() -> Result<(), Failure> {
    on_host("a_power_cut_in_the_middle_of_a_pull_then_converges", |host| {
        let registry = &host.registry;
        host.converge("first.toml", &manifest(registry, 1, &sleeper(registry, "one", "")))?;

        registry.gate.rule(Rule::HoldAfter(MIDDLE));
        let rest = format!("{}{}", sleeper(registry, "one", ""), web(registry, "1", ""));
        let file = host.signed("second.toml", &manifest(registry, 2, &rest))?;
        host.push(&file, &[])?.done()?;
        wait::until("the pull to stand still in its middle", Duration::from_secs(120), || {
            Ok(registry.gate.holds().then_some(()))
        })?;
        host.vm.power_cut()?;
        host.wait_for_api()?;
        host.registry.gate.rule(Rule::Open);

        let status = host.wait_until_converged()?;
        assert_eq!(
            status["generation"]["serial"], 2,
            "what was accepted before the cut is taken up: {status}"
        );
        host.wait_for_page("first edition")?;
        assert_eq!(host.hostctl().container("one")?["state"], "running");
        Ok(())
    })
}

#[test]
fn an_image_that_nobody_signed_is_not_run_where_a_policy_asks_for_signatures() -> Result<(), Failure> {
    on_host("an_image_that_nobody_signed_is_not_run_where_a_policy_asks_for_signatures", |host| {
        let registry = &host.registry;
        host.converge("first.toml", &manifest(registry, 1, &sleeper(registry, "one", "")))?;
        let policy = format!("[image-policy.\"{}\"]\nkeys = [\"KEY\"]\n", registry.from_guest());
        // The image is in the store already, and came without signatures.
        let next = manifest(registry, 2, &(sleeper(registry, "two", "") + &policy));
        let stranger = host.signed("stranger.toml", &next.replace("KEY", "stranger"))?;
        let ran = host.push(&stranger, &[])?;
        assert_eq!(ran.code, 2, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("has no key `stranger`"), "{}", ran.stderr);

        let file = host.signed("second.toml", &next.replace("KEY", "deploy"))?;
        host.push(&file, &[])?.done()?;
        let failed = |status: &serde_json::Value| status["failure"].is_string();
        let status = wait::until_good(
            "the host to say what is missing",
            Duration::from_secs(60),
            || host.hostctl().status(),
            failed,
        )?;
        let failure = status["failure"].as_str().unwrap_or_default();
        assert!(failure.contains("needs the signatures of 1 of the keys"), "{failure}");
        assert_eq!(host.hostctl().container("one")?["state"], "running");
        assert!(host.hostctl().container("two").is_err(), "it was not started");

        // A manifest that does not ask for signatures takes its place.
        host.converge("third.toml", &manifest(registry, 3, &sleeper(registry, "two", "")))?;
        Ok(())
    })
}

#[test]
fn a_bundle_brings_all_that_a_host_needs_which_reaches_no_registry() -> Result<(), Failure> {
    on_host("a_bundle_brings_all_that_a_host_needs_which_reaches_no_registry", |host| {
        let registry = &host.registry;
        // A registry of this machine, and for the host an address of its own at which nobody answers.
        let text = manifest(registry, 1, &web(registry, "1", ""))
            .replace(&registry.from_guest(), &registry.from_here());
        let file = host.signed("site.toml", &text)?;
        let bundle = |name: &str| -> Result<_, Failure> {
            let bundle = host.directory.path().join(name);
            let (from, to) = (file.to_string_lossy(), bundle.to_string_lossy());
            host.hostctl().run(&["bundle", "create", &from, "-o", &to])?.done()?;
            Ok(bundle)
        };
        let site = bundle("site.tar")?;
        std::fs::remove_file(signature(&file))?;
        Key::generate(&host.directory.path().join("stranger"), "stranger")?.sign(&file)?;
        let strangers = bundle("strangers.tar")?;
        registry.gate.rule(Rule::BreakAfter(0));

        let images = || host.hostctl().json(&["images"]);
        let before = images()?;
        let ran = host.push(&strangers, &["--bundle"])?;
        assert_eq!(ran.code, 3, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(images()?, before, "nothing of what a stranger signed was brought into the store");

        let ran = host.push(&site, &["--bundle", "--wait", "--timeout", "180"])?;
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        host.wait_for_page("first edition")?;
        Ok(())
    })
}
