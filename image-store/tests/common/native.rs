//! Native images, made, served and spoiled.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bennu_image_store::archive::Form;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions};
use bennu_image_store::{Image, PullError, Refused, Store};
use bennu_manifests::model::{Digest, ImageRef};

use super::Tar;
use super::registry::{Answer, MANIFEST, Parts, Seen, Server};

/// A store in a directory that goes away.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store"), super::confined()).expect("a store");
        Self { dir, store }
    }

    pub(crate) async fn pull(&self, image: &ImageRef) -> Result<Image, PullError> {
        let mut options = ClientOptions::default();
        options.first_pause = Duration::from_millis(1);
        let client = Client::new(options).expect("a client");
        self.store.pull(&client, image, &Platform::linux("amd64"), &()).await
    }

    pub(crate) async fn refused(&self, image: &ImageRef) -> Refused {
        match self.pull(image).await {
            Err(PullError::Refused { source, .. }) => *source,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn temporary_files(&self) -> usize {
        fs::read_dir(self.store.root().join("tmp")).expect("listed").count()
    }
}

/// Bytes that do not compress and differ by seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

/// A base of 4 MiB in many files, and a small layer; `changed` is one file of the base.
pub(crate) fn tars(changed: &[u8]) -> Vec<Vec<u8>> {
    let mut base = Tar::new().dir("usr/");
    for i in 0..64 {
        let content = if i == 40 { changed.to_vec() } else { noise(i, 65_536) };
        base = base.file(&format!("usr/{i:02}"), content);
    }
    vec![base.end(), Tar::new().file("etc/config", noise(99, 3000)).end()]
}

/// The files of a native image.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) blobs: Arc<BTreeMap<String, Vec<u8>>>,
    pub(crate) digest: Digest,
}

impl Native {
    pub(crate) async fn of(tars: &[Vec<u8>]) -> (Self, Image) {
        let (bench, parts) = (Bench::new(), Parts::new("amd64", tars));
        let image = bench.pull(&parts.clone().serve().image(parts.digest())).await.expect("pulled");
        let target = bench.dir.path().join("native");
        let exported = bench
            .store
            .export_native(&image.digest, &target, Form::Directory, "1", 9, &[])
            .expect("exported");
        (Self::read(&target, exported.digest), image)
    }

    /// What lies in a layout.
    pub(crate) fn read(layout: &Path, digest: Digest) -> Self {
        let entries = fs::read_dir(layout.join("blobs/sha256")).expect("listed");
        let blobs = entries.map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("hexadecimal"), fs::read(entry.path()).expect("read"))
        });
        Self { blobs: Arc::new(blobs.collect()), digest }
    }

    pub(crate) fn bytes(&self, path: &str) -> Option<&Vec<u8>> {
        self.blobs.get(path.rsplit("sha256:").next()?)
    }

    /// The answer of a server that knows ranges.
    pub(crate) fn answer(&self, seen: &Seen) -> Answer {
        let Some(bytes) = self.bytes(&seen.path) else { return Answer::status(404) };
        if seen.path.contains("/manifests/") {
            return Answer::ok(MANIFEST, bytes.clone());
        }
        let Some(range) = seen.headers.get("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return Answer::ok("application/octet-stream", bytes.clone());
        };
        let (first, last) = range.split_once('-').expect("a range");
        let (first, last): (usize, usize) =
            (first.parse().expect("a number"), last.parse().expect("a number"));
        let header = format!("bytes {first}-{last}/{}", bytes.len());
        Answer { body: bytes[first..=last].to_vec(), ..Answer::status(206) }.header("Content-Range", header)
    }

    pub(crate) fn serve(&self) -> Server {
        let native = self.clone();
        Server::start(move |seen| native.answer(seen))
    }

    /// The same with some bytes of the large layer changed in what ranges give.
    pub(crate) fn serve_spoiled(
        &self,
        spoil: impl Fn(usize, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Server {
        let native = self.clone();
        Server::start(move |seen| {
            let mut answer = native.answer(seen);
            if let Some(range) = seen.headers.get("range").and_then(|range| range.strip_prefix("bytes=")) {
                let first = range.split('-').next().and_then(|first| first.parse().ok()).expect("a number");
                spoil(first, &mut answer.body);
            }
            answer
        })
    }

    pub(crate) fn layer_sizes(&self) -> Vec<usize> {
        let manifest = self.blobs.get(&self.digest.hex()).expect("the manifest");
        let manifest: serde_json::Value = serde_json::from_slice(manifest).expect("JSON");
        let layers = manifest["layers"].as_array().expect("layers");
        layers.iter().map(|layer| layer["size"].as_u64().expect("a size") as usize).collect()
    }
}

/// Bytes of layers that a server was asked for; `None` for a request without a range.
pub(crate) fn asked(server: &Server) -> Vec<Option<usize>> {
    let seen = server.seen();
    let blobs = seen.iter().filter(|seen| seen.path.contains("/blobs/"));
    blobs
        .map(|seen| {
            let range = seen.headers.get("range")?.strip_prefix("bytes=")?;
            let (first, last) = range.split_once('-')?;
            Some(last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?)
        })
        .collect()
}
