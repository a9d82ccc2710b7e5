//! Patches from earlier versions: made, pushed, found, chosen, applied; and those that lie.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use bennu_image_store::archive::{Files, Form};
use bennu_image_store::native::{ExportedNative, patch};
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions};
use bennu_image_store::source::Source;
use bennu_image_store::{Estimate, Image, Way, sha256};
use bennu_manifests::model::{Digest, ImageRef};
use common::live::{Registry, run};
use common::native::{Bench, Native, asked, noise};
use common::registry::{Answer, INDEX, Parts, Seen, Server};
use common::{Tar, has_program};
use serde_json::Value;

/// A layer of noise with two bytes changed in each file: half of the frames would be fetched for them, and a patch is small.
fn version(number: u8) -> Vec<u8> {
    let mut tar = Tar::new().dir("usr/");
    for i in 0..16 {
        let mut content = noise(i, 65_536);
        content.iter_mut().step_by(40_000).for_each(|byte| *byte ^= number);
        tar = tar.file(&format!("usr/{i:02}"), content);
    }
    tar.end()
}

/// A second version, native, with patches from the first; the first as an ordinary image.
struct Versions {
    first: Parts,
    second: Native,
    exported: ExportedNative,
    original: Image,
    /// Where the layout lies.
    bench: Bench,
}

impl Versions {
    async fn new() -> Self {
        let bench = Bench::new();
        let (first, second) = (Parts::new("amd64", &[version(0)]), Parts::new("amd64", &[version(1)]));
        let earlier = bench.pull(&first.clone().serve().image(first.digest())).await.expect("pulled");
        let original = bench.pull(&second.clone().serve().image(second.digest())).await.expect("pulled");
        let target = bench.dir.path().join("native");
        let exported = bench
            .store
            .export_native(&original.digest, &target, Form::Directory, "2", 9, &[earlier.digest])
            .expect("exported");
        let second = Native::read(&target, exported.digest);
        Self { first, second, exported, original, bench }
    }

    /// A store that has the first version.
    async fn host(&self) -> Bench {
        let bench = Bench::new();
        bench.pull(&self.first.clone().serve().image(self.first.digest())).await.expect("pulled");
        bench
    }

    fn patch(&self) -> &patch::WrittenPatch {
        &self.exported.patches[0]
    }

    /// The digest of what was written as the list of referrers, and of the manifest that it names.
    fn documents(&self) -> (Digest, Digest) {
        let is_list = |bytes: &&Vec<u8>| bytes.starts_with(b"{") && is(bytes, "/manifests/0/artifactType");
        let list = self.second.blobs.values().find(is_list).expect("a list");
        let parsed: Value = serde_json::from_slice(list).expect("JSON");
        let manifest = parsed["manifests"][0]["digest"].as_str().expect("a digest");
        (sha256::digest(list), manifest.parse().expect("a digest"))
    }

    /// A server that lists referrers: at the endpoint, or under the tag alone.
    fn serve(&self, endpoint: bool) -> Server {
        self.serve_spoiled(endpoint, |_, answer| answer)
    }

    /// The same, where `spoil` has a hand in each answer.
    fn serve_spoiled(
        &self,
        endpoint: bool,
        spoil: impl Fn(&Seen, Answer) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let (native, (list, _)) = (self.second.clone(), self.documents());
        let list = native.blobs[&list.hex()].clone();
        let tag = format!("/manifests/{}", self.exported.patches_tag.as_deref().expect("there are patches"));
        Server::start(move |seen| {
            let listed =
                if endpoint { seen.path.contains("/referrers/sha256:") } else { seen.path.ends_with(&tag) };
            spoil(seen, if listed { Answer::ok(INDEX, list.clone()) } else { native.answer(seen) })
        })
    }
}

fn is(json: &[u8], pointer: &str) -> bool {
    serde_json::from_slice::<Value>(json).is_ok_and(|value| value.pointer(pointer).is_some())
}

async fn estimate(bench: &Bench, image: &ImageRef) -> Estimate {
    let client = Client::new(ClientOptions::default()).expect("a client");
    let source = Source::registry(&client, image);
    let estimate = bench.store.estimate(&source, "image", &image.digest, &Platform::linux("amd64")).await;
    estimate.expect("estimated")
}

/// Whether the patch was asked for.
fn patched(server: &Server, versions: &Versions) -> bool {
    let (_, manifest) = versions.documents();
    let manifest: Value =
        serde_json::from_slice(&versions.second.blobs[&manifest.hex()]).expect("the manifest of patches");
    server.saw(manifest["layers"][0]["digest"].as_str().expect("a digest"))
}

#[tokio::test]
async fn a_patch_comes_where_it_costs_fewer_bytes_than_the_frames() {
    let versions = Versions::new().await;
    for endpoint in [true, false] {
        let (bench, server) = (versions.host().await, versions.serve(endpoint));
        let image = server.image(versions.second.digest);
        let expected = estimate(&bench, &image).await;
        assert_eq!(expected.layers.iter().map(|layer| layer.way).collect::<Vec<_>>(), [Way::Patch]);
        assert!(!patched(&server, &versions), "an estimate fetches no patch");
        let before = asked(&server).len();
        let pulled = bench.pull(&image).await.expect("pulled");
        assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob);
        assert!(patched(&server, &versions));
        let ranges: usize = asked(&server)[before..].iter().flatten().sum();
        assert_eq!(ranges as u64 + versions.patch().size, expected.bytes, "as was estimated");
        assert!(expected.bytes * 5 < versions.second.layer_sizes()[0] as u64, "{expected:?}");
        assert!(bench.store.scrub().expect("read").is_empty());
        assert_eq!(bench.temporary_files(), 0);
    }
}

#[tokio::test]
async fn a_patch_of_more_than_one_segment_makes_the_blob() {
    // 36 MiB of which every block changes, where a segment has 32 MiB. Each block is another one, and soon compressed.
    const SIZE: u64 = 36 << 20;
    const PATTERN: usize = 64;
    let whole = |change: u8| {
        let patterns = noise(5, SIZE as usize / 4096 * PATTERN);
        let mut content: Vec<u8> =
            patterns.chunks(PATTERN).flat_map(|pattern| pattern.repeat(4096 / PATTERN)).collect();
        content.iter_mut().step_by(4096).for_each(|byte| *byte ^= change);
        Parts::new("amd64", &[Tar::new().file("large", content).end()])
    };
    let bench = Bench::new();
    let (first, second) = (whole(0), whole(1));
    let earlier = bench.pull(&first.clone().serve().image(first.digest())).await.expect("pulled");
    let original = bench.pull(&second.clone().serve().image(second.digest())).await.expect("pulled");
    let target = bench.dir.path().join("native");
    let exported = bench
        .store
        .export_native(&original.digest, &target, Form::Directory, "2", 1, &[earlier.digest])
        .expect("exported");
    let versions =
        Versions { first, second: Native::read(&target, exported.digest), exported, original, bench };
    let patch = versions.patch();
    assert!(patch.size < SIZE / 50, "{patch:?}");
    // All that is gone, and a window for half of what is new.
    assert!((SIZE..2 * SIZE).contains(&patch.memory), "{patch:?}");
    let (bench, server) = (versions.host().await, versions.serve(true));
    let pulled = bench.pull(&server.image(versions.second.digest)).await.expect("pulled");
    assert!(patched(&server, &versions));
    assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob);
    assert!(bench.store.scrub().expect("read").is_empty());
}

#[tokio::test]
async fn patches_are_not_looked_for_where_little_would_be_fetched() {
    let mut files = Tar::new().dir("usr/");
    for i in 0..16 {
        files = files.file(&format!("usr/{i:02}"), noise(i, if i == 7 { 60_000 } else { 65_536 }));
    }
    let (small, _) = Native::of(&[files.end()]).await;
    let bench = Bench::new();
    let first = Native::of(&[version(0)]).await.0;
    bench.pull(&first.serve().image(first.digest)).await.expect("pulled");
    let server = small.serve();
    bench.pull(&server.image(small.digest)).await.expect("pulled");
    assert!(!server.saw("referrers"), "{:?}", server.seen());
}

#[tokio::test]
async fn a_server_without_ranges_gives_a_patch_rather_than_the_whole() {
    let versions = Versions::new().await;
    let bench = versions.host().await;
    let native = versions.second.clone();
    let server = versions.serve_spoiled(true, move |seen, answer| {
        let without = Seen { headers: BTreeMap::new(), ..seen.clone() };
        if seen.path.contains("/blobs/") { native.answer(&without) } else { answer }
    });
    bench.pull(&server.image(versions.second.digest)).await.expect("pulled");
    assert!(patched(&server, &versions));
    assert!(bench.store.scrub().expect("read").is_empty());
}

#[tokio::test]
async fn who_does_not_have_the_earlier_version_asks_for_no_patch() {
    let versions = Versions::new().await;
    let bench = Bench::new();
    let other = Parts::new("amd64", &[Tar::new().file("other", noise(77, 100_000)).end()]);
    bench.pull(&other.clone().serve().image(other.digest())).await.expect("pulled");
    let server = versions.serve(true);
    bench.pull(&server.image(versions.second.digest)).await.expect("pulled");
    let (_, manifest) = versions.documents();
    assert!(server.saw("referrers") && !server.saw(&manifest.to_string()), "{:?}", server.seen());
}

#[tokio::test]
async fn t12_a_registry_that_lies_about_patches_costs_bytes_and_nothing_else() {
    let versions = Versions::new().await;
    let (_, manifest) = versions.documents();
    let patch: Value = serde_json::from_slice(&versions.second.blobs[&manifest.hex()]).expect("JSON");
    let patch = patch["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    type Spoil = Box<dyn Fn(&Seen, Answer) -> Answer + Send + Sync>;
    let on = |part: &str, change: fn(Answer) -> Answer| -> Spoil {
        let part = part.to_owned();
        Box::new(move |seen, answer| if seen.path.contains(&part) { change(answer) } else { answer })
    };
    let manifest = manifest.to_string();
    let lies: Vec<(&str, Spoil)> = vec![
        ("a list that is none", on("/referrers/", |answer| Answer { body: b"<html>".to_vec(), ..answer })),
        ("a list without end", on("/referrers/", |answer| answer.endless())),
        ("an error for the list", on("/referrers/", |_| Answer::status(403))),
        ("a manifest that is not there", on(&manifest, |_| Answer::status(404))),
        ("another manifest", on(&manifest, |answer| Answer { body: b"{}".to_vec(), ..answer })),
        ("a patch that is not there", on(&patch, |_| Answer::status(404))),
        (
            "a patch that breaks off",
            on(&patch, |answer| Answer { body: answer.body[..100].to_vec(), ..answer }),
        ),
        (
            "another patch",
            on(&patch, |mut answer| {
                answer.body[50] ^= 1;
                answer
            }),
        ),
        ("more than the patch", on(&patch, |answer| answer.endless())),
    ];
    for (lie, spoil) in lies {
        let (bench, server) = (versions.host().await, versions.serve_spoiled(true, spoil));
        let pulled = bench.pull(&server.image(versions.second.digest)).await.expect(lie);
        assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob, "{lie}");
        assert!(bench.store.scrub().expect("read").is_empty(), "{lie}");
        assert_eq!(bench.temporary_files(), 0, "{lie}");
    }
}

/// What a hostile publisher of patches can say; nobody vouches for them but the registry.
#[tokio::test]
async fn t14_a_hostile_patch_makes_no_other_blob_and_takes_no_more_than_it_may() {
    let versions = Versions::new().await;
    let (list, manifest) = versions.documents();
    let parsed = |digest: &Digest| -> Value {
        serde_json::from_slice(&versions.second.blobs[&digest.hex()]).expect("JSON")
    };
    let layer = parsed(&manifest)["layers"][0].clone();
    let digest: Digest = layer["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest");
    let sound = versions.second.blobs[&digest.hex()].clone();
    let blocks = (versions.original.layers[0].size / 4096) as u32;
    let image = blocks - blocks.div_ceil(129);
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).expect("in memory");
    // One piece of content, and no reference.
    let list_of = |first: u32, count: u32| {
        [1, first, count].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
    };
    let whole = zstd(&list_of(u32::MAX, image));
    let zeros = vec![0; image as usize * 4096];
    let bomb = zstd(&vec![0; image as usize * 4096 + (64 << 20)]);
    let wide = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).expect("in memory");
        encoder.window_log(27).expect("set");
        encoder.include_contentsize(false).expect("set");
        std::io::Write::write_all(&mut encoder, &zeros).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let memory = |text: &str| {
        let mut layer = layer.clone();
        layer["annotations"][patch::MEMORY] = text.into();
        layer
    };
    let cases: Vec<(&str, Vec<u8>, Value)> = vec![
        ("it makes another blob", [whole.clone(), zstd(&zeros)].concat(), memory("50000000")),
        ("it unpacks to more than it should", [whole.clone(), bomb].concat(), memory("50000000")),
        ("it wants a large window", [whole.clone(), wide].concat(), memory("50000000")),
        ("it needs more memory than it says", [whole.clone(), zstd(&zeros)].concat(), memory("4096")),
        ("it ends in the middle", sound[..sound.len() / 2].to_vec(), layer.clone()),
        ("its list leads out of the old blob", [zstd(&list_of(5, image)), zstd(b"")].concat(), layer.clone()),
        ("its list is a bomb", zstd(&vec![0; 100 << 20]), layer.clone()),
        ("something follows it", [&sound[..], b"x"].concat(), layer.clone()),
        ("its list is empty", zstd(b""), layer.clone()),
        ("it is no zstd", noise(5, 5000), layer.clone()),
    ];
    for (case, bytes, mut layer) in cases {
        let mut blobs = (*versions.second.blobs).clone();
        let patch = sha256::digest(&bytes);
        layer["digest"] = patch.to_string().into();
        layer["size"] = bytes.len().into();
        blobs.insert(patch.hex(), bytes);
        let (hostile, list) = (with_layer(&parsed(&manifest), layer), parsed(&list));
        let server = serve_list(blobs, hostile, &list, versions.second.digest);
        let bench = versions.host().await;
        let pulled = bench.pull(&server.image(versions.second.digest)).await.expect(case);
        assert!(server.saw(&patch.to_string()), "{case}: it was not even tried");
        assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob, "{case}");
        assert!(bench.store.scrub().expect("read").is_empty(), "{case}");
        assert_eq!(bench.temporary_files(), 0, "{case}");
    }
}

fn with_layer(manifest: &Value, layer: Value) -> Value {
    let mut manifest = manifest.clone();
    manifest["layers"] = vec![layer].into();
    manifest
}

/// A server that lists this manifest of patches, and otherwise gives what it has.
fn serve_list(mut blobs: BTreeMap<String, Vec<u8>>, manifest: Value, list: &Value, image: Digest) -> Server {
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let mut list = list.clone();
    list["manifests"][0]["digest"] = sha256::digest(&manifest).to_string().into();
    blobs.insert(sha256::digest(&manifest).hex(), manifest);
    let native = Native { blobs: Arc::new(blobs), digest: image };
    Server::start(move |seen| match seen.path.contains("/referrers/") {
        true => Answer::ok(INDEX, serde_json::to_vec(&list).expect("JSON")),
        false => native.answer(seen),
    })
}

#[tokio::test]
async fn patches_for_another_image_or_of_another_kind_are_passed_over() {
    let versions = Versions::new().await;
    let (list, manifest) = versions.documents();
    let parsed = |digest: &Digest| -> Value {
        serde_json::from_slice(&versions.second.blobs[&digest.hex()]).expect("JSON")
    };
    let patch = parsed(&manifest)["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let changed = |pointer: &str, value: &str| {
        let mut manifest = parsed(&manifest);
        *manifest.pointer_mut(pointer).expect("there") = value.into();
        manifest
    };
    let other = Digest::from_bytes([9; 32]).to_string();
    for (case, manifest) in [
        ("another subject", changed("/subject/digest", &other)),
        ("another kind", changed("/artifactType", "application/x")),
        ("a layer of another kind", changed("/layers/0/mediaType", "application/x")),
        ("another blob", changed("/layers/0/annotations/dev.bennu.blob", &other)),
        (
            "more memory than any host gives",
            changed("/layers/0/annotations/dev.bennu.patch.memory", "268435457"),
        ),
    ] {
        let server =
            serve_list((*versions.second.blobs).clone(), manifest, &parsed(&list), versions.second.digest);
        let bench = versions.host().await;
        let pulled = bench.pull(&server.image(versions.second.digest)).await.expect(case);
        assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob, "{case}");
        assert!(!server.saw(&patch), "{case}: it was asked for");
    }
}

#[tokio::test]
async fn t20_an_earlier_version_that_rotted_spoils_no_patch() {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    let versions = Versions::new().await;
    let bench = versions.host().await;
    let path = bench.store.blob_path(&versions.patch().from);
    let writable = fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
        .and_then(|()| fs::OpenOptions::new().write(true).open(&path));
    let Ok(file) = writable else { return }; // fs-verity guards it.
    file.write_all_at(b"rot", 300_000).expect("written");
    let server = versions.serve(true);
    let pulled = bench.pull(&server.image(versions.second.digest)).await.expect("pulled");
    assert!(patched(&server, &versions));
    assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob);
    let bad = bench.store.scrub().expect("read");
    assert_eq!(bad.iter().map(|bad| bad.blob).collect::<Vec<_>>(), [versions.patch().from]);
}

#[tokio::test]
async fn an_export_with_patches_is_still_one_image_and_a_blob_that_stays_needs_none() {
    let bench = Bench::new();
    let stays = Tar::new().file("etc/config", noise(99, 3000)).end();
    let (one, two) = (vec![stays.clone(), version(0)], vec![stays, version(1)]);
    let (one, two) = (Parts::new("amd64", &one), Parts::new("amd64", &two));
    let earlier = bench.pull(&one.clone().serve().image(one.digest())).await.expect("pulled");
    let image = bench.pull(&two.clone().serve().image(two.digest())).await.expect("pulled");
    for form in [Form::Directory, Form::Archive] {
        let target = bench.dir.path().join(format!("{form:?}"));
        let exported =
            bench.store.export_native(&image.digest, &target, form, "2", 9, &[earlier.digest, image.digest]);
        let exported = exported.expect("exported");
        assert_eq!(exported.patches.len(), 1, "{:?}", exported.patches);
        let patch = &exported.patches[0];
        assert_eq!((patch.from, patch.blob), (earlier.layers[1].blob, image.layers[1].blob));
        let files = Files::open(&target).expect("a layout").expect("images");
        assert_eq!(files.choose(None).expect("there is one").digest, exported.digest);
    }
    let absent = Digest::from_bytes([4; 32]);
    let target = bench.dir.path().join("none");
    bench
        .store
        .export_native(&image.digest, &target, Form::Directory, "2", 9, &[absent])
        .expect_err("no such image");
    assert!(!target.exists(), "something was left");
}

#[tokio::test]
async fn patches_that_skopeo_pushed_to_debians_registry_are_found() {
    if !has_program("docker-registry") || !has_program("skopeo") {
        return;
    }
    let versions = Versions::new().await;
    let registry = Registry::start();
    let layout = versions.bench.dir.path().join("native");
    let tag = versions.exported.patches_tag.as_deref().expect("there are patches");
    for (name, all) in [("2", false), (tag, true)] {
        let to = format!("docker://{}/a/b:{name}", registry.address);
        let from = format!("oci:.:{name}");
        let mut options = vec!["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        options.extend(all.then_some("--all"));
        options.extend([from.as_str(), &to]);
        run(&layout, "skopeo", &options);
    }
    let bench = versions.host().await;
    let image = ImageRef {
        registry: registry.address.clone(),
        repository: "a/b".to_owned(),
        tag: None,
        digest: versions.second.digest,
    };
    let expected = estimate(&bench, &image).await;
    assert_eq!(expected.layers.iter().map(|layer| layer.way).collect::<Vec<_>>(), [Way::Patch]);
    let pulled = bench.pull(&image).await.expect("pulled");
    assert_eq!(pulled.layers[0].blob, versions.original.layers[0].blob);
    assert!(bench.store.scrub().expect("read").is_empty());
}
