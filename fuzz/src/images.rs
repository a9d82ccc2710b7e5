//! Layers, blobs and records.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bennu_image_store::listing::{ListError, files, layer_listing};
use bennu_image_store::registry::Served;
use bennu_image_store::registry::document::{MANIFEST_TYPES, Platform};
use bennu_image_store::source::{Archive, Source};
use bennu_image_store::tar::Limits;
use bennu_image_store::{Confinement, Image, PullError, Refused, Store, fuzzing, sha256};
use bennu_manifests::model::Digest;

/// What one input may become: small, so that many can be tried.
const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 2000, metadata_bytes: 1 << 20 };

/// A folder in memory for this process. libFuzzer ends without cleaning up, so those of processes that are gone are removed.
fn folder() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        for entry in fs::read_dir(&place).expect("listed").flatten() {
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| name.strip_prefix("bennu-fuzz-"));
            let gone =
                |of: &str| of == std::process::id().to_string() || !Path::new("/proc").join(of).exists();
            if of.is_some_and(gone) {
                // Another fuzzer may be faster.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = place.join(format!("bennu-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    };
    MADE.get_or_init(make).clone()
}

/// A tar as a layer: it is refused, or what comes of it can be listed.
pub fn layer(data: &[u8]) {
    match layer_listing(data, &folder(), LIMITS) {
        Ok(lines) => assert!(lines.iter().any(|line| line.path == "/"), "a tree without a root"),
        Err(ListError::Tar(_)) => {}
        Err(other) => panic!("what was converted cannot be listed: {other:?}"),
    }
}

/// A layer as a registry may serve it, over another one. The first byte says how it is compressed.
pub fn pull(data: &[u8]) {
    let Some((kind, layer)) = data.split_first() else { return };
    let suffix = ["", "+gzip", "+zstd"][usize::from(*kind) % 3];
    // Of a few kilobytes nothing becomes that a test could wait for.
    let layer = &layer[..layer.len().min(8 << 10)];
    let root = folder().join("pull");
    let _ = fs::remove_dir_all(&root);
    let store = Store::open(&root, Confinement::None).expect("a store");
    // The first try finds out what the layer is, for the digest of what is in it is not known here.
    let found = match Sample::new(layer, suffix, Digest::of(b"")).pull(&store) {
        Err(PullError::Refused { source, .. }) => match *source {
            Refused::DiffId { found, .. } => found,
            _ => return,
        },
        other => panic!("a layer with another digest: {other:?}"),
    };
    match Sample::new(layer, suffix, found).pull(&store) {
        Ok(image) => {
            files(&store, &image).expect("what was pulled can be listed");
            assert_eq!(store.verify().expect("looked at"), []);
        }
        Err(PullError::Refused { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    let left = fs::read_dir(root.join("tmp")).expect("listed").count();
    assert_eq!(left, 0, "something is left in tmp/");
}

/// A blob of which some bytes were changed: places of two bytes, and what is there then.
pub fn blob(data: &[u8]) {
    static SOUND: OnceLock<(Store, Image, Vec<u8>)> = OnceLock::new();
    let (store, image, sound) = SOUND.get_or_init(|| {
        let store = Store::open(&folder().join("blob"), Confinement::None).expect("a store");
        let image = Sample::new(BASE, "", Digest::of(BASE)).pull(&store).expect("pulled");
        let bytes = fs::read(store.blob_path(&image.layers[0].blob)).expect("read");
        (store, image, bytes)
    });
    let path = store.blob_path(&image.layers[0].blob);
    let mut bytes = sound.clone();
    // Behind the superblock, whose checksum would fit no more, and before the leaves.
    let end = bytes.len() - 4096;
    for change in data.chunks_exact(3).take(64) {
        let at = 4096 + usize::from(u16::from_le_bytes([change[0], change[1]])) % (end - 4096);
        bytes[at] = change[2];
    }
    let _ = fs::remove_file(&path);
    fs::write(&path, bytes).expect("written");
    match files(store, image) {
        Ok(_) | Err(ListError::Blob { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    // What is left of it, as a stranger's native layer would have it made again.
    let blob = fs::File::open(&path).expect("there");
    let records = fuzzing::records(&blob);
    fuzzing::make(&records, &folder());
}

/// A record of the store; the records of a native layer; and the index of one: its blocks, those that are data, its bytes and the entries of its table first.
pub fn record(data: &[u8]) {
    fuzzing::record(data);
    fuzzing::make(data, &folder());
    if let Some((numbers, rest)) = data.split_at_checked(9) {
        let number = |at: usize| u64::from(u16::from_le_bytes([numbers[at], numbers[at + 1]]));
        let size = u64::from(u32::from_le_bytes([numbers[4], numbers[5], numbers[6], numbers[7]]));
        let (table, details) = rest.split_at(rest.len().min(usize::from(numbers[8]) * 16));
        fuzzing::native_index(number(0), number(2), size, table, details);
    }
}

/// A patch, for a small blob that it has to make again.
pub fn patch(data: &[u8]) {
    fuzzing::patch(data, &folder());
}

/// The layer below: directories, files, and symbolic links that lead to them, astray and out.
const BASE: &[u8] = include_bytes!("base.tar");

/// An image of two layers in memory.
#[derive(Clone)]
struct Sample {
    documents: Vec<Vec<u8>>,
    manifest: Digest,
}

impl Sample {
    fn new(layer: &[u8], suffix: &str, diff_id: Digest) -> Self {
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}","{diff_id}"]}}}}"#,
            sha256::digest(BASE)
        );
        let descriptor = |kind: &str, bytes: &[u8]| {
            let digest = sha256::digest(bytes);
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{}}}"#,
                bytes.len()
            )
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{},{}]}}"#,
            MANIFEST_TYPES[0],
            descriptor("config.v1+json", config.as_bytes()),
            descriptor("layer.v1.tar", BASE),
            descriptor(&format!("layer.v1.tar{suffix}"), layer)
        );
        let documents = vec![config.into_bytes(), manifest.into_bytes(), BASE.to_vec(), layer.to_vec()];
        let manifest = sha256::digest(&documents[1]);
        Self { documents, manifest }
    }

    fn pull(&self, store: &Store) -> Result<Image, PullError> {
        let source = Source::Archive(Arc::new(self.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(store.pull_from(&source, "sample", &self.manifest, &Platform::linux("amd64"), &()))
    }

    fn bytes(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.documents.iter().find(|bytes| sha256::digest(bytes) == *digest).cloned()
    }
}

impl Archive for Sample {
    fn document(&self, digest: &Digest) -> io::Result<Option<Served>> {
        let served = |bytes| Served { bytes, media_type: MANIFEST_TYPES[0].to_owned() };
        Ok(self.bytes(digest).map(served))
    }

    fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(self.bytes(digest).map(|bytes| Box::new(io::Cursor::new(bytes)) as _))
    }
}
