//! `pin`, against a registry that is scripted.

use serde_json::json;

use crate::server::{Answer, Asked, Script};
use crate::{Desk, manifest};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An index with one image for `arch`.
fn index(arch: &str) -> String {
    let digest = format!("sha256:{}", "c".repeat(64));
    json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": 100, "platform": { "os": "linux", "architecture": arch },
        }],
    })
    .to_string()
}

fn digest_of(text: &str) -> String {
    bennu_manifests::model::Digest::of(text.as_bytes()).to_string()
}

/// A registry that has `web:1`, an index for amd64, and nothing else.
fn registry() -> std::sync::Arc<Script> {
    Script::new(|asked: &Asked| {
        let index = index("amd64");
        let by_digest = format!("GET /v2/web/manifests/{}", digest_of(&index));
        if asked.line == "GET /v2/web/manifests/1" || asked.line == by_digest {
            Answer { status: 200, media_type: INDEX.to_owned(), body: index.into_bytes() }
        } else {
            Answer::json(404, &json!({ "errors": [{ "code": "MANIFEST_UNKNOWN" }] }))
        }
    })
}

#[test]
fn tags_become_digests_and_the_rest_of_the_file_stays() {
    let desk = Desk::new();
    let registry = registry();
    let address = registry.on_loopback();
    let before = manifest("10.0.2.2:5000/web:1", 1) + "\n[audience] # for whom\narch = 'amd64'\n";
    desk.write("host.toml", &before);
    let via = format!("10.0.2.2:5000={address}");
    let pinned = format!("10.0.2.2:5000/web:1@{}", digest_of(&index("amd64")));

    let ended = desk.run(&["pin", "host.toml", "--via", &via]);
    assert_eq!(ended.stderr, format!("asking {address} for 10.0.2.2:5000/web:1\n"));
    assert_eq!(ended.with(0), format!("{pinned}\n1 image pinned in host.toml\n"));
    assert_eq!(desk.read("host.toml"), before.replace("10.0.2.2:5000/web:1", &pinned));
    desk.run(&["check", "host.toml"]).with(0);

    let count = registry.asked().len();
    assert_eq!(desk.run(&["pin", "host.toml", "--via", &via]).with(0), "nothing to pin in host.toml\n");
    assert_eq!(registry.asked().len(), count, "what is pinned is not asked for");
    let json = desk.run(&["pin", "host.toml", "--via", &via, "--update", "--json"]).json(0);
    assert_eq!(json["changed"], false);
    assert!(registry.asked().len() > count, "--update asks again");
}

#[test]
fn update_replaces_an_old_digest() {
    let desk = Desk::new();
    let address = registry().on_loopback();
    let old = format!("{address}/web:1@sha256:{}", "0".repeat(64));
    desk.write("host.toml", &manifest(&old, 1));
    let json = desk.run(&["pin", "host.toml", "--update", "--json"]).json(0);
    let new = format!("{address}/web:1@{}", digest_of(&index("amd64")));
    assert_eq!(
        (&json["images"][0]["before"], &json["images"][0]["after"]),
        (&old.into(), &new.clone().into())
    );
    assert!(desk.read("host.toml").contains(&new));
}

#[test]
fn a_tag_that_is_not_there_ends_with_5_and_changes_nothing() {
    let desk = Desk::new();
    let address = registry().on_loopback();
    let text =
        manifest(&format!("{address}/web:1"), 1) + &format!("[container.b]\nimage = \"{address}/web:2\"\n");
    desk.write("host.toml", &text);
    let ended = desk.run(&["pin", "host.toml"]);
    assert_eq!(ended.code, 5, "{ended:#?}");
    assert_eq!(desk.read("host.toml"), text);
}

#[test]
fn an_image_for_another_architecture_is_pointed_at() {
    let desk = Desk::new();
    let address = registry().on_loopback();
    let text = manifest(&format!("{address}/web:1"), 1) + "[audience]\narch = \"arm64\"\n";
    desk.write("host.toml", &text);
    let ended = desk.run(&["pin", "host.toml"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("host.toml:8:9: error: this image is for linux/amd64\n"),
        "{}",
        ended.stderr
    );
    assert_eq!(desk.read("host.toml"), text);
}

#[test]
fn plain_http_beyond_loopback_needs_to_be_allowed() {
    let desk = Desk::new();
    let address = registry().on_loopback();
    // A name that leads nowhere: without TLS it is not even asked.
    desk.write("host.toml", &manifest("registry.invalid:5000/web:1", 1));
    assert_eq!(desk.run(&["pin", "host.toml", "--via", "registry.invalid:5000"]).code, 2);
    let via = format!("registry.invalid:5000={address}");
    desk.run(&["pin", "host.toml", "--via", &via]).with(0);
}

/// An authority (PEM), and a server at 127.0.0.1 that shows a certificate of it.
fn authority() -> (String, rustls::ServerConfig) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    let key = || KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, key()).expect("signed");
    let own = key();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&own, &issuer).expect("signed").der().clone();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    (issuer.pem(), config.with_single_cert(vec![certificate], key).expect("a certificate"))
}

#[test]
fn a_registry_with_an_authority_of_its_own_is_known_by_an_option_a_folder_or_the_manifest() {
    let desk = Desk::new();
    let (authority, server) = authority();
    let address = registry().on_loopback_with(server).to_string();
    let pin = |more: &[&str]| {
        desk.write("host.toml", &manifest(&format!("{address}/web:1"), 1));
        desk.run(&[&["pin", "host.toml"], more].concat())
    };
    // Loopback is spoken to without TLS unless something is said about its certificates.
    assert_eq!(pin(&[]).code, 1);
    desk.write("ca.pem", &authority);
    pin(&["--ca", "ca.pem"]).with(0);
    let folder = desk.path(".config/containers/certs.d").join(&address);
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join("ca.crt"), &authority).expect("written");
    pin(&[]).with(0);
    std::fs::remove_dir_all(&folder).expect("removed");
    let inside = format!(
        "\n[registry.\"{address}\"]\nca = \"ca\"\n[config.ca]\ncontent = \"\"\"\n{authority}\"\"\"\n"
    );
    desk.write("host.toml", &(manifest(&format!("{address}/web:1"), 1) + &inside));
    desk.run(&["pin", "host.toml"]).with(0);
    let (other, _) = self::authority();
    desk.write("other.pem", &other);
    assert_eq!(pin(&["--ca", "other.pem"]).code, 3, "another authority was believed");
}

/// The registry above, for those who show `ci:hunter2`.
fn guarded() -> std::sync::Arc<Script> {
    Script::new(|asked: &Asked| {
        if asked.authorization == "Basic Y2k6aHVudGVyMg==" {
            Answer { status: 200, media_type: INDEX.to_owned(), body: index("amd64").into_bytes() }
        } else {
            Answer::json(401, &json!({}))
        }
    })
}

#[test]
fn logins_are_taken_from_the_files_of_docker_and_podman() {
    for file in [".docker/config.json", ".config/containers/auth.json"] {
        let desk = Desk::new();
        let address = guarded().on_loopback();
        desk.write("host.toml", &manifest(&format!("{address}/web:1"), 1));
        let refused = desk.run(&["pin", "host.toml"]);
        assert!(refused.stderr.contains("does not let us pull"), "{refused:?}");
        refused.with(1);

        std::fs::create_dir_all(desk.path(file).parent().expect("a folder")).expect("made");
        desk.write(file, r#"{"auths":{"other.example":{"auth":"Y2k6aHVudGVyMg=="}}}"#);
        desk.run(&["pin", "host.toml"]).with(1);
        desk.write(file, &format!(r#"{{"auths":{{"{address}":{{"auth":"Y2k6aHVudGVyMg=="}}}}}}"#));
        desk.run(&["pin", "host.toml"]).with(0);

        // A file that is damaged is named; what is in it is not.
        desk.write(file, r#"{"auths":{"x":{"auth":["hunter2"]}}}"#);
        let damaged = desk.run(&["pin", "host.toml", "--update"]);
        assert!(damaged.stderr.contains("cannot be read as a file with logins"), "{damaged:?}");
        assert!(!damaged.stderr.contains("hunter2"), "{damaged:?}");
        damaged.with(2);
    }
}

#[test]
fn a_program_that_knows_logins_is_asked_about_the_registry_alone() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    let address = guarded().on_loopback();
    desk.write("host.toml", &manifest(&format!("{address}/web:1"), 1));
    let answer = r#"{"ServerURL":"x","Username":"ci","Secret":"hunter2"}"#;
    desk.write(
        "docker-credential-desk",
        &format!("#!/bin/sh\n[ \"$1\" = get ] && cat > asked && echo '{answer}'\n"),
    );
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(desk.path("docker-credential-desk"), mode).expect("ours");
    std::fs::create_dir(desk.path(".docker")).expect("made");
    desk.write(".docker/config.json", &format!(r#"{{"credHelpers":{{"{address}":"desk"}}}}"#));
    let path = format!("{}:{}", desk.path("").display(), std::env::var("PATH").expect("there is a path"));
    let ended = desk.command().args(["pin", "host.toml"]).env("PATH", path).output().expect("hostctl runs");
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(desk.read("asked"), address.to_string());
}
