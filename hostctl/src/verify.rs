//! `verify`: what a host with a given trust document would say to a manifest.

use std::collections::BTreeMap;
use std::path::Path;

use bennu_manifests::model::{Digest, Name};
use bennu_manifests::{
    Floors, HostFacts, MAX_DOCUMENT, MAX_SIGNATURE_FILE, NotAccepted, Rule, RuleOutcome, Trust, check,
    check_trust, verify,
};
use jiff::Timestamp;
use serde::Serialize;

use crate::check::not_valid;
use crate::cli::Verify;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::render::{Out, facts, printable};

/// The largest file of floors, in bytes.
const MAX_FLOORS: usize = 1 << 20;

/// The verdict, rule by rule.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    accepted: bool,
    /// Rules that held, in order.
    passed: &'a [RuleOutcome],
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    signers: &'a [Name],
    /// The rule that did not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refused>,
    /// The rules after it, which were not asked.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    not_asked: &'a [Rule],
    /// What each rule is for, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    explained: Vec<Explained>,
}

#[derive(Debug, Serialize)]
struct Explained {
    rule: Rule,
    why: &'static str,
    remedy: &'static str,
}

#[derive(Debug, Serialize)]
struct Refused {
    kind: Code,
    rule: String,
    message: String,
}

/// Decides, and prints each rule.
pub(crate) fn run(args: &Verify, now: Timestamp, out: &mut Out) -> Outcome {
    let trust = trust(&args.trust)?;
    let bytes = files::read(&args.file, MAX_DOCUMENT)?;
    let sig = files::read_if_there(&files::sig_path(&args.file), MAX_SIGNATURE_FILE)?.unwrap_or_default();
    let floors = match &args.floors {
        Some(path) => serde_json::from_slice(&files::read(path, MAX_FLOORS)?)
            .map_err(|e| Failure::invalid(format!("{} holds no floors", path.display())).because(e))?,
        None => Floors::default(),
    };
    let host = host_facts(args, &bytes)?;
    let explained = || {
        let asked = if args.explain { &Rule::FOR_MANIFESTS[..] } else { &[] };
        asked.iter().map(|rule| Explained { rule: *rule, why: rule.why(), remedy: rule.remedy() }).collect()
    };
    match verify(&bytes, &sig, &trust, &floors, &host, args.now.unwrap_or(now)) {
        Ok(verified) => {
            let verdict = Verdict {
                accepted: true,
                passed: verified.rules(),
                manifest: Some(verified.sha256()),
                signers: verified.signers(),
                error: None,
                not_asked: &[],
                explained: explained(),
            };
            out.result(&verdict, text)?;
            Ok(0)
        }
        Err(NotAccepted::Refused(refusal)) => {
            let error = Refused {
                kind: Code::Refused,
                rule: refusal.rule.code().to_owned(),
                message: refusal.reason.clone(),
            };
            let at = Rule::FOR_MANIFESTS.iter().position(|rule| *rule == refusal.rule);
            let verdict = Verdict {
                accepted: false,
                passed: &refusal.passed,
                manifest: None,
                signers: &[],
                error: Some(error),
                not_asked: at.map_or(&[], |at| &Rule::FOR_MANIFESTS[at + 1..]),
                explained: explained(),
            };
            out.result(&verdict, text)?;
            Ok(Code::Refused.number())
        }
        Err(NotAccepted::Invalid(invalid)) => Err(not_valid(&args.file, &bytes, invalid)),
    }
}

fn text(verdict: &Verdict<'_>) -> String {
    let passed = verdict.passed.iter().map(|rule| (rule.rule.code(), format!("ok  {}", rule.detail)));
    let refused = verdict.error.iter().map(|error| (error.rule.as_str(), format!("NO  {}", error.message)));
    let not_asked = verdict.not_asked.iter().map(|rule| (rule.code(), "--  not asked".to_owned()));
    let mut rules: Vec<(&str, String)> = passed.chain(refused).chain(not_asked).collect();
    for (code, outcome) in &mut rules {
        if let Some(explained) = verdict.explained.iter().find(|explained| explained.rule.code() == *code) {
            outcome.push_str(&format!("\n    why   {}\n    else  {}", explained.why, explained.remedy));
        }
    }
    let end = match (&verdict.error, verdict.manifest) {
        (Some(error), _) => format!("refused by rule {}", error.rule),
        (None, Some(digest)) => {
            let names: Vec<_> = verdict.signers.iter().map(Name::as_str).collect();
            format!("accepted, signed by {}: {digest}", names.join(", "))
        }
        (None, None) => "accepted".to_owned(),
    };
    facts(&rules) + &printable(&end) + "\n"
}

/// A trust document that the user named.
pub(crate) fn trust(path: &Path) -> Result<Trust, Failure> {
    let bytes = files::read(path, MAX_DOCUMENT)?;
    check_trust(&bytes).map_err(|invalid| not_valid(path, &bytes, invalid))
}

/// The host that is asked about: as it is described, and otherwise one that the manifest is for.
fn host_facts(args: &Verify, bytes: &[u8]) -> Result<HostFacts, Failure> {
    // A manifest that is not valid has no audience; the rules before the audience will say so.
    let audience = check(bytes).map(|manifest| manifest.header.audience).unwrap_or_default();
    let labels = if args.labels.is_empty() { audience.labels } else { labels(&args.labels)? };
    Ok(HostFacts { arch: args.arch.clone().or(audience.arch).unwrap_or_default(), labels })
}

/// `KEY=VALUE`, each key once.
pub(crate) fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::invalid(format!("the label '{pair}' is not KEY=VALUE")));
        };
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::invalid(format!("the label '{key}' is given twice")));
        }
    }
    Ok(labels)
}
