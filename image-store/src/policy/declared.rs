//! The signatures that images must carry, as a manifest says it in words of the trust document.

use bennu_manifests::Trust;
use bennu_manifests::model::{ImagePolicy, Manifest, Name};

use super::{NotAPolicy, Policy};
use crate::cosign::NamedKey;

/// Why the policies of a manifest cannot be asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A key that nobody knows here.
    #[error("image-policy \"{prefix}\": the trust document has no key `{key}`")]
    UnknownKey {
        /// The policy.
        prefix: String,
        /// The key.
        key: Name,
    },
    /// A policy that makes no sense with these keys.
    #[error("image-policy \"{prefix}\"")]
    Policy {
        /// The policy.
        prefix: String,
        /// Why not.
        source: NotAPolicy,
    },
}

/// All policies of a manifest, with the keys that the trust document has for the names.
///
/// # Errors
/// [`PolicyError`]
pub fn declared(manifest: &Manifest, trust: &Trust) -> Result<Vec<Policy>, PolicyError> {
    let one = |(prefix, policy): (&String, &ImagePolicy)| {
        let key = |name: &Name| {
            let key = trust.keys.get(name).cloned();
            let unknown = || PolicyError::UnknownKey { prefix: prefix.clone(), key: name.clone() };
            Ok(NamedKey { name: name.to_string(), key: key.ok_or_else(unknown)? })
        };
        let keys = policy.keys.iter().map(key).collect::<Result<_, PolicyError>>()?;
        let threshold = usize::try_from(policy.threshold).unwrap_or(usize::MAX);
        Policy::new(prefix, keys, threshold)
            .map_err(|source| PolicyError::Policy { prefix: prefix.clone(), source })
    };
    manifest.image_policies.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXXJ2dOar+m2w6HnhRRp5tHX8tzNRKG5ZRSKKS7TLLb";

    fn policies(lines: &str) -> Result<Vec<Policy>, PolicyError> {
        let trust = format!(
            "schema = 1\nversion = 1\nkey.ci.public = \"{KEY}\"\nrole.deploy = {{ keys = [\"ci\"], threshold = 1 }}\n"
        );
        let trust = bennu_manifests::check_trust(trust.as_bytes()).expect("a trust document");
        let text = format!(
            "schema = 1\nname = \"a\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n{lines}"
        );
        let manifest = bennu_manifests::check(text.as_bytes()).expect("a manifest");
        declared(&manifest, &trust)
    }

    #[test]
    fn policies_name_keys_of_the_trust_document() {
        let sound = policies("[image-policy.\"a.example/shop\"]\nkeys = [\"ci\"]\n").expect("it is known");
        assert_eq!(sound[0].prefix(), "a.example/shop");
        let error = policies("[image-policy.\"a.example\"]\nkeys = [\"stranger\"]\n").expect_err("it is not");
        assert!(error.to_string().contains("the trust document has no key `stranger`"), "{error}");
    }
}
