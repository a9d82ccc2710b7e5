//! `verify`: whether a store is what it should be.

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
