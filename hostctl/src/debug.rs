//! `debug`: low-level entries for test suites; the real code, nothing else.

use std::io::Read;

use bennu_image_store::listing::{ListError, layer_listing};
use bennu_image_store::tar::{Limits, TarError};
use bennu_manifests::{MAX_DOCUMENT, MAX_SIGNATURE_FILE, PublicKey, SshSignature, verify_signature};
use serde::Serialize;
use serde_json::{Value as Json, json};
use toml::Value as Toml;

use crate::cli::Debug;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::render::Out;
use crate::store::show_listing;

#[derive(Debug, Serialize)]
struct Held {
    verified: bool,
    key: String,
    namespace: String,
}

/// Runs one entry.
pub(crate) fn run(command: &Debug, out: &mut Out) -> Outcome {
    match command {
        Debug::VerifySignature { key, namespace, file, sig } => {
            let key: PublicKey =
                key.parse().map_err(|e| Failure::invalid("--key is no public key").because(e))?;
            let bytes = files::read(file, MAX_DOCUMENT)?;
            let sig = files::read(sig, MAX_SIGNATURE_FILE)?;
            signed(&key, namespace, &bytes, &sig)?;
            let held = Held { verified: true, key: key.fingerprint(), namespace: namespace.clone() };
            out.result(&held, |h| format!("a good signature for {} by {}\n", h.namespace, h.key))?;
        }
        Debug::TomlJson => {
            let mut text = Vec::new();
            std::io::stdin()
                .take(MAX_DOCUMENT as u64 + 1)
                .read_to_end(&mut text)
                .map_err(|e| Failure::failed("read standard input").because(e))?;
            if text.len() > MAX_DOCUMENT {
                return Err(Failure::invalid(format!("the document is larger than {MAX_DOCUMENT} bytes")));
            }
            let text =
                std::str::from_utf8(&text).map_err(|e| Failure::invalid("it is not UTF-8").because(e))?;
            let table: toml::Table =
                toml::from_str(text).map_err(|e| Failure::invalid("it is not TOML").because(e))?;
            out.write((tagged(&Toml::Table(table)).to_string() + "\n").as_bytes())?;
        }
        Debug::Layer => {
            let spill =
                tempfile::tempdir().map_err(|e| Failure::failed("make a temporary folder").because(e))?;
            let lines =
                layer_listing(std::io::stdin().lock(), spill.path(), Limits::default()).map_err(|error| {
                    let code = if matches!(error, ListError::Tar(TarError::Refused(_))) {
                        Code::Invalid
                    } else {
                        Code::Failed
                    };
                    Failure::new(code, "list the layer").because(error)
                })?;
            show_listing(lines, out)?;
        }
    }
    Ok(0)
}

/// Whether one of the signatures in `sig` is by `key`, and holds. One that is by `key` and does not hold counts more
/// than another that does: nobody signs twice by accident.
fn signed(key: &PublicKey, namespace: &str, bytes: &[u8], sig: &[u8]) -> Result<(), Failure> {
    if sig.is_empty() {
        return Err(Failure::refused("sig.missing", "there is no signature"));
    }
    let signatures = SshSignature::read_file(sig)
        .map_err(|e| Failure::refused("sig.malformed", "the file of signatures cannot be read").because(e))?;
    let by_key: Vec<_> = signatures.iter().filter(|s| s.key() == key).collect();
    if by_key.is_empty() {
        return Err(Failure::refused("sig.untrusted", "no signature is by this key"));
    }
    for signature in by_key {
        verify_signature(key, namespace, bytes, signature)
            .map_err(|e| Failure::refused("sig.invalid", "the signature does not hold").because(e))?;
    }
    Ok(())
}

/// The value in the form of toml-test (its README, "JSON encoding").
fn tagged(value: &Toml) -> Json {
    let leaf = |kind: &str, value: String| json!({ "type": kind, "value": value });
    match value {
        Toml::String(text) => leaf("string", text.clone()),
        Toml::Integer(number) => leaf("integer", number.to_string()),
        Toml::Float(number) if number.is_nan() => leaf("float", "nan".to_owned()),
        Toml::Float(number) => leaf("float", number.to_string()),
        Toml::Boolean(yes) => leaf("bool", yes.to_string()),
        Toml::Datetime(moment) => {
            let kind = match (&moment.date, &moment.time, &moment.offset) {
                (Some(_), Some(_), Some(_)) => "datetime",
                (Some(_), Some(_), None) => "datetime-local",
                (Some(_), None, _) => "date-local",
                (None, ..) => "time-local",
            };
            let mut moment = *moment;
            if let Some(time) = &mut moment.time {
                // TOML 1.1 lets the seconds be left out; the suite writes them.
                time.second.get_or_insert(0);
            }
            leaf(kind, moment.to_string())
        }
        Toml::Array(values) => values.iter().map(tagged).collect(),
        Toml::Table(table) => {
            Json::Object(table.iter().map(|(key, value)| (key.clone(), tagged(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_names_its_type() {
        let text = "a = [1, -inf, nan]\nb = 1979-05-27T07:32:00Z\nc = { d = 07:32, e = 'x', f = true }\n";
        let table = toml::from_str(text).expect("it is TOML");
        let leaf = |kind: &str, value: &str| json!({ "type": kind, "value": value });
        let expect = json!({
            "a": [leaf("integer", "1"), leaf("float", "-inf"), leaf("float", "nan")],
            "b": leaf("datetime", "1979-05-27T07:32:00Z"),
            "c": { "d": leaf("time-local", "07:32:00"), "e": leaf("string", "x"), "f": leaf("bool", "true") },
        });
        assert_eq!(tagged(&Toml::Table(table)), expect);
    }
}
