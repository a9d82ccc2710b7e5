//! Which steps are carried out side by side.

use std::collections::BTreeSet;

use bennu_manifests::model::Manifest;
use bennu_planner::{Instance, Plan, Seen, SeenInstance, State, Step, Wanted, departures, together};

fn manifest(containers: &[(&str, &str)]) -> Manifest {
    let image = format!("r.example/i:1@sha256:{}", "a".repeat(64));
    let of = |(name, rest): &(&str, &str)| format!("[container.{name}]\nimage = \"{image}\"\n{rest}\n");
    let text = format!(
        "schema = 1\nname = \"t\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2027-01-01T00:00:00Z\n{}",
        containers.iter().map(of).collect::<String>()
    );
    bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("t", &text)))
}

fn planned(generation: u64, manifest: &Manifest, seen: &Seen) -> Plan {
    let (rejected, due, completed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let wanted = Wanted { generation, manifest, rejected: &rejected, due: &due, completed: &completed };
    bennu_planner::plan(wanted, seen)
}

/// What starts or stops, those of one group in one string.
fn groups(manifest: &Manifest, steps: &[Step]) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Start { instance, .. } => Some(format!("+{}", instance.name)),
        Step::Stop { instance, .. } => Some(format!("-{}", instance.name)),
        _ => None,
    };
    let group = |steps: &[Step]| steps.iter().filter_map(name).collect::<Vec<_>>().join(" ");
    together(manifest, steps).into_iter().map(group).filter(|group| !group.is_empty()).collect()
}

/// The host once all starts of a plan were carried out.
fn seen_after(plan: &Plan) -> Seen {
    let mut seen = Seen::default();
    for step in &plan.steps {
        match step {
            Step::CreateNetwork { network, spec } => {
                drop(seen.networks.insert(network.clone(), spec.clone()))
            }
            Step::Start { instance, image, fingerprint, addresses, addresses6, .. } => {
                let one = SeenInstance {
                    fingerprint: *fingerprint,
                    image: image.clone(),
                    addresses: addresses.clone(),
                    addresses6: addresses6.clone(),
                    state: State::Running,
                    damaged: false,
                    health: bennu_planner::Health::Unchecked,
                    ready: false,
                    overdue: false,
                    contents: *fingerprint,
                };
                drop(seen.instances.insert(instance.clone(), one));
            }
            Step::Fetch { image, .. } => drop(seen.images.insert(image.digest)),
            other => panic!("{other} is not expected here"),
        }
    }
    seen
}

const NEEDS: &str = "depends-on = [\"db\"]";

#[test]
fn what_relies_on_nothing_of_each_other_starts_and_stops_side_by_side() {
    let all = manifest(&[
        ("app", NEEDS),
        ("cache", ""),
        ("db", ""),
        ("edge", "depends-on = [\"app\"]"),
        ("log", ""),
    ]);
    let plan = planned(1, &all, &Seen::default());
    let order = ["+db", "+app +cache", "+edge +log"];
    assert_eq!(groups(&all, &plan.steps), order);
    let all_groups: Vec<Step> = together(&all, &plan.steps).concat();
    assert_eq!(all_groups, plan.steps, "every step is in one group, in the order of the plan");

    let changed = manifest(&[
        ("app", "depends-on = [\"db\"]\ncommand = [\"x\"]"),
        ("cache", "command = [\"x\"]"),
        ("db", "command = [\"x\"]"),
        ("edge", "depends-on = [\"app\"]\ncommand = [\"x\"]"),
        ("log", "command = [\"x\"]"),
    ]);
    let plan = planned(2, &changed, &seen_after(&plan));
    let order = ["-log -edge -cache", "-app", "-db", "+db", "+app +cache", "+edge +log"];
    assert_eq!(groups(&changed, &plan.steps), order, "dependents stop first");
}

#[test]
fn when_the_machine_stops_everything_ends_before_what_it_relies_on() {
    let all = manifest(&[
        ("app", NEEDS),
        ("cache", ""),
        ("db", ""),
        ("edge", "depends-on = [\"app\"]"),
        ("log", "depends-on = [\"db\"]"),
    ]);
    let seen = seen_after(&planned(1, &all, &Seen::default()));
    let names = |manifest: &Manifest| -> Vec<String> {
        let line =
            |group: &Vec<&Instance>| group.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(" ");
        departures(manifest, seen.instances.keys()).iter().map(line).collect()
    };
    assert_eq!(names(&all), ["cache edge log", "app", "db"]);
    assert_eq!(
        names(&manifest(&[("db", "")])),
        ["app cache db edge log"],
        "what is not declared any more ends, too"
    );
    assert!(departures(&all, []).is_empty());
}

#[test]
fn what_is_needed_by_way_of_others_counts_however_many_ways_there_are() {
    // Each needs the two before it: walked way by way this would not end.
    let names: Vec<String> = (0..60).map(|number| format!("c{number:02}")).collect();
    let needs: Vec<String> = (0..60)
        .map(|number: usize| {
            let before: Vec<_> =
                names[number.saturating_sub(2)..number].iter().map(|name| format!("{name:?}")).collect();
            format!("depends-on = [{}]", before.join(", "))
        })
        .collect();
    let all: Vec<_> = names.iter().zip(&needs).map(|(name, needs)| (name.as_str(), needs.as_str())).collect();
    let all = manifest(&all);
    assert_eq!(groups(&all, &planned(1, &all, &Seen::default()).steps).len(), 60);
}
