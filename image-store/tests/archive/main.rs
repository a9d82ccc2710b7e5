//! Images from files and to files: what other programs write is read, and what is written they read.

#[path = "../common/mod.rs"]
mod common;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bennu_image_store::archive::{
    self, ArtifactError, ChooseError, CopyError, Files, Form, LayoutWriter, OpenError, Part, REF_NAME,
    WriteError,
};
use bennu_image_store::export::{Compression, ExportError};
use bennu_image_store::listing::files;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, Repository};
use bennu_image_store::source::Source;
use bennu_image_store::{Image, PullError, Store, sha256};
use bennu_manifests::model::Digest;
use common::registry::{Answer, INDEX, MANIFEST, Parts, Seen, Server, descriptor, gzip};
use common::{Tar, has_program};

/// A store in a directory that goes away.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store"), common::confined()).expect("a store");
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and gives its path.
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below")).expect("made");
        fs::write(&path, bytes).expect("written");
        path
    }

    async fn try_import(&self, path: &Path, wanted: Option<&str>) -> Result<Image, PullError> {
        let files = Files::open(path).expect("readable").expect("it has images");
        let digest = files.choose(wanted).expect("one image").digest;
        let source = Source::Archive(Arc::new(files));
        self.store.pull_from(&source, "test", &digest, &Platform::linux("amd64"), &()).await
    }

    async fn import(&self, path: &Path) -> Image {
        self.try_import(path, None).await.expect("imported")
    }

    fn temporary_files(&self) -> usize {
        fs::read_dir(self.store.root().join("tmp")).expect("listed").count()
    }
}

/// Layers with all that a layer can have, one above the other.
fn tars() -> Vec<Vec<u8>> {
    let long = format!("usr/{}", "long/".repeat(40));
    let big: Vec<u8> = (0..300_000_u32).map(|i| (u64::from(i) * u64::from(i) / 7) as u8).collect();
    let base = Tar::new()
        .dir("./")
        .dir("usr/")
        .file("usr/big", big)
        .file("usr/small", "small")
        .file("usr/empty", "")
        .file("usr/exact", vec![7; 8192])
        .hard_link("usr/again", "usr/big")
        .symlink("usr/link", "small")
        .symlink("usr/same", &"x".repeat(100))
        .pax(&[("path", long.as_bytes()), ("mtime", b"-1.25")])
        .dir("long")
        .pax(&[("linkpath", "y".repeat(300).as_bytes())])
        .symlink("usr/far", "y")
        .pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("SCHILY.xattr.user.empty", b""),
            ("mtime", b"1700000000.123456789"),
            ("uid", b"4294967294"),
        ])
        .file("usr/able", vec![3; 5000])
        .entry("usr/tty", b'3', "", b"", |header| {
            header[329..345].copy_from_slice(b"0000005\x000000001\0");
        })
        .entry("usr/pipe", b'6', "", b"", |_| {})
        .dir("gone/")
        .file("gone/file", "gone")
        .dir("hidden/")
        .file("hidden/file", "hidden")
        .dir("replaced/")
        .file("replaced/below", "below");
    let upper = Tar::new()
        .file("usr/.wh.small", "")
        .file(".wh.gone", "")
        .file("hidden/.wh..wh..opq", "")
        .file("hidden/new", "new")
        .file(".wh.replaced", "")
        .file("replaced/above", "above")
        .file("implied/deep/file", vec![1; 4096]);
    vec![base.end(), upper.end()]
}

fn parts() -> Parts {
    Parts::new("amd64", &tars())
}

/// A registry that programs can ask for an image by its digest.
fn registry(parts: Parts) -> Server {
    Server::start(
        move |seen| {
            if seen.path == "/v2/" { Answer::status(200) } else { parts.answer(&seen.path) }
        },
    )
}

async fn pulled(bench: &Bench, parts: &Parts) -> (Server, Image) {
    let server = registry(parts.clone());
    let client = Client::new(ClientOptions::default()).expect("a client");
    let image = server.image(parts.digest());
    let pulled = bench.store.pull(&client, &image, &Platform::linux("amd64"), &()).await;
    (server, pulled.expect("pulled"))
}

fn blobs(image: &Image) -> Vec<Digest> {
    image.layers.iter().map(|layer| layer.blob).collect()
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("it runs");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A layout as a folder, with these images.
fn layout(bench: &Bench, images: &[(&Parts, &str)]) -> PathBuf {
    let path = bench.path("layout");
    let mut entries = Vec::new();
    for (parts, name) in images {
        for blob in parts.layers.iter().chain([&parts.config, &parts.manifest]) {
            bench.write(&format!("layout/blobs/sha256/{}", sha256::digest(blob).hex()), blob);
        }
        let plain = descriptor(MANIFEST, &parts.manifest);
        entries.push(format!(r#"{},"annotations":{{"{REF_NAME}":"{name}"}}}}"#, plain.trim_end_matches('}')));
    }
    bench.write("layout/index.json", format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")));
    bench.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    path
}

/// The same files in a tar.
fn archived(layout: &Path) -> Tar {
    let mut tar = Tar::new().dir("blobs/").dir("blobs/sha256/");
    for entry in fs::read_dir(layout.join("blobs/sha256")).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = format!("./blobs/sha256/{}", path.file_name().expect("a name").display());
        tar = tar.file(&name, fs::read(&path).expect("read"));
    }
    ["index.json", "oci-layout"]
        .iter()
        .fold(tar, |tar, name| tar.file(name, fs::read(layout.join(name)).expect("read")))
}

/// An archive of Docker's older kind.
fn saved(parts: &Parts, tags: &str, layers: &[(&str, Vec<u8>)]) -> Tar {
    let config = format!("{}.json", sha256::digest(&parts.config).hex());
    let names: Vec<String> = layers.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let list = format!(r#"[{{"Config":"{config}","RepoTags":{tags},"Layers":[{}]}}]"#, names.join(","));
    let mut tar = Tar::new().file(&config, &parts.config);
    let mut written = BTreeMap::new();
    for (name, bytes) in layers {
        if written.insert(name, ()).is_none() {
            tar = tar.file(name, bytes);
        }
    }
    tar.file("manifest.json", list)
}
