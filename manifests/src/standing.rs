//! How far the signing of a document has come: for people who gather signatures. Nothing is accepted by it.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::model::Name;
use crate::rules::count;
use crate::signature::{BadSignatureFile, SshSignature, verify_signature};
use crate::trust::{Role, RoleKeys, Trust};

/// What a role needs of a document, and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The version of the trust document that says so.
    pub trust_version: u64,
    /// The role.
    pub role: Role,
    /// How many of its keys must sign; `None` where nobody has the role, so that no signatures suffice.
    pub needed: Option<usize>,
    /// Its keys that have signed.
    pub signed: Vec<Name>,
    /// Its keys that have not, or whose signature does not hold.
    pub missing: Vec<Name>,
    /// Trusted keys whose signature does not hold; a document with one of these is refused whole.
    pub broken: Vec<Name>,
    /// Whether the signatures suffice.
    pub enough: bool,
}

/// What `role` of `trust` needs of `bytes`, with the signatures `sig` (empty where there are none) made for `namespace`.
///
/// # Errors
///
/// Where the signatures cannot be read.
pub fn standing(
    role: Role,
    bytes: &[u8],
    sig: &[u8],
    namespace: &str,
    trust: &Trust,
) -> Result<Standing, BadSignatureFile> {
    let (mut held, mut broken) = (BTreeSet::new(), BTreeSet::new());
    for signature in &SshSignature::read_file(sig)? {
        let Some((name, key)) = trust.keys.iter().find(|(_, key)| *key == signature.key()) else { continue };
        let holds = verify_signature(key, namespace, bytes, signature).is_ok();
        if holds {
            held.insert(name.clone())
        } else {
            broken.insert(name.clone())
        };
    }
    let nobody = RoleKeys { keys: BTreeSet::new(), threshold: 1 };
    let keys = trust.roles.get(&role);
    let counted = count(keys.unwrap_or(&nobody), trust, &held);
    let enough = keys.is_some() && counted.distinct >= counted.needed && broken.is_empty();
    let all = keys.into_iter().flat_map(|keys| &keys.keys);
    Ok(Standing {
        trust_version: trust.version,
        role,
        needed: keys.map(|_| counted.needed),
        missing: all.filter(|name| !held.contains(*name)).cloned().collect(),
        signed: counted.named.into_iter().cloned().collect(),
        broken: broken.into_iter().collect(),
        enough,
    })
}
