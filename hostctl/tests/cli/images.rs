//! `verify-image`, against a registry that is scripted; signatures are made by `openssl`.

use std::process::Command;
use std::sync::{Arc, Mutex};

use bennu_manifests::model::Digest;
use serde_json::json;

use crate::Desk;
use crate::server::{Answer, Asked, Script};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is asked, and what is answered: the line, the media type and the body.
type Stored = (String, &'static str, Vec<u8>);

fn openssl(desk: &Desk, arguments: &[&str]) {
    let status = Command::new("openssl").args(arguments).current_dir(desk.path("")).status();
    assert!(status.expect("openssl is installed").success(), "openssl {arguments:?}");
}

/// Makes the key pair `NAME` and `NAME.pub`, in PEM.
fn key_pair(desk: &Desk, name: &str) {
    let curve = "ec_paramgen_curve:P-256";
    openssl(desk, &["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", curve, "-out", name]);
    openssl(desk, &["pkey", "-in", name, "-pubout", "-out", &format!("{name}.pub")]);
}

fn manifest(layers: &serde_json::Value) -> Vec<u8> {
    let config = json!({ "mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": Digest::of(b"{}") });
    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
        .to_string()
        .into_bytes()
}

/// A registry with `web:1`, signed by `signer`, and `web:2`, which nobody signed.
fn registry(desk: &Desk, signer: &str) -> String {
    let (one, two) = (
        manifest(&json!([])),
        manifest(&json!([{ "mediaType": "x", "size": 0, "digest": Digest::of(b"") }])),
    );
    let stored: Arc<Mutex<Vec<Stored>>> = Arc::default();
    let answers = stored.clone();
    let address = Script::new(move |asked: &Asked| {
        let stored = answers.lock().expect("no test panics while it holds it");
        let found = stored.iter().find(|(line, ..)| *line == asked.line);
        found.map_or_else(
            || Answer::json(404, &json!({})),
            |(_, kind, body)| Answer { status: 200, media_type: (*kind).to_owned(), body: body.clone() },
        )
    })
    .on_loopback();
    let digest = Digest::of(&one).to_string();
    let payload = json!({
        "critical": {
            "identity": { "docker-reference": format!("{address}/web") },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    desk.write("payload", &payload.to_string());
    openssl(desk, &["dgst", "-sha256", "-sign", signer, "-out", "signature", "payload"]);
    openssl(desk, &["base64", "-A", "-in", "signature", "-out", "base64"]);
    let payload = desk.read("payload").into_bytes();
    let signature = manifest(&json!([{
        "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
        "size": payload.len(), "digest": Digest::of(&payload),
        "annotations": { "dev.cosignproject.cosign/signature": desk.read("base64") },
    }]));
    *stored.lock().expect("no test panics while it holds it") = vec![
        ("GET /v2/web/manifests/1".to_owned(), MANIFEST, one),
        ("GET /v2/web/manifests/2".to_owned(), MANIFEST, two),
        (format!("GET /v2/web/manifests/{}.sig", digest.replace(':', "-")), MANIFEST, signature),
        (format!("GET /v2/web/blobs/{}", Digest::of(&payload)), "application/octet-stream", payload),
    ];
    address.to_string()
}

#[test]
fn an_image_is_verified_with_a_key_in_pem() {
    let desk = Desk::new();
    key_pair(&desk, "cosign");
    let address = registry(&desk, "cosign");
    let image = format!("{address}/web:1");
    let text = desk.run(&["verify-image", &image, "--key", "ana=cosign.pub"]).with(0);
    assert!(text.starts_with(&format!("{image}@sha256:")) && text.ends_with("\nsigned by ana\n"), "{text}");
    let json = desk.run(&["verify-image", &image, "--key", "cosign.pub", "--json"]).json(0);
    assert_eq!((&json["signers"], &json["threshold"]), (&json!(["cosign.pub"]), &json!(1)));
}

#[test]
fn an_image_with_too_few_signatures_ends_with_3() {
    let desk = Desk::new();
    key_pair(&desk, "cosign");
    key_pair(&desk, "eve");
    desk.key("ben");
    let address = registry(&desk, "cosign");
    let (signed, unsigned) = (format!("{address}/web:1"), format!("{address}/web:2"));
    for (arguments, code) in [
        (&[signed.as_str(), "--key", "eve.pub"][..], 3),
        (&[&signed, "--key", "cosign.pub", "--key", "ben.pub", "--threshold", "2"], 3),
        (&[&unsigned, "--key", "cosign.pub"], 3),
        (&[&format!("{address}/web:3"), "--key", "cosign.pub"], 5),
        (&[&signed, "--key", "cosign.pub", "--threshold", "2"], 2),
        (&[&signed, "--key", "payload"], 2),
        (&[&signed, "--key", "no-such-file"], 5),
        (&[&signed], 2),
    ] {
        let ended = desk.run(&[&["verify-image"], arguments].concat());
        assert_eq!(ended.code, code, "{arguments:?}: {ended:#?}");
        assert_eq!(ended.stderr.contains("[image.unsigned]"), code == 3, "{}", ended.stderr);
    }
}
