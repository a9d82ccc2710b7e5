//! Registries that want to know who is there, and those that would like to know more than they should.

mod common;

use std::time::Duration;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, Credentials};
use bennu_image_store::{Image, PullError, Store};
use bennu_manifests::model::ImageRef;
use common::Tar;
use common::registry::{Answer, Parts, Seen, Server};

/// `ci:hunter2` as RFC 7617 writes it.
const BASIC: &str = "Basic Y2k6aHVudGVyMg==";

fn parts() -> Parts {
    let tars: Vec<_> = (0..3).map(|i| Tar::new().file("file", vec![i; 50_000]).end()).collect();
    Parts::new("amd64", &tars)
}

fn password() -> Credentials {
    Credentials::password("ci", "hunter2").expect("sound")
}

fn options(registry: &str, credentials: Credentials) -> ClientOptions {
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    options.credentials.insert(registry.to_owned(), credentials);
    options
}

async fn pull(options: ClientOptions, image: &ImageRef) -> Result<Image, PullError> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let client = Client::new(options).expect("a client");
    store.pull(&client, image, &Platform::linux("amd64"), &()).await
}

fn authorization(seen: &Seen) -> Option<&str> {
    seen.headers.get("authorization").map(String::as_str)
}

/// A registry that lets in who shows one of these headers, and answers others with a challenge.
fn guarded(
    parts: Parts,
    challenge: String,
    admits: impl Fn(&Seen) -> bool + Send + Sync + 'static,
) -> Server {
    Server::start(move |seen| {
        if admits(seen) {
            parts.answer(&seen.path)
        } else {
            Answer::status(401).header("WWW-Authenticate", challenge.clone())
        }
    })
}

fn bearer(tokens: &Server) -> String {
    format!("Bearer realm=\"{}\",service=\"s\"", tokens.url("/token"))
}

#[tokio::test]
async fn a_password_is_sent_to_the_registry_that_asks_for_it() {
    let parts = parts();
    let server =
        guarded(parts.clone(), "Basic realm=\"x\"".to_owned(), |seen| authorization(seen) == Some(BASIC));
    let image = server.image(parts.digest());
    pull(options(&server.address, password()), &image).await.expect("pulled");
    let unasked = server.seen().iter().take(1).any(|seen| authorization(seen).is_some());
    assert!(!unasked, "it was sent before it was asked for");

    let error = pull(ClientOptions::default(), &image).await.expect_err("nobody in particular");
    assert!(matches!(error, PullError::Denied { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_is_sent_once_and_shown_nowhere() {
    let parts = parts();
    let server = guarded(parts.clone(), "Basic realm=\"x\"".to_owned(), |_| false);
    let options = options(&server.address, password());
    assert!(!format!("{:?}", Client::new(options.clone()).expect("a client")).contains("hunter2"));
    let error = pull(options, &server.image(parts.digest())).await.expect_err("wrong");
    assert!(matches!(error, PullError::Denied { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter2") && !format!("{error:?}").contains(BASIC));
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_password_buys_a_token_and_only_the_token_goes_to_the_registry() {
    let parts = parts();
    let tokens = Server::start(|seen| match authorization(seen) {
        Some(BASIC) => Answer::ok("application/json", r#"{"token":"bought","expires_in":300}"#),
        _ => Answer::status(401),
    });
    let server = guarded(parts.clone(), bearer(&tokens), |seen| authorization(seen) == Some("Bearer bought"));
    pull(options(&server.address, password()), &server.image(parts.digest())).await.expect("pulled");
    assert_eq!(tokens.seen().len(), 1, "a token that is good was bought again");
    assert!(!server.saw("Basic"));
}

#[tokio::test]
async fn an_identity_token_is_posted_to_the_token_server_alone() {
    let parts = parts();
    let tokens = Server::start(|seen| {
        let wanted = "grant_type=refresh_token&client_id=bennu&service=s&scope=repository%3Aa%2Fb%3Apull&refresh_token=refresh%26me";
        if seen.path == "/token" && seen.body == wanted {
            Answer::ok("application/json", r#"{"access_token":"bought"}"#)
        } else {
            Answer::status(400)
        }
    });
    let server = guarded(parts.clone(), bearer(&tokens), |seen| authorization(seen) == Some("Bearer bought"));
    let token = Credentials::identity_token("refresh&me").expect("sound");
    pull(options(&server.address, token), &server.image(parts.digest())).await.expect("pulled");
    assert!(!server.saw("refresh"));
}

#[tokio::test]
async fn an_identity_token_is_not_posted_on_to_where_its_server_redirects() {
    let parts = parts();
    let elsewhere = Server::start(|_| Answer::ok("application/json", r#"{"access_token":"x"}"#));
    let location = elsewhere.url("/token");
    let tokens = Server::start(move |_| Answer::redirect(location.clone()));
    let server = guarded(parts.clone(), bearer(&tokens), |_| false);
    let token = Credentials::identity_token("refresh").expect("sound");
    pull(options(&server.address, token), &server.image(parts.digest())).await.expect_err("led elsewhere");
    assert!(tokens.saw("refresh") && elsewhere.seen().is_empty());
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_pull_is_replaced_once_for_each_request() {
    let parts = parts();
    let tokens = Server::start(|seen| {
        Answer::ok("application/json", format!(r#"{{"token":"t{}","expires_in":300}}"#, seen.earlier))
    });
    // The first token is good for the manifest only.
    let server = guarded(parts.clone(), bearer(&tokens), |seen| match authorization(seen) {
        Some("Bearer t0") => seen.path.contains("/manifests/"),
        other => other.is_some(),
    });
    pull(options(&server.address, password()), &server.image(parts.digest())).await.expect("pulled");
    assert!(tokens.seen().len() >= 2);

    let server = guarded(parts.clone(), bearer(&tokens), |_| false);
    pull(options(&server.address, password()), &server.image(parts.digest()))
        .await
        .expect_err("never let in");
    assert_eq!(server.seen().len(), 2, "it was asked more than once with a new token");
}

#[tokio::test]
async fn t12_a_realm_elsewhere_gets_no_credentials() {
    let parts = parts();
    for realm in [
        "https://tokens.invalid/token",
        "https://169.254.169.254/token",
        "http://192.0.2.1/token",
        "https://ci:x@tokens.invalid/token",
        "file:///etc/passwd",
        "token",
    ] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let server = guarded(parts.clone(), challenge, |_| false);
        let image = server.image(parts.digest());
        let error = pull(options(&server.address, password()), &image).await.expect_err(realm);
        assert!(error.is_refusal(), "{realm}: {error:?}");
        assert!(!server.saw("Basic"), "{realm}");
    }
}

#[tokio::test]
async fn t12_a_401_of_a_redirect_target_gets_no_credentials() {
    let parts = parts();
    let storage = guarded(parts.clone(), "Basic realm=\"storage\"".to_owned(), |_| false);
    let elsewhere = storage.clone();
    let sound = parts.clone();
    let server = Server::start(move |seen| {
        if sound.is_layer(&seen.path) {
            Answer::redirect(elsewhere.url(&seen.path))
        } else if authorization(seen) == Some(BASIC) {
            sound.answer(&seen.path)
        } else {
            Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\"")
        }
    });
    let error = pull(options(&server.address, password()), &server.image(parts.digest())).await;
    let error = error.expect_err("the storage lets nobody in");
    assert!(matches!(error, PullError::Denied { .. }), "{error:?}");
    assert!(!storage.seen().is_empty() && !storage.saw("Basic"));

    // Nor is it asked whom to ask for a token.
    let tokens = Server::start(|_| Answer::ok("application/json", r#"{"token":"x"}"#));
    let storage = guarded(parts.clone(), bearer(&tokens), |_| false);
    let sound = parts.clone();
    let server = Server::start(move |seen| match sound.is_layer(&seen.path) {
        true => Answer::redirect(storage.url(&seen.path)),
        false => sound.answer(&seen.path),
    });
    pull(options(&server.address, password()), &server.image(parts.digest())).await.expect_err("not let in");
    assert!(tokens.seen().is_empty());
}

#[tokio::test]
async fn credentials_of_another_registry_or_path_are_not_sent() {
    let parts = parts();
    let server = guarded(parts.clone(), "Basic realm=\"x\"".to_owned(), |_| false);
    for key in ["127.0.0.1", "other.example", &format!("{}/a/c", server.address)] {
        pull(options(key, password()), &server.image(parts.digest())).await.expect_err(key);
        assert!(!server.saw("Basic"), "{key}");
    }
}
