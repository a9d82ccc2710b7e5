//! `provision`: certificates for a new host, and the document that it is told once.

use std::path::{Path, PathBuf};

use bennu_api::Role;
use bennu_api::provision::{MAX_SIZE, Provision as Document, ProvisionApi, Seal};
use bennu_manifests::MAX_DOCUMENT;
use bennu_manifests::model::Name;
use jiff::Timestamp;
use serde::Serialize;

use crate::authority::{Authority, Identity};
use crate::cli::{self, Provision};
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, facts};
use crate::verify::{labels, trust};

/// The version of the document that is written.
const SCHEMA: u32 = 1;
/// The largest certificate or key, in bytes.
pub(crate) const MAX_PEM: usize = 64 << 10;

/// What was written.
#[derive(Debug, Serialize)]
struct Provisioned {
    host: Name,
    /// The provisioning document.
    document: String,
    /// The folder for `--identity`.
    identity: String,
    /// Whether the authority was made now.
    #[serde(rename = "new-authority")]
    new_authority: bool,
    /// What the host's certificate is for.
    addresses: Vec<String>,
}

/// Makes and writes them.
pub(crate) fn run(args: &Provision, now: Timestamp, out: &mut Out) -> Outcome {
    let name: Name =
        args.name.parse().map_err(|e| Failure::invalid(format!("'{}' is no name", args.name)).because(e))?;
    // Checked whole before anything is written; the host reads the text itself.
    trust(&args.trust)?;
    let trust = files::read_text(&args.trust, MAX_DOCUMENT)?;
    let labels = labels(&args.labels)?;
    let operator = args.dir.join("operator");
    let (authority, new_authority) = authority(&operator, now)?;
    let mut addresses = vec![name.to_string()];
    addresses.extend(args.addresses.iter().cloned());
    let Identity { certificate, key } = authority
        .host(name.as_str(), &addresses, now)
        .map_err(|e| Failure::invalid(format!("no certificate for {name}")).because(e))?;
    let client_ca = authority.certificate().to_owned();
    let api = ProvisionApi { listen: args.listen, certificate, key, client_ca };
    let seal = args.seal.map(|by| match by {
        cli::Seal::Tpm2 => Seal::Tpm2,
    });
    let document = Document { schema: SCHEMA, name: name.clone(), labels, seal, trust, api: Some(api) };
    let text =
        toml::to_string(&document).map_err(|e| Failure::failed("write the document as TOML").because(e))?;
    if text.len() > MAX_SIZE {
        return Err(Failure::invalid(format!(
            "the provisioning document would be larger than {MAX_SIZE} bytes"
        ))
        .advice("the trust document is most of it"));
    }
    let path = args.out.clone().unwrap_or_else(|| args.dir.join("provision.toml"));
    files::replace_secret(&path, text.as_bytes())?;
    let provisioned = Provisioned {
        host: name,
        document: path.display().to_string(),
        identity: operator.display().to_string(),
        new_authority,
        addresses,
    };
    out.result(&provisioned, |p| {
        facts(&[
            ("host", p.host.to_string()),
            ("document", format!("{} (it holds the host's private key)", p.document)),
            ("identity", format!("{}{}", p.identity, if p.new_authority { " (new)" } else { "" })),
            ("addresses", p.addresses.join(", ")),
        ])
    })?;
    Ok(0)
}

/// The operators' authority in `dir`, made there where it is missing; and whether it was made.
fn authority(dir: &Path, now: Timestamp) -> Result<(Authority, bool), Failure> {
    let at = |name: &str| -> PathBuf { dir.join(name) };
    let failed = |e| Failure::failed("use the operators' authority").because(e);
    let certificate = files::read_if_there(&at("ca.crt"), MAX_PEM)?;
    let key = files::read_if_there(&at("ca.key"), MAX_PEM)?;
    let (authority, new) = match (certificate, key) {
        (Some(_), Some(_)) => {
            let certificate = files::read_text(&at("ca.crt"), MAX_PEM)?;
            let key = files::read_text(&at("ca.key"), MAX_PEM)?;
            (Authority::load(certificate, &key, now).map_err(failed)?, false)
        }
        (None, None) => {
            std::fs::create_dir_all(dir)
                .map_err(|e| Failure::failed(format!("make the folder {}", dir.display())).because(e))?;
            let (authority, identity) = Authority::new(now).map_err(failed)?;
            // The certificate last: an authority of which it is missing has signed for nobody yet.
            files::replace_secret(&at("ca.key"), identity.key.as_bytes())?;
            files::replace(&at("ca.crt"), identity.certificate.as_bytes(), 0o644)?;
            (authority, true)
        }
        (None, Some(_)) => return Err(half(dir, "ca.crt")),
        (Some(_), None) => return Err(half(dir, "ca.key")),
    };
    if new || !at("client.crt").exists() || !at("client.key").exists() {
        let client = authority.client("operator", Role::Deploy, now).map_err(failed)?;
        files::replace_secret(&at("client.key"), client.key.as_bytes())?;
        files::replace(&at("client.crt"), client.certificate.as_bytes(), 0o644)?;
    }
    Ok((authority, new))
}

fn half(dir: &Path, missing: &str) -> Failure {
    Failure::failed(format!("the operators' authority in {} is not whole", dir.display()))
        .because(format!("{missing} is missing"))
        .advice("bring it back from where it is kept safe; or use another --dir and provision all hosts anew")
}
