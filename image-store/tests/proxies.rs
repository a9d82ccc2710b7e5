//! Registries that are reached through somebody.

mod common;

use bennu_image_store::Store;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, Proxies};
use common::Tar;
use common::registry::Parts;

#[tokio::test]
async fn a_registry_is_reached_through_its_proxy_and_loopback_is_not() {
    let parts = Parts::new("amd64", &[Tar::new().file("file", "x").end()]);
    let (proxy, registry) = (parts.clone().serve(), parts.clone().serve());
    let address = format!("http://ci:hunter2@{}", proxy.address);
    let mut options = ClientOptions::default();
    options.proxies =
        Proxies::from_env(|name| (name == "HTTP_PROXY").then(|| address.clone())).expect("sound");
    options.plain_http.insert("registry.invalid:5000".to_owned());
    assert!(!format!("{options:?}").contains("hunter2"));
    let client = Client::new(options).expect("a client");
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let platform = Platform::linux("amd64");

    let image = format!("registry.invalid:5000/a/b@{}", parts.digest()).parse().expect("a reference");
    store.pull(&client, &image, &platform, &()).await.expect("the proxy has it");
    for seen in proxy.seen() {
        assert!(seen.path.starts_with("http://registry.invalid:5000/v2/a/b/"), "{}", seen.path);
        assert_eq!(seen.headers["proxy-authorization"], "Basic Y2k6aHVudGVyMg==");
    }

    let asked = proxy.seen().len();
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    store.pull(&client, &registry.image(parts.digest()), &platform, &()).await.expect("pulled");
    assert_eq!(proxy.seen().len(), asked);
    assert!(!registry.saw("Y2k6aHVudGVyMg=="));
}
