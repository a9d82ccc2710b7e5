//! Why there is no manifest at all.

use crate::note::Place;

/// An input that no manifest can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The text is not in its language.
    #[error("{}:{}:{}: {message}", place.file, place.line, place.column)]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        message: String,
    },
    /// The input is larger, deeper or longer than is taken.
    #[error("{}:{}:{}: {message}", place.file, place.line, place.column)]
    Bounds {
        /// Where.
        place: Place,
        /// Which bound it is.
        message: String,
    },
    /// There is no container in it.
    #[error("{file} has nothing to import: {hint}")]
    Nothing {
        /// The file.
        file: String,
        /// What was looked for.
        hint: String,
    },
}
