//! `import`: manifests made of Compose files, Quadlet units and command lines. What they mean is said by
//! `bennu-import`; here files are read and results written.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use bennu_import::{
    ComposeOptions, Files, ImportError, Imported, Kind, MAX_INPUT, Note, QuadletOptions, RunOptions, Unit,
};
use jiff::Timestamp;

use crate::cli::{Import, ImportOut};
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::render::{Out, counted, progress};

/// Imports.
pub(crate) fn run(command: &Import, now: Timestamp, out: &mut Out) -> Outcome {
    match command {
        Import::Compose(args) => {
            let text = files::read_text(&args.file, MAX_INPUT)?;
            let options = ComposeOptions {
                file: args.file.display().to_string(),
                name: args.out.name.clone(),
                project: folder_name(&args.file).unwrap_or_else(|| "app".to_owned()),
                now,
                environment: pairs(&args.environment)?,
            };
            finish(bennu_import::compose(&text, &options, &Beside::of(&args.file)), &args.out, out)
        }
        Import::Quadlet(args) => {
            let mut units = Vec::new();
            for file in &args.files {
                units.push(Unit {
                    file: file.display().to_string(),
                    text: files::read_text(file, MAX_INPUT)?,
                });
            }
            let beside = Beside::of(args.files.first().map_or(Path::new(""), PathBuf::as_path));
            let options = QuadletOptions { name: args.out.name.clone(), now };
            finish(bennu_import::quadlet(&units, &options, &beside), &args.out, out)
        }
        Import::Run(args) => {
            let options = RunOptions { name: args.out.name.clone(), now };
            finish(bennu_import::run(&args.command, &options, &Beside(PathBuf::new())), &args.out, out)
        }
    }
}

/// Writes what came of it.
fn finish(result: Result<Imported, ImportError>, args: &ImportOut, out: &mut Out) -> Outcome {
    let imported = result.map_err(|error| match error {
        ImportError::Nothing { .. } => Failure::invalid(error.to_string()),
        error => Failure::invalid("the input cannot be imported").because(error),
    })?;
    if args.strict && !imported.is_exact() {
        let inexact: Vec<_> = imported.notes.iter().filter(|note| note.kind != Kind::Advice).collect();
        let detail: String = inexact.iter().map(|note| note.render()).collect();
        let count = counted(inexact.len(), "thing");
        return Err(Failure::invalid(format!("{count} of the input would not be as before")).detail(detail));
    }
    if let Some(file) = &args.out {
        if file.exists() {
            return Err(Failure::failed(format!("{} is there already", file.display()))
                .advice("name another file, or remove it first"));
        }
        files::replace(file, imported.manifest.as_bytes(), 0o644)?;
    }
    if !out.json() {
        imported.notes.iter().map(Note::render).for_each(|note| progress(note.trim_end()));
    }
    out.result(&imported, |imported| match &args.out {
        Some(file) => format!("{}\n", file.display()),
        None => imported.manifest.clone(),
    })?;
    Ok(Code::Done.number())
}

/// The name of the folder that a file is in: what Compose calls the project where nothing else is said.
fn folder_name(file: &Path) -> Option<String> {
    let folder = file.canonicalize().ok()?;
    Some(folder.parent()?.file_name()?.to_str()?.to_owned())
}

/// `--env` options.
fn pairs(all: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            Failure::invalid(format!("'{text}' is not NAME=VALUE")).advice("write --env VERSION=3, say")
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    all.iter().map(pair).collect()
}

/// The files beside an input.
struct Beside(PathBuf);

impl Beside {
    fn of(file: &Path) -> Self {
        Self(file.parent().map(Path::to_owned).unwrap_or_default())
    }
}

impl Files for Beside {
    fn read(&self, path: &str) -> Result<Option<String>, String> {
        let path = self.0.join(path);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
            // A pipe or a device may never end, and a folder is no text.
            Ok(metadata) if !metadata.is_file() => return Err("it is no regular file".to_owned()),
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(|error| error.to_string())?;
        file.take(MAX_INPUT as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() > MAX_INPUT {
            return Err(format!("it is larger than {MAX_INPUT} bytes"));
        }
        String::from_utf8(bytes).map(Some).map_err(|_| "it is not UTF-8".to_owned())
    }
}
