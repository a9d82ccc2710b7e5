//! Properties of plans, on a model host that carries steps out and remembers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bennu_manifests::model::Manifest;
use bennu_planner::{Plan, Seen, SeenInstance, State, Step, Wanted, plan};
use proptest::prelude::*;

/// Carries a step out the way the daemon does, or says why it does not fit what is there.
fn apply(seen: &mut Seen, step: &Step) -> Result<(), String> {
    let fits = |fits: bool, why: &str| if fits { Ok(()) } else { Err(format!("{step}: {why}")) };
    match step {
        Step::Fetch { image, .. } => fits(seen.images.insert(image.digest), "the image is there already"),
        Step::CreateVolume { volume, life } => {
            fits(seen.volumes.insert(volume.clone(), *life).is_none(), "the volume is there already")
        }
        Step::DestroyVolume { volume } => {
            fits(seen.volumes.remove(volume).is_some(), "there is no such volume")
        }
        Step::Stop { instance, .. } => {
            fits(seen.instances.remove(instance).is_some(), "there is no such instance")
        }
        Step::RemoveNetwork { network, .. } => {
            let used = seen.instances.values().any(|i| i.addresses.contains_key(network));
            fits(!used, "a container is on it")?;
            fits(seen.networks.remove(network).is_some(), "there is no such network")
        }
        Step::CreateNetwork { network, spec } => fits(
            seen.networks.insert(network.clone(), spec.clone()).is_none(),
            "the network is there already",
        ),
        Step::Start { instance, image, fingerprint, addresses, .. } => {
            fits(seen.images.contains(&image.digest), "its image is not in the store")?;
            fits(!seen.instances.keys().any(|i| i.name == instance.name), "another instance of it is there")?;
            for (network, address) in addresses {
                fits(seen.networks.contains_key(network), "its network is not there")?;
                let taken = seen.instances.values().any(|i| i.addresses.get(network) == Some(address));
                fits(!taken, "its address is taken")?;
            }
            let (image, addresses) = (image.clone(), addresses.clone());
            let started = SeenInstance { fingerprint: *fingerprint, image, addresses, state: State::Running };
            seen.instances.insert(instance.clone(), started);
            Ok(())
        }
        Step::Publish { ports } => {
            seen.published = ports.iter().cloned().collect();
            Ok(())
        }
    }
}

fn manifest(text: &str) -> Manifest {
    bennu_manifests::check(text.as_bytes())
        .unwrap_or_else(|e| panic!("{}\n{text}", e.render("generated", text)))
}

/// What proptest varies of one container.
#[derive(Debug, Clone)]
struct Varied {
    image: u8,
    environment: u8,
    network: u8,
    volume: bool,
    port: bool,
}

fn varied() -> impl Strategy<Value = BTreeMap<u8, Varied>> {
    let one = (0..3u8, 0..2u8, 0..3u8, any::<bool>(), any::<bool>());
    let one = one.prop_map(|(image, environment, network, volume, port)| Varied {
        image,
        environment,
        network,
        volume,
        port,
    });
    proptest::collection::btree_map(0..5u8, one, 0..5)
}

fn text(serial: u64, containers: &BTreeMap<u8, Varied>) -> String {
    let mut text = format!(
        "schema = 1\nname = \"p\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
         expires = 2027-01-01T00:00:00Z\nallow-empty = true\n\
         [network.n0]\n[network.n1]\nsubnet = \"10.90.0.0/24\"\n[network.n2]\ninternal = true\n[volume.v]\nlife = \"keep\"\n"
    );
    let mut before: Option<u8> = None;
    for (n, c) in containers {
        let digest = format!("{:02x}", c.image).repeat(32);
        let _ = write!(
            text,
            "[container.c{n}]\nimage = \"r.example/i@sha256:{digest}\"\nenvironment = {{ E = \"{}\" }}\nnetworks = [\"n{}\"]\n",
            c.environment, c.network
        );
        if c.volume {
            text.push_str("volumes = [\"v:/data\"]\n");
        }
        if c.port {
            let _ = writeln!(text, "ports = [\"{}:80\"]", 8000 + u32::from(*n));
        }
        if let Some(before) = before {
            let _ = writeln!(text, "depends-on = [\"c{before}\"]");
        }
        before = Some(*n);
    }
    text
}

fn apply_all(seen: &mut Seen, plan: &Plan) {
    for step in &plan.steps {
        if let Err(why) = apply(seen, step) {
            panic!("{why}\nin plan:\n{}", plan.steps.iter().map(|s| format!("{s}\n")).collect::<String>());
        }
    }
}

proptest! {
    #[test]
    fn a_plan_once_applied_leaves_nothing_to_do(first in varied(), second in varied()) {
        let mut seen = Seen::default();
        for (generation, containers) in [(1, &first), (2, &second)] {
            let manifest = manifest(&text(generation, containers));
            let wanted = Wanted { generation, manifest: &manifest };
            let steps = plan(wanted, &seen);
        apply_all(&mut seen, &steps);
            prop_assert_eq!(plan(wanted, &seen), Plan::default());
        }
    }

    #[test]
    fn a_plan_cut_short_anywhere_is_finished_by_the_next_one(first in varied(), second in varied(), cut in 0..40usize) {
        let mut seen = Seen::default();
        let before = manifest(&text(1, &first));
        let first_plan = plan(Wanted { generation: 1, manifest: &before }, &seen);
        apply_all(&mut seen, &first_plan);
        let after = manifest(&text(2, &second));
        let wanted = Wanted { generation: 2, manifest: &after };
        let mut cut_short = plan(wanted, &seen);
        cut_short.steps.truncate(cut);
        apply_all(&mut seen, &cut_short);
        let steps = plan(wanted, &seen);
        apply_all(&mut seen, &steps);
        prop_assert_eq!(plan(wanted, &seen), Plan::default());
    }

    #[test]
    fn nothing_that_runs_is_touched_before_everything_new_is_fetched(first in varied(), second in varied()) {
        let mut seen = Seen::default();
        let before = manifest(&text(1, &first));
        let first_plan = plan(Wanted { generation: 1, manifest: &before }, &seen);
        apply_all(&mut seen, &first_plan);
        let after = manifest(&text(2, &second));
        let steps = plan(Wanted { generation: 2, manifest: &after }, &seen).steps;
        let last_fetch = steps.iter().rposition(|s| matches!(s, Step::Fetch { .. }));
        let first_other = steps.iter().position(|s| !matches!(s, Step::Fetch { .. }));
        if let (Some(fetch), Some(other)) = (last_fetch, first_other) {
            prop_assert!(fetch < other);
        }
    }

    #[test]
    fn what_did_not_change_is_not_named_in_the_plan(containers in varied(), changed in 0..5u8) {
        prop_assume!(containers.contains_key(&changed));
        let mut seen = Seen::default();
        let before = manifest(&text(1, &containers));
        let first_plan = plan(Wanted { generation: 1, manifest: &before }, &seen);
        apply_all(&mut seen, &first_plan);
        let mut other = containers.clone();
        other.get_mut(&changed).expect("assumed above").environment ^= 1;
        let after = manifest(&text(2, &other));
        let touched: Vec<_> = plan(Wanted { generation: 2, manifest: &after }, &seen)
            .steps
            .into_iter()
            .filter_map(|step| match step {
                Step::Start { instance, .. } | Step::Stop { instance, .. } => Some(instance.to_string()),
                _ => None,
            })
            .collect();
        prop_assert_eq!(touched, [format!("c{changed}-1"), format!("c{changed}-2")]);
    }
}
