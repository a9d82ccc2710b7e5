//! `sign`: adds an SSH signature to `FILE.sig`, with the keys, agents and tokens that `ssh-keygen` knows.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bennu_manifests::{
    MANIFEST_NAMESPACE, MAX_DOCUMENT, MAX_SIGNATURE_FILE, SshSignature, TRUST_NAMESPACE, check, check_trust,
    verify_signature,
};
use serde::Serialize;

use crate::cli::Sign;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted, progress};

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";

/// What was done.
#[derive(Debug, Serialize)]
struct Signed {
    /// Where the signature is.
    file: String,
    /// The key that signed.
    key: String,
    /// How many signatures are there now.
    signatures: usize,
    /// Keys whose earlier signatures are gone, as they did not fit the document any more.
    dropped: Vec<String>,
}

/// Signs.
pub(crate) fn run(args: &Sign, out: &mut Out) -> Outcome {
    let bytes = files::read(&args.file, MAX_DOCUMENT)?;
    let (namespace, valid) = if args.trust_document {
        (TRUST_NAMESPACE, check_trust(&bytes).err())
    } else {
        (MANIFEST_NAMESPACE, check(&bytes).err())
    };
    // It is signed nevertheless: what was meant may be to see a host refuse it.
    if let Some(invalid) = valid {
        progress(&format!("note: hosts will refuse {}: {invalid}", args.file.display()));
    }
    let (text, new) = ask_ssh_keygen(&bytes, &args.key, namespace)?;
    let mut kept = vec![(text, new)];
    let mut dropped = Vec::new();
    let path = files::sig_path(&args.file);
    let before = files::read_if_there(&path, MAX_SIGNATURE_FILE)?.unwrap_or_default();
    for (text, signature) in split(&before, &path)? {
        if signature.key() == kept[0].1.key() {
            continue;
        }
        if verify_signature(signature.key(), namespace, &bytes, &signature).is_err() {
            progress(&format!(
                "note: the signature by {} does not fit {} any more and is dropped",
                signature.key().fingerprint(),
                args.file.display()
            ));
            dropped.push(signature.key().fingerprint());
            continue;
        }
        kept.push((text, signature));
    }
    // Oldest first, the new one last.
    kept.rotate_left(1);
    let text: String = kept.iter().map(|(text, _)| text.as_str()).collect();
    if text.len() > MAX_SIGNATURE_FILE || SshSignature::read_file(text.as_bytes()).is_err() {
        return Err(Failure::failed(format!("{} cannot take another signature", path.display()))
            .because(format!("{} would be in it", counted(kept.len(), "signature"))));
    }
    files::replace(&path, text.as_bytes(), 0o644)?;
    let (_, new) = kept.last().expect("the new signature was put there");
    let signed = Signed {
        file: path.display().to_string(),
        key: new.key().fingerprint(),
        signatures: kept.len(),
        dropped,
    };
    out.result(&signed, |s| {
        format!("signed by {}\n{} in {}\n", s.key, counted(s.signatures, "signature"), s.file)
    })?;
    Ok(0)
}

/// One new signature: its armour, and what it says. The document goes through a pipe, so that `ssh-keygen` touches no
/// file; passphrases and touches are asked for on the terminal.
fn ask_ssh_keygen(bytes: &[u8], key: &Path, namespace: &str) -> Result<(String, SshSignature), Failure> {
    let failed = |doing: &str| Failure::failed(format!("{doing} ssh-keygen"));
    if !key.exists() {
        return Err(Failure::not_found(format!("there is no key {}", key.display())));
    }
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-q", "-n", namespace, "-f"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| {
            failed("run").because(e).advice("install the OpenSSH client (Debian: openssh-client)")
        })?;
    // It reads all before it writes anything, so neither side can wait for the other.
    let mut input = child.stdin.take().expect("it was asked for");
    let written = input.write_all(bytes);
    drop(input);
    let output = child.wait_with_output().map_err(|e| failed("wait for").because(e))?;
    if !output.status.success() {
        return Err(Failure::failed(format!("sign with {}", key.display()))
            .because(format!("ssh-keygen ended with {}", output.status)));
    }
    written.map_err(|e| failed("write to").because(e))?;
    let strange = || failed("understand");
    let mut found = SshSignature::read_file(&output.stdout).map_err(|e| {
        strange().because(e).advice("keys are ssh-ed25519, sk-ssh-ed25519 or ecdsa-sha2-nistp256")
    })?;
    let (Some(signature), true) = (found.pop(), found.is_empty()) else {
        return Err(strange().because("it did not write exactly one signature"));
    };
    verify_signature(signature.key(), namespace, bytes, &signature)
        .map_err(|e| failed("check the signature of").because(e))?;
    let text = String::from_utf8(output.stdout).map_err(|e| strange().because(e))?;
    Ok((text, signature))
}

/// The signatures of a file, each with its armour.
fn split(file: &[u8], path: &Path) -> Result<Vec<(String, SshSignature)>, Failure> {
    let unreadable = |cause: Box<dyn std::error::Error + Send + Sync>| {
        Failure::invalid(format!("{} is no file of signatures", path.display()))
            .because(cause)
            .advice("remove it, and let everybody sign again")
    };
    let signatures = SshSignature::read_file(file).map_err(|e| unreadable(e.into()))?;
    let text = std::str::from_utf8(file).map_err(|e| unreadable(e.into()))?;
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    if starts.len() != signatures.len() {
        return Err(unreadable("its parts cannot be told apart".into()));
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let armours = starts.iter().zip(ends).map(|(start, end)| format!("{}\n", text[*start..end].trim_end()));
    Ok(armours.zip(signatures).collect())
}
