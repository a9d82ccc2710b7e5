//! Properties of plans, on a model host that carries steps out and remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bennu_manifests::model::{Digest, Manifest, Name};
use bennu_planner::{Health, Plan, Seen, SeenInstance, State, Step, Wanted, contents};
use proptest::prelude::*;

/// What a step is carried out for.
#[derive(Clone, Copy)]
struct For<'a> {
    manifest: &'a Manifest,
    /// Whether a new instance may be there beside an old one.
    beside: bool,
}

fn plan(generation: u64, manifest: &Manifest, seen: &Seen) -> Plan {
    let (rejected, due) = (BTreeSet::<(Name, Digest)>::new(), BTreeSet::new());
    bennu_planner::plan(
        Wanted { generation, manifest, rejected: &rejected, due: &due, completed: &BTreeSet::new() },
        seen,
    )
}

/// Carries a step out the way the daemon does, or says why it does not fit what is there.
fn apply(seen: &mut Seen, step: &Step, host: For<'_>) -> Result<(), String> {
    let fits = |fits: bool, why: &str| if fits { Ok(()) } else { Err(format!("{step}: {why}")) };
    match step {
        Step::Fetch { image, .. } => fits(seen.images.insert(image.digest), "the image is there already"),
        Step::CreateVolume { volume, life } => {
            fits(seen.volumes.insert(volume.clone(), *life).is_none(), "the volume is there already")
        }
        Step::DestroyVolume { volume } => {
            seen.quotas.remove(volume);
            fits(seen.volumes.remove(volume).is_some(), "there is no such volume")
        }
        Step::LimitVolume { volume, size } => {
            fits(seen.volumes.contains_key(volume), "there is no such volume")?;
            let quota = seen.quotas.entry(volume.clone()).or_default();
            fits(quota.limit != *size, "that is its limit already")?;
            quota.limit = *size;
            Ok(())
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
        Step::Start { instance, image, fingerprint, addresses, addresses6, .. } => {
            fits(seen.images.contains(&image.digest), "its image is not in the store")?;
            fits(!seen.instances.contains_key(instance), "it is there already")?;
            let others = seen.instances.keys().filter(|i| i.name == instance.name).count();
            fits(others <= usize::from(host.beside), "other instances of it are there")?;
            for (network, address) in addresses {
                fits(seen.networks.contains_key(network), "its network is not there")?;
                let taken = seen.instances.values().any(|i| i.addresses.get(network) == Some(address));
                fits(!taken, "its address is taken")?;
            }
            let (image, addresses) = (image.clone(), addresses.clone());
            let started = SeenInstance {
                fingerprint: *fingerprint,
                image,
                addresses,
                addresses6: addresses6.clone(),
                state: State::Running,
                damaged: false,
                health: Health::Unchecked,
                ready: false,
                overdue: false,
                contents: contents(host.manifest, &host.manifest.containers[&instance.name]),
            };
            seen.instances.insert(instance.clone(), started);
            Ok(())
        }
        Step::Restart { .. } | Step::Refresh { .. } | Step::Reject { .. } => {
            Err(format!("{step}: nothing here calls for it"))
        }
        Step::Publish { ports } | Step::RestoreFirewall { ports } => {
            seen.published = ports.iter().cloned().collect();
            seen.astray.firewall = false;
            Ok(())
        }
        Step::Set { setting, value } => {
            let was = seen.settings.insert(setting.clone(), value.clone());
            fits(was.as_ref() != Some(value), "it is set so already")
        }
        Step::Reset { setting } => fits(seen.settings.remove(setting).is_some(), "it was not set"),
        Step::ServeNames => fits(std::mem::take(&mut seen.astray.names), "somebody answers"),
        Step::RemoveUnit { unit } => fits(seen.astray.units.remove(unit), "there is no such unit"),
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
    // How long the volume lives and how much it may hold varies with the containers, so that both change between manifests.
    let volume = match containers.len() % 4 {
        0 => "life = \"keep\"",
        1 => "life = \"snapshot\"\nsize = \"1GiB\"",
        2 => "life = \"scratch\"\nsize = \"2GiB\"",
        _ => "life = \"keep\"\nsize = \"2GiB\"",
    };
    let mut text = format!(
        "schema = 1\nname = \"p\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
         expires = 2027-01-01T00:00:00Z\nallow-empty = true\n\
         [network.n0]\n[network.n1]\nsubnet = \"10.90.0.0/24\"\n[network.n2]\ninternal = true\n[volume.v]\n{volume}\n"
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

fn apply_all(seen: &mut Seen, plan: &Plan, manifest: &Manifest, beside: bool) {
    for step in &plan.steps {
        if let Err(why) = apply(seen, step, For { manifest, beside }) {
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
            let steps = plan(generation, &manifest, &seen);
            apply_all(&mut seen, &steps, &manifest, false);
            prop_assert_eq!(plan(generation, &manifest, &seen), Plan::default());
        }
    }

    #[test]
    fn a_plan_cut_short_anywhere_is_finished_by_the_next_one(first in varied(), second in varied(), cut in 0..40usize) {
        let mut seen = Seen::default();
        let before = manifest(&text(1, &first));
        let first_plan = plan(1, &before, &seen);
        apply_all(&mut seen, &first_plan, &before, false);
        let after = manifest(&text(2, &second));
        let mut cut_short = plan(2, &after, &seen);
        cut_short.steps.truncate(cut);
        apply_all(&mut seen, &cut_short, &after, false);
        let steps = plan(2, &after, &seen);
        apply_all(&mut seen, &steps, &after, false);
        prop_assert_eq!(plan(2, &after, &seen), Plan::default());
    }

    #[test]
    fn nothing_that_runs_is_touched_before_everything_new_is_fetched(first in varied(), second in varied()) {
        let mut seen = Seen::default();
        let before = manifest(&text(1, &first));
        let first_plan = plan(1, &before, &seen);
        apply_all(&mut seen, &first_plan, &before, false);
        let after = manifest(&text(2, &second));
        let steps = plan(2, &after, &seen).steps;
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
        let first_plan = plan(1, &before, &seen);
        apply_all(&mut seen, &first_plan, &before, false);
        let mut other = containers.clone();
        other.get_mut(&changed).expect("assumed above").environment ^= 1;
        let after = manifest(&text(2, &other));
        let touched: Vec<_> = plan(2, &after, &seen)
            .steps
            .into_iter()
            .filter_map(|step| match step {
                Step::Start { instance, .. } | Step::Stop { instance, .. } => Some(instance.to_string()),
                _ => None,
            })
            .collect();
        prop_assert_eq!(touched, [format!("c{changed}-1"), format!("c{changed}-2")]);
    }

    #[test]
    fn what_is_replaced_start_first_always_has_an_instance_that_serves(
        first in varied(), second in varied(), cuts in proptest::collection::vec(0..6usize, 0..12),
    ) {
        let with = |serial, containers| {
            let text = text(serial, containers);
            manifest(&text.replace("environment =", "update = { order = \"start-first\" }\nenvironment ="))
        };
        let mut seen = Seen::default();
        let before = with(1, &first);
        let first_plan = plan(1, &before, &seen);
        apply_all(&mut seen, &first_plan, &before, true);
        let after = with(2, &second);
        // Where a network is made anew, what is on it can't go on.
        let moved = |network: u8| {
            let removes = |step: &Step| matches!(step, Step::RemoveNetwork { network: gone, .. } if gone.as_str() == format!("n{network}"));
            plan(2, &after, &seen).steps.iter().any(removes)
        };
        let stay: Vec<String> = first
            .iter()
            .filter(|(name, container)| second.contains_key(*name) && !moved(container.network))
            .map(|(name, _)| format!("c{name}"))
            .collect();
        let later = std::iter::repeat_n(usize::MAX, 4);
        for cut in cuts.into_iter().chain(later) {
            for step in plan(2, &after, &seen).steps.iter().take(cut) {
                apply(&mut seen, step, For { manifest: &after, beside: true }).expect("it fits");
                for name in &stay {
                    prop_assert!(seen.instances.keys().any(|i| i.name.as_str() == name), "{name} after {step}");
                }
                for port in &seen.published {
                    let to_one = |i: &SeenInstance| i.has_address(port.to);
                    let gone = !seen.instances.values().any(to_one);
                    let of_stay = stay.iter().any(|n| format!("c{}", port.port - 8000) == *n);
                    prop_assert!(!gone || !of_stay, "port {} leads nowhere after {step}", port.port);
                }
            }
        }
        prop_assert_eq!(plan(2, &after, &seen), Plan::default());
    }
}
