//! Real container images, made from Debian packages.
//!
//! ```text
//! recipe ──mmdebstrap──► tree of a layer ──tar, gzip──► blob ┐
//!                                  configuration, manifest ──┴──► OCI layout ──skopeo──► registry
//! ```
//!
//! A layout is kept in the cache under the SHA-256 of its recipe. Nothing here needs the privileges of root.

mod layer;
mod layout;
mod recipe;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cache;
use crate::error::{Error, IoContext, run};

pub use recipe::{Layer, Recipe, recipes, test_recipes};

/// An image in an OCI layout (OCI image specification, image-layout.md).
#[derive(Debug, Clone)]
pub struct Image {
    /// The repository it is pushed to.
    pub name: String,
    /// Its tag, also in the layout's index.
    pub tag: String,
    /// The digest of its manifest, with `sha256:`.
    pub digest: String,
    /// The compressed bytes of its layers, configuration and manifest.
    pub size: u64,
    /// The layout's directory, in the cache; never written.
    pub layout: PathBuf,
}

impl Image {
    /// Pushes it into a registry that speaks plain HTTP.
    ///
    /// # Errors
    /// [`Error::Program`] with what `skopeo` says.
    pub fn push(&self, registry: &str) -> Result<(), Error> {
        let source = format!("oci:{}:{}", self.layout.display(), self.tag);
        let target = format!("docker://{registry}/{}:{}", self.name, self.tag);
        let mut command = Command::new("skopeo");
        command.args([
            "--insecure-policy",
            "copy",
            "--quiet",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ]);
        run(command.args([source, target])).map(drop)
    }
}

/// Builds one image, or finds it in the cache.
///
/// # Errors
/// Where a program is missing or fails, as `mmdebstrap` does without a network.
pub fn build(recipe: &Recipe) -> Result<Image, Error> {
    let key = cache::hex(&Sha256::digest(format!("{recipe:?} {}", layout::FORMAT)));
    let layout = cache::get_or_make("images", &key, 16, |directory| {
        let scratch = tempfile::tempdir().doing("make a directory in", std::env::temp_dir())?;
        let layers = layer::build(&recipe.layers, scratch.path())?;
        layout::write(directory, recipe, &layers)
    })?;
    let path = layout.join("index.json");
    let text = std::fs::read_to_string(&path).doing("read", &path)?;
    let index: Value = serde_json::from_str(&text)
        .map_err(|error| Error::Answer { who: path.display().to_string(), text: error.to_string() })?;
    let entry = &index["manifests"][0];
    let digest = entry["digest"].as_str().unwrap_or_default().to_owned();
    let size = entry["annotations"][layout::SIZE].as_str().and_then(|s| s.parse().ok()).unwrap_or_default();
    Ok(Image { name: recipe.name.to_owned(), tag: recipe.tag.to_owned(), digest, size, layout })
}

/// Builds images, or finds them in the cache: those of [`recipes`] for the demo, of [`test_recipes`] for the tests.
///
/// # Errors
/// As [`build`].
pub fn all(recipes: &[Recipe]) -> Result<Vec<Image>, Error> {
    // Side by side: most of the time goes into waiting for packages and into one gzip each.
    std::thread::scope(|scope| {
        let builds: Vec<_> = recipes.iter().map(|recipe| scope.spawn(|| build(recipe))).collect();
        builds.into_iter().map(|build| build.join().expect("building an image does not panic")).collect()
    })
}
