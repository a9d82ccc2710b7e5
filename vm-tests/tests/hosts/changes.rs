//! From one manifest to the next.

use std::collections::BTreeSet;

use serde_json::Value;
use vm_tests::{Failure, on_host};

use crate::manifest::{manifest, sleeper, web};

#[test]
fn a_second_manifest_converges_and_leaves_alone_what_did_not_change() -> Result<(), Failure> {
    on_host("a_second_manifest_converges_and_leaves_alone_what_did_not_change", |host| {
        let registry = &host.registry;
        let (same, gone) = (sleeper(registry, "same", ""), sleeper(registry, "gone", ""));
        let first = manifest(registry, 1, &format!("{same}{gone}{}", web(registry, "1", "")));
        host.converge("first.toml", &first)?;
        let before = host.hostctl().container("same")?;
        host.wait_for_page("first edition")?;

        let new = sleeper(registry, "new", "environment = { WHO = \"new\" }");
        let second = manifest(registry, 2, &format!("{same}{new}{}", web(registry, "2", "")));
        let file = host.signed("second.toml", &second)?;
        let settled = host.settled()?;
        let plan = host.hostctl().json(&["plan", &file.to_string_lossy()])?;
        assert_eq!(settled, host.settled()?, "planning changes nothing");
        let touched: BTreeSet<_> = steps(&plan).filter_map(|step| step["instance"].as_str()).collect();
        assert_eq!(touched, BTreeSet::from(["gone-1", "new-2", "web-1", "web-2"]), "{plan:#}");
        let fetched: Vec<_> = steps(&plan).filter(|step| step["step"] == "fetch").collect();
        assert_eq!(fetched.len(), 1, "only the new edition is fetched: {plan:#}");

        host.push(&file, &["--wait"])?.done()?;
        assert_eq!(host.hostctl().container("same")?["pid"], before["pid"], "the same main process");
        assert_eq!(host.hostctl().container("same")?["since"], before["since"]);
        assert_eq!(host.hostctl().container("new")?["state"], "running");
        let listed = host.hostctl().json(&["ps"])?;
        assert!(!listed.to_string().contains("gone"), "{listed}");
        host.wait_for_page("second edition")?;
        let left = host.vm.guest(
            "systemctl list-units --all --plain --no-legend | grep -i gone; cat /proc/mounts | grep gone",
        )?;
        assert_eq!(left.text, "", "nothing of it is left");
        Ok(())
    })
}

#[test]
fn the_same_manifest_again_changes_nothing() -> Result<(), Failure> {
    on_host("the_same_manifest_again_changes_nothing", |host| {
        let registry = &host.registry;
        let file = host.signed("host.toml", &manifest(registry, 1, &sleeper(registry, "one", "")))?;
        host.push(&file, &["--wait"])?.done()?;
        let settled = host.settled()?;
        let again = host.push(&file, &["--wait", "--json"])?.done()?.json()?;
        assert_eq!(again["unchanged"], true);
        assert_eq!(settled, host.settled()?);
        let plan = host.hostctl().json(&["plan", &file.to_string_lossy()])?;
        assert_eq!(steps(&plan).count(), 0, "{plan:#}");
        Ok(())
    })
}

fn steps(plan: &Value) -> impl Iterator<Item = &Value> {
    let steps = plan.get("steps").or_else(|| plan["plan"].get("steps"));
    steps.and_then(Value::as_array).expect("a plan has steps").iter()
}
