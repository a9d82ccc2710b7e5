//! `trust`: whom hosts trust, from the first document to the one that takes a stolen key's power away.
//!
//! ```text
//! init ──► trust.toml ──► add-key, rotate ──► trust.toml (next version), trust.1.toml ──► sign … sign ──► push
//!                                                    └─ show, export-allowed-signers
//! ```

pub(crate) mod args;
mod edit;
mod gathered;
mod push;
mod show;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bennu_manifests::model::Name;
use bennu_manifests::{PublicKey, check_trust};
use serde::Serialize;

use crate::check::not_valid;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted};

use args::{Init, Trust};

/// The largest file of a public key, in bytes.
const MAX_KEY: usize = 16 << 10;

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    file: String,
    version: u64,
    threshold: u32,
    /// Fingerprints by name.
    keys: BTreeMap<Name, String>,
}

/// Runs one of its commands that talk to nobody; [`push::run`] is the other one.
pub(crate) fn run(command: &Trust, out: &mut Out) -> Outcome {
    match command {
        Trust::Init(args) => init(args, out),
        Trust::AddKey(args) => edit::add_keys(args, out),
        Trust::Rotate(args) => edit::rotate(args, out),
        Trust::Show(args) => show::run(args, out),
        Trust::ExportAllowedSigners { file } => show::export(file, out),
        Trust::Push { .. } => unreachable!("it talks to a host, and was run as such"),
    }
}

pub(crate) use push::run as push;

fn init(args: &Init, out: &mut Out) -> Outcome {
    let mut keys = BTreeMap::new();
    for pair in &args.keys {
        let (name, key) = named_key(pair)?;
        if keys.insert(name.clone(), key).is_some() {
            return Err(Failure::invalid(format!("the key '{name}' is given twice")));
        }
    }
    let text = document(&keys, args.threshold);
    check_trust(text.as_bytes()).map_err(|invalid| not_valid(&args.file, text.as_bytes(), invalid))?;
    if args.file.exists() {
        return Err(Failure::invalid(format!("{} is there already", args.file.display()))
            .advice("a host takes another trust document only as the next version of the one it has"));
    }
    files::replace(&args.file, text.as_bytes(), 0o644)?;
    let keys = keys.iter().map(|(name, key)| (name.clone(), key.fingerprint())).collect();
    let written =
        Written { file: args.file.display().to_string(), version: 1, threshold: args.threshold, keys };
    out.result(&written, |w| {
        let decide = match w.threshold {
            1 => "any one of them decides".to_owned(),
            threshold => format!("{threshold} together decide"),
        };
        let mut text =
            format!("{}: version {}, {}, {decide}\n", w.file, w.version, counted(w.keys.len(), "key"));
        for (name, fingerprint) in &w.keys {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name}  {fingerprint}");
        }
        text
    })?;
    Ok(0)
}

fn named_key(pair: &str) -> Result<(Name, PublicKey), Failure> {
    let (name, file) = pair.split_once('=').ok_or_else(|| {
        Failure::invalid(format!("'{pair}' is not NAME=PUBFILE"))
            .advice("as --key ana=/home/ana/.ssh/id_ed25519.pub")
    })?;
    let name = name.parse().map_err(|e| Failure::invalid(format!("'{name}' names no key")).because(e))?;
    let file = Path::new(file);
    let text = files::read_text(file, MAX_KEY)?;
    let key = text.trim().parse().map_err(|e| {
        Failure::invalid(format!("{} holds no public key", file.display()))
            .because(e)
            .advice("it is the file that ends in .pub")
    })?;
    Ok((name, key))
}

/// The document. Names and keys are of a form that needs no escaping.
fn document(keys: &BTreeMap<Name, PublicKey>, threshold: u32) -> String {
    let mut text = String::from(
        "# Whom hosts trust, and with what. A new version raises `version` by one and is signed by enough keys of the\n\
         # `trust` role, of this version and of the new one.\n\
         schema = 1\n\
         version = 1\n",
    );
    for (name, key) in keys {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n[key.{name}]\npublic = \"{key}\"\n");
    }
    let names: Vec<String> = keys.keys().map(|name| format!("\"{name}\"")).collect();
    let roles = [
        ("trust", "the next version of this document"),
        ("os", "what reaches beyond containers"),
        ("deploy", "everything else in a manifest"),
    ];
    for (role, what) in roles {
        let names = names.join(", ");
        let _ = write!(text, "\n# {what}\n[role.{role}]\nkeys = [{names}]\nthreshold = {threshold}\n");
    }
    text
}
