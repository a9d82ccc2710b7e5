//! Small stories, told as an operator would read them.

use bennu_manifests::model::{Manifest, VolumeLife};
use bennu_planner::{Danger, Seen, SeenInstance, SeenNetwork, State, Step, Wanted, guard, plan};

const HEADER: &str = "schema = 1\nname = \"story\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2027-01-01T00:00:00Z\n";

fn manifest(body: &str) -> Manifest {
    let text = format!("{HEADER}{body}");
    bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("story", &text)))
}

fn image(letter: char) -> String {
    format!("image = \"r.example/i:1@sha256:{}\"\n", letter.to_string().repeat(64))
}

fn told(generation: u64, manifest: &Manifest, seen: &Seen) -> String {
    let plan = plan(Wanted { generation, manifest }, seen);
    let steps = plan.steps.iter().map(|step| format!("{step}\n"));
    let waiting = plan.waiting.iter().map(|w| format!("    Wait  {}  {}\n", w.what, w.why));
    steps.chain(waiting).collect::<String>().replace(&"a".repeat(64), "aaa").replace(&"b".repeat(64), "bbb")
}

/// The host after a plan for this manifest was carried out as generation 1.
fn host_of(manifest: &Manifest) -> Seen {
    let mut seen = Seen::default();
    for step in plan(Wanted { generation: 1, manifest }, &seen).steps {
        match step {
            Step::Fetch { image, .. } => drop(seen.images.insert(image.digest)),
            Step::CreateVolume { volume, life } => drop(seen.volumes.insert(volume, life)),
            Step::CreateNetwork { network, spec } => drop(seen.networks.insert(network, spec)),
            Step::Start { instance, image, fingerprint, addresses, .. } => {
                let started = SeenInstance { fingerprint, image, addresses, state: State::Running };
                drop(seen.instances.insert(instance, started));
            }
            Step::Publish { ports } => seen.published = ports.into_iter().collect(),
            other => panic!("{other} on an empty host"),
        }
    }
    seen
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
    let had = SeenNetwork { subnet: "10.90.7.0/24".parse().unwrap(), internal: false };
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
