//! Registries with certificates of their own, and registries that want to see one.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientError, ClientOptions, Credentials, Tls};
use bennu_image_store::{Image, PullError, Store};
use bennu_manifests::model::ImageRef;
use common::Tar;
use common::registry::{Answer, Parts, Seen, Server};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]);
        let certificate = params.expect("names").signed_by(&key, &self.0).expect("signed");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// A server's side, which asks for a certificate of the `visitors` where there are any.
    fn server(&self, visitors: Option<&Authority>) -> Arc<ServerConfig> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.0).expect("signed").der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = ServerConfig::builder();
        let builder = match visitors {
            None => builder.with_no_client_auth(),
            Some(visitors) => {
                let mut roots = RootCertStore::empty();
                roots.add(visitors.0.der().clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
                builder.with_client_cert_verifier(verifier)
            }
        };
        Arc::new(builder.with_single_cert(vec![certificate], key).expect("a certificate"))
    }
}

fn parts() -> Parts {
    Parts::new("amd64", &[Tar::new().file("file", vec![7; 50_000]).end()])
}

fn options(server: &Server, tls: Option<Tls>) -> ClientOptions {
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    options.patience.silence = Duration::from_secs(5);
    options.tls.extend(tls.map(|tls| (server.address.clone(), tls)));
    options
}

async fn pull(options: ClientOptions, image: &ImageRef) -> Result<Image, PullError> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    store.pull(&Client::new(options).expect("a client"), image, &Platform::linux("amd64"), &()).await
}

fn serve(parts: &Parts) -> impl Fn(&Seen) -> Answer + Send + Sync + 'static {
    let parts = parts.clone();
    move |seen| parts.answer(&seen.path)
}

fn trusting(authority: &Authority) -> Tls {
    Tls::default().with_authorities(authority.pem().as_bytes()).expect("sound")
}

#[tokio::test]
async fn a_registry_is_believed_by_the_authority_that_was_named_for_it_and_by_no_other() {
    let (ours, theirs, parts) = (Authority::new(), Authority::new(), parts());
    let server = Server::start_tls(ours.server(None), serve(&parts));
    let image = server.image(parts.digest());
    pull(options(&server, Some(trusting(&ours))), &image).await.expect("it is the one");

    let asked = server.seen().len();
    let error = pull(options(&server, Some(trusting(&theirs))), &image).await.expect_err("another one");
    assert!(error.is_refusal() && format!("{error:?}").contains("is not believed"), "{error:?}");
    // An entry that names no authority leaves those of the system, which do not know this one either.
    pull(options(&server, Some(Tls::default())), &image).await.expect_err("unknown");
    assert_eq!(server.seen().len(), asked, "somebody was asked who could not show who he is");
}

#[tokio::test]
async fn a_certificate_is_shown_to_the_registry_that_it_is_for() {
    let (ours, visitors, parts) = (Authority::new(), Authority::new(), parts());
    let server = Server::start_tls(ours.server(Some(&visitors)), serve(&parts));
    let image = server.image(parts.digest());
    let Pair { certificate, key } = visitors.issue();
    let shown = trusting(&ours).with_identity(certificate.as_bytes(), key.as_bytes()).expect("sound");
    pull(options(&server, Some(shown)), &image).await.expect("let in");
    pull(options(&server, Some(trusting(&ours))), &image).await.expect_err("nothing was shown");
    let Pair { certificate, key } = ours.issue();
    let other = trusting(&ours).with_identity(certificate.as_bytes(), key.as_bytes()).expect("sound");
    pull(options(&server, Some(other)), &image).await.expect_err("a certificate of somebody else");
}

#[tokio::test]
async fn what_is_said_about_one_registry_does_not_count_for_where_it_leads() {
    let (ours, parts) = (Authority::new(), parts());
    let storage = Server::start_tls(ours.server(None), serve(&parts));
    let (sound, elsewhere) = (parts.clone(), storage.clone());
    let server = Server::start_tls(ours.server(None), move |seen| {
        if sound.is_layer(&seen.path) {
            Answer::redirect(format!("https://{}{}", elsewhere.address, seen.path))
        } else {
            sound.answer(&seen.path)
        }
    });
    let image = server.image(parts.digest());
    let error = pull(options(&server, Some(trusting(&ours))), &image).await;
    error.expect_err("the storage was believed by the authority of the registry");
    assert!(storage.seen().is_empty());
    // Where it has an entry of its own it is.
    let mut both = options(&server, Some(trusting(&ours)));
    both.tls.insert(storage.address.clone(), trusting(&ours));
    pull(both, &image).await.expect("both are known");
}

#[tokio::test]
async fn t12_tls_is_not_left_for_a_redirect_or_a_token() {
    let (ours, parts) = (Authority::new(), parts());
    let plain = Server::start(|_| Answer::ok("application/json", r#"{"token":"x"}"#));
    for answer in [
        Answer::redirect(plain.url("/v2/")).header("X", ""),
        Answer::status(401).header("WWW-Authenticate", format!("Bearer realm=\"{}\"", plain.url("/token"))),
    ] {
        let (status, headers) = (answer.status, answer.headers.clone());
        let server = Server::start_tls(ours.server(None), move |_| Answer {
            headers: headers.clone(),
            ..Answer::status(status)
        });
        let mut options = options(&server, Some(trusting(&ours)));
        let password = Credentials::password("ci", "hunter2").expect("sound");
        options.credentials.insert(server.address.clone(), password);
        let error = pull(options, &server.image(parts.digest())).await.expect_err("led to plain HTTP");
        assert!(error.is_refusal(), "{error:?}");
    }
    assert!(plain.seen().is_empty());
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_said_to_which_registry_it_belongs() {
    let authority = Authority::new();
    let (a, b) = (authority.issue(), authority.issue());
    let mut options = ClientOptions::default();
    let tls = Tls::default().with_identity(a.certificate.as_bytes(), b.key.as_bytes()).expect("both are PEM");
    options.tls.insert("a.example".to_owned(), tls);
    let error = Client::new(options).expect_err("they do not fit");
    assert!(matches!(&error, ClientError::Tls { registry, .. } if registry == "a.example"), "{error:?}");
}
