//! Mirrors that help, and mirrors that do not.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, Credentials};
use bennu_image_store::{PullError, Store};
use bennu_manifests::UnpinnedRef;
use common::Tar;
use common::registry::{Answer, MANIFEST, Manner, Parts, Seen, Server, noise};

fn parts() -> Parts {
    let tars: Vec<_> = (0..2).map(|i| Tar::new().file("file", noise(300_000 + i)).end()).collect();
    Parts::new("amd64", &tars)
}

fn options(registry: &str, mirrors: &[&str]) -> ClientOptions {
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    options.patience.silence = Duration::from_millis(500);
    options.patience.mirror = Duration::from_millis(300);
    options.mirrors.insert(registry.to_owned(), mirrors.iter().map(|mirror| mirror.to_string()).collect());
    options
}

fn honest(parts: &Parts) -> Server {
    let parts = parts.clone();
    Server::start(move |seen| parts.answer_to(seen))
}

/// Gives everything with one byte changed.
fn evil(parts: &Parts) -> Server {
    let parts = parts.clone();
    Server::start(move |seen| {
        let mut answer = parts.answer_to(seen);
        if let Some(byte) = answer.body.last_mut() {
            *byte ^= 1;
        }
        answer
    })
}

/// An address where nobody listens.
fn dead() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").to_string()
}

async fn pull(client: &Client, registry: &str, parts: &Parts) -> Result<(), PullError> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let image = format!("{registry}/a/b@{}", parts.digest()).parse().expect("a reference");
    store.pull(client, &image, &Platform::linux("amd64"), &()).await?;
    assert!(store.scrub().expect("read").is_empty(), "something else was kept");
    Ok(())
}

fn layers(server: &Server, parts: &Parts) -> usize {
    server.seen().iter().filter(|seen| parts.is_layer(&seen.path)).count()
}

#[tokio::test]
async fn t13_of_three_mirrors_one_evil_and_one_dead_the_third_is_enough_in_every_order() {
    let parts = parts();
    let registry = dead();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (evil, good, dead) = (evil(&parts), honest(&parts), dead());
        let all = [evil.address.as_str(), dead.as_str(), good.address.as_str()];
        let client = Client::new(options(&registry, &order.map(|i| all[i]))).expect("a client");
        pull(&client, &registry, &parts).await.unwrap_or_else(|error| panic!("{order:?}: {error:?}"));
        let seen = evil.seen().len();
        pull(&client, &registry, &parts).await.expect("again");
        assert_eq!(evil.seen().len(), seen, "{order:?}: one that lied was asked again");
    }
}

#[tokio::test]
async fn t13_mirrors_that_spoil_layers_alone_are_found_out_and_passed_over() {
    let parts = parts();
    for at in [0, 40, usize::MAX] {
        let sound = parts.clone();
        let evil = Server::start(move |seen| {
            let mut answer = sound.answer_to(seen);
            if sound.is_layer(&seen.path) {
                let at = at.min(answer.body.len() - 1);
                answer.body[at] ^= 1;
            }
            answer
        });
        let registry = honest(&parts);
        let client = Client::new(options(&registry.address, &[&evil.address])).expect("a client");
        pull(&client, &registry.address, &parts).await.expect("the registry has it");
        assert_eq!(layers(&registry, &parts), 2, "byte {at}");
        assert!(layers(&evil, &parts) > 0, "byte {at}");
    }
}

#[tokio::test]
async fn mirrors_that_say_nothing_or_say_no_are_passed_over() {
    let parts = parts();
    type Behaviour = fn(Answer) -> Answer;
    let behaviours: [(&str, Behaviour); 10] = [
        ("silent", |honest| honest.sent(Manner::Silent)),
        ("silent in the middle", |honest| honest.sent(Manner::SilentAfter(100))),
        ("slow", |honest| honest.sent(Manner::Drip(Duration::from_millis(20)))),
        ("404", |_| Answer::status(404)),
        ("401", |_| Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")),
        ("503", |_| Answer::status(503).header("Retry-After", "3600")),
        ("a redirect to itself", |_| Answer::redirect("/v2/")),
        ("everything as a page", |honest| {
            Answer { headers: Vec::new(), ..honest }.header("Content-Type", "text/html")
        }),
        ("everything without a type", |honest| Answer { headers: Vec::new(), ..honest }),
        ("no HTTP", |_| Answer::raw("hello")),
    ];
    for (name, behaviour) in behaviours {
        let sound = parts.clone();
        let mirror = Server::start(move |seen| behaviour(sound.answer_to(seen)));
        let registry = honest(&parts);
        let client = Client::new(options(&registry.address, &[&mirror.address])).expect("a client");
        pull(&client, &registry.address, &parts).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(!mirror.seen().is_empty(), "{name}: it was not asked");
    }
}

#[tokio::test]
async fn what_one_mirror_began_the_next_goes_on_with() {
    let parts = Parts::new("amd64", &[Tar::new().file("file", noise(300_000)).end()]);
    let sound = parts.clone();
    let first = Server::start(move |seen| {
        let answer = sound.answer_to(seen);
        if sound.is_layer(&seen.path) { answer.cut(100_000) } else { answer }
    });
    let second = honest(&parts);
    let registry = dead();
    let client = Client::new(options(&registry, &[&first.address, &second.address])).expect("a client");
    pull(&client, &registry, &parts).await.expect("both together");
    let begun: Vec<_> = second
        .seen()
        .into_iter()
        .filter(|seen| parts.is_layer(&seen.path))
        .map(|seen| seen.range())
        .collect();
    assert_eq!(begun, [Some((100_000, parts.layers[0].len() - 1))]);
}

#[tokio::test]
async fn t13_a_mirror_that_spoils_the_beginning_and_breaks_off_does_not_discredit_the_next() {
    let parts = Parts::new("amd64", &[Tar::new().file("file", noise(300_000)).end()]);
    let sound = parts.clone();
    let evil = Server::start(move |seen| {
        let mut answer = sound.answer_to(seen);
        if sound.is_layer(&seen.path) {
            answer.body[90_000] ^= 1;
            answer = answer.cut(100_000);
        }
        answer
    });
    let good = honest(&parts);
    let registry = dead();
    let client = Client::new(options(&registry, &[&evil.address, &good.address])).expect("a client");
    pull(&client, &registry, &parts).await.expect("the second has all of it");
    assert_eq!((layers(&evil, &parts), layers(&good, &parts)), (1, 2));
}

#[tokio::test]
async fn the_registry_is_not_asked_for_what_a_mirror_gives() {
    let parts = parts();
    let (mirror, registry) = (honest(&parts), honest(&parts));
    let client = Client::new(options(&registry.address, &[&mirror.address])).expect("a client");
    pull(&client, &registry.address, &parts).await.expect("pulled");
    assert_eq!((mirror.seen().len(), registry.seen().len()), (4, 0));
}

#[tokio::test]
async fn t12_a_registry_that_spoils_what_its_mirrors_do_not_have_is_refused() {
    let parts = parts();
    let (mirror, registry) = (Server::start(|_| Answer::status(404)), evil(&parts));
    let client = Client::new(options(&registry.address, &[&mirror.address])).expect("a client");
    let error = pull(&client, &registry.address, &parts).await.expect_err("spoiled");
    assert!(error.is_refusal(), "{error:?}");
}

#[tokio::test]
async fn a_mirror_has_a_path_and_a_login_of_its_own_and_never_that_of_the_registry() {
    let parts = parts();
    let guarded = |login: &'static str| {
        let sound = parts.clone();
        Server::start(move |seen: &Seen| match seen.headers.get("authorization") {
            Some(shown) if shown == login => sound.answer_to(seen),
            _ => Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        })
    };
    // `mirror:other` and `ci:hunter2`
    let (mirror, registry) = (guarded("Basic bWlycm9yOm90aGVy"), guarded("Basic Y2k6aHVudGVyMg=="));
    let place = format!("{}/hub", mirror.address);
    let mut options = options(&registry.address, &[&place]);
    let login = |user, password| Credentials::password(user, password).expect("sound");
    options.credentials.insert(registry.address.clone(), login("ci", "hunter2"));
    let without = Client::new(options.clone()).expect("a client");
    pull(&without, &registry.address, &parts).await.expect("from the registry");
    assert!(registry.saw("Y2k6aHVudGVyMg==") && !mirror.saw("Basic"));

    let asked = registry.seen().len();
    options.credentials.insert(mirror.address.clone(), login("mirror", "other"));
    pull(&Client::new(options).expect("a client"), &registry.address, &parts).await.expect("from the mirror");
    assert!(mirror.seen().iter().all(|seen| seen.path.starts_with("/v2/hub/a/b/")));
    assert_eq!(registry.seen().len(), asked);
}

#[tokio::test]
async fn what_a_tag_means_only_the_registry_itself_may_say() {
    let (ours, theirs) = (parts(), Parts::new("amd64", &[Tar::new().file("old", "x").end()]));
    let tagged = |parts: &Parts| {
        let manifest = parts.manifest.clone();
        Server::start(move |_| Answer::ok(MANIFEST, manifest.clone()))
    };
    let (registry, mirror) = (tagged(&ours), tagged(&theirs));
    let client = Client::new(options(&registry.address, &[&mirror.address])).expect("a client");
    let image: UnpinnedRef = format!("{}/a/b:1", registry.address).parse().expect("a reference");
    assert_eq!(client.resolve(&image).await.expect("resolved"), ours.digest());
    assert!(mirror.seen().is_empty());
}
