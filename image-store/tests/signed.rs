//! Signatures of images as they are stored by others: keys and signatures are made by `openssl`, `skopeo` brings them into
//! Debian's `docker-registry` in the layout of cosign, referrers lie as the distribution specification says. (cosign is not
//! in Debian, and Debian's skopeo is built without signing in this form.) Where a program is missing the test fails;
//! `cargo xtask packages` installs them.

mod common;

use std::time::Duration;

use bennu_image_store::cosign::{Candidate, NamedKey, Unfit};
use bennu_image_store::policy::{Policy, RequireError, decide, require};
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions};
use bennu_image_store::{Store, sha256};
use bennu_manifests::model::{Digest, ImageRef};
use common::Tar;
use common::live::{Registry, run};
use common::registry::{Answer, INDEX, MANIFEST, Parts, Seen, Server, descriptor};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

fn client() -> Client {
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    Client::new(options).expect("a client")
}

/// A key that OpenSSL made.
struct Key(tempfile::TempDir);

impl Key {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let curve = "ec_paramgen_curve:P-256";
        run(
            dir.path(),
            "openssl",
            &["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", curve, "-out", "key"],
        );
        run(dir.path(), "openssl", &["pkey", "-in", "key", "-pubout", "-out", "pub"]);
        Self(dir)
    }

    /// As a line of SSH, by the program that people use for it.
    fn named(&self, name: &str) -> NamedKey {
        let line = run(self.0.path(), "ssh-keygen", &["-i", "-m", "PKCS8", "-f", "pub"]);
        NamedKey { name: name.to_owned(), key: line.trim_end().parse().expect("a key") }
    }

    fn sign(&self, payload: &[u8]) -> String {
        std::fs::write(self.0.path().join("payload"), payload).expect("written");
        run(self.0.path(), "openssl", &["dgst", "-sha256", "-sign", "key", "-out", "signature", "payload"]);
        run(self.0.path(), "openssl", &["base64", "-A", "-in", "signature"])
    }
}

/// Policies for `prefix`: that one or both of two keys have signed.
fn trusted(prefix: &str, ana: &Key) -> (Policy, Policy) {
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXXJ2dOar+m2w6HnhRRp5tHX8tzNRKG5ZRSKKS7TLLb";
    let ben = NamedKey { name: "ben".to_owned(), key: line.parse().expect("a key") };
    let policy =
        |threshold| Policy::new(prefix, vec![ana.named("ana"), ben.clone()], threshold).expect("a policy");
    (policy(1), policy(2))
}

/// What these tests do with the registry.
impl Registry {
    /// Copies an image into a repository with skopeo, under a tag.
    fn push(&self, parts: &Parts, name: &str, tag: &str) -> ImageRef {
        let layout = tempfile::tempdir().expect("a folder");
        let blobs = layout.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("made");
        let manifest = descriptor(MANIFEST, &parts.manifest);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{manifest}]}}"#);
        std::fs::write(layout.path().join("index.json"), index).expect("written");
        std::fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("written");
        for blob in parts.layers.iter().chain([&parts.config, &parts.manifest]) {
            let digest = sha256::digest(blob).to_string();
            std::fs::write(blobs.join(&digest["sha256:".len()..]), blob).expect("written");
        }
        let to = format!("docker://{}/{name}:{tag}", self.address);
        let options =
            ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "--preserve-digests"];
        run(layout.path(), "skopeo", &[&options[..], &["oci:.", &to]].concat());
        ImageRef {
            registry: self.address.clone(),
            repository: name.to_owned(),
            tag: None,
            digest: parts.digest(),
        }
    }

    /// Signs an image, and stores the signature beside it; what was stored.
    fn sign(&self, image: &ImageRef, key: &Key) -> (Vec<u8>, String) {
        let payload = payload(image);
        let signature = key.sign(&payload);
        let parts = Parts {
            config: br#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#
                .to_vec(),
            manifest: Vec::new(),
            layers: vec![payload.clone()],
        };
        let manifest = signature_manifest(&descriptor(IMAGE_CONFIG, &parts.config), &payload, &signature);
        self.push(&Parts { manifest, ..parts }, &image.repository, &format!("{}.sig", tag_of(&image.digest)));
        (payload, signature)
    }
}

/// What cosign signs.
fn payload(image: &ImageRef) -> Vec<u8> {
    let ImageRef { registry, repository, digest, .. } = image;
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{registry}/{repository}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
    .into_bytes()
}

fn tag_of(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

fn signature_manifest(config: &str, payload: &[u8], signature: &str) -> Vec<u8> {
    let layer = descriptor(SIMPLE, payload);
    let layer = layer.strip_suffix('}').expect("an object");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{layer},"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}]}}"#
    )
    .into_bytes()
}

fn parts(content: &str) -> Parts {
    Parts::new("amd64", &[Tar::new().file("a", content.as_bytes()).end()])
}

#[tokio::test]
async fn an_image_that_was_signed_is_taken_and_one_that_nobody_signed_is_refused() {
    let (registry, key, client) = (Registry::start(), Key::new(), client());
    let signed = registry.push(&parts("signed"), "team/web", "1");
    registry.sign(&signed, &key);
    let unsigned = registry.push(&parts("unsigned"), "team/web", "2");
    let (one, two) = trusted(&format!("{}/team", registry.address), &key);
    let one = std::slice::from_ref(&one);

    let signers = require(&client, one, &signed, &[]).await.expect("it is signed");
    assert_eq!(signers.into_iter().collect::<Vec<_>>(), ["ana"]);
    let error = require(&client, &[two], &signed, &[]).await.expect_err("one of two signed");
    assert!(matches!(error, RequireError::NotSigned { ref signers, .. } if signers.len() == 1), "{error}");
    let error = require(&client, one, &unsigned, &[]).await.expect_err("nobody signed");
    assert!(
        error.is_refusal() && matches!(error, RequireError::NotSigned { ref unfit, .. } if unfit.is_empty())
    );
    // A stranger's signature is there, and says nothing.
    registry.sign(&unsigned, &Key::new());
    let error = require(&client, one, &unsigned, &[]).await.expect_err("a stranger signed");
    assert!(
        matches!(error, RequireError::NotSigned { ref unfit, .. } if *unfit == [Unfit::Stranger]),
        "{error}"
    );

    // What was signed for one repository says nothing about another one, even of the same bytes.
    let copied = registry.push(&parts("signed"), "team/copy", "1");
    let candidates = client.signatures(&signed).await.expect("asked");
    let error = decide(&one[0], &copied, &candidates).expect_err("another repository");
    assert!(error.to_string().contains("for the repository"), "{error}");
    // What no policy covers needs no signature.
    let (elsewhere, _) = trusted(&format!("{}/another", registry.address), &key);
    assert!(require(&client, &[elsewhere], &unsigned, &[]).await.expect("not covered").is_empty());
}

#[tokio::test]
async fn signatures_that_were_kept_are_enough_where_no_registry_can_be_asked() {
    let (key, parts) = (Key::new(), parts("signed"));
    let server = parts.clone().serve();
    let image = server.image(parts.digest());
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{}/{}"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        image.registry, image.repository, image.digest
    );
    let signature = key.sign(payload.as_bytes());
    let signatures = vec![Candidate::Simple { payload: payload.into_bytes(), signature }];
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    assert!(store.keep_signatures(&image.digest, signatures.clone()).expect("looked at").is_none());
    store.pull(&client(), &image, &Platform::linux("amd64"), &()).await.expect("pulled");
    assert!(store.signatures(&image.digest).expect("read").is_empty());
    store.keep_signatures(&image.digest, signatures.clone()).expect("written").expect("the image is there");
    assert!(store.image(&image.digest).expect("read").is_some(), "the image is not what it was");
    let kept = store.signatures(&image.digest).expect("read");
    assert_eq!(kept, signatures);

    let (one, two) = trusted(&image.registry, &key);
    let asked = server.seen().len();
    require(&client(), &[one], &image, &kept).await.expect("it is signed");
    assert_eq!(server.seen().len(), asked, "the registry was asked");
    // What does not suffice is no harm: the registry may have more.
    let error = require(&client(), &[two], &image, &kept).await.expect_err("one of two signed");
    assert!(server.seen().len() > asked, "{error}");
}

/// A manifest that refers to `image`, with one layer.
fn referrer(image: &Digest, layer_type: &str, layer: &[u8], signature: Option<&str>) -> Vec<u8> {
    let annotations = signature.map_or_else(String::new, |signature| {
        format!(r#","annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}"#)
    });
    let layer = descriptor(layer_type, layer);
    let layer = layer.strip_suffix('}').expect("an object");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{layer}{annotations}}}],"subject":{{"mediaType":"{MANIFEST}","digest":"{image}","size":1}}}}"#,
        descriptor(ARTIFACT, b"{}")
    )
    .into_bytes()
}

fn referrers(manifests: &[(&[u8], &str)]) -> String {
    let listed: Vec<_> = manifests
        .iter()
        .map(|(manifest, kind)| {
            let described = descriptor(MANIFEST, manifest);
            let described = described.strip_suffix('}').expect("an object");
            format!(r#"{described},"artifactType":"{kind}"}}"#)
        })
        .collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, listed.join(","))
}

/// A registry with the referrers of one image, by the endpoint or under the tag that stands in for it.
fn with_referrers(
    image: Digest,
    endpoint: bool,
    documents: Vec<Vec<u8>>,
    blobs: Vec<Vec<u8>>,
    index: String,
) -> Server {
    Server::start(move |seen: &Seen| {
        let last = seen.path.rsplit('/').next().unwrap_or_default();
        let tag = tag_of(&image);
        let by_digest = |all: &[Vec<u8>]| all.iter().find(|b| sha256::digest(b).to_string() == last).cloned();
        if seen.path.contains("/referrers/") && endpoint
            || seen.path.ends_with(&format!("/manifests/{tag}")) && !endpoint
        {
            Answer::ok(INDEX, index.clone())
        } else if seen.path.contains("/manifests/") {
            by_digest(&documents).map_or_else(|| Answer::status(404), |found| Answer::ok(MANIFEST, found))
        } else if seen.path.contains("/blobs/") {
            by_digest(&blobs)
                .map_or_else(|| Answer::status(404), |found| Answer::ok("application/octet-stream", found))
        } else {
            Answer::status(404)
        }
    })
}

#[tokio::test]
async fn signatures_are_found_among_the_referrers_of_an_image() {
    let key = Key::new();
    let image = ImageRef {
        registry: "registry.example".to_owned(),
        repository: "team/web".to_owned(),
        tag: None,
        digest: parts("signed").digest(),
    };
    let payload = payload(&image);
    let signature = key.sign(&payload);
    let bundle = br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#.to_vec();
    let simple = referrer(&image.digest, SIMPLE, &payload, Some(&signature));
    let bundled = referrer(&image.digest, BUNDLE, &bundle, None);
    let strange = referrer(&image.digest, "application/spdx+json", b"{}", None);
    let missing = referrer(&image.digest, SIMPLE, b"of this there is only the name", Some(&signature));
    let index = referrers(&[
        (&strange, "application/spdx+json"),
        (&missing, ARTIFACT),
        (b"a manifest that is gone", ARTIFACT),
        (&simple, ARTIFACT),
        (&bundled, BUNDLE),
    ]);
    for endpoint in [true, false] {
        let documents = vec![simple.clone(), bundled.clone(), strange.clone(), missing.clone()];
        let blobs = vec![payload.clone(), bundle.clone()];
        let server = with_referrers(image.digest, endpoint, documents, blobs, index.clone());
        let at = ImageRef { registry: server.address.clone(), ..image.clone() };
        let found = client().signatures(&at).await.expect("asked");
        let expect = [
            Candidate::Simple { payload: payload.clone(), signature: signature.clone() },
            Candidate::Bundle(bundle.clone()),
        ];
        assert_eq!(found, expect, "by the endpoint: {endpoint}");
        // They name the registry that they were made for, wherever they are stored.
        let (policy, _) = trusted("registry.example/team", &key);
        decide(&policy, &image, &found).expect("signed");
    }
}

#[tokio::test]
async fn a_registry_that_lists_signatures_without_end_is_asked_for_a_bounded_number() {
    let image = sha256::digest(b"an image");
    let layers: Vec<Vec<u8>> = (0..200).map(|n| format!("payload {n}").into_bytes()).collect();
    let documents: Vec<_> =
        layers.iter().map(|layer| referrer(&image, SIMPLE, layer, Some("AAAA"))).collect();
    let listed: Vec<_> = documents.iter().map(|document| (document.as_slice(), ARTIFACT)).collect();
    let index = referrers(&listed);
    let server = with_referrers(image, true, documents, layers, index);
    let found = client().signatures(&server.image(image)).await.expect("asked");
    assert_eq!(found.len(), bennu_image_store::cosign::MAX_CANDIDATES);
    assert!(server.seen().len() < 200, "{} requests", server.seen().len());
}

#[tokio::test]
async fn a_registry_that_fails_is_an_error_and_not_an_unsigned_image() {
    let server = Server::start(|_| Answer::status(503));
    let (policy, _) = trusted(&server.address, &Key::new());
    let error =
        require(&client(), &[policy], &server.image(sha256::digest(b"a")), &[]).await.expect_err("it fails");
    assert!(matches!(error, RequireError::Registry { .. }) && error.is_retryable() && !error.is_refusal());
}
