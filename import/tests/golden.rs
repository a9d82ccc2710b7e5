//! Whole inputs and the manifests that are made of them.
//!
//! Each folder of `tests/golden` is one input, beside what is expected of it: `expect.toml` and `expect.notes`.
//! `UPDATE_GOLDEN=1 cargo test -p bennu-import golden` writes these anew; read the difference before you commit it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bennu_import::{
    ComposeOptions, Files, Imported, Note, QuadletOptions, RunOptions, Unit, compose, layout, quadlet, run,
};

/// Set this to write the expected files.
const UPDATE: &str = "UPDATE_GOLDEN";

/// Files below a folder.
struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, path: &str) -> Result<Option<String>, String> {
        match std::fs::read_to_string(self.0.join(path)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.kind().to_string()),
        }
    }
}

fn now() -> jiff::Timestamp {
    "2026-01-01T12:00:00Z".parse().expect("a moment")
}

fn import(folder: &Path) -> Imported {
    let files = Folder(folder.to_owned());
    let kind = folder.file_name().and_then(|name| name.to_str()).expect("a name");
    if kind.starts_with("compose-") {
        let file = ["compose.yaml", "fig.yml"].into_iter().find(|file| folder.join(file).exists());
        let file = file.expect("an input").to_owned();
        let text = std::fs::read_to_string(folder.join(&file)).expect("the input");
        let options = ComposeOptions {
            file,
            name: None,
            project: "app".to_owned(),
            now: now(),
            environment: BTreeMap::new(),
        };
        return compose(&text, &options, &files).expect("it can be imported");
    }
    if kind.starts_with("quadlet-") {
        let mut units: Vec<Unit> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .filter(|name| !name.starts_with("expect.") && !name.ends_with(".env") && !name.ends_with(".css"))
            .map(|file| Unit { text: std::fs::read_to_string(folder.join(&file)).expect("a unit"), file })
            .collect();
        units.sort_by(|a, b| a.file.cmp(&b.file));
        return quadlet(&units, &QuadletOptions { name: None, now: now() }, &files)
            .expect("it can be imported");
    }
    if kind.starts_with("run-") {
        let line = std::fs::read_to_string(folder.join("line")).expect("the line");
        return run(&[line], &RunOptions { name: None, now: now() }, &files).expect("it can be imported");
    }
    panic!("{kind} is of no kind that is known");
}

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(root).expect("the folder of inputs");
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    folders
}

#[test]
fn golden_imports_are_what_they_were() {
    let mut differing = Vec::new();
    let folders = folders();
    assert!(folders.len() >= 12, "the inputs were not found");
    for folder in folders {
        let Imported { manifest, notes } = import(&folder);
        let notes: String = notes.iter().map(Note::render).collect();
        for (file, found) in [("expect.toml", manifest), ("expect.notes", notes)] {
            let path = folder.join(file);
            if std::env::var_os(UPDATE).is_some() {
                std::fs::write(&path, &found).expect("the file can be written");
            }
            if std::fs::read_to_string(&path).unwrap_or_default() != found {
                differing.push(path);
            }
        }
    }
    assert!(differing.is_empty(), "not as expected, run with {UPDATE}=1 to see how: {differing:#?}");
}

#[test]
fn every_import_is_toml() {
    for folder in folders() {
        let manifest = import(&folder).manifest;
        let parsed: Result<toml_edit::DocumentMut, _> = manifest.parse();
        assert!(parsed.is_ok(), "{}: {parsed:?}\n{manifest}", folder.display());
    }
}

#[test]
fn every_import_is_laid_out_as_fmt_lays_out() {
    for folder in folders() {
        let manifest = import(&folder).manifest;
        let laid_out = layout(&manifest, "expect.toml").expect("an import is sound");
        assert_eq!(laid_out, manifest, "{}", folder.display());
    }
}

/// The manifest as `hostctl pin` and `hostctl secret encrypt` would leave it.
fn pinned_and_encrypted(manifest: &str) -> String {
    let digest = format!("@sha256:{}", "0".repeat(64));
    let armour = "age = \"-----BEGIN AGE ENCRYPTED FILE-----\\nYQ==\\n-----END AGE ENCRYPTED FILE-----\\n\"";
    let line = |line: &str| match line.strip_prefix("image = \"").and_then(|rest| rest.strip_suffix('"')) {
        Some(image) if image.contains('@') => line.to_owned(),
        Some(image) => format!("image = \"{}{digest}\"", image.replace("TO-BE-NAMED", "named")),
        None if line == "age = \"\"" => armour.to_owned(),
        None => line.to_owned(),
    };
    manifest.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn every_import_is_valid_once_it_is_pinned_and_encrypted() {
    let mut wrong = String::new();
    for folder in folders() {
        let manifest = pinned_and_encrypted(&import(&folder).manifest);
        if let Err(invalid) = bennu_manifests::check(manifest.as_bytes()) {
            wrong.push_str(&invalid.render(&folder.join("expect.toml").display().to_string(), &manifest));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_import_is_taken_by_a_host_as_it_is() {
    for folder in folders() {
        let manifest = import(&folder).manifest;
        let digests_only = !manifest.contains(":latest\"") && !manifest.contains("age = \"\"");
        let valid = bennu_manifests::check(manifest.as_bytes()).is_ok();
        assert!(!valid || digests_only, "{} is valid already", folder.display());
    }
}
