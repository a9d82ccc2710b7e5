//! `docker run` and `podman run`: one command line, one container.

use std::sync::Arc;

use jiff::Timestamp;

use crate::error::ImportError;
use crate::flags;
use crate::note::{Notes, Place, Site, quoted};
use crate::option::Options;
use crate::words;
use crate::world::{Files, Sort, World, head};
use crate::yaml::MAX_INPUT;
use crate::{Imported, write};

/// How a command line is called in notes.
const LINE: &str = "command line";
/// The most words of a command line.
const MAX_WORDS: usize = 4096;

/// What is asked for besides the command line.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The name of the manifest; that of the container, where there is none.
    pub name: Option<String>,
    /// When the manifest is signed at.
    pub now: Timestamp,
}

fn place(word: usize) -> Place {
    Place { file: Arc::from(LINE), line: 1, column: word + 1 }
}

/// The manifest with the container that a command line starts: `docker run`, `docker create`, or the same of `podman`.
/// One word alone is taken as the whole line, as a shell would split it.
///
/// # Errors
///
/// A line that is none of these commands, names no image, or has an option that neither program has.
pub fn run(command: &[String], options: &RunOptions, files: &dyn Files) -> Result<Imported, ImportError> {
    let syntax = |word: usize, message: String| ImportError::Syntax { place: place(word), message };
    let bounds = |message: String| ImportError::Bounds { place: place(0), message };
    if command.iter().map(String::len).sum::<usize>() > MAX_INPUT {
        return Err(bounds(format!("it is longer than {MAX_INPUT} bytes")));
    }
    let words = match command {
        [line] => words::split(line).map_err(|error| syntax(0, error.to_string()))?,
        words => words.to_vec(),
    };
    if words.len() > MAX_WORDS {
        return Err(bounds(format!("it has more than {MAX_WORDS} words")));
    }
    let start = start(&words).ok_or_else(|| {
        let message =
            "a command line begins with `docker run`, `docker create`, `podman run` or `podman create`";
        syntax(0, message.to_owned())
    })?;
    let (flags, taken) = flags::read(&words[start..], &|word| place(start + word))?;
    let at = start + taken;
    let Some(image) = words.get(at) else { return Err(syntax(words.len(), "there is no image".to_owned())) };

    let notes = Notes::default();
    let mut world = World::new(&notes, files, LINE);
    let named = flags.iter().find(|flag| flag.name == "name").map(|flag| flag.value.clone());
    let owner = named.unwrap_or_else(|| base_name(image).to_owned());
    let site = Site { place: place(at), path: "image".to_owned() };
    let name = world.name(Sort::Container, &owner, &site);
    let mut container = Options::new(&owner, "");
    container.table.origin = Some(Site { place: place(at), path: "container".to_owned() });
    world.image(&mut container.table, &site, image);
    for flag in flags.iter().filter(|flag| flag.name != "name") {
        if flag.value.contains("$(") || flag.value.contains("${") {
            let rest = flag.value.replace("$(pwd)", "").replace("${PWD}", "");
            if rest.contains('$') {
                notes.changed(
                    &flag.site,
                    format!("no shell filled in {}", quoted(&flag.value)),
                    "write what it stands for",
                );
            }
        }
        container.apply(&mut world, flag.name, &flag.value, &flag.site);
    }
    if let Some(command) = words.get(at + 1..).filter(|command| !command.is_empty()) {
        let site = Site { place: place(at + 1), path: "command".to_owned() };
        world.command(&mut container.table, "command", &site, command.to_vec());
    }
    let mut table = container.finish(&world);
    if !table.has("image") {
        table.set("image", "localhost/TO-BE-NAMED");
    }
    // What the line links to is not in this manifest.
    if let Some(crate::draft::Value::Map(_)) = table.entries.get("depends-on") {
        table.entries.remove("depends-on");
    }
    world.draft.containers.push((name.clone(), table));
    let wanted = options.name.clone().unwrap_or(name);
    let wanted = world.name(Sort::Manifest, &wanted, &site);
    let mut draft = world.finish();
    head(&mut draft, "run", LINE);
    Ok(Imported { manifest: write::write(&draft, &wanted, options.now), notes: notes.end() })
}

/// Where the options of `run` begin.
fn start(words: &[String]) -> Option<usize> {
    let mut at = usize::from(words.first().is_some_and(|word| word == "sudo"));
    let program = words.get(at)?.rsplit('/').next()?;
    if !matches!(program, "docker" | "podman" | "nerdctl") {
        return None;
    }
    at += 1;
    at += usize::from(words.get(at).is_some_and(|word| word == "container"));
    matches!(words.get(at)?.as_str(), "run" | "create").then_some(at + 1)
}

/// `nginx` of `registry.example/a/nginx:1@sha256:…`.
fn base_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}
