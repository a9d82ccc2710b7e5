//! What the configs and secrets of a manifest bring into a container: files, and variables.
//!
//! Secrets are opened for one container at a time, into memory that is wiped when this is dropped.

use std::collections::BTreeMap;

use bennu_manifests::model::{Container, Manifest, Name};
use bennu_secrets::{Identity, OpenError, Zeroizing};

/// The opened configs and secrets of one container.
#[derive(Debug, Default)]
pub struct Contents {
    configs: BTreeMap<Name, Zeroizing<Vec<u8>>>,
    secrets: BTreeMap<Name, Zeroizing<Vec<u8>>>,
}

/// Why a container does not get its configs and secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContentsError {
    /// This host can't open a secret.
    #[error("open secret {secret}; encrypt it for the recipient that `hostctl status` shows for this host")]
    Open {
        /// The secret.
        secret: Name,
        /// What went wrong.
        source: OpenError,
    },
    /// The container names what is not declared.
    #[error("find {what} {name}: it is not declared")]
    Missing {
        /// A config or a secret.
        what: &'static str,
        /// Its name.
        name: Name,
    },
    /// A file of variables is none. What is in it is not told: it may be a secret.
    #[error("read variables from {file}: line {line} is no `NAME=VALUE`")]
    Variables {
        /// The config or secret.
        file: Name,
        /// The line, from 1.
        line: usize,
    },
    /// A variable can't have such a value.
    #[error("set variable {variable} from secret {secret}: it holds a zero byte, or is no UTF-8")]
    Value {
        /// The variable.
        variable: String,
        /// The secret.
        secret: Name,
    },
}

impl Contents {
    /// Opens what a container of a manifest uses.
    ///
    /// # Errors
    /// Where a secret can't be opened, or something is not declared.
    pub fn of(
        manifest: &Manifest,
        container: &Container,
        identity: &Identity,
    ) -> Result<Self, ContentsError> {
        let mut contents = Self::default();
        let missing = |what, name: &Name| ContentsError::Missing { what, name: name.clone() };
        // A file of variables is a config or a secret; the check of the manifest has seen that it is one of them.
        let is_secret = |name: &&Name| manifest.secrets.contains_key(*name);
        let (of_secrets, of_configs): (Vec<&Name>, Vec<&Name>) =
            container.environment_files.iter().partition(is_secret);
        for name in container.configs.iter().map(|mount| &mount.source).chain(of_configs) {
            let config = manifest.configs.get(name).ok_or_else(|| missing("config", name))?;
            contents.configs.insert(name.clone(), Zeroizing::new(config.content.clone().into_bytes()));
        }
        let mounted = container.secrets.iter().map(|mount| &mount.source);
        for name in mounted.chain(container.environment_secrets.values()).chain(of_secrets) {
            let secret = manifest.secrets.get(name).ok_or_else(|| missing("secret", name))?;
            let opened = bennu_secrets::open(identity, &secret.age)
                .map_err(|source| ContentsError::Open { secret: name.clone(), source })?;
            contents.secrets.insert(name.clone(), opened);
        }
        Ok(contents)
    }

    /// What is in a config.
    pub fn config(&self, name: &Name) -> Option<&[u8]> {
        self.configs.get(name).map(|bytes| bytes.as_slice())
    }

    /// What is in a secret.
    pub fn secret(&self, name: &Name) -> Option<&[u8]> {
        self.secrets.get(name).map(|bytes| bytes.as_slice())
    }

    /// The variables of the container's `environment-files`, later files over earlier ones, and over them those of
    /// `environment-secrets`.
    ///
    /// # Errors
    /// Where something is no variable.
    pub fn variables(&self, container: &Container) -> Result<BTreeMap<String, String>, ContentsError> {
        let mut variables = BTreeMap::new();
        for file in &container.environment_files {
            let missing = || ContentsError::Missing { what: "config or secret", name: file.clone() };
            let bytes = self.secret(file).or_else(|| self.config(file)).ok_or_else(missing)?;
            variables
                .extend(parse(bytes).map_err(|line| ContentsError::Variables { file: file.clone(), line })?);
        }
        for (variable, secret) in &container.environment_secrets {
            let wrong = || ContentsError::Value { variable: variable.clone(), secret: secret.clone() };
            let missing = || ContentsError::Missing { what: "secret", name: secret.clone() };
            let bytes = self.secret(secret).ok_or_else(missing)?;
            let text = str::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(wrong)?;
            // Who writes a secret with an editor ends it with a line break, and none of them means it.
            let text = text.strip_suffix('\n').unwrap_or(text);
            variables.insert(variable.clone(), text.to_owned());
        }
        Ok(variables)
    }
}

/// Lines of `NAME=VALUE`; empty ones and those that begin with `#` are passed over. The value is all behind the first `=`,
/// as it is. Where a line is something else it gives its number.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, usize> {
    let mut variables = BTreeMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let wrong = index + 1;
        let line = str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| wrong)?;
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or(wrong)?;
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let further = |c: char| first(c) || c.is_ascii_digit() || c == '.' || c == '-';
        if !name.starts_with(first) || !name.chars().all(further) || value.contains('\0') {
            return Err(wrong);
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(identity: &Identity, text: &str) -> (Manifest, Name) {
        let sealed = bennu_secrets::seal(&[identity.recipient()], b"s3cret\n").expect("sealed");
        let image = format!("registry.example/web:1@sha256:{}", "ab".repeat(32));
        let text = format!(
            "schema = 1\nname = \"test\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
             [config.app-env]\ncontent = \"A=1\\n# note\\n\\nB=x=y\\n\"\n\
             [secret.password]\nage = \"\"\"\n{sealed}\"\"\"\n\
             [container.web]\nimage = \"{image}\"\n{text}"
        );
        let manifest = bennu_manifests::check(text.as_bytes()).expect("valid");
        (manifest, "web".parse().expect("a name"))
    }

    #[test]
    fn variables_come_from_files_and_secrets_and_secrets_win() {
        let identity = Identity::generate();
        let text = "environment-files = [\"app-env\"]\nenvironment-secrets = { A = \"password\" }\n";
        let (manifest, name) = manifest(&identity, text);
        let container = &manifest.containers[&name];
        let contents = Contents::of(&manifest, container, &identity).expect("opened");
        let variables = contents.variables(container).expect("variables");
        let expected = [("A", "s3cret"), ("B", "x=y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(variables, expected.into());
    }

    #[test]
    fn a_secret_for_another_host_is_an_error_that_names_it_and_what_to_do() {
        let (ours, other) = (Identity::generate(), Identity::generate());
        let (manifest, name) = manifest(&other, "secrets = [\"password\"]\n");
        let error = Contents::of(&manifest, &manifest.containers[&name], &ours).expect_err("not for us");
        let text = error.to_string();
        assert!(text.contains("password") && text.contains("hostctl status"), "{text}");
    }

    #[test]
    fn a_line_that_is_no_variable_is_named_and_not_shown() {
        for (text, line) in [("A=1\nhunter2\n", 2), ("=x", 1), ("1A=x", 1), ("A B=1", 1), ("A=\0", 1)] {
            assert_eq!(parse(text.as_bytes()), Err(line), "{text:?}");
        }
        assert_eq!(parse(b"A=\xff"), Err(1));
        assert_eq!(parse(b"A=1\r\n").expect("one"), [("A".to_owned(), "1".to_owned())].into());
    }
}
