//! Manifests made of what people have: Compose files, Quadlet units, `docker run` command lines.
//!
//! ```text
//!  compose.yml ─► yaml ─► variables, extends ─► compose ─┐
//!  *.container ─► unit ─────────────────────► quadlet ───┼─► draft ─► write ─► text of a manifest
//!  docker run … ► words ────────────────────► run ───────┘     │
//!                                                              └─► notes: left behind, changed, to be done
//! ```
//!
//! What is carried over means the same as before; what is not is named in a [`Note`] with its place and with what to
//! do instead. The text is a beginning: images are not pinned and secrets not encrypted, so that no host takes it
//! before somebody looked at it. [`layout()`] is `hostctl fmt`, which writes any manifest as this crate writes its own.
//!
//! Deliberately absent: disk, network, clock and environment. Files beside the input are read by the caller
//! ([`Files`]), the time is an argument.
//!
//! **Invariant:** nothing of an input is dropped in silence: every value was asked for by the reader that carries it
//! over, or is in a note.

mod compose;
mod convert;
mod draft;
mod error;
mod flags;
mod layout;
mod note;
mod option;
mod order;
mod quadlet;
mod run;
mod settle;
mod tree;
mod unit;
mod variables;
mod words;
mod workload;
mod world;
mod write;
mod yaml;

use serde::Serialize;

pub use compose::{ComposeOptions, compose};
pub use error::ImportError;
pub use layout::layout;
pub use note::{Kind, Note, Place};
pub use quadlet::{QuadletOptions, Unit, quadlet};
pub use run::{RunOptions, run};
pub use world::{Files, NoFiles};
pub use yaml::{MAX_DEPTH, MAX_INPUT, MAX_NODES};

/// A manifest, and what there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The text of the manifest.
    pub manifest: String,
    /// What is not as it was, in the order of the input.
    pub notes: Vec<Note>,
}

impl Imported {
    /// Whether all of the input is in the manifest as it was.
    pub fn is_exact(&self) -> bool {
        self.notes.iter().all(|note| note.kind == Kind::Advice)
    }
}
