//! `trust add-key`, `trust rotate`: the next version of a trust document, with its comments and layout kept.

use std::path::{Path, PathBuf};

use bennu_manifests::{MAX_SIGNATURE_FILE, Role, check_trust};
use serde::Serialize;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, value};

use super::args::{AddKey, RoleName, Rotate};
use super::gathered::{Document, Gathered};
use super::named_key;
use crate::check::not_valid;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::Out;

/// What was written, and what is to be done with it.
#[derive(Debug, Serialize)]
struct Edited {
    file: String,
    version: u64,
    /// Where the version before is kept; absent where a draft was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    signatures: Gathered,
}

/// Adds keys.
pub(crate) fn add_keys(args: &AddKey, out: &mut Out) -> Outcome {
    change(&args.file, out, |toml| {
        for pair in &args.keys {
            let (name, key) = named_key(pair)?;
            let keys = section(toml, "key")?;
            if keys.contains_key(name.as_str()) {
                return Err(Failure::invalid(format!("there is a key `{name}` already"))
                    .advice("`hostctl trust rotate --replace` puts another key in its place"));
            }
            let mut entry = Table::new();
            entry.insert("public", value(key.to_string()));
            keys.insert(name.as_str(), Item::Table(entry));
            for RoleName(role) in &args.roles {
                holders(toml, *role)?.push(name.as_str());
            }
        }
        Ok(())
    })
}

/// Removes and replaces keys, changes thresholds and the time of expiry.
pub(crate) fn rotate(args: &Rotate, out: &mut Out) -> Outcome {
    change(&args.file, out, |toml| {
        for name in &args.remove {
            if section(toml, "key")?.remove(name).is_none() {
                return Err(no_key(name));
            }
            for role in Role::ALL.into_iter().filter(|role| has_role(toml, *role)).collect::<Vec<_>>() {
                holders(toml, role)?.retain(|holder| holder.as_str() != Some(name));
            }
        }
        for pair in &args.replace {
            let (name, key) = named_key(pair)?;
            let entry = section(toml, "key")?.get_mut(name.as_str()).and_then(Item::as_table_like_mut);
            let entry = entry.ok_or_else(|| no_key(name.as_str()))?;
            entry.insert("public", value(key.to_string()));
        }
        for pair in &args.threshold {
            let (role, number) = threshold(pair)?;
            role_section(toml, role)?.insert("threshold", value(number));
        }
        match args.expires {
            Some(super::args::Expires(Some(time))) => {
                let time = crate::render::moment(time).parse::<toml_edit::Datetime>();
                toml.insert("expires", value(time.map_err(|e| Failure::invalid("--expires").because(e))?));
            }
            Some(super::args::Expires(None)) => {
                toml.remove("expires");
            }
            None => {}
        }
        Ok(())
    })
}

/// Reads the document, changes it, and writes it as the next version, or again where it is a draft.
fn change(
    path: &Path,
    out: &mut Out,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), Failure>,
) -> Outcome {
    let document = Document::read(path)?;
    let before = document.before()?;
    // A version that could not be handed to any host yet is a draft, and stays the same version.
    let draft = match &before {
        Some(before) => !Gathered::of(&document, Some(&before.trust))?.enough,
        None => false,
    };
    let mut toml: DocumentMut = document
        .text
        .parse()
        .map_err(|e| Failure::failed(format!("read {} for changing it", path.display())).because(e))?;
    change(&mut toml)?;
    if !draft {
        let next = document.trust.version.checked_add(1).and_then(|next| i64::try_from(next).ok());
        let next = next.ok_or_else(|| Failure::invalid("there is no next version"))?;
        toml.insert("version", value(next));
        // What hosts were once told to forget is not to be forgotten again.
        toml.remove("recover");
    }
    let text = toml.to_string();
    let trust = check_trust(text.as_bytes())
        .map_err(|invalid| not_valid(path, text.as_bytes(), invalid).advice("nothing was written"))?;

    let kept = if draft { None } else { Some(keep(&document)?) };
    files::replace(path, text.as_bytes(), 0o644)?;
    // Signatures over what it said before fit nothing any more; where one is left by a cut, `sign` drops it.
    let sig = files::sig_path(path);
    if sig.exists() {
        std::fs::remove_file(&sig)
            .map_err(|e| Failure::failed(format!("remove {}", sig.display())).because(e))?;
    }
    let previous =
        if draft { before.as_ref() } else { Some(&document) }.map(|document| document.trust.clone());
    let now = Document { path: path.to_owned(), text, trust, sig: Vec::new() };
    let edited = Edited {
        file: path.display().to_string(),
        version: now.trust.version,
        kept: kept.map(|path| path.display().to_string()),
        signatures: Gathered::of(&now, previous.as_ref())?,
    };
    out.result(&edited, text_of)?;
    Ok(0)
}

/// Puts a document and its signatures beside it, before it is replaced; a file that is there is the same one, or stays.
fn keep(document: &Document) -> Result<PathBuf, Failure> {
    let path = document.kept_as(document.trust.version);
    if let Some(there) = files::read_if_there(&path, document.text.len())
        .map_err(|_| other_version(&path))?
        .filter(|there| there != document.text.as_bytes())
    {
        drop(there);
        return Err(other_version(&path));
    }
    files::replace(&path, document.text.as_bytes(), 0o644)?;
    let sig = files::sig_path(&path);
    let there = files::read_if_there(&sig, MAX_SIGNATURE_FILE)?.unwrap_or_default();
    if !document.sig.is_empty() && there != document.sig {
        files::replace(&sig, &document.sig, 0o644)?;
    }
    Ok(path)
}

fn other_version(path: &Path) -> Failure {
    Failure::invalid(format!("{} is there already, and another document", path.display()))
        .advice("it would be overwritten by the version that is kept: move it away")
}

fn text_of(edited: &Edited) -> String {
    let mut lines = vec![match &edited.kept {
        Some(kept) => {
            format!("{}: version {}; the one before is kept in {kept}", edited.file, edited.version)
        }
        None => format!("{}: version {}, still a draft", edited.file, edited.version),
    }];
    lines.push("must sign".to_owned());
    lines.extend(edited.signatures.lines().iter().map(|line| format!("  {line}")));
    lines.push(if edited.signatures.enough {
        "the signatures suffice".to_owned()
    } else {
        format!("not enough yet: hostctl sign --trust-document --key KEY {}", edited.file)
    });
    lines.join("\n") + "\n"
}

fn no_key(name: &str) -> Failure {
    Failure::not_found(format!("there is no key `{name}` in the trust document"))
}

fn section<'a>(toml: &'a mut DocumentMut, name: &str) -> Result<&'a mut dyn TableLike, Failure> {
    let missing = || Failure::invalid(format!("`{name}` is not there"));
    toml.get_mut(name).and_then(Item::as_table_like_mut).ok_or_else(missing)
}

fn has_role(toml: &DocumentMut, role: Role) -> bool {
    toml.get("role").and_then(Item::as_table_like).is_some_and(|roles| roles.contains_key(role.as_str()))
}

/// The section of a role, made where nobody had it.
fn role_section(toml: &mut DocumentMut, role: Role) -> Result<&mut dyn TableLike, Failure> {
    let inline = toml.get("role").is_some_and(Item::is_inline_table);
    let roles = section(toml, "role")?;
    let empty = if inline { Item::Value(InlineTable::new().into()) } else { Item::Table(Table::new()) };
    let entry = roles.entry(role.as_str()).or_insert(empty).as_table_like_mut();
    let entry = entry.ok_or_else(|| Failure::invalid(format!("the role `{}` is no table", role.as_str())))?;
    if !entry.contains_key("keys") {
        entry.insert("keys", value(Array::new()));
    }
    if !entry.contains_key("threshold") {
        entry.insert("threshold", value(1));
    }
    Ok(entry)
}

fn holders(toml: &mut DocumentMut, role: Role) -> Result<&mut Array, Failure> {
    let keys = role_section(toml, role)?.get_mut("keys").and_then(Item::as_array_mut);
    keys.ok_or_else(|| Failure::invalid(format!("the keys of the role `{}` are no array", role.as_str())))
}

fn threshold(pair: &str) -> Result<(Role, i64), Failure> {
    let wrong = || Failure::invalid(format!("'{pair}' is not ROLE=N")).advice("as --threshold os=2");
    let (role, number) = pair.split_once('=').ok_or_else(wrong)?;
    let RoleName(role) = role.parse().map_err(|_| wrong())?;
    Ok((role, number.parse().map_err(|_| wrong())?))
}
