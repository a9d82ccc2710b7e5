//! One of several operating systems that are made from the same packages.

use std::path::{Path, PathBuf};

use bennu_image_store::sha256;

use crate::command::at;
use crate::{BuildError, recipe};

/// What makes one operating system differ from another one that is made from the same packages and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its version, as in `/usr/lib/os-release`.
    pub version: String,
    /// Files that it has besides: path without a leading slash, and text. They belong to root and have mode 0644.
    pub files: Vec<(&'static str, String)>,
    /// Programs that it has besides: path without a leading slash, and where they are on this machine. They belong to root and
    /// have mode 0755.
    pub programs: Vec<(&'static str, PathBuf)>,
    /// Paths of our own files and links that it does not have.
    pub without: Vec<&'static str>,
    /// What the kernel is told besides.
    pub kernel_arguments: String,
    /// How hard zstd tries with its layers, from 1 to 22.
    pub compression: i32,
}

/// How hard zstd tries: a release is compressed once and fetched often.
const COMPRESSION: i32 = 12;

impl Variant {
    /// The operating system as it is.
    #[must_use]
    pub fn plain() -> Self {
        Self::of_version(recipe::VERSION)
    }

    /// The operating system as it is, called by another version.
    #[must_use]
    pub fn of_version(version: &str) -> Self {
        let version = version.to_owned();
        Self {
            version,
            files: Vec::new(),
            programs: Vec::new(),
            without: Vec::new(),
            kernel_arguments: String::new(),
            compression: COMPRESSION,
        }
    }

    /// All that makes it what it is, as parts of a key.
    ///
    /// # Errors
    /// Where a program can't be read.
    pub(crate) fn parts(&self) -> Result<Vec<Vec<u8>>, BuildError> {
        let files = self.files.iter().flat_map(|(path, text)| [path.as_bytes(), text.as_bytes()]);
        let compression = self.compression.to_le_bytes();
        let all =
            [self.version.as_bytes(), self.kernel_arguments.as_bytes(), &compression, b"files"].into_iter();
        let without = self.without.iter().map(|path| path.as_bytes());
        let mut parts: Vec<_> =
            all.chain(files).chain([&b"without"[..]]).chain(without).map(<[u8]>::to_vec).collect();
        for (path, program) in &self.programs {
            let digest = sha256::digest(&read(program)?);
            parts.extend([b"program".to_vec(), path.as_bytes().to_vec(), digest.as_bytes().to_vec()]);
        }
        Ok(parts)
    }
}

fn read(program: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(program).map_err(at("read", program))
}
