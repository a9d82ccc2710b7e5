//! `bundle`: a manifest and its images in one file.

use std::process::Command;
use std::sync::{Arc, OnceLock};

use bennu_manifests::model::Digest;
use serde_json::json;

use crate::stores::{image_registry, image_registry_with};
use crate::{Desk, manifest};

/// A bundle `site.tar` of a signed manifest with one image; the image's digest.
fn bundled(desk: &Desk) -> String {
    let (address, digest) = image_registry();
    desk.trusting_ana();
    desk.write("host.toml", &manifest(&format!("{address}/web:1@{digest}"), 1));
    let unsigned = desk.run(&["bundle", "create", "host.toml", "-o", "site.tar"]);
    assert_eq!(unsigned.code, 5, "a manifest that nobody signed: {unsigned:#?}");
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);
    let json = desk.run(&["bundle", "create", "host.toml", "-o", "site.tar", "--json"]).json(0);
    assert_eq!(json["images"].as_array().expect("a list").len(), 1);
    digest
}

/// Changes one byte of a file, behind the first place where `near` stands.
fn spoil(desk: &Desk, file: &str, near: &[u8], to: &str) {
    let mut bytes = std::fs::read(desk.path(file)).expect("read");
    let at = bytes.windows(near.len()).position(|part| part == near).expect("it is there");
    bytes[at] ^= 1;
    std::fs::write(desk.path(to), bytes).expect("written");
}

#[test]
fn a_bundle_has_all_that_a_site_without_a_network_needs() {
    let desk = Desk::new();
    let digest = bundled(&desk);
    let again = desk.run(&["bundle", "create", "host.toml", "-o", "site.tar"]);
    assert_eq!(again.code, 2, "what is there is not written over: {again:#?}");

    let verified = desk.run(&["bundle", "verify", "site.tar", "--trust", "trust.toml"]).with(0);
    assert!(verified.contains(&digest) && verified.contains("1 image"), "{verified}");
    let imported = ["store", "--root", "images", "import", "site.tar", "--all", "--json"];
    assert_eq!(desk.run(&imported).json(0)["images"][0]["digest"], digest.as_str());
    let named = desk.run(&["store", "--root", "other", "import", "site.tar", "web:1", "--json"]).json(0);
    assert_eq!(named["images"][0]["digest"], digest.as_str(), "the manifest is no image to choose");
    let foreign = ["store", "--root", "images", "import", "site.tar", "--all", "--arch", "s390x"];
    assert_eq!(desk.run(&foreign).code, 2, "an image for other machines");

    desk.run(&["bundle", "unpack", "site.tar", "-o", "unpacked.toml"]).with(0);
    for end in ["", ".sig"] {
        assert_eq!(desk.read(&format!("unpacked.toml{end}")), desk.read(&format!("host.toml{end}")));
    }
    desk.run(&["verify", "--trust", "trust.toml", "unpacked.toml"]).with(0);
    assert_eq!(desk.run(&["bundle", "unpack", "site.tar", "-o", "unpacked.toml"]).code, 2);
}

#[test]
fn a_bundle_that_was_changed_is_refused() {
    let desk = Desk::new();
    bundled(&desk);
    let verify = |file: &str, more: &[&str]| {
        desk.run(&[&["bundle", "verify", file, "--trust", "trust.toml"], more].concat()).code
    };
    spoil(&desk, "site.tar", b"name = \"demo\"", "manifest.tar");
    spoil(&desk, "site.tar", b"hello\n", "layer.tar");
    spoil(&desk, "site.tar", b"\"architecture\"", "config.tar");
    for file in ["manifest.tar", "layer.tar", "config.tar"] {
        assert_eq!(verify(file, &[]), 3, "{file}");
    }
    assert_eq!(desk.run(&["bundle", "unpack", "manifest.tar", "-o", "x.toml"]).code, 3);
    assert!(!desk.path("x.toml").exists());
    assert_eq!(desk.run(&["store", "--root", "images", "import", "layer.tar", "--all"]).code, 3);

    assert_eq!(verify("site.tar", &["--now", "2200-01-01T00:00:00Z"]), 3, "it has expired");
    assert_eq!(verify("site.tar", &["--arch", "s390x"]), 2, "its images are for other machines");
    assert_eq!(verify("nothing.tar", &[]), 5);
    assert_eq!(verify("host.toml", &[]), 2, "no bundle");
    desk.key("eve");
    desk.run(&["trust", "init", "--key", "eve=eve.pub", "other.toml"]).with(0);
    assert_eq!(desk.run(&["bundle", "verify", "site.tar", "--trust", "other.toml"]).code, 3);
}

#[test]
fn a_bundle_without_an_image_of_its_manifest_is_not_written_and_not_verified() {
    let desk = Desk::new();
    let digest = bundled(&desk);
    let absent = format!("sha256:{}", "0".repeat(64));
    desk.write("other.toml", &desk.read("host.toml").replace(&digest, &absent));
    desk.run(&["sign", "--key", "ana", "other.toml"]).with(0);
    assert_eq!(desk.run(&["bundle", "create", "other.toml", "-o", "other.tar"]).code, 5);
    assert!(!desk.path("other.tar").exists());
    let left = std::fs::read_dir(desk.path("")).expect("listed");
    let left = left
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().starts_with(".tmp-"));
    assert_eq!(left.count(), 0, "what was begun is gone");
    // The name of the layer in the archive, so that it is not found there.
    let layer = bennu_manifests::model::Digest::of(&crate::stores::tar()).hex();
    let mut bytes = std::fs::read(desk.path("site.tar")).expect("read");
    let name = format!("blobs/sha256/{layer}");
    let at = bytes.windows(name.len()).position(|part| part == name.as_bytes()).expect("it is there");
    // Headers are summed: two bytes change, and the sum does not.
    let end = at + name.len();
    bytes.swap(end - 1, end - 2);
    if bytes[end - 1] == bytes[end - 2] {
        bytes.swap(end - 3, end - 2);
    }
    assert_ne!(&bytes[at..end], name.as_bytes());
    std::fs::write(desk.path("without.tar"), bytes).expect("written");
    let verified = desk.run(&["bundle", "verify", "without.tar", "--trust", "trust.toml"]);
    assert_eq!(verified.code, 5, "{verified:#?}");
}

/// A signature of `web` as cosign stores it, by a key that is left in `ci.pub`; what a registry answers.
fn signed(desk: &Desk, registry: &str, image: &str) -> crate::stores::Stored {
    let run = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).current_dir(desk.path("")).output().expect(program);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let curve = "ec_paramgen_curve:P-256";
    run("openssl", &["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", curve, "-out", "ci"]);
    run("openssl", &["pkey", "-in", "ci", "-pubout", "-out", "ci.pem"]);
    desk.write("ci.pub", &run("ssh-keygen", &["-i", "-m", "PKCS8", "-f", "ci.pem"]));
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": format!("{registry}/web") },
            "image": { "docker-manifest-digest": image },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = payload.to_string();
    desk.write("payload", &payload);
    run("openssl", &["dgst", "-sha256", "-sign", "ci", "-out", "signature", "payload"]);
    let signature = run("openssl", &["base64", "-A", "-in", "signature"]);

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": Digest::of(bytes) });
    let mut layer = described("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature });
    let signatures = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": described("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [layer],
    });
    let tag = image.replace(':', "-");
    vec![
        (format!("GET /v2/web/manifests/{tag}.sig"), MANIFEST, signatures.to_string().into_bytes()),
        (
            format!("GET /v2/web/blobs/{}", Digest::of(payload.as_bytes())),
            "application/octet-stream",
            payload.into_bytes(),
        ),
    ]
}

#[test]
fn a_bundle_has_the_signatures_that_its_policies_ask_for() {
    let desk = Desk::new();
    let later = Arc::new(OnceLock::new());
    let (address, digest) = image_registry_with(later.clone());
    let signatures = signed(&desk, &address.to_string(), &digest);
    desk.key("ana");
    desk.key("ben");
    let trust = |ci: &str, file: &str| {
        desk.run(&["trust", "init", "--key", "ana=ana.pub", "--key", &format!("ci={ci}"), file]).with(0);
    };
    trust("ci.pub", "trust.toml");
    trust("ben.pub", "other.toml");
    let asking = format!("\n[image-policy.\"{address}\"]\nkeys = [\"ci\"]\n");
    desk.write("host.toml", &(manifest(&format!("{address}/web:1@{digest}"), 1) + &asking));
    desk.run(&["sign", "--key", "ana", "host.toml"]).with(0);

    let unsigned = desk.run(&["bundle", "create", "host.toml", "-o", "site.tar"]);
    assert_eq!(unsigned.code, 3, "an image that nobody signed: {unsigned:#?}");
    assert!(!desk.path("site.tar").exists());
    later.set(signatures).expect("set once");
    desk.run(&["bundle", "create", "host.toml", "-o", "site.tar"]).with(0);
    desk.run(&["bundle", "verify", "site.tar", "--trust", "trust.toml"]).with(0);
    let stranger = desk.run(&["bundle", "verify", "site.tar", "--trust", "other.toml"]);
    assert_eq!(stranger.code, 3, "another key signed it: {stranger:#?}");

    desk.run(&["store", "--root", "images", "import", "site.tar", "--all"]).with(0);
    let record = desk.read(&format!("images/images/sha256/{}", digest.trim_start_matches("sha256:")));
    assert!(record.contains("\"signatures\""), "{record}");
    desk.run(&["store", "--root", "images", "verify"]).with(0);
}
