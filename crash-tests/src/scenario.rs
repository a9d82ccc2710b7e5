//! What is done to a store while it is recorded, step by step. After each step the caller is told, which leaves a mark.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bennu_image_store::registry::Served;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::{Archive, Source};
use bennu_image_store::{Confinement, Image, PullError, Store, durable, sha256};
use bennu_manifests::model::Digest;

use crate::native::{self, By, VERSIONS};

/// Bytes of a mark, the smallest that the device below takes at once.
pub const MARK: u64 = 4096;

/// What went wrong, whatever it was: a step has one of many errors, and the test only has to show it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One step; images are named by their place in [`Sample::all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Pulls an image.
    Pull(usize),
    /// Pulls a version of the native image, the third and the fourth of all images, from a registry.
    PullNative(usize, By),
    /// Pulls an image and collects in the middle of it, each time before a layer is fetched.
    PullBesideCollections(usize),
    /// Imports the lowest layer of an image, as a tar. Nothing is promised about it but that it is whole where it is.
    Import(usize),
    /// Pins an image under this name, and nothing else.
    Pin(&'static str, usize),
    /// Removes a pin.
    Unpin(&'static str),
    /// Collects.
    Collect,
    /// Turns the lowest blob of an image bad, as a failing disk does; no step of the store.
    Spoil(usize),
    /// Finds bad blobs and removes them.
    Scrub,
    /// Leaves the record of an image as a writer does that is killed between the rename and the fsync of the directory: seen by
    /// everyone, and lost in a power cut.
    KilledPull(usize),
    /// Leaves a pin as one does who is killed while removing it.
    KilledUnpin(&'static str),
}

/// Steps in order.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// What it is called by the tests and on the command line.
    pub name: &'static str,
    /// What is done.
    pub steps: &'static [Step],
}

use Step::{
    Collect, Import, KilledPull, KilledUnpin, Pin, Pull, PullBesideCollections, PullNative, Scrub, Spoil,
    Unpin,
};

/// All scenarios. A new one needs a line here and nothing else.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "pull", steps: &[Pull(0), Pull(1), Pin("a", 0), Pin("b", 1)] },
    Scenario { name: "import", steps: &[Import(0), Pull(0), Import(1), Import(0)] },
    Scenario {
        name: "pins",
        steps: &[Pull(0), Pin("a", 0), Pull(1), Pin("a", 1), Unpin("a"), Pin("b", 0), Unpin("b")],
    },
    Scenario {
        name: "collect",
        steps: &[Pull(0), Pull(1), Pin("a", 0), Collect, Pull(1), Unpin("a"), Collect],
    },
    Scenario {
        name: "collect beside a pull",
        steps: &[Pull(0), PullBesideCollections(1), Pin("b", 1), PullBesideCollections(0), Collect],
    },
    Scenario { name: "repair", steps: &[Pull(0), Pin("a", 0), Pull(1), Spoil(0), Scrub, Pull(0), Pull(1)] },
    Scenario {
        name: "after a kill",
        steps: &[Pull(0), KilledPull(0), Pull(0), Pin("a", 0), KilledUnpin("a"), Unpin("a")],
    },
    Scenario {
        name: "pull by parts",
        steps: &[PullNative(2, By::Parts), Pin("a", 2), PullNative(3, By::Parts), Pin("b", 3)],
    },
    Scenario {
        name: "pull by patch",
        steps: &[PullNative(2, By::Patch), PullNative(3, By::Patch), Pin("b", 3), Collect],
    },
    Scenario { name: "pin after a kill", steps: &[Pull(0), KilledPull(0), Pin("a", 0)] },
];

/// A small image, served from memory.
#[derive(Debug, Clone)]
pub struct Sample {
    documents: Vec<(Digest, Vec<u8>)>,
    manifest: Digest,
    /// The tar of the lowest layer.
    base: Vec<u8>,
    /// A store that is collected each time before a blob is given.
    collected: Option<Store>,
}

impl Sample {
    /// The media type of its manifest.
    pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    /// The first two of the images that scenarios name by number. They share their lowest layer. What follows them are the
    /// [`VERSIONS`] of a native image.
    pub fn all() -> [Self; 2] {
        [Self::new(b"one"), Self::new(b"two")]
    }

    /// The image with this number.
    pub fn numbered(number: usize) -> Self {
        match number.checked_sub(2) {
            None => Self::all()[number].clone(),
            Some(version) => VERSIONS[version].clone(),
        }
    }

    /// An image with one file.
    pub(crate) fn of_file(data: &[u8]) -> Self {
        let tar = tar("file", data);
        Self::of(std::slice::from_ref(&tar), vec![tar.clone()], "application/vnd.oci.image.layer.v1.tar")
    }

    /// An image that was written elsewhere, and what was written beside it.
    pub(crate) fn of_documents(documents: Vec<(Digest, Vec<u8>)>, manifest: Digest) -> Self {
        Self { documents, manifest, base: Vec::new(), collected: None }
    }

    /// The list of what refers to it.
    pub(crate) fn referrers(&self) -> Option<Vec<u8>> {
        let mut documents = self.documents.iter().map(|(_, bytes)| bytes);
        documents.find(|bytes| bytes.starts_with(b"{") && contains(bytes, b"\"manifests\"")).cloned()
    }

    /// The digest of the patch for it.
    pub(crate) fn patch(&self) -> Option<Digest> {
        let mut documents = self.documents.iter().map(|(_, bytes)| bytes);
        let manifest = documents.find(|bytes| bytes.starts_with(b"{") && contains(bytes, b"\"subject\""))?;
        let text = std::str::from_utf8(manifest).ok()?;
        let layer = text.split_once(bennu_image_store::native::patch::MEDIA_TYPE)?.1;
        layer.split('"').find_map(|word| word.parse().ok())
    }

    fn new(own: &[u8]) -> Self {
        let tars = [tar("base", &[7; 9000]), tar("own", &own.repeat(2000))];
        Self::of(&tars, tars.to_vec(), "application/vnd.oci.image.layer.v1.tar")
    }

    /// An image whose one layer is small on its way, and becomes so many bytes.
    pub fn swelling(bytes: usize) -> Self {
        let tar = tar("zeros", &vec![0; bytes]);
        let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let compressed = compressed.write_all(&tar).and_then(|()| compressed.finish()).expect("in memory");
        Self::of(&[tar], vec![compressed], "application/vnd.oci.image.layer.v1.tar+gzip")
    }

    fn of(tars: &[Vec<u8>], layers: Vec<Vec<u8>>, layer_type: &str) -> Self {
        let diff_ids: Vec<String> = tars.iter().map(|tar| format!("\"{}\"", sha256::digest(tar))).collect();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        );
        let config_type = "application/vnd.oci.image.config.v1+json";
        let listed: Vec<String> = layers.iter().map(|layer| descriptor(layer_type, layer)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
            Self::MANIFEST,
            descriptor(config_type, config.as_bytes()),
            listed.join(",")
        );
        let digest = sha256::digest(manifest.as_bytes());
        let base = tars[0].clone();
        let documents = [config.into_bytes(), manifest.into_bytes()].into_iter().chain(layers);
        let documents = documents.map(|bytes| (sha256::digest(&bytes), bytes)).collect();
        Self { documents, manifest: digest, base, collected: None }
    }

    /// What it is asked for by.
    pub fn digest(&self) -> Digest {
        self.manifest
    }

    /// Pulls it into `store`.
    ///
    /// # Errors
    /// As [`Store::pull_from`].
    pub fn pull(&self, store: &Store) -> Result<Image, PullError> {
        let source = Source::Archive(Arc::new(self.clone()));
        // A runtime of this thread: its threads are in the mount namespace of this one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime needs nothing but descriptors");
        runtime.block_on(store.pull_from(&source, "sample", &self.manifest, &Platform::linux("amd64"), &()))
    }

    pub(crate) fn bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.documents.iter().find(|(of, _)| of == digest).map(|(_, bytes)| bytes.clone())
    }
}

impl Archive for Sample {
    fn document(&self, digest: &Digest) -> io::Result<Option<Served>> {
        Ok(self.bytes(digest).map(|bytes| Served { bytes, media_type: Self::MANIFEST.to_owned() }))
    }

    fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        if let Some(store) = &self.collected {
            store.gc().map_err(io::Error::other)?;
        }
        Ok(self.bytes(digest).map(|bytes| Box::new(io::Cursor::new(bytes)) as _))
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, sha256::digest(bytes), bytes.len())
}

fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, data).and_then(|()| builder.into_inner()).expect("in memory")
}

/// Where acknowledgements go.
#[derive(Debug)]
pub struct Marks {
    file: File,
    at: u64,
}

impl Marks {
    /// Marks are written to the file at `path`, `at` bytes from its beginning.
    ///
    /// # Errors
    /// Whatever `open` says.
    pub fn new(path: &Path, at: u64) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().write(true).open(path)?, at })
    }

    fn write(&self, done: usize) -> io::Result<()> {
        self.file.write_all_at(&mark(done), self.at)
    }
}

/// The bytes that say that the first `done` steps are acknowledged.
pub fn mark(done: usize) -> [u8; MARK as usize] {
    let mut bytes = [0; MARK as usize];
    bytes[..8].copy_from_slice(&(done as u64).to_le_bytes());
    bytes
}

/// How many steps a mark says are acknowledged.
pub fn marked(bytes: &[u8]) -> usize {
    let number = bytes.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Does the steps with the store at `root`, marking each when its caller is told.
///
/// # Errors
/// That of the first step that fails; what comes after it is not done.
pub fn run(scenario: &Scenario, root: &Path, marks: &Marks) -> Result<(), Failure> {
    let store = Store::open(root, Confinement::None)?;
    for (index, step) in scenario.steps.iter().enumerate() {
        take(&store, *step)?;
        marks.write(index + 1)?;
    }
    Ok(())
}

fn take(store: &Store, step: Step) -> Result<(), Failure> {
    let sample = Sample::numbered;
    let lowest = |image: usize| -> Result<_, Failure> {
        let image = store.image(&sample(image).digest())?.ok_or("the image is not there")?;
        Ok(store.blob_path(&image.layers[0].blob))
    };
    match step {
        Pull(image) => drop(sample(image).pull(store)?),
        PullNative(image, by) => native::pull(store, image - 2, by)?,
        PullBesideCollections(image) => {
            let collecting = Sample { collected: Some(store.clone()), ..sample(image) };
            drop(collecting.pull(store)?);
        }
        Import(image) => drop(store.import_layer(sample(image).base.as_slice(), Default::default())?),
        Pin(name, image) => store.pin(name, &[sample(image).digest()])?,
        Unpin(name) => store.unpin(name)?,
        Collect => drop(store.gc()?),
        Spoil(image) => {
            let path = lowest(image)?;
            let mut bytes = fs::read(&path)?;
            bytes[5000] ^= 1;
            // Not in place: where the file system has fs-verity it would not let us.
            let spoiled = store.root().join("tmp/spoiled");
            durable::replace(&spoiled, &bytes)?;
            fs::rename(&spoiled, &path)?;
            durable::sync_dir(path.parent().expect("it has one"))?;
        }
        Scrub => {
            for bad in store.scrub()? {
                store.repair(&bad.blob)?;
            }
        }
        KilledPull(image) => {
            let images = store.root().join("images/sha256");
            let record = images.join(sample(image).digest().hex());
            let away = store.root().join("tmp/away");
            fs::rename(&record, &away)?;
            durable::sync_dir(&images)?;
            durable::sync_dir(&store.root().join("tmp"))?;
            // What says that a name is about to be given is there before it.
            File::create(store.root().join("tmp/naming-killed"))?;
            fs::rename(&away, &record)?;
        }
        KilledUnpin(name) => fs::remove_file(store.root().join("pins").join(name))?,
    }
    Ok(())
}

/// Prints an error with its causes.
pub fn print(error: &(dyn std::error::Error + 'static)) {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // Nobody may be listening, and that changes nothing.
    let _ = writeln!(io::stderr(), "{line}");
}
