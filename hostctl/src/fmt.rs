//! `fmt`: a manifest laid out anew, its comments and values kept.

use std::path::Path;

use bennu_manifests::MAX_DOCUMENT;
use serde::Serialize;

use crate::cli::Fmt;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::render::Out;

/// What was done.
#[derive(Debug, Serialize)]
struct Formatted {
    file: String,
    /// Whether the file is, or would be, written anew.
    changed: bool,
    /// Whether there are signatures beside it that no longer hold.
    signatures_void: bool,
}

/// Lays out.
pub(crate) fn run(args: &Fmt, out: &mut Out) -> Outcome {
    let text = files::read_text(&args.file, MAX_DOCUMENT)?;
    let name = args.file.display().to_string();
    let laid_out = bennu_import::layout(&text, &name)
        .map_err(|error| Failure::invalid(format!("{name} cannot be laid out")).because(error))?;
    let changed = laid_out != text;
    if args.check {
        let found = Formatted { file: name, changed, signatures_void: false };
        out.result(&found, |found| match found.changed {
            true => format!(
                "{} is not laid out: line {} differs\n",
                found.file,
                first_difference(&text, &laid_out)
            ),
            false => format!("{} is laid out\n", found.file),
        })?;
        return Ok(if changed { Code::Failed.number() } else { Code::Done.number() });
    }
    if changed {
        files::replace(&args.file, laid_out.as_bytes(), 0o644)?;
    }
    let signatures_void = changed && Path::exists(&files::sig_path(&args.file));
    out.result(&Formatted { file: name, changed, signatures_void }, |found| {
        let what = if found.changed { "laid out" } else { "left as it was" };
        let sign = if found.signatures_void { "\nits signatures are void: sign it again" } else { "" };
        format!("{} {what}{sign}\n", found.file)
    })?;
    Ok(Code::Done.number())
}

/// The first line, from 1, that differs.
fn first_difference(a: &str, b: &str) -> usize {
    1 + a.lines().zip(b.lines()).take_while(|(a, b)| a == b).count()
}
