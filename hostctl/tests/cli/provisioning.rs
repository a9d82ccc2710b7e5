//! `provision`, and the TLS that comes of it.

use std::sync::Arc;

use bennu_api::provision::Provision;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;

use crate::server::{Answer, Script};
use crate::{Desk, mode};

fn provision(desk: &Desk, dir: &str, name: &str) -> Provision {
    let provision = ["provision", "--dir", dir, "--name", name, "--trust", "trust.toml"];
    let more = ["--address", "127.0.0.1", "--address", "host.example", "--label", "site=attic"];
    desk.run(&[&provision[..], &more].concat()).with(0);
    toml::from_str(&desk.read(&format!("{dir}/provision.toml"))).expect("it is a provisioning document")
}

/// TLS as a host speaks it.
fn server_config(provision: &Provision) -> ServerConfig {
    let api = provision.api.as_ref().expect("it has an API");
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is PEM");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&api.client_ca)).expect("it is an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .expect("it is sound");
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![certificate(&api.certificate)],
            PrivateKeyDer::from_pem_slice(api.key.as_bytes()).expect("it is a key"),
        )
        .expect("certificate and key are a pair")
}

fn empty_host() -> Arc<Script> {
    Script::new(|_| Answer::json(200, &json!({ "containers": [] })))
}

#[test]
fn an_operator_reaches_a_host_that_was_provisioned_and_nobody_else_does() {
    let desk = Desk::new();
    desk.trusting_ana();
    let document = provision(&desk, "mine", "attic-1");
    let host = empty_host();
    let address = host.on_loopback_with(server_config(&document));
    let url = format!("https://{address}");
    let ps = |identity: &str| desk.run(&["ps", "--host", &url, "--identity", identity]);
    assert_eq!(ps("mine/operator").with(0), "no containers\n");
    assert_eq!(host.asked().len(), 1);

    // Another operator's identity: neither side believes the other.
    provision(&desk, "theirs", "attic-2");
    let stranger = ps("theirs/operator");
    assert_eq!(stranger.code, 1);
    assert!(stranger.stderr.contains("was not made by this identity's authority"), "{}", stranger.stderr);

    // One that believes the host, but was not let in by its authority.
    std::fs::create_dir(desk.path("mixed")).expect("it is new");
    desk.write("mixed/ca.crt", &desk.read("mine/operator/ca.crt"));
    for file in ["client.crt", "client.key"] {
        desk.write(&format!("mixed/{file}"), &desk.read(&format!("theirs/operator/{file}")));
    }
    let refused = ps("mixed");
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("does not let this client certificate in"), "{}", refused.stderr);

    // The host's own key opens no host.
    let api = document.api.as_ref().expect("it has an API");
    desk.write("mixed/client.crt", &api.certificate);
    desk.write("mixed/client.key", &api.key);
    let refused = ps("mixed");
    assert!(refused.stderr.contains("does not let this client certificate in"), "{}", refused.stderr);

    // A name that the certificate is not for.
    let ended = desk.run(&[
        "ps",
        "--host",
        &format!("https://localhost:{}", address.port()),
        "--identity",
        "mine/operator",
    ]);
    assert!(ended.stderr.contains("is for other names"), "{}", ended.stderr);
    assert_eq!(host.asked().len(), 1, "no request of anybody else reached the host");
}

#[test]
fn secrets_are_for_their_owner_alone_and_the_authority_is_made_once() {
    let desk = Desk::new();
    desk.trusting_ana();
    let first = provision(&desk, "hosts", "one");
    let authority = desk.read("hosts/operator/ca.crt");
    let client = desk.read("hosts/operator/client.crt");
    for secret in ["hosts/provision.toml", "hosts/operator/ca.key", "hosts/operator/client.key"] {
        assert_eq!(mode(&desk.path(secret)), 0o600, "{secret}");
    }
    assert_eq!((first.name.as_str(), first.labels["site"].as_str()), ("one", "attic"));
    assert_eq!(first.trust, desk.read("trust.toml"));

    let out = ["provision", "--dir", "hosts", "--name", "two", "--trust", "trust.toml", "--out", "two.toml"];
    let json = desk.run(&[&out[..], &["--json"]].concat()).json(0);
    assert_eq!((&json["document"], &json["new-authority"]), (&"two.toml".into(), &false.into()));
    assert_eq!(mode(&desk.path("two.toml")), 0o600);
    assert_eq!(desk.read("hosts/operator/ca.crt"), authority);
    assert_eq!(desk.read("hosts/operator/client.crt"), client);

    // The operator's old identity reaches the new host.
    let second = toml::from_str(&desk.read("two.toml")).expect("it is a provisioning document");
    let address = empty_host().on_loopback_with(server_config(&second));
    let url = format!("https://{address}");
    let ended = desk.run(&["ps", "--host", &url, "--identity", "hosts/operator"]);
    assert!(
        ended.stderr.contains("is for other names"),
        "it was provisioned without this address: {ended:?}"
    );
}

#[test]
fn an_authority_that_is_not_whole_is_not_replaced() {
    let desk = Desk::new();
    desk.trusting_ana();
    provision(&desk, "hosts", "one");
    provision(&desk, "others", "one");
    let again = ["provision", "--dir", "hosts", "--name", "one", "--trust", "trust.toml"];
    // The key of another authority.
    desk.write("hosts/operator/ca.key", &desk.read("others/operator/ca.key"));
    let ended = desk.run(&again);
    assert!(ended.code != 0 && ended.stderr.contains("do not belong together"), "{}", ended.stderr);
    std::fs::remove_file(desk.path("hosts/operator/ca.key")).expect("it is there");
    let ended = desk.run(&again);
    assert!(ended.code == 1 && ended.stderr.contains("ca.key is missing"), "{}", ended.stderr);
}

#[test]
fn what_cannot_be_in_a_certificate_is_refused_before_anything_is_written() {
    let desk = Desk::new();
    desk.trusting_ana();
    let run =
        |more: &[&str]| desk.run(&[&["provision", "--dir", "d", "--trust", "trust.toml"][..], more].concat());
    assert_eq!(run(&["--name", "No Name"]).code, 2);
    assert_eq!(run(&["--name", "a", "--address", "not an address"]).code, 2);
    assert_eq!(run(&["--name", "a", "--label", "novalue"]).code, 2);
    assert!(!desk.path("d/provision.toml").exists());
}
