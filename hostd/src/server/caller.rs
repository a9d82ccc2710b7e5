//! Who asks, and whether they may.

use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use bennu_api::{Method, Operation, Problem, ProblemKind, Role};
use rustls::pki_types::CertificateDer;
use tokio::net::UnixListener;

use super::routes::Refused;
use super::tls::MutualTls;

/// What stands before an operator's name in a URI of the certificate.
const NAME: &str = "bennu:operator:";

/// The longest name that is told, in bytes.
const MAX_NAME: usize = 64;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// What they may do.
    pub(super) role: Role,
    /// What their certificate calls them; `root` on the host itself, empty where it says nothing.
    pub(super) name: Arc<str>,
}

impl Caller {
    /// The owner of a certificate, which was verified in the handshake.
    fn with(certificate: Option<&CertificateDer<'_>>) -> Self {
        let read = certificate.and_then(|certificate| webpki::EndEntityCert::try_from(certificate).ok());
        let uris: Vec<&str> = read.iter().flat_map(|read| read.valid_uri_names()).collect();
        let name = uris.iter().find_map(|uri| uri.strip_prefix(NAME)).filter(|name| name.len() <= MAX_NAME);
        Self { role: Role::of(uris.iter().copied()), name: name.unwrap_or_default().into() }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    /// The socket is root's, who may do everything here in any case.
    fn connect_info(_: IncomingStream<'_, UnixListener>) -> Self {
        Self { role: Role::Deploy, name: "root".into() }
    }
}

impl Connected<IncomingStream<'_, MutualTls>> for Caller {
    fn connect_info(stream: IncomingStream<'_, MutualTls>) -> Self {
        let (_, connection) = stream.io().get_ref();
        Self::with(connection.peer_certificates().and_then(<[_]>::first))
    }
}

/// Lets through what the caller's role allows.
pub(super) async fn require_role(
    ConnectInfo(caller): ConnectInfo<Caller>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let method = match *request.method() {
        http::Method::GET | http::Method::HEAD => Method::Get,
        http::Method::POST => Method::Post,
        http::Method::DELETE => Method::Delete,
        // No route takes it, which is what the router answers.
        _ => return next.run(request).await,
    };
    match Operation::find(method, path.as_str()) {
        Some(operation) if operation.allows(caller.role) => next.run(request).await,
        Some(operation) => Refused(not_allowed(operation, caller.role)).into_response(),
        None => next.run(request).await,
    }
}

fn not_allowed(operation: Operation, role: Role) -> Problem {
    let message = format!(
        "this certificate's role is `{role}`; `{}` is needed to: {}",
        operation.needs(),
        operation.summary()
    );
    Problem {
        kind: ProblemKind::Refused,
        rule: "role.insufficient".to_owned(),
        message,
        detail: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::{delete, get, post};
    use rcgen::{CertificateParams, KeyPair, SanType};
    use tower::ServiceExt as _;

    use super::*;

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|&uri| SanType::URI(uri.try_into().unwrap())).collect();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_caller_has_the_role_and_the_name_of_the_certificate() {
        let caller = |uris: &[&str]| Caller::with(Some(&certificate(uris)));
        let ana = caller(&["bennu:role:operate", "bennu:operator:ana"]);
        assert_eq!((ana.role, &*ana.name), (Role::Operate, "ana"));
        let nobody = Caller { role: Role::View, name: "".into() };
        assert_eq!(caller(&[]), nobody);
        assert_eq!(caller(&["https://example.org/"]), nobody);
        assert_eq!(Caller::with(None), nobody);
        assert_eq!(Caller::with(Some(&CertificateDer::from(vec![1, 2, 3]))), nobody);
        let long = format!("bennu:operator:{}", "x".repeat(MAX_NAME + 1));
        assert_eq!(caller(&[&long]), nobody);
    }

    #[tokio::test]
    async fn each_route_is_answered_for_the_roles_that_it_needs_and_refused_for_the_others() {
        let route = |router: Router, operation: Operation| {
            let answer = async || "";
            let method = match operation.method() {
                Method::Get => get(answer),
                Method::Post => post(answer),
                Method::Delete => delete(answer),
            };
            router.route(operation.path(), method)
        };
        let router = Operation::ALL.into_iter().fold(Router::new(), route);
        let router = router.route_layer(axum::middleware::from_fn(require_role));
        for operation in Operation::ALL {
            for role in Role::ALL {
                let method = format!("{:?}", operation.method()).to_uppercase();
                let path = operation.path().replace(['{', '}'], "");
                let caller = Caller { role, name: "".into() };
                let request =
                    Request::builder().method(method.as_str()).uri(path).extension(ConnectInfo(caller));
                let answer = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let allowed = answer.status() == StatusCode::OK;
                assert_eq!(allowed, role >= operation.needs(), "{operation:?} as {role}");
                if !allowed {
                    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
                    let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
                    let problem: Problem = serde_json::from_slice(&body).unwrap();
                    assert_eq!(
                        (problem.kind, problem.rule.as_str()),
                        (ProblemKind::Refused, "role.insufficient")
                    );
                    let needed = format!("`{}` is needed", operation.needs());
                    assert!(problem.message.contains(&needed), "{}", problem.message);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_request_of_which_it_is_not_known_who_asks_is_not_answered() {
        let router = Router::new().route("/v1/status", get(async || ""));
        let router = router.route_layer(axum::middleware::from_fn(require_role));
        let request = Request::builder().uri("/v1/status").body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
