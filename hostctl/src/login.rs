//! What people have told their tools about registries: the files of Docker and Podman, and the programs they name.
//!
//! ```text
//! $REGISTRY_AUTH_FILE ─► containers/auth.json ─► $DOCKER_CONFIG/config.json     the first that knows the registry counts
//!        └─ credHelpers ─► auths ─► credsStore ─► docker-credential-NAME get
//! ```
//! containers-auth.json(5); Docker's `config.json`; docker-credential-helpers, `client/client.go`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bennu_image_store::registry::{Credentials, NotCredentials};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::exit::Failure;
use crate::files;

/// The largest such file, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The most that a program may answer, in bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// How long a program may take; it may ask its user something.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// The user that stands for an identity token.
const TOKEN_USER: &str = "<token>";

/// A file, as far as it is about logging in. No `Debug`: it holds passwords.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

/// What a program answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The credentials for a registry, by `HOST[:PORT][/PATH]`; none where nothing is known.
pub(crate) async fn credentials(registry: &str) -> Result<BTreeMap<String, Credentials>, Failure> {
    for file in places(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)) {
        let Some(bytes) = files::read_if_there(&file, MAX_FILE)? else { continue };
        let wrong = || format!("{} cannot be read as a file with logins", file.display());
        // The cause may quote a password, so it is not shown.
        let config: Config = serde_json::from_slice(&bytes).map_err(|e| {
            Failure::invalid(wrong()).advice(format!("line {}, column {}", e.line(), e.column()))
        })?;
        let found = of_config(&config, registry).await.map_err(|error| match error {
            Trouble::NotCredentials(e) => Failure::invalid(wrong()).because(e),
            Trouble::Helper(failure) => failure,
        })?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(BTreeMap::new())
}

/// Where such files are, the first to be asked first.
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.clone()?.join(".config")));
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
    let containers = |folder: PathBuf| folder.join("containers/auth.json");
    [
        variable("REGISTRY_AUTH_FILE"),
        variable("XDG_RUNTIME_DIR").map(containers),
        config.map(containers),
        docker.map(|folder| folder.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

enum Trouble {
    NotCredentials(NotCredentials),
    Helper(Failure),
}

impl From<NotCredentials> for Trouble {
    fn from(error: NotCredentials) -> Self {
        Self::NotCredentials(error)
    }
}

async fn of_config(config: &Config, registry: &str) -> Result<BTreeMap<String, Credentials>, Trouble> {
    let mut found = BTreeMap::new();
    let own = config.cred_helpers.iter().find(|(key, _)| canonical(key) == registry);
    if let Some((key, helper)) = own {
        let answer = ask(helper, key).await.map_err(Trouble::Helper)?;
        found.extend(answer.map(|credentials| (registry.to_owned(), credentials)));
        return Ok(found);
    }
    for (key, auth) in &config.auths {
        let key = canonical(key);
        if key.split('/').next() == Some(registry)
            && let Some(credentials) = of_auth(auth)?
        {
            found.insert(key, credentials);
        }
    }
    if found.is_empty() && !config.creds_store.is_empty() {
        // Docker keeps what belongs to its own registry under this name.
        let key = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
        let answer = ask(&config.creds_store, key).await.map_err(Trouble::Helper)?;
        found.extend(answer.map(|credentials| (registry.to_owned(), credentials)));
    }
    Ok(found)
}

/// `HOST[:PORT][/PATH]` of a key, which may be an address of Docker's first API.
fn canonical(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_at(key.find('/').unwrap_or(key.len()));
    match host {
        "index.docker.io" | "registry-1.docker.io" => format!("docker.io{path}"),
        _ => key.to_owned(),
    }
}

/// An entry that says nothing, as those that stand for what a program keeps, is none.
fn of_auth(auth: &Auth) -> Result<Option<Credentials>, NotCredentials> {
    if !auth.identitytoken.is_empty() {
        return Credentials::identity_token(&auth.identitytoken).map(Some);
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let pair = STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = pair.ok_or(NotCredentials)?;
    // Old versions of Docker fill the end with zeros.
    let (user, password) = pair.trim_end_matches('\0').split_once(':').ok_or(NotCredentials)?;
    if user == TOKEN_USER {
        return Credentials::identity_token(password).map(Some);
    }
    Credentials::password(user, password).map(Some)
}

/// Asks a program for the credentials of one address; `None` where it has none.
async fn ask(helper: &str, address: &str) -> Result<Option<Credentials>, Failure> {
    let name = format!("docker-credential-{helper}");
    if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(Failure::invalid(format!("'{}' is not the name of a program", name.escape_debug())));
    }
    let failed = |e: std::io::Error| Failure::failed(format!("ask {name} for a login")).because(e);
    let asked = async {
        let mut child = Command::new(&name)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that ends without reading says why by its status.
            let _ = input.write_all(address.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        }
        Ok((child.wait().await?, answer))
    };
    let late = |_| Failure::failed(format!("{name} did not answer within {} seconds", HELPER_TIME.as_secs()));
    let (status, answer) = tokio::time::timeout(HELPER_TIME, asked).await.map_err(late)?.map_err(failed)?;
    if !status.success() {
        // The one error that the protocol gives a text of its own.
        let none = String::from_utf8_lossy(&answer).contains("credentials not found");
        let failure = || Failure::failed(format!("{name} does not give the login for {address}: {status}"));
        return if none { Ok(None) } else { Err(failure()) };
    }
    let senseless = || Failure::failed(format!("the answer of {name} for {address} is no login"));
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| senseless())?;
    let credentials = match answer.username.as_str() {
        TOKEN_USER => Credentials::identity_token(&answer.secret),
        user => Credentials::password(user, &answer.secret),
    };
    credentials.map(Some).map_err(|e| senseless().because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(text: &str, registry: &str) -> Result<BTreeMap<String, Credentials>, ()> {
        let config: Config = serde_json::from_str(text).map_err(drop)?;
        of_config(&config, registry).await.map_err(drop)
    }

    fn ci() -> Credentials {
        Credentials::password("ci", "hunter2").expect("sound")
    }

    #[tokio::test]
    async fn logins_are_found_under_every_form_of_a_registrys_name() {
        for (key, registry) in [
            ("a.example", "a.example"),
            ("https://a.example", "a.example"),
            ("https://a.example/v2/", "a.example"),
            ("http://a.example:5000/", "a.example:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"Y2k6aHVudGVyMg=="}}}},"other":1}}"#);
            let found = of(&text, registry).await.expect(key);
            assert_eq!(found, BTreeMap::from([(registry.to_owned(), ci())]), "{key}");
            assert!(of(&text, "b.example").await.expect(key).is_empty(), "{key}");
        }
    }

    #[tokio::test]
    async fn logins_for_a_path_identity_tokens_and_empty_entries_are_understood() {
        let text = r#"{"auths":{"a.example/team":{"auth":"Y2k6aHVudGVyMg=="},"a.example":{"auth":"","identitytoken":"t"},"b.example":{}}}"#;
        let found = of(text, "a.example").await.expect("sound");
        assert_eq!(found["a.example/team"], ci());
        assert_eq!(found["a.example"], Credentials::identity_token("t").expect("sound"));
        assert!(of(text, "b.example").await.expect("sound").is_empty());
        for damaged in ["Y2k", "Y2k=", "_", "Y2k6"] {
            let text = format!(r#"{{"auths":{{"a.example":{{"auth":"{damaged}"}}}}}}"#);
            assert!(of(&text, "a.example").await.is_err(), "{damaged}");
        }
    }

    #[tokio::test]
    async fn the_name_of_a_program_is_not_a_path() {
        for helper in ["../../tmp/x", "a/b", "a b", "a\\nb", "$(x)"] {
            let text = format!(r#"{{"credHelpers":{{"a.example":"{helper}"}}}}"#);
            assert!(of(&text, "a.example").await.is_err(), "{helper}");
        }
        // A program for another registry is not run, not even looked for.
        let text = r#"{"credHelpers":{"b.example":"that-is-not-there"}}"#;
        assert!(of(text, "a.example").await.expect("not asked").is_empty());
        assert!(of(text, "b.example").await.is_err());
    }

    #[test]
    fn files_are_asked_in_the_order_of_podman_and_then_docker() {
        let all = places(|name| Some(PathBuf::from(format!("/{name}"))));
        let order = ["/REGISTRY_AUTH_FILE", "/XDG_RUNTIME_DIR", "/XDG_CONFIG_HOME", "/DOCKER_CONFIG"];
        assert_eq!(all.len(), order.len());
        assert!(all.iter().zip(order).all(|(path, folder)| path.starts_with(folder)), "{all:?}");
        let home = places(|name| (name == "HOME").then(|| PathBuf::from("/root")));
        let wanted = ["/root/.config/containers/auth.json", "/root/.docker/config.json"];
        assert_eq!(home, wanted.map(PathBuf::from));
    }
}
