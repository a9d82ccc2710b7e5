//! Getting in: what answers a registry that wants to know who is there.

use std::time::Instant;

use zeroize::Zeroizing;

use super::auth::{self, BearerChallenge, Challenge, Token};
use super::client::{Client, Repository, host_name};
use super::credentials::{self, Credentials};
use super::document;
use super::error::RegistryError;
use super::http::{self, HttpError, Request, Response, host_of};
use super::retry;

/// The largest answer of a token server, in bytes.
const MAX_TOKEN_ANSWER: usize = 64 << 10;

/// What a registry let us in with.
#[derive(Clone)]
pub(super) struct Authorization {
    /// The value of the header of this name.
    pub(super) header: Zeroizing<String>,
    /// When it is not good any more.
    pub(super) until: Option<Instant>,
}

impl From<Token> for Authorization {
    fn from(token: Token) -> Self {
        let header = Zeroizing::new(format!("Bearer {}", token.text.as_str()));
        Self { header, until: Some(Instant::now() + token.life) }
    }
}

impl Client {
    /// What answers the challenge of a registry; the first one that we can answer counts.
    pub(super) async fn authorize(
        &self,
        repository: &Repository,
        response: &Response,
    ) -> Result<Authorization, RegistryError> {
        let unauthorized = || RegistryError::Unauthorized { registry: repository.registry.clone() };
        let challenges: Vec<_> =
            response.headers("www-authenticate").filter_map(auth::parse_challenge).collect();
        let credentials =
            credentials::find(&self.options.credentials, &repository.registry, &repository.name);
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        });
        if let Some(bearer) = bearer {
            return Ok(self.token(repository, bearer, credentials).await?.into());
        }
        let basic =
            credentials.filter(|_| challenges.contains(&Challenge::Basic)).and_then(Credentials::basic);
        let header = basic.ok_or_else(unauthorized)?;
        let registry = &repository.registry;
        if !self.is_private(registry, self.base(registry).starts_with("https")) {
            return Err(kept(registry, registry, "TLS is not used there"));
        }
        Ok(Authorization { header, until: None })
    }

    async fn token(
        &self,
        repository: &Repository,
        challenge: &BearerChallenge,
        credentials: Option<&Credentials>,
    ) -> Result<Token, RegistryError> {
        let registry = &repository.registry;
        let unauthorized = || RegistryError::Unauthorized { registry: registry.clone() };
        let shown = || document::shown(&challenge.realm);
        let (realm, tls) =
            host_of(&challenge.realm).ok_or_else(|| HttpError::Address { address: shown() })?;
        // A registry that is spoken to with TLS cannot lead us to a token server without.
        if self.base(registry).starts_with("https") && !tls {
            return Err(HttpError::PlainHttp { host: shown() }.into());
        }
        let is_named = self.options.token_servers.get(registry).is_some_and(|all| all.contains(&realm));
        if credentials.is_some() {
            if !is_named && !credentials::may_see(host_name(registry), &realm) {
                return Err(kept(registry, &shown(), "that is another domain; name it as a token server"));
            }
            if !self.is_private(&realm, tls) {
                return Err(kept(registry, &shown(), "TLS is not used there"));
            }
        }
        let base = self.base(registry);
        let asked = Request {
            // Whoever named a token server to us did not mean what a registry makes of it.
            led_by: Some(http::host_part(&base)).filter(|_| !is_named),
            ..Request::default()
        };
        let response = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = auth::refresh_form(challenge, &repository.name, token);
                self.ask(Request { url: &challenge.realm, form: Some(&form), ..asked }).await?
            }
            other => {
                let url = auth::token_url(challenge, &repository.name);
                let basic = other.and_then(Credentials::basic);
                let authorization = basic.as_ref().map(|basic| basic.as_str());
                self.ask(Request { url: &url, authorization, ..asked }).await?
            }
        };
        if !response.is_success() {
            return match response.status() {
                status @ (408 | 429 | 500..) => {
                    let (what, retry_after) = (format!("a token for {registry}"), retry::asked_of(&response));
                    Err(RegistryError::Status { what, status, retry_after })
                }
                _ => Err(unauthorized()),
            };
        }
        let body = response.bytes(MAX_TOKEN_ANSWER).await?.ok_or_else(unauthorized)?;
        auth::parse_token(&Zeroizing::new(body)).ok_or_else(unauthorized)
    }
}

/// Credentials that stay here.
fn kept(registry: &str, realm: &str, why: &str) -> RegistryError {
    RegistryError::Insecure {
        reason: format!("the credentials for {registry} are not sent to {realm}: {why}"),
    }
}
