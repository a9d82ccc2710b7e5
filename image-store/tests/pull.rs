//! Pulls from registries that are honest, broken or hostile.

mod common;

use std::sync::Mutex;
use std::time::Duration;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, RegistryError};
use bennu_image_store::tar::Limits;
use bennu_image_store::{Image, Progress, PullError, Refused, Store, sha256};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::{Digest, ImageRef};
use common::Tar;
use common::registry::{Answer, GZIP, INDEX, MANIFEST, Parts, Server, descriptor, gzip};

fn client() -> Client {
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    Client::new(options).expect("a client")
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), common::confined()).expect("a store");
        Self { dir, store }
    }

    async fn pull(&self, image: &ImageRef) -> Result<Image, PullError> {
        self.store.pull(&client(), image, &Platform::linux("amd64"), &()).await
    }

    /// Pulls what has to be refused, and checks that nothing of it can be found in the store.
    async fn refused(&self, image: &ImageRef) -> Refused {
        let error = self.pull(image).await.expect_err("hostile, and taken");
        assert!(error.is_refusal() && !error.is_retryable(), "{error:?}");
        assert_eq!(self.count("tmp"), 0, "something is left in tmp");
        assert_eq!(self.count("images/sha256"), 0, "an image was recorded");
        match error {
            PullError::Refused { source, .. } => *source,
            other => panic!("{other:?}"),
        }
    }

    fn count(&self, directory: &str) -> usize {
        std::fs::read_dir(self.dir.path().join(directory)).expect("listed").count()
    }
}

fn tars() -> Vec<Vec<u8>> {
    (0..4).map(|i| Tar::new().file(&format!("file{i}"), vec![i; 100_000]).end()).collect()
}

fn parts() -> Parts {
    Parts::new("amd64", &tars())
}

#[derive(Default)]
struct Recorder(Mutex<Vec<(Digest, u64, u64)>>);

impl Progress for Recorder {
    fn layer(&self, digest: &Digest, done: u64, total: u64) {
        self.0.lock().expect("no panic while held").push((*digest, done, total));
    }
}

/// What a configuration says, whatever it is, comes back byte for byte, and what no process could be given is refused.
#[tokio::test]
async fn t16_a_configuration_is_data_and_is_refused_where_it_could_not_be_passed_on() {
    let with = |config: serde_json::Value| {
        let mut parts = Parts::new("amd64", &[Tar::new().file("a", "b").end()]);
        let mut image: serde_json::Value = serde_json::from_slice(&parts.config).expect("JSON");
        image["config"] = config;
        let before = descriptor("application/vnd.oci.image.config.v1+json", &parts.config);
        parts.config = image.to_string().into_bytes();
        let after = descriptor("application/vnd.oci.image.config.v1+json", &parts.config);
        let manifest = String::from_utf8(parts.manifest).expect("text");
        Parts { manifest: manifest.replace(&before, &after).into_bytes(), ..parts }
    };
    for text in [
        "a\n[Service]\nExecStartPre=/bin/sh",
        "%n %i %%",
        "$HOME ${PATH} $(id) `id`",
        "/proc/self/fd/7",
        "../../../etc",
        "\\x0a\t\r\u{1b}[2J",
        "\u{202e}\u{feff}\u{10ffff}",
        "\"'\\;|&<>",
        &"1000:".repeat(800),
    ] {
        let config = serde_json::json!({
            "Cmd": [text, ""], "Entrypoint": [text], "Env": [format!("A={text}"), text], "User": text,
            "WorkingDir": text, "StopSignal": text, "Labels": { text: text },
        });
        let parts = with(config.clone());
        let digest = parts.digest();
        let server = parts.serve();
        let bench = Bench::new();
        let pulled = bench.pull(&server.image(digest)).await.expect("taken");
        let read = bench.store.image(&digest).expect("read").expect("there");
        for image in [pulled, read] {
            let found = image.config.config().as_ref().expect("a configuration");
            let found = serde_json::to_value(found).expect("JSON");
            for (key, value) in config.as_object().expect("an object") {
                assert_eq!(&found[key], value, "{key}");
            }
        }
    }
    for config in [
        serde_json::json!({ "Cmd": ["a\0b"] }),
        serde_json::json!({ "WorkingDir": "/\0" }),
        serde_json::json!({ "Env": ["x".repeat(200_000)] }),
        serde_json::json!({ "Labels": { "a": "x".repeat(2_000_000) } }),
    ] {
        let parts = with(config);
        let image = parts.digest();
        let server = parts.serve();
        let refused = Bench::new().refused(&server.image(image)).await;
        assert!(matches!(refused, Refused::Document(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn an_image_is_pulled_once_and_then_found_without_any_request() {
    let (bench, parts) = (Bench::new(), parts());
    let server = parts.clone().serve();
    let image = server.image(parts.digest());
    let progress = Recorder::default();
    let platform = Platform::linux("amd64");
    let pulled = bench.store.pull(&client(), &image, &platform, &progress).await.expect("pulled");
    assert_eq!(pulled.digest, parts.digest());
    assert_eq!(pulled.layers.len(), 4);
    assert_eq!(pulled.layers[2].diff_id, sha256::digest(&tars()[2]));
    assert_eq!(pulled.size, pulled.layers.iter().map(|layer| layer.size).sum::<u64>());
    assert_eq!(pulled.config.config().as_ref().and_then(|c| c.cmd().clone()), Some(vec!["run".to_owned()]));
    let reports = progress.0.into_inner().expect("no panic while held");
    for layer in &parts.layers {
        let of_layer: Vec<_> =
            reports.iter().filter(|(digest, ..)| *digest == sha256::digest(layer)).collect();
        let total = layer.len() as u64;
        assert_eq!(of_layer.first().map(|r| (r.1, r.2)), Some((0, total)));
        assert_eq!(of_layer.last().map(|r| (r.1, r.2)), Some((total, total)));
    }

    for request in server.seen() {
        assert_eq!(
            request.headers.get("accept-encoding").map(String::as_str),
            Some("identity"),
            "{request:?}"
        );
    }
    let requests = server.seen().len();
    assert_eq!(bench.pull(&image).await.expect("there").layers, pulled.layers);
    assert_eq!(server.seen().len(), requests, "the network was asked for what is here");
    // The same after a new start of the program.
    let again = Store::open(bench.dir.path(), common::confined()).expect("a store");
    assert_eq!(again.images().expect("listed").len(), 1);
    assert!(again.verify().expect("looked at").is_empty());
    assert!(again.scrub().expect("read").is_empty());
}

#[tokio::test]
async fn layers_may_be_compressed_with_zstd_or_not_at_all() {
    for (media_type, zstd) in [
        ("application/vnd.oci.image.layer.v1.tar", false),
        ("application/vnd.oci.image.layer.v1.tar+zstd", true),
    ] {
        let bench = Bench::new();
        let layers = tars()
            .into_iter()
            .map(|tar| if zstd { zstd::encode_all(tar.as_slice(), 3).expect("memory") } else { tar });
        let parts = Parts::with_layers("amd64", &tars(), layers.collect(), media_type);
        let image = parts.clone().serve().image(parts.digest());
        bench.pull(&image).await.expect(media_type);
    }
}

#[tokio::test]
async fn an_image_takes_a_file_for_each_layer_and_one_for_itself() {
    let bench = Bench::new();
    let files = || {
        let count = |directory: &str| bench.count(directory);
        ["", "tmp", "blobs/sha256", "layers/sha256", "images/sha256", "pins"].map(count).iter().sum::<usize>()
    };
    let pull = async |tars: &[Vec<u8>]| {
        let parts = Parts::new("amd64", tars);
        let server = parts.clone().serve();
        bench.pull(&server.image(parts.digest())).await.expect("pulled");
    };
    pull(&[Tar::new().file("first", "1").end()]).await;
    let before = files();
    let six: Vec<_> = (0..6).map(|i| Tar::new().file(&format!("a{i}"), "a").end()).collect();
    pull(&six).await;
    assert_eq!(files() - before, 7);
}

#[tokio::test]
async fn the_image_for_the_platform_is_chosen_from_an_index() {
    let bench = Bench::new();
    let (amd64, arm64) = (parts(), Parts::new("arm64", &tars()[..1]));
    let entry = |parts: &Parts, architecture: &str| {
        let plain = descriptor(MANIFEST, &parts.manifest);
        format!(
            r#"{},"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#,
            plain.trim_end_matches('}')
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
        entry(&arm64, "arm64"),
        entry(&amd64, "amd64")
    );
    let digest = sha256::digest(index.as_bytes());
    let (first, second) = (amd64.clone(), arm64.clone());
    let server = Server::start(move |seen| match &seen.path {
        path if path.ends_with(&digest.to_string()) => Answer::ok(INDEX, index.clone()),
        path => match first.answer(path) {
            Answer { status: 404, .. } => second.answer(path),
            answer => answer,
        },
    });
    let image = server.image(digest);
    let pulled = bench.pull(&image).await.expect("pulled");
    assert_eq!((pulled.digest, pulled.manifest_digest), (digest, amd64.digest()));
    assert_eq!(bench.store.image(&digest).expect("read").expect("there").layers, pulled.layers);

    // The same index for another machine is another image, which is found again by itself.
    for server_is_there in [true, false] {
        let before = server.seen().len();
        let other =
            bench.store.pull(&client(), &image, &Platform::linux("arm64"), &()).await.expect("pulled");
        assert_eq!((other.digest, other.manifest_digest), (arm64.digest(), arm64.digest()));
        assert_eq!(other.config.architecture().to_string(), "arm64");
        assert_eq!(server.seen().len() > before, server_is_there, "asked again");
    }
    assert_eq!(bench.pull(&image).await.expect("still there").manifest_digest, amd64.digest());

    let riscv = bench.store.pull(&client(), &image, &Platform::linux("riscv64"), &()).await;
    assert!(matches!(riscv, Err(PullError::WrongPlatform { .. })), "{riscv:?}");
    let other = Bench::new().store.pull(&client(), &image, &Platform::linux("s390x"), &()).await;
    assert!(
        matches!(&other, Err(PullError::WrongPlatform { found, .. }) if found.contains("linux/arm64")),
        "{other:?}"
    );
}

#[tokio::test]
async fn an_image_of_another_architecture_is_not_taken() {
    let bench = Bench::new();
    let parts = Parts::new("arm64", &tars());
    let image = parts.clone().serve().image(parts.digest());
    let error = bench.pull(&image).await.expect_err("another architecture");
    assert_eq!(error.to_string(), format!("{image} is for linux/arm64, not for linux/amd64"));
    assert_eq!(bench.count("blobs/sha256"), 0);
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let (bench, parts) = (Bench::new(), parts());
    let digest = parts.digest();
    let server = Server::start(move |seen| match parts.answer(&seen.path) {
        answer if seen.path.contains("/manifests/") => {
            let mut body = answer.body;
            body.push(b' ');
            Answer::ok(MANIFEST, body)
        }
        answer => answer,
    });
    let refused = bench.refused(&server.image(digest)).await;
    assert!(
        matches!(refused, Refused::Registry(RegistryError::Digest { expected, .. }) if expected == digest)
    );
}

#[tokio::test]
async fn a_layer_with_a_changed_byte_is_refused_wherever_the_byte_is() {
    for at in [0, 20, 200, usize::MAX] {
        let (bench, parts) = (Bench::new(), parts());
        let digest = parts.digest();
        let server = Server::start(move |seen| {
            let mut answer = parts.answer(&seen.path);
            if parts.is_layer(&seen.path) {
                let at = at.min(answer.body.len() - 1);
                answer.body[at] ^= 1;
            }
            answer
        });
        bench.refused(&server.image(digest)).await;
        assert_eq!(bench.count("blobs/sha256"), 0, "byte {at}");
    }
}

#[tokio::test]
async fn a_manifest_served_as_something_else_is_refused() {
    for media_type in [INDEX, "text/html", ""] {
        let (bench, parts) = (Bench::new(), parts());
        let digest = parts.digest();
        let server = Server::start(move |_| Answer::ok(media_type, parts.manifest.clone()));
        assert!(matches!(bench.refused(&server.image(digest)).await, Refused::Document(_)));
    }
}

#[tokio::test]
async fn documents_with_two_meanings_or_digests_that_are_paths_are_refused() {
    let sound = String::from_utf8(parts().manifest).expect("text");
    let config = sha256::digest(&parts().config).to_string();
    for manifest in [
        sound.replace("\"config\"", "\"manifests\":[],\"config\""),
        sound.replace(&config, "sha256:../../../../etc/passwd"),
        sound.replace(&config, &config.to_uppercase()),
        sound.replace(GZIP, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        sound.replace("\"schemaVersion\":2", "\"schemaVersion\":1"),
        "[".repeat(100_000),
        String::new(),
    ] {
        let bench = Bench::new();
        let digest = sha256::digest(manifest.as_bytes());
        let server = Server::start(move |seen| match &seen.path {
            path if path.contains("/manifests/") => Answer::ok(MANIFEST, manifest.clone()),
            path => parts().answer(path),
        });
        assert!(matches!(bench.refused(&server.image(digest)).await, Refused::Document(_)));
        let asked: Vec<_> = server.seen().into_iter().filter(|seen| seen.path.contains("..")).collect();
        assert!(asked.is_empty(), "{asked:?}");
    }
}

#[tokio::test]
async fn bodies_without_an_end_are_cut_off() {
    let (bench, parts) = (Bench::new(), parts());
    let digest = parts.digest();
    let server = Server::start(|_| Answer::ok(MANIFEST, "").endless());
    let refused = bench.refused(&server.image(digest)).await;
    assert!(matches!(refused, Refused::Registry(RegistryError::TooLarge { .. })), "{refused:?}");

    let server = Server::start(move |seen| {
        let answer = parts.answer(&seen.path);
        if parts.is_layer(&seen.path) { answer.endless() } else { answer }
    });
    bench.refused(&server.image(digest)).await;
}

#[tokio::test]
async fn a_layer_that_is_not_the_one_of_the_configuration_is_refused() {
    let bench = Bench::new();
    let other = Tar::new().file("other", "x").end();
    let parts = Parts::with_layers("amd64", &tars()[..1], vec![gzip(&other)], GZIP);
    let image = parts.clone().serve().image(parts.digest());
    let refused = bench.refused(&image).await;
    assert!(matches!(refused, Refused::DiffId { found, .. } if found == sha256::digest(&other)));
    assert_eq!(bench.count("blobs/sha256"), 0);

    let parts = Parts::with_layers("amd64", &tars()[..2], vec![gzip(&tars()[0])], GZIP);
    let image = parts.clone().serve().image(parts.digest());
    assert!(matches!(bench.refused(&image).await, Refused::LayerCount));
}

#[tokio::test]
async fn hostile_and_broken_layers_are_refused() {
    let hostile = Tar::new().file("../../etc/passwd", "x").end();
    let bench = Bench::new();
    let parts = Parts::new("amd64", std::slice::from_ref(&hostile));
    let image = parts.clone().serve().image(parts.digest());
    assert!(matches!(bench.refused(&image).await, Refused::Layer { .. }));

    let cut = gzip(&tars()[0]);
    let cut = cut[..cut.len() / 2].to_vec();
    for layer in [b"no gzip at all".to_vec(), cut] {
        let parts = Parts::with_layers("amd64", &tars()[..1], vec![layer], GZIP);
        let image = parts.clone().serve().image(parts.digest());
        assert!(matches!(bench.refused(&image).await, Refused::Compression { .. }));
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_and_given_up_in_the_end() {
    let (bench, sound) = (Bench::new(), parts());
    let digest = sound.digest();
    let parts = sound.clone();
    // Everything breaks off twice, and the registry is overloaded once besides.
    let server = Server::start(move |seen| match seen.earlier {
        0 => Answer::status(503),
        1 => Answer::status(429).header("Retry-After", "0"),
        2 => parts.answer(&seen.path).cut(30),
        _ => parts.answer(&seen.path),
    });
    bench.pull(&server.image(digest)).await.expect("pulled in the end");

    let bench = Bench::new();
    let server = Server::start(move |seen| {
        let answer = sound.answer(&seen.path);
        if sound.is_layer(&seen.path) { answer.cut(30) } else { answer }
    });
    let error = bench.pull(&server.image(digest)).await.expect_err("never whole");
    assert!(error.is_retryable() && !error.is_refusal(), "{error:?}");
    assert_eq!((bench.count("tmp"), bench.count("blobs/sha256")), (0, 0));
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_so() {
    let bench = Bench::new();
    let server = Server::start(|_| Answer::status(404));
    let error = bench.pull(&server.image(parts().digest())).await.expect_err("not there");
    assert!(matches!(error, PullError::NotFound { .. }), "{error:?}");
    let server = Server::start(|_| Answer::status(403));
    let error = bench.pull(&server.image(parts().digest())).await.expect_err("not for us");
    assert!(matches!(error, PullError::Denied { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1, "what is denied was asked for again");
}

#[tokio::test]
async fn a_token_is_fetched_and_sent_to_nobody_but_its_registry() {
    let (bench, parts) = (Bench::new(), parts());
    let digest = parts.digest();
    let storage = parts.clone().serve();
    let elsewhere = storage.clone();
    let tokens = Server::start(|_| Answer::ok("application/json", r#"{"token":"secret"}"#));
    let realm = tokens.url("/token");
    let registry = Server::start(move |seen| {
        if seen.headers.get("authorization").map(String::as_str) != Some("Bearer secret") {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:x:push\"");
            return Answer::status(401).header("WWW-Authenticate", challenge);
        }
        if seen.path.contains("/blobs/") {
            Answer::redirect(elsewhere.url(&seen.path))
        } else {
            parts.answer(&seen.path)
        }
    });
    bench.pull(&registry.image(digest)).await.expect("pulled");
    assert_eq!(tokens.seen()[0].path, "/token?service=s&scope=repository%3Aa%2Fb%3Apull");
    for request in storage.seen().iter().chain(&tokens.seen()) {
        assert_eq!(request.headers.get("authorization"), None, "{request:?}");
    }
    assert!(!storage.seen().is_empty());
}

#[tokio::test]
async fn redirects_without_end_or_to_what_is_not_allowed_are_refused() {
    let digest = parts().digest();
    for location in [
        "/v2/again",
        "http://192.0.2.1/x",
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://user:pw@127.0.0.1/x",
    ] {
        let bench = Bench::new();
        let server = Server::start(move |_| Answer::redirect(location));
        let refused = bench.refused(&server.image(digest)).await;
        assert!(
            matches!(refused, Refused::Registry(RegistryError::Insecure { .. })),
            "{location}: {refused:?}"
        );
        assert!(server.seen().len() <= 6, "{location}");
    }
}

#[tokio::test]
async fn a_tag_is_resolved_to_the_digest_of_what_is_served_whatever_the_header_says() {
    let parts = parts();
    let digest = parts.digest();
    let lie = format!("sha256:{}", "0".repeat(64));
    let server = Server::start(move |seen| match seen.path.as_str() {
        "/v2/a/b/manifests/v1" => {
            Answer::ok(MANIFEST, parts.manifest.clone()).header("Docker-Content-Digest", lie.clone())
        }
        _ => Answer::status(404),
    });
    let tagged: UnpinnedRef = format!("{}/a/b:v1", server.address).parse().expect("a reference");
    assert_eq!(client().resolve(&tagged).await.expect("resolved"), digest);
    let latest: UnpinnedRef = format!("{}/a/b", server.address).parse().expect("a reference");
    assert!(matches!(client().resolve(&latest).await, Err(RegistryError::NotFound { .. })));
}

#[tokio::test]
async fn a_layer_that_is_here_already_is_not_fetched_again() {
    let (bench, first) = (Bench::new(), parts());
    bench.pull(&first.clone().serve().image(first.digest())).await.expect("pulled");
    let mut more = tars();
    more.push(Tar::new().file("more", "x").end());
    let second = Parts::new("amd64", &more);
    let server = second.clone().serve();
    bench.pull(&server.image(second.digest())).await.expect("pulled");
    let layers = server.seen().iter().filter(|seen| second.is_layer(&seen.path)).count();
    assert_eq!(layers, 1);
}

#[tokio::test]
async fn an_image_takes_one_file_a_layer_and_one_for_its_record() {
    let (bench, parts) = (Bench::new(), parts());
    // A layer may be there by itself before.
    bench.store.import_layer(tars()[0].as_slice(), Limits::default()).expect("sound");
    let count = |folder: &str| std::fs::read_dir(bench.dir.path().join(folder)).expect("listed").count();
    assert_eq!((count("layers/sha256"), count("blobs/sha256"), count("images/sha256")), (1, 1, 0));
    bench.pull(&parts.clone().serve().image(parts.digest())).await.expect("pulled");
    assert_eq!((count("layers/sha256"), count("blobs/sha256"), count("images/sha256")), (0, 4, 1));
    assert!(bench.store.layer(&sha256::digest(&tars()[0])).expect("read").is_some());
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let (bench, parts) = (Bench::new(), parts());
    let digest = parts.digest();
    let server = Server::start(move |seen| {
        let answer = parts.answer(&seen.path);
        if parts.is_layer(&seen.path) {
            // Honest as far as it goes, and then silent.
            std::thread::sleep(Duration::from_secs(20));
        }
        answer
    });
    let image = server.image(digest);
    let dropped = tokio::time::timeout(Duration::from_millis(300), bench.pull(&image)).await;
    assert!(dropped.is_err());
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while bench.count("tmp") > 0 {
        assert!(std::time::Instant::now() < deadline, "the temporary file stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bench.count("images/sha256"), 0);
}

/// A daemon spawns its pulls; this does not compile where they could not move between threads.
#[test]
fn a_pull_can_be_spawned() {
    fn sendable<T: Send>(
        _: impl FnOnce(&'static Store, &'static Client, &'static ImageRef, &'static Platform) -> T,
    ) {
    }
    sendable(|store, client, image, platform| store.pull(client, image, platform, &()));
}

#[tokio::test]
async fn an_image_that_cannot_fit_is_refused_before_any_layer_is_fetched() {
    let bench = Bench::new();
    let mut parts = parts();
    let text = String::from_utf8(parts.manifest.clone()).expect("it is text");
    let size = format!("\"size\":{}", parts.layers[3].len());
    assert!(text.contains(&size), "{text}");
    parts.manifest = text.replace(&size, &format!("\"size\":{}", 1_u64 << 55)).into_bytes();
    let server = parts.clone().serve();
    let error = bench.pull(&server.image(parts.digest())).await.expect_err("no disk is that large");
    let PullError::NoRoom { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.missing() > 1 << 54 && source.needed >= 1 << 55, "{source}");
    assert!(!error.is_refusal() && !error.is_retryable());
    assert!(!server.seen().iter().any(|seen| parts.is_layer(&seen.path)), "a layer was fetched");
    assert_eq!((bench.count("tmp"), bench.count("blobs/sha256")), (0, 0));
}

fn zstd_with_window(tar: &[u8], log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).expect("memory");
    encoder.window_log(log).expect("a window");
    std::io::Write::write_all(&mut encoder, tar).expect("memory");
    encoder.finish().expect("memory")
}

#[tokio::test]
async fn a_zstd_layer_may_ask_for_32_mib_and_not_for_more() {
    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    let tar = tars().remove(0);
    for (log, asked) in [(23, 1), (24, 2), (25, 2)] {
        let layer = zstd_with_window(&tar, log);
        let parts = Parts::with_layers("amd64", std::slice::from_ref(&tar), vec![layer], ZSTD);
        let server = parts.clone().serve();
        Bench::new()
            .pull(&server.image(parts.digest()))
            .await
            .unwrap_or_else(|error| panic!("{log}: {error:?}"));
        let layers = server.seen().iter().filter(|seen| parts.is_layer(&seen.path)).count();
        assert_eq!(layers, asked, "window of 2^{log}");
    }
    let layer = zstd_with_window(&tar, 26);
    let parts = Parts::with_layers("amd64", std::slice::from_ref(&tar), vec![layer], ZSTD);
    let refused = Bench::new().refused(&parts.clone().serve().image(parts.digest())).await;
    assert!(matches!(refused, Refused::Window { limit: 32, .. }), "{refused:?}");
}

#[tokio::test]
async fn pulls_of_one_client_share_its_turns() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let images: Vec<_> = (0..10)
        .map(|i| {
            let tars: Vec<_> =
                (0..3).map(|j| Tar::new().file(&format!("{i}-{j}"), vec![j; 1000]).end()).collect();
            Parts::new("amd64", &tars)
        })
        .collect();
    let (at_once, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (seen_most, served) = (most.clone(), images.clone());
    let server = Server::start(move |seen| {
        let mut answers = served.iter().map(|parts| (parts, parts.answer(&seen.path)));
        let (parts, answer) = answers.find(|(_, answer)| answer.status == 200).expect("it is known");
        if parts.is_layer(&seen.path) {
            let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
            seen_most.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            at_once.fetch_sub(1, Ordering::SeqCst);
        }
        answer
    });
    let mut options = ClientOptions::default();
    options.layers_at_once = 2;
    let (client, bench) = (Client::new(options).expect("a client"), Bench::new());
    let pulls = images.iter().map(|parts| {
        let (client, store, image) = (client.clone(), bench.store.clone(), server.image(parts.digest()));
        tokio::spawn(async move { store.pull(&client, &image, &Platform::linux("amd64"), &()).await })
    });
    for pull in pulls.collect::<Vec<_>>() {
        pull.await.expect("no panic").expect("pulled");
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_is_no_image_is_said_to_be_none() {
    let chart = parts();
    let manifest = String::from_utf8(chart.manifest.clone()).expect("text");
    let manifest = manifest.replace("vnd.oci.image.config.v1", "vnd.cncf.helm.config.v1").into_bytes();
    let chart = Parts { manifest, ..chart };
    let refused = Bench::new().refused(&chart.clone().serve().image(chart.digest())).await;
    let said = "this is no image: its configuration is of type 'application/vnd.cncf.helm.config.v1+json'";
    assert_eq!(refused.to_string(), said);

    let old =
        r#"{"schemaVersion":1,"name":"a/b","tag":"1","architecture":"amd64","fsLayers":[],"history":[]}"#;
    let server =
        Server::start(move |_| Answer::ok("application/vnd.docker.distribution.manifest.v1+prettyjws", old));
    let refused = Bench::new().refused(&server.image(sha256::digest(old.as_bytes()))).await;
    assert_eq!(
        refused.to_string(),
        "this is a manifest of Docker's schema 1; push the image anew with a current tool"
    );
}
