//! `trust push`: hands a host the trust documents that it has missed.

use std::path::PathBuf;

use bennu_api::{SignedDocument, TrustInForce, TrustSubmission, TrustTaken};
use bennu_manifests::Rule;
use serde::Serialize;

use super::gathered::Document;
use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted};

/// What the host has now.
#[derive(Debug, Serialize)]
struct Pushed {
    /// The version in force.
    version: u64,
    /// How many documents it took; none where it had them all.
    taken: usize,
    /// The generation that it gave up, as its signers do not count any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    given_up: Option<u64>,
}

/// Pushes.
pub(crate) async fn run(host: &Host, paths: &[PathBuf], out: &mut Out) -> Outcome {
    let mut documents = paths.iter().map(|path| Document::read(path)).collect::<Result<Vec<_>, _>>()?;
    documents.sort_by_key(|document| document.trust.version);
    let has: TrustInForce = host.get("/v1/trust").await?;
    if let Some(other) = documents.iter().find(|d| d.trust.version == has.version && d.text != has.document) {
        return Err(Failure::refused(
            Rule::TrustVersion.code(),
            format!("the host has another version {} than {}", has.version, other.path.display()),
        )
        .advice("two documents were made from one: hosts follow the one that reached them first"));
    }
    documents.retain(|document| document.trust.version > has.version);
    let mut chain = Vec::new();
    for document in &documents {
        if document.sig.is_empty() {
            let (file, sig) = (document.path.display(), files::sig_path(&document.path));
            return Err(Failure::refused(
                Rule::SigMissing.code(),
                format!("{file} is not signed: there is no {}", sig.display()),
            )
            .advice(format!("hostctl sign --trust-document --key KEY {file}")));
        }
        let signatures = String::from_utf8(document.sig.clone()).map_err(|e| {
            Failure::invalid(format!("{} is not UTF-8", files::sig_path(&document.path).display())).because(e)
        })?;
        chain.push(SignedDocument { document: document.text.clone(), signatures });
    }
    let mut pushed = Pushed { version: has.version, taken: chain.len(), given_up: None };
    if !chain.is_empty() {
        let taken: TrustTaken = host.post("/v1/trust", &TrustSubmission { chain }).await?;
        (pushed.version, pushed.given_up) = (taken.version, taken.given_up);
    }
    out.result(&pushed, |p| {
        let what = match p.taken {
            0 => "it was before".to_owned(),
            taken => format!("{} taken", counted(taken, "document")),
        };
        let given_up = p.given_up.map(|number| {
            format!("generation {number} is given up: whoever signed it is not trusted any more\n")
        });
        format!("version {} is in force; {what}\n{}", p.version, given_up.unwrap_or_default())
    })?;
    Ok(0)
}
