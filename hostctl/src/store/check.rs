//! `verify` and `scrub`: whether a store is what it should be.

use bennu_image_store::{Finding, Store as ImageStore};
use serde::Serialize;

use crate::exit::{Code, Outcome};
use crate::render::Out;

use super::failed;

/// Exit code 1 where something is not as it should be.
pub(super) fn verify(store: &ImageStore, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Report {
        sound: bool,
        findings: Vec<Finding>,
    }
    let findings = store.verify().map_err(failed)?;
    let report = Report { sound: findings.is_empty(), findings };
    out.result(&report, |report| {
        let line = |finding: &Finding| match finding {
            Finding::Record { path, fault } => format!("{}: {fault}\n", path.display()),
            Finding::MissingBlob { path, blob } => {
                format!("{}: its blob is missing: {blob}\n", path.display())
            }
            Finding::DanglingPin { name, digest } => {
                format!("pin {name} holds what is not there: {digest}\n")
            }
            Finding::Unknown { path } => format!("{}: not a file of a store\n", path.display()),
            other => format!("{other:?}\n"),
        };
        let lines: String = report.findings.iter().map(line).collect();
        if report.sound { "records, pins and lengths are sound\n".to_owned() } else { lines }
    })?;
    Ok(if report.sound { Code::Done } else { Code::Failed }.number())
}

/// Exit code 1 where a blob is not what its name says.
pub(super) fn scrub(store: &ImageStore, discard: bool, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Report {
        sound: bool,
        bad: Vec<bennu_image_store::BadBlob>,
        discarded: bool,
    }
    let bad = store.scrub().map_err(failed)?;
    let discarded = discard && !bad.is_empty();
    if discarded {
        store.discard(&bad).map_err(failed)?;
    }
    let report = Report { sound: bad.is_empty(), bad, discarded };
    out.result(&report, |report| {
        if report.sound {
            return "every blob is what its name says\n".to_owned();
        }
        let after = if report.discarded { "removed; the next pull fetches it again" } else { "bad" };
        report.bad.iter().map(|bad| format!("{after}: {}\n", bad.blob)).collect()
    })?;
    Ok(if report.sound { Code::Done } else { Code::Failed }.number())
}
