//! Compose files: the tree of the file made into a draft.
//!
//! Source: the Compose specification (compose-spec.io, chapters 02 to 13), and for files without `services` the
//! language of Fig, which had the services at the top.

mod deploy;
mod extends;
mod health;
mod service;
mod storage;
mod topology;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::ImportError;
use crate::note::{Notes, Place, Site, quoted};
use crate::tree::{Field, Map, Unsupported, sweep};
use crate::variables::{self, fill};
use crate::world::{Files, Sort, World, head, sound_name};
use crate::yaml::{self, MAX_NODES, Node, Value};
use crate::{Imported, write};

pub(crate) use health::shell;
pub(crate) use service::env_file;

/// The most bytes that the values of a file have, after variables were put in.
const MAX_FILLED: usize = 8 * 1024 * 1024;

/// What is asked for besides the text.
#[derive(Debug, Clone)]
pub struct ComposeOptions {
    /// How the file is called in notes; files that it names are looked up beside it.
    pub file: String,
    /// The name of the manifest; that of the file itself, where there is none.
    pub name: Option<String>,
    /// How the project is called where nobody says, as Compose calls it by the folder of the file.
    pub project: String,
    /// When the manifest is signed at.
    pub now: Timestamp,
    /// Variables for `${NAME}`; they come before those of the file `.env`.
    pub environment: BTreeMap<String, String>,
}

/// The manifest that says what a Compose file says.
///
/// # Errors
///
/// A text that is no YAML, that is beyond the bounds ([`MAX_INPUT`](crate::MAX_INPUT),
/// [`MAX_DEPTH`](crate::MAX_DEPTH), [`MAX_NODES`]), or that has no services. What merely has no place in a manifest
/// is no error but a note.
pub fn compose(text: &str, options: &ComposeOptions, files: &dyn Files) -> Result<Imported, ImportError> {
    let notes = Notes::default();
    let mut world = World::new(&notes, files, &options.file);
    let mut source =
        Source { variables: environment(options, files, &notes), budget: MAX_NODES, filled: MAX_FILLED };
    let nothing = || ImportError::Nothing {
        file: options.file.clone(),
        hint: "a compose file has a map of `services`".to_owned(),
    };
    let mut tree = yaml::parse(text, &options.file, &mut source.budget)?.ok_or_else(nothing)?;
    source.fill(&mut tree, &notes)?;
    extends::resolve(&mut tree, &mut source, &mut world)?;
    let top = Field::top(&tree, &notes);
    let Value::Map(_) = tree.value else { return Err(nothing()) };
    let mut map = top.map().ok_or_else(nothing)?;
    let name = if map.has("services") {
        document(&mut map, &mut world)
    } else if is_fig(&tree) {
        let services = map.entries();
        service::all(services, &mut world, BTreeMap::new());
        map = Field::top(&tree, &notes).map().ok_or_else(nothing)?;
        None
    } else {
        return Err(nothing());
    };
    map.end(&UNSUPPORTED);
    sweep(&top);
    if world.draft.containers.is_empty() && world.draft.jobs.is_empty() {
        return Err(nothing());
    }
    let name = options.name.clone().or(name).unwrap_or_else(|| sound_name(&options.project));
    let site = Site { place: tree.place.clone(), path: "name".to_owned() };
    let name = world.name(Sort::Manifest, &name, &site);
    let mut draft = world.finish();
    head(&mut draft, "compose", &options.file);
    let text = write::write(&draft, &name, options.now);
    Ok(Imported { manifest: text, notes: notes.end() })
}

/// Whether every value at the top is a map with an image or a build: a file of Fig, or of Compose's first version.
fn is_fig(tree: &Node) -> bool {
    let service = |node: &Node| match &node.value {
        Value::Map(entries) => entries.iter().any(|entry| matches!(entry.key.as_str(), "image" | "build")),
        _ => false,
    };
    match &tree.value {
        Value::Map(entries) => !entries.is_empty() && entries.iter().any(|entry| service(&entry.value)),
        _ => false,
    }
}

/// What is given, then what `.env` says.
fn environment(options: &ComposeOptions, files: &dyn Files, notes: &Notes) -> BTreeMap<String, String> {
    let mut all = options.environment.clone();
    let file = ".env";
    let site = |line| Site { place: Place { file: Arc::from(file), line, column: 1 }, path: file.to_owned() };
    match files.read(file) {
        Ok(None) => {}
        Ok(Some(text)) => {
            let (assignments, wrong) = variables::read_file(&text, &all, false);
            for assignment in assignments {
                if let Some(value) = assignment.value {
                    all.entry(assignment.key).or_insert(value);
                }
            }
            for line in wrong {
                notes.lost(&site(line), "the line is no `NAME=VALUE`", "");
            }
        }
        Err(error) => notes.lost(&site(1), format!("it cannot be read: {error}"), ""),
    }
    all
}

/// What reading files needs: variables, and what is left of the bounds.
struct Source {
    variables: BTreeMap<String, String>,
    budget: usize,
    filled: usize,
}

impl Source {
    /// Puts variables into every value (not into keys).
    fn fill(&mut self, node: &mut Node, notes: &Notes) -> Result<(), ImportError> {
        match &mut node.value {
            Value::Scalar(text, _) if text.contains('$') => {
                let filled = fill(text, &self.variables);
                let site = Site { place: node.place.clone(), path: quoted(text) };
                if let Some(wrong) = filled.wrong {
                    return Err(ImportError::Syntax { place: node.place.clone(), message: wrong });
                }
                for name in filled.unset {
                    let hint = format!("give it with `--env {name}=VALUE`, or in the file `.env`");
                    notes.changed(
                        &site,
                        format!("the variable `{name}` is not set, nothing stands in its place"),
                        hint,
                    );
                }
                self.filled =
                    self.filled.checked_sub(filled.text.len()).ok_or_else(|| ImportError::Bounds {
                        place: node.place.clone(),
                        message: format!("with its variables it is larger than {MAX_FILLED} bytes"),
                    })?;
                *text = filled.text;
            }
            Value::Scalar(..) => {}
            Value::List(list) => list.iter_mut().try_for_each(|node| self.fill(node, notes))?,
            Value::Map(entries) => {
                entries.iter_mut().try_for_each(|entry| self.fill(&mut entry.value, notes))?
            }
        }
        Ok(())
    }
}

/// Everything but keys that nobody asked for. Returns the file's own name.
fn document(map: &mut Map<'_>, world: &mut World<'_>) -> Option<String> {
    if let Some(version) = map.get("version") {
        version.text();
    }
    let name = map.get("name").and_then(|field| field.text().map(str::to_owned));
    // Names are given in the order of the file, before anything refers to them.
    let services = map.get("services").and_then(|field| field.map()).map(Map::entries).unwrap_or_default();
    let mut networks = BTreeMap::new();
    for (old, field) in
        map.get("networks").and_then(|field| field.map()).map(Map::entries).unwrap_or_default()
    {
        networks.insert(old.to_owned(), field);
    }
    topology::networks(&networks, world);
    storage::volumes(map.get("volumes"), world);
    storage::secrets(map.get("secrets"), world);
    storage::configs(map.get("configs"), world);
    let declared = networks.keys().map(|name| (name.clone(), ())).collect();
    service::all(services, world, declared);
    name
}

/// Top-level keys that have no place in a manifest.
const UNSUPPORTED: [Unsupported; 2] = [
    (
        "include",
        "other compose files are not read",
        "import each, or give the whole as `docker compose config` prints it",
    ),
    ("models", "AI models are not provided by the host", "run a container that serves them"),
];
