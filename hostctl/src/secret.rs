//! `secret`: encrypts for hosts, and puts what comes out into a manifest.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bennu_manifests::MAX_DOCUMENT;
use bennu_manifests::model::Name;
use bennu_secrets::{MAX_RECIPIENTS, MAX_SECRET, Recipient, SealError, Zeroizing, seal};
use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use crate::cli::{Secret, SecretEncrypt};
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted, progress};

/// The largest file of recipients, in bytes.
const MAX_RECIPIENTS_FILE: usize = 64 << 10;

/// What was made.
#[derive(Debug, Serialize)]
struct Encrypted {
    name: Name,
    age: String,
    recipients: Vec<String>,
    /// The manifest that it was put into.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
}

/// Runs one command.
pub(crate) fn run(command: &Secret, out: &mut Out) -> Outcome {
    match command {
        Secret::Encrypt(args) => encrypt(args, out),
    }
}

fn encrypt(args: &SecretEncrypt, out: &mut Out) -> Outcome {
    let name = name(args)?;
    let recipients = recipients(args)?;
    // Before the secret is asked for: nobody types it twice for a file that is not there.
    let manifest = match &args.manifest {
        Some(file) => Some((file, files::read_text(file, MAX_DOCUMENT)?)),
        None => None,
    };
    let secret = read(&args.file)?;
    if secret.is_empty() {
        return Err(Failure::invalid("the secret is empty")
            .advice("pipe it in: printf %s \"$PASSWORD\" | hostctl secret encrypt …"));
    }
    let age = seal(&recipients, &secret).map_err(|error| match error {
        error @ (SealError::TooLarge { .. } | SealError::Recipients { .. }) => {
            Failure::invalid("the secret cannot be encrypted").because(error)
        }
        error => Failure::failed("encrypt the secret").because(error),
    })?;
    let made = Encrypted {
        name,
        age,
        recipients: recipients.iter().map(Recipient::to_string).collect(),
        manifest: args.manifest.as_ref().map(|file| file.display().to_string()),
    };
    if let Some((file, text)) = manifest {
        let changed = insert(&text, &made).map_err(|failure| failure.at(file))?;
        files::replace(file, changed.as_bytes(), 0o644)?;
        if files::sig_path(file).exists() {
            progress(&format!("{} is another document now: it has to be signed again", file.display()));
        }
    }
    out.result(&made, |made| match &made.manifest {
        Some(file) => {
            format!("[secret.{}] for {} in {file}\n", made.name, counted(made.recipients.len(), "recipient"))
        }
        None => format!("[secret.{}]\n{}", made.name, body(made)),
    })?;
    Ok(0)
}

fn name(args: &SecretEncrypt) -> Result<Name, Failure> {
    let (text, advice) = match &args.name {
        Some(name) => (name.as_str(), "names are lower case letters, digits and -, at most 40"),
        None if args.file == Path::new("-") => ("", "say it with --name, as --name db-password"),
        None => (args.file.file_stem().and_then(|stem| stem.to_str()).unwrap_or(""), "say it with --name"),
    };
    text.parse().map_err(|error| {
        let message = if text.is_empty() {
            "the secret needs a name".to_owned()
        } else {
            format!("'{text}' cannot be the name of a secret")
        };
        Failure::invalid(message).because(error).advice(advice)
    })
}

/// All recipients that were named, each once, in their order.
fn recipients(args: &SecretEncrypt) -> Result<Vec<Recipient>, Failure> {
    let mut texts: Vec<(String, String)> =
        args.recipients.iter().map(|text| ("--recipient".to_owned(), text.clone())).collect();
    if let Some(file) = &args.recipients_file {
        let text = files::read_text(file, MAX_RECIPIENTS_FILE)?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                texts.push((format!("{}:{}", file.display(), at + 1), line.to_owned()));
            }
        }
    }
    let mut known = BTreeSet::new();
    let mut recipients = Vec::new();
    for (place, text) in texts {
        let recipient: Recipient = text.parse().map_err(|error| {
            Failure::invalid(format!("{place}: '{text}' is no recipient"))
                .because(error)
                .advice("`hostctl status --host ADDR` shows the recipient of a host")
        })?;
        if known.insert(text) {
            recipients.push(recipient);
        }
    }
    if recipients.is_empty() || recipients.len() > MAX_RECIPIENTS {
        return Err(Failure::invalid(format!(
            "a secret has 1 to {MAX_RECIPIENTS} recipients, and {} are named",
            recipients.len()
        )));
    }
    Ok(recipients)
}

/// The bytes of the secret, which are wiped from memory when they are dropped.
fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let what = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Failure::not_found(format!("there is no file {what}"))
        } else {
            Failure::failed(format!("read {what}")).because(error)
        }
    };
    // Of its full size from the beginning, so that no copy stays behind where it grew.
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    let most = MAX_SECRET as u64 + 1;
    if file == Path::new("-") {
        std::io::stdin().take(most).read_to_end(&mut secret).map_err(failed)?;
    } else {
        File::open(file).map_err(failed)?.take(most).read_to_end(&mut secret).map_err(failed)?;
    }
    if secret.len() > MAX_SECRET {
        return Err(Failure::invalid(format!("{what} is larger than {MAX_SECRET} bytes"))
            .advice("encrypt a key of 32 bytes instead, and what is large with that key"));
    }
    Ok(secret)
}

/// The keys of the table, as TOML. Base64, the lines of the armour and recipients have nothing that must be escaped.
fn body(made: &Encrypted) -> String {
    let recipients: Vec<String> =
        made.recipients.iter().map(|recipient| format!("\"{recipient}\"")).collect();
    let recipients = match recipients.as_slice() {
        [one] => format!("[{one}]"),
        many => format!("[\n    {},\n]", many.join(",\n    ")),
    };
    format!("age = \"\"\"\n{}\"\"\"\nrecipients = {recipients}\n", made.age)
}

/// Why a table cannot be put in; the file is named by who knows it.
#[derive(Debug)]
struct NotInserted {
    message: &'static str,
    cause: Option<toml_edit::TomlError>,
}

impl NotInserted {
    fn at(self, file: &Path) -> Failure {
        let failure = Failure::invalid(format!("{}: {}", file.display(), self.message));
        match self.cause {
            Some(cause) => failure.because(cause),
            None => failure,
        }
    }
}

/// The manifest `text` with the table in it; comments, order and layout of everything else stay.
fn insert(text: &str, made: &Encrypted) -> Result<String, NotInserted> {
    let refused = |message| NotInserted { message, cause: None };
    let mut document: DocumentMut =
        text.parse().map_err(|cause| NotInserted { message: "this is not TOML", cause: Some(cause) })?;
    let new: DocumentMut = body(made).parse().expect("what `body` writes is TOML");
    let secrets = document.as_table_mut().entry("secret").or_insert_with(|| {
        let mut table = Table::new();
        // `[secret]` itself is not written, only `[secret.NAME]`.
        table.set_implicit(true);
        Item::Table(table)
    });
    let secrets = secrets.as_table_like_mut().ok_or(refused("`secret` is no table"))?;
    let name = made.name.to_string();
    match secrets.get_mut(&name) {
        Some(old) => {
            let old = old.as_table_like_mut().ok_or(refused("the secret of that name is no table"))?;
            replace(old, &new);
        }
        None => {
            let mut table = Table::new();
            replace(&mut table, &new);
            table.decor_mut().set_prefix("\n");
            secrets.insert(&name, Item::Table(table));
        }
    }
    let changed = document.to_string();
    // A table may stand where none can be written, as inside a value on one line.
    let read: DocumentMut = changed
        .parse()
        .map_err(|cause| NotInserted { message: "the secret has no place here", cause: Some(cause) })?;
    let written = read.get("secret").and_then(|s| s.get(&name)).and_then(|s| s.get("age"));
    if written.and_then(Item::as_str) != Some(&made.age) {
        return Err(refused("the secret has no place here; write it as a table [secret.NAME]"));
    }
    if changed.len() > MAX_DOCUMENT {
        return Err(refused("the manifest would be larger than 1 MiB"));
    }
    Ok(changed)
}

/// Gives a table the new values; what was written around the old ones stays.
fn replace(table: &mut dyn TableLike, new: &DocumentMut) {
    for (key, item) in new.iter() {
        let mut item = item.clone();
        let old = table.get(key).and_then(Item::as_value).map(|old| old.decor().clone());
        if let (Some(decor), Some(value)) = (old, item.as_value_mut()) {
            *value.decor_mut() = decor;
        }
        match table.get_mut(key) {
            Some(place) => *place = item,
            None => {
                table.insert(key, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, age: &str) -> Encrypted {
        Encrypted {
            name: name.parse().expect("a name"),
            age: age.to_owned(),
            recipients: vec!["age1x".to_owned()],
            manifest: None,
        }
    }

    fn check(before: &str, expect: &str) {
        let after = insert(before, &made("db", "BEGIN\nQUFB+/==\nEND\n")).expect("it has a place");
        assert_eq!(after, expect);
    }

    #[test]
    fn a_new_secret_becomes_a_table_and_the_rest_stays() {
        check(
            "# mine\nname = 'a' # here\n\n[container.web] # runs\nimage = \"x\"\n",
            "# mine\nname = 'a' # here\n\n[container.web] # runs\nimage = \"x\"\n\n[secret.db]\nage = \"\"\"\n\
             BEGIN\nQUFB+/==\nEND\n\"\"\"\nrecipients = [\"age1x\"]\n",
        );
    }

    #[test]
    fn an_old_secret_is_replaced_where_it_stands_with_its_comments() {
        check(
            "[secret.db] # of the shop\n# changed in May\nage = \"old\" # armour\nrecipients = ['age1old',\n  'b'] # attic\n\
             [secret.tls]\nage = \"b\"\n",
            "[secret.db] # of the shop\n# changed in May\nage = \"\"\"\nBEGIN\nQUFB+/==\nEND\n\"\"\" # armour\n\
             recipients = [\"age1x\"] # attic\n[secret.tls]\nage = \"b\"\n",
        );
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for text in
            ["secret = 1", "[secret]\ndb = 1", "[[secret]]\na = 1", "a = ", "[secret]\n[[secret.db]]\na = 1"]
        {
            assert!(insert(text, &made("db", "A\n")).is_err(), "{text}");
        }
        let large = format!("a = '{}'", "x".repeat(MAX_DOCUMENT - 10));
        assert!(insert(&large, &made("db", "A\n")).is_err());
    }
}
