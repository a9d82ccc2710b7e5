//! How far a pull is: a bar over all layers on a terminal, elsewhere a line for each layer that has come; for programs, lines of
//! JSON.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bennu_image_store::Progress;
use bennu_manifests::model::Digest;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::render::{bytes, interactive, progress};

/// The least time between two lines of JSON about the same layer, the last one not counted.
const EVERY: Duration = Duration::from_millis(500);

/// Shows it on standard error.
pub(crate) struct Display {
    form: Form,
    layers: Mutex<BTreeMap<Digest, Layer>>,
}

enum Form {
    Bar(ProgressBar),
    Lines,
    Json,
}

#[derive(Clone, Copy)]
struct Layer {
    done: u64,
    total: u64,
    told: Option<Instant>,
}

/// A line for programs.
#[derive(Debug, Serialize)]
struct Event<'a> {
    event: &'static str,
    layer: &'a Digest,
    /// Bytes that have come; fewer than before where the layer is fetched anew.
    done: u64,
    total: u64,
}

impl Display {
    pub(crate) fn new(image: String, json: bool) -> Self {
        let form = match (json, interactive()) {
            (true, _) => Form::Json,
            (false, false) => Form::Lines,
            (false, true) => {
                let template = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes}";
                let style = ProgressStyle::with_template(template).expect("the template is well formed");
                Form::Bar(ProgressBar::new(0).with_style(style).with_message(image))
            }
        };
        Self { form, layers: Mutex::default() }
    }

    pub(crate) fn end(&self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Display {
    fn layer(&self, digest: &Digest, done: u64, total: u64) {
        let mut layers = self.layers.lock().expect("nothing panics while it is held");
        let before = layers.get(digest).copied();
        let told = before.and_then(|before| before.told);
        let changed = before.is_none_or(|before| (before.done, before.total) != (done, total));
        let due = changed && is_due(told.map(|told| told.elapsed()), done == total);
        let told = if due { Some(Instant::now()) } else { told };
        layers.insert(*digest, Layer { done, total, told });
        match &self.form {
            Form::Bar(bar) => {
                bar.set_length(layers.values().map(|layer| layer.total).sum());
                bar.set_position(layers.values().map(|layer| layer.done).sum());
            }
            Form::Lines if changed && done == total => progress(&format!("{digest}  {}", bytes(total))),
            Form::Json if due => progress(&line(digest, done, total)),
            Form::Lines | Form::Json => {}
        }
    }
}

/// Whether a program is told, so long after it was told last.
fn is_due(since: Option<Duration>, complete: bool) -> bool {
    complete || since.is_none_or(|since| since >= EVERY)
}

fn line(layer: &Digest, done: u64, total: u64) -> String {
    let event = Event { event: "layer", layer, done, total };
    serde_json::to_string(&event).expect("digests and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_of_the_beginning_the_end_and_not_too_often_between() {
        assert!(is_due(None, false));
        assert!(!is_due(Some(EVERY / 2), false));
        assert!(is_due(Some(EVERY), false));
        assert!(is_due(Some(Duration::ZERO), true));
    }

    #[test]
    fn a_line_for_programs_says_which_layer_and_how_far() {
        let digest = Digest::from_bytes([0xab; 32]);
        let wanted = format!(r#"{{"event":"layer","layer":"{digest}","done":1,"total":2}}"#);
        assert_eq!(line(&digest, 1, 2), wanted);
    }
}
