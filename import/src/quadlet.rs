//! Quadlet: units of systemd from which Podman makes services.
//!
//! Source: podman-systemd.unit(5); for the rest of the units systemd.unit(5), systemd.service(5), systemd.timer(5) and
//! systemd.resource-control(5).

mod container;
mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::error::ImportError;
use crate::note::{Notes, Place, Site, quoted};
use crate::unit::{self, Setting};
use crate::world::{Files, Sort, World, head};
use crate::{Imported, write};

/// The most units of one import.
const MAX_UNITS: usize = 1024;

/// One unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name, as `web.container`; a path before it is for notes only.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// What is asked for besides the units.
#[derive(Debug, Clone)]
pub struct QuadletOptions {
    /// The name of the manifest; that of the first container, where there is none.
    pub name: Option<String>,
    /// When the manifest is signed at.
    pub now: Timestamp,
}

/// The manifest that says what Quadlet units say: `.container`, `.volume`, `.network`, `.image`, and `.timer` for the
/// containers that they start.
///
/// # Errors
///
/// A text that is no unit file, or no container among them.
pub fn quadlet(units: &[Unit], options: &QuadletOptions, files: &dyn Files) -> Result<Imported, ImportError> {
    let first = units.first().map_or("", |unit| unit.file.as_str());
    let nothing = || ImportError::Nothing {
        file: if first.is_empty() { "the command line".to_owned() } else { first.to_owned() },
        hint: "there has to be a `.container` file".to_owned(),
    };
    if units.len() > MAX_UNITS {
        let place = Place { file: Arc::from(first), line: 1, column: 1 };
        return Err(ImportError::Bounds { place, message: format!("there are more than {MAX_UNITS} units") });
    }
    let notes = Notes::default();
    let mut world = World::new(&notes, files, first);
    let mut parsed = Vec::new();
    for unit in units {
        parsed.push(Parsed::read(unit)?);
    }
    let images: BTreeMap<String, String> = parsed
        .iter()
        .filter(|unit| unit.kind == "image")
        .filter_map(|unit| Some((unit.name(), unit.find("Image", "Image")?.value.clone())))
        .collect();
    let containers: Vec<String> =
        parsed.iter().filter(|unit| unit.kind == "container").map(|unit| unit.stem.clone()).collect();
    let name = options.name.clone().or(containers.first().cloned()).ok_or_else(nothing)?;
    for unit in &parsed {
        match unit.kind.as_str() {
            "container" => drop(world.name(Sort::Container, &unit.stem, &unit.site())),
            "volume" => parts::volume(unit, &mut world),
            "network" => parts::network(unit, &mut world),
            "image" => parts::image(unit, &world),
            "timer" => {}
            "pod" => {
                let hint = "containers of one network reach each other: take `Pod=` out";
                notes.lost(&unit.site(), "containers share nothing but networks and volumes", hint);
            }
            "kube" => {
                let hint = "write a `[container.NAME]` for each of its containers";
                notes.lost(&unit.site(), "documents of Kubernetes are not read", hint);
            }
            "build" => {
                let hint = "build it, push it to a registry and name it as `Image=`";
                notes.lost(&unit.site(), "images are not built on the host", hint);
            }
            "conf" => notes.lost(&unit.site(), "drop-ins are not read", "write what it says into the unit"),
            other => {
                notes.lost(&unit.site(), format!("units of the kind {} are not read", quoted(other)), "")
            }
        }
    }
    let names: BTreeSet<&str> = containers.iter().map(String::as_str).collect();
    let timers = parsed.iter().filter(|unit| unit.kind == "timer");
    let timed: BTreeSet<&str> = timers.map(Parsed::target).collect();
    for unit in parsed.iter().filter(|unit| unit.kind == "container") {
        container::read(unit, &names, &timed, &images, &mut world);
    }
    for unit in parsed.iter().filter(|unit| unit.kind == "timer") {
        parts::timer(unit, &mut world);
    }
    if world.draft.containers.is_empty() && world.draft.jobs.is_empty() {
        return Err(nothing());
    }
    let site = parsed.first().map(Parsed::site).ok_or_else(nothing)?;
    let name = world.name(Sort::Manifest, &name, &site);
    let mut draft = world.finish();
    head(&mut draft, "quadlet", first);
    Ok(Imported { manifest: write::write(&draft, &name, options.now), notes: notes.end() })
}

/// A unit file, read.
struct Parsed {
    file: String,
    /// `web` of `web.container`.
    stem: String,
    kind: String,
    settings: Vec<Setting>,
}

impl Parsed {
    fn read(unit: &Unit) -> Result<Self, ImportError> {
        let base = unit.file.rsplit('/').next().unwrap_or_default();
        let (stem, kind) = base.rsplit_once('.').unwrap_or((base, ""));
        let settings = unit::parse(&unit.text, &unit.file)?;
        Ok(Self { file: unit.file.clone(), stem: stem.to_owned(), kind: kind.to_owned(), settings })
    }

    fn name(&self) -> String {
        format!("{}.{}", self.stem, self.kind)
    }

    /// The file as a whole.
    fn site(&self) -> Site {
        let place = Place { file: Arc::from(self.file.as_str()), line: 1, column: 1 };
        Site { place, path: self.name() }
    }

    fn at(&self, setting: &Setting) -> Site {
        let path = format!("{}.{}.{}", self.name(), setting.section, setting.key);
        Site { place: setting.place.clone(), path }
    }

    fn find(&self, section: &str, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.section == section && setting.key == key)
    }

    /// What a timer starts.
    fn target(&self) -> &str {
        self.find("Timer", "Unit").map_or(self.stem.as_str(), |setting| Self::service(&setting.value))
    }

    /// The name that systemd gives to what a unit is called in others: `web.service` of `web.container`.
    fn service(text: &str) -> &str {
        text.rsplit_once('.').map_or(text, |(stem, _)| stem)
    }
}

/// Whether a value means yes (systemd.syntax(7)).
fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "yes" | "true" | "on" | "y" | "t")
}
