//! What plans come to, and what two of them have in common.

use std::collections::{BTreeMap, BTreeSet};

use bennu_manifests::model::{Digest, Manifest, Name, VolumeLife};
use bennu_planner::{
    Amount, Class, Doomed, Health, Instance, Interruption, Layer, Measured, OsSeen, Plan, Seen, SeenInstance,
    SeenVolume, State, Step, Wanted, Writer, came_out, consequences, contents, fingerprint, interruption,
    plan, written,
};

const HEADER: &str = "schema = 1\nname = \"story\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2027-01-01T00:00:00Z\nallow-empty = true\n";
const OLD_OS: Digest = Digest::from_bytes([1; 32]);
const NEW_OS: Digest = Digest::from_bytes([2; 32]);

fn manifest(body: &str) -> Manifest {
    let text = format!("{HEADER}{body}");
    bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("story", &text)))
}

fn container(name: &str, letter: char, more: &str) -> String {
    let digest = letter.to_string().repeat(64);
    format!("[container.{name}]\nimage = \"r.example/i:1@sha256:{digest}\"\n{more}\n")
}

fn os(letter: char) -> String {
    format!("[os]\nimage = \"r.example/os:1@sha256:{}\"\n", letter.to_string().repeat(64))
}

fn planned(generation: u64, manifest: &Manifest, seen: &Seen) -> Plan {
    let none = BTreeSet::new();
    plan(Wanted { generation, manifest, rejected: &BTreeSet::new(), due: &none, completed: &none }, seen)
}

/// A host on which a manifest was carried out as this generation.
fn host_of(generation: u64, manifest: &Manifest) -> Seen {
    let mut seen = Seen::default();
    for step in planned(generation, manifest, &seen.clone()).steps {
        match step {
            Step::Fetch { image, .. } => drop(seen.images.insert(image.digest)),
            Step::CreateVolume { volume, life } => drop(seen.volumes.insert(volume, life)),
            Step::CreateNetwork { network, spec } => drop(seen.networks.insert(network, spec)),
            Step::Publish { ports } => seen.published = ports.into_iter().collect(),
            Step::Start { instance, image, addresses, addresses6, .. } => {
                let container = &manifest.containers[&instance.name];
                let started = SeenInstance {
                    fingerprint: fingerprint(manifest, container),
                    image,
                    addresses,
                    addresses6,
                    state: State::Running,
                    damaged: false,
                    health: Health::Unchecked,
                    ready: true,
                    overdue: false,
                    contents: contents(manifest, container),
                };
                drop(seen.instances.insert(instance, started));
            }
            other => panic!("{other} is not expected here"),
        }
    }
    seen
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn instance(text: &str) -> Instance {
    text.parse().expect("an instance")
}

fn runs(root: Digest) -> OsSeen {
    OsSeen { running: Some(root), roots: BTreeMap::new() }
}

#[track_caller]
fn interrupts(before: &str, after: &str, os: &OsSeen, class: Class, containers: &[&str]) -> Interruption {
    let (seen, after) = (host_of(1, &manifest(before)), manifest(after));
    let interruption = interruption(&planned(2, &after, &seen), &seen, os.restarts_for(&after));
    assert_eq!(interruption.class, class);
    assert_eq!(interruption.containers, containers.iter().map(|one| name(one)).collect());
    interruption
}

#[test]
fn only_what_is_stopped_is_interrupted_and_another_os_interrupts_all_that_runs() {
    let web = container("web", 'a', "");
    let both = format!("{web}{}", container("db", 'b', ""));
    let newer = format!("{}{}", container("web", 'c', ""), container("db", 'b', ""));
    let here = runs(OLD_OS);
    interrupts(&both, &both, &here, Class::None, &[]);
    interrupts(&web, &both, &here, Class::None, &[]);
    interrupts(&both, &newer, &here, Class::Restart, &["web"]);
    interrupts(&both, &web, &here, Class::Restart, &["db"]);
    // An OS that is not in the store yet may be any; one that has the root that runs is no change.
    interrupts(&both, &format!("{}{both}", os('d')), &here, Class::Reboot, &["db", "web"]);
    let image: Digest = format!("sha256:{}", "d".repeat(64)).parse().expect("a digest");
    let known = |root| OsSeen { running: Some(OLD_OS), roots: [(image, root)].into() };
    interrupts(&both, &format!("{}{both}", os('d')), &known(NEW_OS), Class::Reboot, &["db", "web"]);
    interrupts(&both, &format!("{}{newer}", os('d')), &known(OLD_OS), Class::Restart, &["web"]);
}

#[test]
fn what_a_new_instance_takes_over_from_is_not_interrupted() {
    let start_first = "update = { order = \"start-first\" }";
    let (before, after) = (container("web", 'a', start_first), container("web", 'b', start_first));
    let interruption = interrupts(&before, &after, &runs(OLD_OS), Class::None, &[]);
    assert_eq!(interruption.handed_over, [name("web")].into());
}

/// 1000 bytes in a kept volume, 500 in one that is fresh at each boot, 7 by `web` to its own root, 30 to `/etc` and `/var`.
fn measured() -> Measured {
    let holds = |bytes| Some(Amount { bytes, at_least: false });
    let layer = |bytes| Layer { amount: Amount { bytes, at_least: true }, files: 1, ..Layer::default() };
    let volume = |life, bytes| SeenVolume { life, holds: holds(bytes) };
    Measured {
        boot: "one".to_owned(),
        volumes: [
            (name("data"), volume(VolumeLife::Keep, 1000)),
            (name("cache"), volume(VolumeLife::Scratch, 500)),
        ]
        .into(),
        instances: [(instance("web-1"), layer(7)), (instance("db-1"), Layer::default())].into(),
        host: layer(30),
    }
}

fn volumes() -> String {
    "[volume.data]\nlife = \"keep\"\n[volume.cache]\nlife = \"scratch\"\n".to_owned()
}

fn story(data: &str, web: char, os: &str) -> Manifest {
    let data = format!("[volume.data]\nlife = \"keep\"\n{data}\n[volume.cache]\nlife = \"scratch\"\n");
    manifest(&format!("{os}{data}{}{}", container("web", web, ""), container("db", 'b', "")))
}

fn doomed(after: &Manifest) -> (Vec<Doomed>, Vec<Name>) {
    let seen = host_of(
        1,
        &manifest(&format!("{}{}{}", volumes(), container("web", 'a', ""), container("db", 'b', ""))),
    );
    let plan = planned(2, after, &seen);
    let interruption = interruption(&plan, &seen, runs(OLD_OS).restarts_for(after));
    let told = consequences(&plan, interruption, &measured());
    let writers: Vec<_> = told.written.iter().map(|written| written.by.clone()).collect();
    assert_eq!(writers, [Writer::Container { instance: instance("web-1") }, Writer::Host]);
    (
        told.destroyed.into_iter().map(|destroyed| destroyed.what).collect(),
        told.survives.into_iter().map(|survivor| survivor.volume).collect(),
    )
}

#[test]
fn what_is_destroyed_is_named_and_the_rest_survives() {
    let volume = |text: &str| Doomed::Volume { volume: name(text) };
    let layer = Doomed::Layer { instance: instance("web-1") };
    assert_eq!(doomed(&story("", 'a', "")), (vec![], vec![name("cache"), name("data")]));
    assert_eq!(doomed(&story("", 'c', "")), (vec![layer.clone()], vec![name("cache"), name("data")]));
    assert_eq!(doomed(&story("destroy = true", 'a', "")), (vec![volume("data")], vec![name("cache")]));
    let all = vec![volume("cache"), layer, Doomed::Host];
    assert_eq!(doomed(&story("", 'a', &os('d'))), (all, vec![name("data")]));
}

#[test]
fn what_came_out_is_what_is_there_afterwards() {
    let before = measured();
    let mut after = host_of(1, &story("", 'a', ""));
    let gone = |after: &Seen, boot: &str| -> Vec<Doomed> {
        came_out(&before, after, boot).1.into_iter().map(|destroyed| destroyed.what).collect()
    };
    assert_eq!(gone(&after, "one"), []);
    let (volume, layer) =
        (|text: &str| Doomed::Volume { volume: name(text) }, Doomed::Layer { instance: instance("web-1") });
    assert_eq!(
        gone(&after, "two"),
        [volume("cache"), layer.clone(), Doomed::Host],
        "the machine started again"
    );
    after.instances.remove(&instance("web-1"));
    after.volumes.remove(&name("data"));
    let (survived, destroyed) = came_out(&before, &after, "one");
    assert_eq!(survived.iter().map(|one| one.volume.as_str()).collect::<Vec<_>>(), ["cache"]);
    let told: Vec<_> = destroyed.iter().map(|one| (&one.what, one.holds.map(|holds| holds.bytes))).collect();
    assert_eq!(told, [(&volume("data"), Some(1000)), (&layer, Some(7))]);
    after.volumes.insert(name("data"), VolumeLife::Scratch);
    assert_eq!(gone(&after, "one"), [volume("data"), layer], "one of that name, but not that one");
    assert_eq!(written(&before).len(), 2);
}

fn digest(generation: u64, after: &Manifest, seen: &Seen) -> Digest {
    let plan = planned(generation, after, seen);
    plan.digest(&Digest::from_bytes([9; 32]), &interruption(&plan, seen, false))
}

#[test]
fn plans_that_do_the_same_have_one_digest_whatever_was_fetched_and_however_instances_are_numbered() {
    let after = story("", 'c', "");
    let seen = host_of(1, &story("", 'a', ""));
    let known = digest(2, &after, &seen);
    let mut fetched = seen.clone();
    fetched.images.extend(after.images().map(|image| image.digest));
    assert_eq!(digest(2, &after, &fetched), known, "it is fetched");
    assert_eq!(digest(7, &after, &host_of(5, &story("", 'a', ""))), known, "on another host");

    let mut other = seen.clone();
    other.instances.remove(&instance("db-1"));
    assert_ne!(digest(2, &after, &other), known, "another container is started");
    other = seen.clone();
    other.volumes.remove(&name("cache"));
    assert_ne!(digest(2, &after, &other), known, "a volume is made");
    assert_ne!(digest(2, &story("", 'd', ""), &seen), known, "another image");
    let plan = planned(2, &after, &seen);
    let interruption = interruption(&plan, &seen, false);
    assert_ne!(plan.digest(&Digest::from_bytes([8; 32]), &interruption), known, "another manifest");
    let reboot = Interruption { class: Class::Reboot, ..interruption };
    assert_ne!(plan.digest(&Digest::from_bytes([9; 32]), &reboot), known, "the machine starts again");
}
