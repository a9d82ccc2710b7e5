//! Small stories, told as an operator would read them.

use std::collections::BTreeSet;

use bennu_manifests::model::{Digest, Manifest, Name, Network, VolumeLife};
use bennu_planner::{
    Danger, Health, Plan, Quota, Seen, SeenInstance, SeenNetwork, State, Step, Wanted, contents, fingerprint,
    guard,
};

const HEADER: &str = "schema = 1\nname = \"story\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2027-01-01T00:00:00Z\n";

fn manifest(body: &str) -> Manifest {
    let text = format!("{HEADER}{body}");
    bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("story", &text)))
}

fn image(letter: char) -> String {
    format!("image = \"r.example/i:1@sha256:{}\"\n", letter.to_string().repeat(64))
}

fn told(generation: u64, manifest: &Manifest, seen: &Seen) -> String {
    told_of(&planned(generation, manifest, seen))
}

fn planned(generation: u64, manifest: &Manifest, seen: &Seen) -> Plan {
    let (rejected, due) = (BTreeSet::new(), BTreeSet::new());
    bennu_planner::plan(
        Wanted { generation, manifest, rejected: &rejected, due: &due, completed: &BTreeSet::new() },
        seen,
    )
}

fn told_of(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| format!("{step}\n"));
    let waiting = plan.waiting.iter().map(|w| format!("    Wait  {}  {}\n", w.what, w.why));
    steps.chain(waiting).collect::<String>().replace(&"a".repeat(64), "aaa").replace(&"b".repeat(64), "bbb")
}

/// The host after a plan for this manifest was carried out as generation 1.
fn host_of(manifest: &Manifest) -> Seen {
    let mut seen = Seen::default();
    carry_out(1, manifest, &mut seen);
    seen
}

/// Carries a plan out; where something waits, what can be done now is.
fn carry_out(generation: u64, manifest: &Manifest, seen: &mut Seen) {
    for step in planned(generation, manifest, seen).steps {
        match step {
            Step::Fetch { image, .. } => drop(seen.images.insert(image.digest)),
            Step::CreateVolume { volume, life } => drop(seen.volumes.insert(volume, life)),
            Step::LimitVolume { volume, size } => seen.quotas.entry(volume).or_default().limit = size,
            Step::CreateNetwork { network, spec } => drop(seen.networks.insert(network, spec)),
            Step::Start { instance, image, fingerprint, addresses, addresses6, .. } => {
                let container = &manifest.containers[&instance.name];
                let health = if container.health.is_some() { Health::Starting } else { Health::Unchecked };
                let contents = contents(manifest, container);
                let (state, ready, overdue) = (State::Running, false, false);
                let damaged = false;
                let started = SeenInstance {
                    fingerprint,
                    image,
                    addresses,
                    addresses6,
                    state,
                    damaged,
                    health,
                    ready,
                    overdue,
                    contents,
                };
                drop(seen.instances.insert(instance, started));
            }
            Step::Stop { instance, .. } => drop(seen.instances.remove(&instance)),
            Step::Publish { ports } => seen.published = ports.into_iter().collect(),
            other => panic!("{other} is not expected here"),
        }
    }
}

fn web_and_cache() -> Manifest {
    let (web, cache) = (image('a'), image('b'));
    manifest(&format!(
        "[volume.data]\nlife = \"keep\"\n[container.web]\n{web}ports = [\"8080:80\"]\ndepends-on = [\"cache\"]\n[container.cache]\n{cache}volumes = [\"data:/data\"]\n"
    ))
}

#[test]
fn an_empty_host_becomes_what_the_manifest_says() {
    insta::assert_snapshot!(told(1, &web_and_cache(), &Seen::default()));
}

#[test]
fn a_host_that_is_as_declared_has_nothing_to_do() {
    let manifest = web_and_cache();
    assert_eq!(told(1, &manifest, &host_of(&manifest)), "");
}

#[test]
fn a_new_image_replaces_one_container_and_leaves_the_other() {
    let seen = host_of(&web_and_cache());
    let (web, cache) = (image('c'), image('b'));
    let after = manifest(&format!(
        "[volume.data]\nlife = \"keep\"\n[container.web]\n{web}ports = [\"8080:80\"]\ndepends-on = [\"cache\"]\n[container.cache]\n{cache}volumes = [\"data:/data\"]\n"
    ));
    insta::assert_snapshot!(told(2, &after, &seen).replace(&"c".repeat(64), "ccc"));
}

#[test]
fn another_published_port_restarts_nothing() {
    let seen = host_of(&web_and_cache());
    let (web, cache) = (image('a'), image('b'));
    let after = manifest(&format!(
        "[volume.data]\nlife = \"keep\"\n[container.web]\n{web}ports = [\"9090:80\"]\ndepends-on = [\"cache\"]\n[container.cache]\n{cache}volumes = [\"data:/data\"]\n"
    ));
    assert_eq!(told(2, &after, &seen), " Publish  9090→10.90.0.3:80\n");
}

#[test]
fn a_container_stopped_by_hand_is_started_again_as_the_same_instance() {
    let manifest = web_and_cache();
    let mut seen = host_of(&manifest);
    seen.instances.get_mut(&"web-1".parse().unwrap()).unwrap().state = State::Stopped;
    assert_eq!(told(1, &manifest, &seen), "    Stop  web-1  not running\n   Start  web-1  not running\n");
}

#[test]
fn a_container_that_its_restart_policy_lets_rest_is_left_alone() {
    let body = |restart: &str| format!("[container.job]\n{}restart = \"{restart}\"\n", image('a'));
    for (restart, state, rests) in [
        ("always", State::Completed, false),
        ("always", State::Failed, false),
        ("on-failure", State::Completed, true),
        ("on-failure", State::Failed, false),
        ("no", State::Completed, true),
        ("no", State::Failed, true),
        ("no", State::Stopped, false),
        ("always", State::Restarting, true),
    ] {
        let manifest = manifest(&body(restart));
        let mut seen = host_of(&manifest);
        seen.instances.values_mut().for_each(|i| i.state = state);
        assert_eq!(told(1, &manifest, &seen).is_empty(), rests, "{restart} {state:?}");
    }
}

#[test]
fn a_network_without_a_free_address_makes_the_container_wait_with_its_reason() {
    let body = |names: &[&str]| {
        let containers: String = names
            .iter()
            .map(|n| format!("[container.{n}]\n{}networks = [\"small\"]\n", image('a')))
            .collect();
        format!("[network.small]\nsubnet = \"10.1.1.0/30\"\n{containers}")
    };
    // Of four addresses one is the network's, one the gateway's, one the broadcast's.
    let told = told(1, &manifest(&body(&["a", "b"])), &Seen::default());
    assert!(told.contains("Start  a-1"), "{told}");
    assert!(told.contains("Wait  container b  network small has no free address in 10.1.1.0/30"), "{told}");
}

#[test]
fn a_network_that_names_no_subnet_keeps_the_one_it_has_unless_another_claims_it() {
    let one = |body: &str| manifest(&format!("{body}[container.c]\n{}networks = [\"n\"]\n", image('a')));
    let mut seen = host_of(&one("[network.n]\n"));
    let had = SeenNetwork::of(&Network::default(), "10.90.7.0/24".parse().unwrap());
    seen.networks.insert("n".parse().unwrap(), had.clone());
    seen.instances.values_mut().for_each(|i| {
        i.addresses.insert("n".parse().unwrap(), "10.90.7.2".parse().unwrap());
    });
    assert_eq!(told(2, &one("[network.n]\n"), &seen), "");

    let claimed = "[network.n]\n[network.other]\nsubnet = \"10.90.7.0/24\"\n";
    let claimed = manifest(&format!(
        "{claimed}[container.c]\n{}networks = [\"n\"]\n[container.d]\n{}networks = [\"other\"]\n",
        image('a'),
        image('a')
    ));
    let told = told(2, &claimed, &seen);
    assert!(told.contains("Remove  network n  10.90.7.0/24"), "{told}");
    assert!(told.contains("Create  network n  10.90.0.0/24"), "{told}");
}

#[test]
fn a_manifest_that_would_destroy_must_say_so() {
    let seen = host_of(&web_and_cache());
    let volume = || "data".parse().unwrap();
    let with = |head: &str, body: &str| {
        let text = format!("{HEADER}{head}{body}");
        bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("story", &text)))
    };
    let keeps = "[volume.data]\nlife = \"keep\"\n";
    assert_eq!(guard(&with("", keeps), &seen), [Danger::RemovesEveryContainer]);
    assert_eq!(guard(&with("allow-empty = true\n", keeps), &seen), []);
    assert_eq!(guard(&with("allow-empty = true\n", ""), &seen), [Danger::DropsVolume { volume: volume() }]);
    let scratch = "[volume.data]\nlife = \"scratch\"\n";
    assert_eq!(
        guard(&with("allow-empty = true\n", scratch), &seen),
        [Danger::ForgetsVolume { volume: volume() }]
    );
    let destroys = "[volume.data]\nlife = \"keep\"\ndestroy = true\n";
    assert_eq!(guard(&with("allow-empty = true\n", destroys), &seen), []);
    assert_eq!(guard(&with("allow-empty = true\n", ""), &Seen::default()), []);
}

#[test]
fn a_volume_goes_only_where_the_manifest_says_so() {
    let mut seen = Seen::default();
    seen.volumes.insert("kept".parse().unwrap(), VolumeLife::Keep);
    seen.volumes.insert("loose".parse().unwrap(), VolumeLife::Scratch);
    let empty = manifest("allow-empty = true\n");
    assert_eq!(told(2, &empty, &seen), " Destroy  volume loose  and all data in it\n");
    let says_so = manifest("allow-empty = true\n[volume.kept]\nlife = \"keep\"\ndestroy = true\n");
    assert!(told(2, &says_so, &seen).contains("Destroy  volume kept"));
}

#[test]
fn a_changed_size_of_a_volume_is_applied_and_restarts_nothing() {
    let of = |volume: &str| {
        manifest(&format!(
            "[volume.data]\n{volume}[container.web]\n{}volumes = [\"data:/data\"]\n",
            image('a')
        ))
    };
    let mut seen = Seen::default();
    let first = of("life = \"keep\"\nsize = \"1GiB\"\n");
    assert!(
        told(1, &first, &seen)
            .contains("  Create  volume data  kept\n   Limit  volume data  to 1073741824 bytes\n")
    );
    carry_out(1, &first, &mut seen);
    assert_eq!(told(2, &first, &seen), "");
    let larger = of("life = \"keep\"\nsize = \"2GiB\"\n");
    assert_eq!(told(2, &larger, &seen), "   Limit  volume data  to 2147483648 bytes\n");
    let without = of("life = \"snapshot\"\n");
    assert_eq!(
        told(2, &without, &seen),
        "   Limit  volume data  without limit\n",
        "nor does the other life restart it"
    );
}

#[test]
fn a_size_below_what_a_volume_holds_is_refused_and_one_above_is_not() {
    let of = |size: &str| manifest(&format!("[volume.data]\nlife = \"keep\"\nsize = \"{size}\"\n"));
    let mut seen = Seen::default();
    let data: bennu_manifests::model::Name = "data".parse().unwrap();
    seen.volumes.insert(data.clone(), VolumeLife::Keep);
    let (used, size) = (3 << 30, 2 << 30);
    seen.quotas.insert(data.clone(), Quota { used: Some(used), limit: None });
    assert_eq!(guard(&of("2GiB"), &seen), [Danger::ShrinksVolume { volume: data.clone(), size, used }]);
    assert_eq!(guard(&of("4GiB"), &seen), []);
    seen.quotas.insert(data.clone(), Quota { used: Some(used), limit: Some(size) });
    assert_eq!(guard(&of("2GiB"), &seen), [], "it is so already");
    assert_eq!(
        guard(&manifest("[volume.data]\nlife = \"keep\"\ndestroy = true\nsize = \"1GiB\"\n"), &seen),
        []
    );
}

fn now<'a>(seen: &'a mut Seen, instance: &str) -> &'a mut SeenInstance {
    seen.instances.get_mut(&instance.parse().unwrap()).unwrap()
}

#[test]
fn what_depends_on_health_or_on_an_end_waits_for_it() {
    let manifest = manifest(&format!(
        "[container.db]\n{a}health = {{ tcp = 5432 }}\n[job.prepare]\n{a}when = \"once\"\n\
         [container.web]\n{a}depends-on = {{ db = \"healthy\", prepare = \"completed\" }}\n\
         [container.side]\n{a}depends-on = [\"web\"]\n",
        a = image('a')
    ));
    let mut seen = host_of(&manifest);
    let waits = "    Wait  container web  container db is not healthy yet\n    Wait  container side  container web is not started yet\n";
    assert_eq!(told(1, &manifest, &seen), waits);
    now(&mut seen, "db-1").health = Health::Healthy;
    assert!(told(1, &manifest, &seen).contains("job prepare has not completed"));
    let (none, completed) = (BTreeSet::new(), BTreeSet::from(["prepare".parse().unwrap()]));
    let (rejected, due) = (BTreeSet::new(), &none);
    let wanted =
        Wanted { generation: 1, manifest: &manifest, rejected: &rejected, due, completed: &completed };
    let told = told_of(&bennu_planner::plan(wanted, &seen));
    assert_eq!(told, "   Start  web-1  new\n   Start  side-1  new\n");
}

#[test]
fn a_dependency_that_falls_ill_later_does_not_stop_what_depends_on_it() {
    let text = format!(
        "[container.db]\n{a}health = {{ tcp = 5432, on-failure = \"report\" }}\n\
         [container.web]\n{a}depends-on = {{ db = \"healthy\" }}\n",
        a = image('a')
    );
    let manifest = manifest(&text);
    let mut seen = host_of(&manifest);
    now(&mut seen, "db-1").health = Health::Healthy;
    carry_out(1, &manifest, &mut seen);
    now(&mut seen, "db-1").health = Health::Unhealthy;
    assert_eq!(told(1, &manifest, &seen), "");
}

#[test]
fn what_fails_its_health_check_is_started_again_or_only_reported() {
    let body =
        |more: &str| manifest(&format!("[container.web]\n{}health = {{ tcp = 80{more} }}\n", image('a')));
    for (more, plan) in [("", " Restart  web-1  unhealthy\n"), (", on-failure = \"report\"", "")] {
        let mut seen = host_of(&body(more));
        now(&mut seen, "web-1").health = Health::Unhealthy;
        assert_eq!(told(1, &body(more), &seen), plan);
    }
}

fn start_first(letter: char) -> Manifest {
    manifest(&format!(
        "[container.web]\n{}ports = [\"80:80\"]\nhealth = {{ tcp = 80 }}\nupdate = {{ order = \"start-first\" }}\n",
        image(letter)
    ))
}

/// A host whose web-1 is healthy and whose web-2 was just started beside it.
fn host_in_the_middle() -> (Manifest, Seen) {
    let mut seen = host_of(&start_first('a'));
    now(&mut seen, "web-1").health = Health::Healthy;
    let after = start_first('b');
    carry_out(2, &after, &mut seen);
    (after, seen)
}

#[test]
fn start_first_moves_the_ports_once_the_new_one_is_healthy_and_stops_the_old_one_then() {
    let (after, mut seen) = host_in_the_middle();
    assert_eq!(seen.instances.len(), 2, "both are there");
    assert_eq!(told(2, &after, &seen), "    Wait  web-2  it is not ready yet; web-1 goes on\n");
    now(&mut seen, "web-2").health = Health::Healthy;
    assert_eq!(told(2, &after, &seen), " Publish  80→10.90.0.3:80\n");
    carry_out(2, &after, &mut seen);
    assert_eq!(told(2, &after, &seen), "    Stop  web-1  changed\n");
}

#[test]
fn start_first_is_stop_first_where_a_network_of_the_old_one_is_made_anew() {
    let with = |network: &str, letter| {
        manifest(&format!(
            "[network.back]\nsubnet = \"10.9.0.0/24\"\n{network}[container.web]\n{}networks = [\"back\"]\nupdate = {{ order = \"start-first\" }}\n",
            image(letter)
        ))
    };
    let seen = host_of(&with("mtu = 1400\n", 'a'));
    let stops_first = |manifest: &Manifest| told(2, manifest, &seen).contains("Stop  web-1");
    assert!(!stops_first(&with("mtu = 1400\n", 'b')), "it goes on beside the new one");
    let forgotten = Seen { networks: Default::default(), ..seen.clone() };
    assert!(
        !told(2, &with("mtu = 1400\n", 'b'), &forgotten).contains("Stop  web-1"),
        "nothing is taken down"
    );
    for changed in [
        "mtu = 1300\n",
        "mtu = 1400\ngateway = \"10.9.0.9\"\n",
        "mtu = 1400\ninternal = true\n",
        "mtu = 1400\nisolated = true\n",
    ] {
        assert!(stops_first(&with(changed, 'b')), "{changed}");
    }
}

#[test]
fn another_runtime_makes_every_container_anew_and_the_usual_one_by_name_does_not() {
    let with = |os: &str| manifest(&format!("{os}[container.web]\n{}", image('a')));
    let seen = host_of(&with(""));
    assert_eq!(told(2, &with("[os]\nruntime = \"crun\"\n"), &seen), "");
    let changed = told(2, &with("[os]\nruntime = \"runc\"\n"), &seen);
    assert!(changed.contains("Stop  web-1  changed") && changed.contains("Start  web-2"), "{changed}");
}

/// The plan of a host that has given up what the manifest says of `web`.
fn told_where_web_was_rejected(generation: u64, manifest: &Manifest, seen: &Seen) -> String {
    let web: Name = "web".parse().unwrap();
    let made_from = fingerprint(manifest, &manifest.containers[&web]);
    let (rejected, none) = (BTreeSet::from([(web, made_from)]), BTreeSet::new());
    let wanted = Wanted { generation, manifest, rejected: &rejected, due: &none, completed: &none };
    told_of(&bennu_planner::plan(wanted, seen))
}

#[test]
fn a_new_one_that_does_not_become_healthy_is_taken_back_and_not_tried_again() {
    type FallsIll = fn(&mut SeenInstance);
    let falls_ill: [(FallsIll, &str); 3] = [
        (|new| new.health = Health::Unhealthy, "its health check failed"),
        (|new| new.overdue = true, "it was not healthy and ready within its time"),
        (|new| new.state = State::Failed, "it ended with an error"),
    ];
    for (falls_ill, why) in falls_ill {
        let (after, mut seen) = host_in_the_middle();
        falls_ill(now(&mut seen, "web-2"));
        let plan = planned(2, &after, &seen);
        assert_eq!(told_of(&plan), format!("  Reject  web-2  {why}\n    Stop  web-2  rejected\n"));

        seen.instances.remove(&"web-2".parse().unwrap());
        let told = told_where_web_was_rejected(2, &after, &seen);
        assert!(told.starts_with("    Wait  container web") && told.contains("web-1 goes on"), "{told}");
        assert!(!told.contains("Start") && !told.contains("Publish"), "{told}");
    }
}

#[test]
fn what_is_rejected_and_has_nothing_to_go_back_to_is_started() {
    let manifest = start_first('a');
    let told = told_where_web_was_rejected(1, &manifest, &Seen::default());
    assert!(told.contains("Start  web-1  new"), "{told}");
}

#[test]
fn ports_are_published_once_what_they_lead_to_can_be_reached() {
    let text = format!("[container.web]\n{}ports = [\"80:80\"]\nreadiness = {{ tcp = 80 }}\n", image('a'));
    let manifest = manifest(&text);
    let mut seen = host_of(&manifest);
    assert_eq!(seen.published.len(), 0);
    now(&mut seen, "web-1").ready = true;
    assert_eq!(told(1, &manifest, &seen), " Publish  80→10.90.0.2:80\n");
}

#[test]
fn replicas_come_and_go_one_by_one_and_the_first_stays() {
    let body = |replicas: u32| manifest(&format!("[container.web]\n{}replicas = {replicas}\n", image('a')));
    let mut seen = host_of(&body(1));
    assert_eq!(told(2, &body(3), &seen), "   Start  web-2.2  new\n   Start  web-2.3  new\n");
    carry_out(2, &body(3), &mut seen);
    assert_eq!(told(2, &body(3), &seen), "");
    assert_eq!(told(3, &body(2), &seen), "    Stop  web-2.3  not declared\n");
}

#[test]
fn a_changed_config_makes_a_new_instance_or_sends_a_signal() {
    let body = |content: &str, more: &str| {
        manifest(&format!(
            "[config.c]\ncontent = \"{content}\"\n[container.web]\n{}configs = [\"c:/etc/c\"]\n{more}",
            image('a')
        ))
    };
    let restarts = told(2, &body("b", ""), &host_of(&body("a", "")));
    assert_eq!(restarts, "    Stop  web-1  changed\n   Start  web-2  changed\n");
    let signal = "on-change = \"SIGHUP\"\n";
    let seen = host_of(&body("a", signal));
    assert_eq!(told(2, &body("b", signal), &seen), " Refresh  web-1  SIGHUP\n");
    assert_eq!(told(2, &body("a", signal), &seen), "");
}

#[test]
fn a_job_starts_when_it_is_due_and_goes_when_it_has_ended() {
    let manifest = manifest(&format!("allow-empty = true\n[job.backup]\n{}when = \"daily\"\n", image('a')));
    let backup: Name = "backup".parse().unwrap();
    let mut seen = host_of(&manifest);
    assert_eq!(told(1, &manifest, &seen), "");
    let (rejected, due) = (BTreeSet::new(), BTreeSet::from([backup.clone()]));
    let wanted = Wanted {
        generation: 1,
        manifest: &manifest,
        rejected: &rejected,
        due: &due,
        completed: &BTreeSet::new(),
    };
    let plan = bennu_planner::plan(wanted, &seen);
    let told_due = told_of(&plan);
    assert!(told_due.contains("Start  backup-1  due"), "{told_due}");
    let fingerprint = fingerprint(&manifest, &manifest.jobs[&backup].container);
    let running = SeenInstance {
        fingerprint,
        image: manifest.jobs[&backup].container.image.clone(),
        addresses: [("default".parse().unwrap(), "10.90.0.2".parse().unwrap())].into(),
        addresses6: Default::default(),
        state: State::Running,
        damaged: false,
        health: Health::Unchecked,
        ready: false,
        overdue: false,
        contents: Digest::from_bytes([0; 32]),
    };
    seen.instances.insert("backup-1".parse().unwrap(), running);
    assert_eq!(told(1, &manifest, &seen), "", "it runs");
    now(&mut seen, "backup-1").state = State::Completed;
    assert!(told(1, &manifest, &seen).contains("Stop  backup-1  finished"));
}

#[test]
fn a_network_without_addresses_of_its_own_is_not_set_up() {
    for kind in ["host", "none"] {
        let text =
            format!("[network.n]\nkind = \"{kind}\"\n[container.c]\n{}networks = [\"n\"]\n", image('a'));
        let told = told(1, &manifest(&text), &Seen::default());
        assert!(told.ends_with("   Start  c-1  new\n") && !told.contains("network"), "{told}");
        let manifest = manifest(&text);
        assert_eq!(planned(1, &manifest, &host_of(&manifest)), Plan::default());
    }
}

#[test]
fn a_declared_address_is_given_and_one_that_is_taken_makes_the_container_wait() {
    let body = |more: &str| {
        let network = "[network.n]\nsubnet = \"10.1.1.0/24\"\n";
        let one =
            format!("[container.a]\n{}networks = [\"n\"]\naddresses = {{ n = \"10.1.1.7\" }}\n", image('a'));
        manifest(&format!("{network}{one}{more}"))
    };
    let told_once = format!("{:?}", planned(1, &body(""), &Seen::default()).steps);
    assert!(told_once.contains("10.1.1.7"), "{told_once}");
    let mut seen = host_of(&body(""));
    let taken = now(&mut seen, "a-1").clone();
    seen.instances.clear();
    let other = format!("[container.b]\n{}networks = [\"n\"]\n", image('a'));
    seen.instances.insert("b-1".parse().unwrap(), taken);
    let manifest = body(&other);
    let made_from = fingerprint(&manifest, &manifest.containers[&"b".parse::<Name>().unwrap()]);
    now(&mut seen, "b-1").fingerprint = made_from;
    assert!(told(1, &manifest, &seen).contains("address 10.1.1.7 of network n is in use"));
}

#[test]
fn what_somebody_changed_by_hand_is_put_right_and_nothing_else_is_touched() {
    let manifest = web_and_cache();
    let seen = host_of(&manifest);
    let after = |change: &dyn Fn(&mut Seen)| {
        let mut seen = seen.clone();
        change(&mut seen);
        told(1, &manifest, &seen)
    };
    assert_eq!(
        after(&|seen| seen.astray.firewall = true),
        " Restore  firewall  its rules are not as they were made\n"
    );
    let ports_too = planned(1, &manifest, &{
        let mut seen = seen.clone();
        seen.astray.firewall = true;
        seen.published.clear();
        seen
    });
    let restored = Step::RestoreFirewall { ports: seen.published.iter().cloned().collect() };
    assert_eq!(ports_too.steps, [restored], "rules and ports come back in one transaction");
    assert_eq!(
        after(&|seen| seen.astray.names = true),
        " Restore  names  nobody answers for containers' names\n"
    );
    assert_eq!(
        after(&|seen| seen.astray.units = ["miner.service".to_owned()].into()),
        "    Stop  miner.service  no container\n"
    );
    assert_eq!(
        after(&|seen| now(seen, "web-1").damaged = true),
        "    Stop  web-1  a part of it is missing\n   Start  web-1  a part of it is missing\n"
    );
}

#[test]
fn an_old_instance_with_a_missing_part_is_not_kept_beside_the_new_one() {
    let (first, second) = (start_first('a'), start_first('b'));
    let mut seen = host_of(&first);
    now(&mut seen, "web-1").damaged = true;
    let told = told(2, &second, &seen);
    assert!(told.contains("Stop  web-1") && told.contains("Start  web-2"), "{told}");
}

/// A network with both kinds of addresses, and a container on it.
fn both_kinds(network: &str, container: &str) -> Manifest {
    manifest(&format!(
        "[network.n]\nsubnet = \"10.1.1.0/24\"\nsubnet6 = \"fd00:1::/64\"\n{network}[container.a]\n{}networks = [\"n\"]\n{container}",
        image('a')
    ))
}

#[test]
fn a_container_has_an_address_of_each_kind_and_ports_lead_to_the_one_of_theirs() {
    let ports = "ports = [\"80:8080\", \"[::]:80:8080\", \"[2001:db8::1]:53:53/udp\"]\n";
    let told = told(1, &both_kinds("", ports), &Seen::default());
    for published in ["80→10.1.1.2:8080", "80→[fd00:1::2]:8080", "53→[fd00:1::2]:53"] {
        assert!(told.contains(published), "{published} in {told}");
    }
    let manifest = both_kinds("", ports);
    assert_eq!(planned(1, &manifest, &host_of(&manifest)), Plan::default());
}

#[test]
fn addresses_of_routers_are_given_to_nobody() {
    let given = |network: &str| match planned(1, &both_kinds(network, ""), &Seen::default()).steps.pop() {
        Some(Step::Start { addresses, addresses6, .. }) => {
            let (v4, v6) = (addresses.values().next().cloned(), addresses6.values().next().cloned());
            format!("{} {}", v4.unwrap(), v6.unwrap())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(given(""), "10.1.1.2 fd00:1::2");
    assert_eq!(given("gateway = \"10.1.1.254\"\n"), "10.1.1.1 fd00:1::2");
    assert_eq!(given("gateway = \"fd00:1::fe\"\n"), "10.1.1.2 fd00:1::1");
}

#[test]
fn another_ipv6_subnet_makes_what_is_on_it_anew() {
    let before = both_kinds("", "");
    let mut seen = host_of(&before);
    seen.networks.values_mut().for_each(|network| network.subnet6 = Some("fd00:2::/64".parse().unwrap()));
    now(&mut seen, "a-1").addresses6.values_mut().for_each(|a| *a = "fd00:2::2".parse().unwrap());
    let told = told(2, &before, &seen);
    let expected = ["Stop  a-1", "Remove  network n", "Create  network n", "Start  a-2"];
    assert!(expected.iter().all(|step| told.contains(step)), "{told}");
}
