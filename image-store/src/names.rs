//! Where things are in a store. The layout is described in `docs/store-format.md`.

use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    root: PathBuf,
}

/// Directories of a store, in the order they are made.
pub(crate) const DIRECTORIES: [&str; 8] =
    ["tmp", "blobs", "blobs/sha256", "layers", "layers/sha256", "images", "images/sha256", "pins"];

impl Names {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn format(&self) -> PathBuf {
        self.root.join("format.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn blob(&self, verity: &Digest) -> PathBuf {
        self.blobs().join(verity.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers/sha256")
    }

    pub(crate) fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images/sha256")
    }

    pub(crate) fn image(&self, image: &Digest) -> PathBuf {
        self.images().join(image.hex())
    }

    /// Blobs that were found bad and could not be mended; made when it is first needed.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// How far a scrub has come.
    pub(crate) fn scrub(&self) -> PathBuf {
        self.root.join("scrub.json")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.pins().join(name)
    }
}

/// The longest name of a pin, in bytes.
pub const MAX_PIN_NAME: usize = 64;

/// Whether `name` may name a pin: `a-z`, `0-9`, `-`, `_` and `.`, beginning with a letter or digit.
pub fn is_pin_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    (1..=MAX_PIN_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

/// The digest that a file name of the store stands for; `None` for a name that is none of the store's.
pub(crate) fn digest_of(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_cannot_leave_their_directory() {
        for name in ["generation-12", "os", "a.b_c", "0"] {
            assert!(is_pin_name(name), "{name}");
        }
        for name in ["", ".", "..", ".tmp-1", "a/b", "A", "-a", "ä", &"a".repeat(65)] {
            assert!(!is_pin_name(name), "{name}");
        }
    }
}
