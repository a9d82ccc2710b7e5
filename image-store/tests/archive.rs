//! Images from files and to files: what other programs write is read, and what is written they read.

mod common;

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
        let store = Store::open(&dir.path().join("store")).expect("a store");
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

#[tokio::test]
async fn what_skopeo_copies_into_files_gives_the_blobs_of_the_registry() {
    if !has_program("skopeo") {
        return;
    }
    let (bench, parts) = (Bench::new(), parts());
    let (server, image) = pulled(&bench, &parts).await;
    let from = format!("docker://{}/a/b@{}", server.address, parts.digest());
    for (transport, name) in
        [("oci", "folder"), ("oci-archive", "archive.tar"), ("docker-archive", "docker.tar")]
    {
        let to = format!("{transport}:{}:example.com/app:1", bench.path(name).display());
        run("skopeo", &["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", &from, &to]);
        let fresh = Bench::new();
        let imported = fresh.try_import(&bench.path(name), Some("app:1")).await.expect(transport);
        assert_eq!(blobs(&imported), blobs(&image), "{transport}");
        if transport != "docker-archive" {
            assert_eq!(imported.digest, image.digest, "{transport} keeps manifests as they are");
        }
        assert!(fresh.store.verify().expect("looked at").is_empty());
    }
}

#[tokio::test]
async fn a_layout_is_read_from_a_folder_and_from_a_tar() {
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    let folder = layout(&bench, &[(&parts, "app:1")]);
    let archive = bench.write("archive.tar", archived(&folder).end());
    for path in [&folder, &archive] {
        let fresh = Bench::new();
        let imported = fresh.import(path).await;
        assert_eq!((imported.digest, blobs(&imported)), (image.digest, blobs(&image)));
    }
}

#[tokio::test]
async fn an_archive_of_docker_gets_the_same_digest_everywhere_and_its_links_are_followed() {
    let tars = tars();
    let twice = [tars[0].clone(), tars[1].clone(), tars[0].clone()];
    let parts = Parts::new("amd64", &twice);
    // The third layer is the first again, and Docker wrote a link; the second is compressed, as Podman can do.
    let layers = [("one/layer.tar", tars[0].clone()), ("two/layer.tar", gzip(&tars[1]))];
    let config = format!("{}.json", sha256::digest(&parts.config).hex());
    let archive = |first: bool| {
        let list = format!(
            r#"[{{"Config":"{config}","RepoTags":["docker.io/library/app:1"],
                "Layers":["one/layer.tar","./two/layer.tar","three/layer.tar"]}}]"#
        );
        let link = |tar: Tar| tar.symlink("three/layer.tar", "../one/layer.tar");
        let tar = if first { link(Tar::new()) } else { Tar::new() };
        let tar = tar.file(&config, &parts.config).dir("one/").file(layers[0].0, &layers[0].1);
        let tar = tar.file(layers[1].0, &layers[1].1).file("manifest.json", list);
        if first { tar.end() } else { link(tar).end() }
    };
    let (bench, mut digests) = (Bench::new(), Vec::new());
    for first in [true, false] {
        let fresh = Bench::new();
        let path = bench.write("saved.tar", archive(first));
        let image = fresh.try_import(&path, Some("app:1")).await.expect("imported");
        let expected: Vec<Digest> = twice.iter().map(|tar| sha256::digest(tar)).collect();
        assert_eq!(image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>(), expected);
        digests.push(image.digest);
    }
    assert_eq!(digests[0], digests[1], "the order of members says nothing");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"{}"}},"layers":[{}]}}"#,
        parts.config.len(),
        sha256::digest(&parts.config),
        [("", &tars[0]), (".gzip", &layers[1].1), ("", &tars[0])]
            .map(|(suffix, bytes)| format!(
                r#"{{"mediaType":"application/vnd.docker.image.rootfs.diff.tar{suffix}","size":{},"digest":"{}"}}"#,
                bytes.len(),
                sha256::digest(bytes)
            ))
            .join(",")
    );
    assert_eq!(digests[0], sha256::digest(manifest.as_bytes()), "it is what is documented");
}

#[tokio::test]
async fn of_several_images_one_has_to_be_named() {
    let bench = Bench::new();
    let (one, two) = (parts(), Parts::new("amd64", &tars()[..1]));
    let path = layout(&bench, &[(&one, "registry.example/one:1"), (&two, "two")]);
    let files = Files::open(&path).expect("readable").expect("images");
    let several = files.choose(None).expect_err("which?");
    assert!(matches!(several, ChooseError::Several(_)));
    let text = several.to_string();
    assert!(text.contains("registry.example/one:1") && text.contains(&two.digest().to_string()), "{text}");
    assert_eq!(files.choose(Some("one:1")).expect("the first").digest, one.digest());
    assert_eq!(files.choose(Some(&two.digest().to_string())).expect("the second").digest, two.digest());
    assert!(matches!(files.choose(Some("three")), Err(ChooseError::NotFound { .. })));
    assert_eq!(bench.try_import(&path, Some("two")).await.expect("imported").digest, two.digest());
}

#[tokio::test]
async fn the_image_for_the_platform_is_chosen_from_an_index_in_files() {
    let (bench, parts) = (Bench::new(), parts());
    let path = layout(&bench, &[(&parts, "x")]);
    let plain = descriptor(MANIFEST, &parts.manifest);
    let other = descriptor(MANIFEST, b"not here");
    let of = |plain: &str, architecture: &str| {
        let platform = format!(r#","platform":{{"architecture":"{architecture}","os":"linux"}}}}"#);
        format!("{}{platform}", plain.trim_end_matches('}'))
    };
    let index =
        format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, of(&other, "arm64"), of(&plain, "amd64"));
    bench.write(&format!("layout/blobs/sha256/{}", sha256::digest(index.as_bytes()).hex()), &index);
    let list = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(INDEX, index.as_bytes()));
    bench.write("layout/index.json", list);
    let image = bench.import(&path).await;
    assert_eq!(image.digest, sha256::digest(index.as_bytes()));
    assert_eq!(image.manifest_digest, parts.digest());
}

#[tokio::test]
async fn t12_files_that_lie_about_their_digests_are_refused_and_leave_nothing() {
    let parts = parts();
    let layer = sha256::digest(&parts.layers[1]);
    for (digest, is_layer) in [(layer, true), (sha256::digest(&parts.config), false), (parts.digest(), false)]
    {
        let bench = Bench::new();
        let path = layout(&bench, &[(&parts, "x")]);
        let blob = path.join("blobs/sha256").join(digest.hex());
        let original = fs::read(&blob).expect("read");

        let mut flipped = original.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        fs::write(&blob, &flipped).expect("written");
        let error = bench.try_import(&path, None).await.expect_err("flipped");
        assert!(error.is_refusal(), "{digest}: {error:?}");

        fs::write(&blob, [&original[..], b"more"].concat()).expect("written");
        let error = bench.try_import(&path, None).await.expect_err("longer");
        assert!(error.is_refusal(), "{digest}: {error:?}");

        if is_layer {
            fs::write(&blob, &original[..original.len() - 1]).expect("written");
            assert!(bench.try_import(&path, None).await.is_err(), "shorter");
        }
        fs::remove_file(&blob).expect("removed");
        let error = bench.try_import(&path, None).await.expect_err("gone");
        assert!(matches!(error, PullError::NotFound { .. }), "{error:?}");
        assert!(bench.store.images().expect("listed").is_empty());
        assert_eq!(bench.temporary_files(), 0);
    }
}

#[tokio::test]
async fn t12_an_archive_of_docker_that_lies_about_a_layer_is_refused() {
    let (bench, tars) = (Bench::new(), tars());
    let parts = Parts::new("amd64", &tars);
    let swapped = [("1.tar", tars[1].clone()), ("2.tar", tars[0].clone())];
    let path = bench.write("saved.tar", saved(&parts, "null", &swapped).end());
    let error = bench.try_import(&path, None).await.expect_err("swapped");
    assert!(error.is_refusal(), "{error:?}");
    let honest = [("1.tar", tars[0].clone()), ("2.tar", tars[1].clone())];
    let path = bench.write("saved.tar", saved(&parts, "null", &honest).end());
    bench.import(&path).await;
}

#[test]
fn t15_archives_that_could_be_read_in_two_ways_are_refused() {
    let (bench, parts) = (Bench::new(), parts());
    let folder = layout(&bench, &[(&parts, "x")]);
    let refused = |bytes: Vec<u8>, why: &str| {
        let path = bench.write("hostile.tar", bytes);
        match Files::open(&path) {
            Err(OpenError::Refused(refusal)) => refusal,
            other => panic!("{why} was not refused: {other:?}"),
        }
    };
    refused(archived(&folder).file("index.json", "{}").end(), "a member that is there twice");
    refused(archived(&folder).file("../x", "").end(), "a path out of the archive");
    refused(archived(&folder).hard_link("x", "nowhere").end(), "a link to nothing");
    let cut = archived(&folder).file("late", vec![1; 4096]).cut();
    refused(cut[..cut.len() - 1024].to_vec(), "data that the file does not have");
    let huge = archived(&folder).entry("late", b'0', "", b"", |header| {
        header[124..136].copy_from_slice(b"77777777777\0");
    });
    refused(huge.end(), "data beyond the end");
    let sparse = archived(&folder)
        .pax(&[("GNU.sparse.size", b"4096"), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")])
        .file("holes", "");
    refused(sparse.end(), "a sparse member");
}

#[tokio::test]
async fn t15_whatever_bytes_change_in_an_archive_no_other_image_comes_of_it() {
    let bench = Bench::new();
    let parts = Parts::new("amd64", &[Tar::new().file("file", "content").end()]);
    let folder = layout(&bench, &[(&parts, "x")]);
    let docker = saved(&parts, "null", &[("1.tar", Tar::new().file("file", "content").end())]);
    let reference = Bench::new();
    let expected = blobs(&reference.import(&folder).await);
    let mut state = 1_u64;
    let mut below = |end: usize| {
        // xorshift
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 8) as usize % end
    };
    let (mut taken, mut refused) = (0, 0);
    for archive in [archived(&folder).end(), docker.end()] {
        for _ in 0..200 {
            let mut bytes = archive.clone();
            for _ in 0..=below(2) {
                let at = below(bytes.len());
                bytes[at] = match below(3) {
                    0 => bytes[at] ^ 1 << below(8),
                    1 => b'0' + below(10) as u8,
                    _ => below(256) as u8,
                };
            }
            if below(16) == 0 {
                bytes.truncate(below(bytes.len()));
            }
            let path = bench.write("changed.tar", bytes);
            let Ok(Some(files)) = Files::open(&path) else {
                refused += 1;
                continue;
            };
            let Ok(digest) = files.choose(None).map(|image| image.digest) else { continue };
            let (source, fresh) = (Source::Archive(Arc::new(files)), Bench::new());
            let platform = Platform::linux("amd64");
            match fresh.store.pull_from(&source, "changed", &digest, &platform, &()).await {
                Ok(image) => {
                    taken += 1;
                    assert_eq!(blobs(&image), expected, "another layer came of it");
                }
                Err(_) => refused += 1,
            }
            assert_eq!(fresh.temporary_files(), 0);
        }
    }
    assert!(taken > 10 && refused > 10, "{taken} taken, {refused} refused: one side is not tried");
}

#[tokio::test]
async fn a_native_image_goes_through_files_too() {
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    for (name, form) in [("native", Form::Directory), ("native.tar", Form::Archive)] {
        let path = bench.path(name);
        let exported = bench.store.export_native(&image.digest, &path, form, "app:1", 3).expect(name);
        let fresh = Bench::new();
        let again = fresh.import(&path).await;
        assert_eq!((again.digest, blobs(&again)), (exported.digest, blobs(&image)), "{name}");
    }
}

#[test]
fn files_that_are_no_images_are_told_apart() {
    let (bench, parts) = (Bench::new(), parts());
    let opened = |path: &Path| Files::open(path).map(|files| files.is_some());
    // A layer, and what may be one.
    assert!(matches!(opened(&bench.write("layer.tar", &tars()[0])), Ok(false)));
    assert!(matches!(opened(&bench.write("text", "no tar")), Ok(false)));
    assert!(matches!(opened(&bench.write("empty", "")), Ok(false)));
    let compressed = bench.write("layer.tar.gz", gzip(&tars()[0]));
    assert!(matches!(opened(&compressed), Err(OpenError::Compressed("gzip"))));
    assert!(matches!(opened(bench.dir.path()), Err(OpenError::NotALayout)));
    assert!(matches!(opened(&bench.path("nothing")), Err(OpenError::Read(_))));
    // A list that is none.
    let other = Tar::new().file("manifest.json", r#"{"name":"a web page"}"#).end();
    assert!(matches!(opened(&bench.write("page.tar", other)), Err(OpenError::Document { .. })));
    // Layouts with something wrong in them.
    let folder = layout(&bench, &[(&parts, "x")]);
    bench.write("layout/oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    assert!(matches!(opened(&folder), Err(OpenError::Version(_))));
    bench.write("layout/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    bench.write("layout/index.json", vec![b' '; (4 << 20) + 1]);
    assert!(matches!(opened(&folder), Err(OpenError::TooMany { .. })));
    fs::remove_file(folder.join("index.json")).expect("removed");
    nix::unistd::mkfifo(&folder.join("index.json"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    assert!(matches!(opened(&folder), Err(OpenError::Missing(_))), "a pipe is not waited for");
    // Archives of Docker's with something wrong in them.
    let missing = saved(&parts, "[]", &[("1.tar", tars()[0].clone())]);
    assert!(matches!(opened(&bench.write("few.tar", missing.end())), Err(OpenError::LayerCount(_))));
    let list = r#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#;
    let outside = Tar::new().file("manifest.json", list).end();
    assert!(matches!(opened(&bench.write("out.tar", outside)), Err(OpenError::Missing(_))));
}

#[tokio::test]
async fn an_export_is_an_equal_image_whose_layers_become_the_same_blobs() {
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    let mut digests = Vec::new();
    for (name, form, compression) in [
        ("folder", Form::Directory, Compression::None),
        ("archive.tar", Form::Archive, Compression::None),
        ("zstd", Form::Directory, Compression::Zstd(3)),
    ] {
        let path = bench.path(name);
        let exported = bench.store.export(&image.digest, &path, form, "app:1", compression).expect(name);
        let fresh = Bench::new();
        let again = fresh.try_import(&path, Some("app:1")).await.expect(name);
        assert_eq!(again.digest, exported.digest);
        assert_eq!(blobs(&again), blobs(&image), "{name}: the blobs are what they were");
        assert_eq!(again.config.config(), image.config.config());
        assert_eq!(
            files(&fresh.store, &again).expect("listed"),
            files(&bench.store, &image).expect("listed")
        );
        // The layers are tars of ours now: once more, and nothing changes any more.
        let path = fresh.path("again");
        let form = Form::Directory;
        let exported_again = fresh.store.export(&again.digest, &path, form, "app:1", compression);
        assert_eq!(exported_again.expect("exported").digest, exported.digest);
        digests.push(exported.digest);
    }
    assert_eq!(digests[0], digests[1], "the same image in both forms");
    assert_ne!(digests[0], image.digest);
}

#[tokio::test]
async fn an_archive_is_the_same_bytes_each_time() {
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    let write = |name: &str| {
        let path = bench.path(name);
        let exported = bench.store.export(&image.digest, &path, Form::Archive, "x", Compression::None);
        exported.expect("exported");
        fs::read(path).expect("read")
    };
    assert!(write("one.tar") == write("two.tar"));
}

#[tokio::test]
async fn other_programs_read_what_is_exported() {
    if !has_program("skopeo") || !has_program("umoci") || !has_program("tar") {
        return;
    }
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    for (name, form, transport) in
        [("folder", Form::Directory, "oci"), ("archive.tar", Form::Archive, "oci-archive")]
    {
        let path = bench.path(name);
        let exported = bench.store.export(&image.digest, &path, form, "app:1", Compression::None);
        let from = format!("{transport}:{}:app:1", path.display());
        let digest = run("skopeo", &["inspect", "--format", "{{.Digest}}", &from]);
        assert_eq!(digest.trim(), exported.expect("exported").digest.to_string());
        let copied = bench.path(&format!("{transport}-copied"));
        let to = format!("oci:{}:copy", copied.display());
        run("skopeo", &["copy", "--quiet", "--insecure-policy", &from, &to]);
        let fresh = Bench::new();
        assert_eq!(blobs(&fresh.import(&copied).await), blobs(&image), "{transport}");
        if nix::unistd::geteuid().is_root() {
            let unpacked = bench.path(&format!("{transport}-unpacked"));
            let from = format!("{}:copy", copied.display());
            run("umoci", &["raw", "unpack", "--image", &from, unpacked.to_str().expect("text")]);
            assert_eq!(fs::read(unpacked.join("usr/big")).expect("read").len(), 300_000);
            assert!(!unpacked.join("usr/small").exists(), "a whiteout");
        }
    }
    if nix::unistd::geteuid().is_root() && has_program("podman") {
        let (root, run_root) = (bench.path("podman"), bench.path("podman-run"));
        let own = ["--root", root.to_str().expect("text"), "--runroot", run_root.to_str().expect("text")];
        let archive = bench.path("archive.tar");
        let load = ["--storage-driver", "vfs", "load", "--quiet", "--input", archive.to_str().expect("text")];
        let loaded = run("podman", &[&own[..], &load].concat());
        assert!(loaded.contains("app:1"), "{loaded}");
    }
    let listed = run("tar", &["--list", "--file", bench.path("archive.tar").to_str().expect("text")]);
    assert!(listed.contains("index.json"), "{listed}");
}

#[tokio::test]
async fn a_damaged_blob_is_not_exported_and_nothing_is_left() {
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    let path = bench.store.blob_path(&image.layers[0].blob);
    let mut bytes = fs::read(&path).expect("read");
    bytes[5000] ^= 1;
    fs::remove_file(&path).expect("removed");
    fs::write(&path, bytes).expect("written");
    fs::create_dir(bench.path("out")).expect("made");
    for (name, form) in [("out/folder", Form::Directory), ("out/archive.tar", Form::Archive)] {
        let exported = bench.store.export(&image.digest, &bench.path(name), form, "x", Compression::None);
        assert!(matches!(exported, Err(ExportError::Damaged(_))), "{exported:?}");
        let native = bench.store.export_native(&image.digest, &bench.path(name), form, "x", 3);
        assert!(matches!(native, Err(ExportError::Damaged(_))), "{native:?}");
    }
    assert_eq!(fs::read_dir(bench.path("out")).expect("listed").count(), 0);
}

#[tokio::test]
async fn what_is_there_is_not_written_over() {
    let (bench, parts) = (Bench::new(), parts());
    let (_, image) = pulled(&bench, &parts).await;
    let path = bench.write("there", "mine");
    for form in [Form::Directory, Form::Archive] {
        let exported = bench.store.export(&image.digest, &path, form, "x", Compression::None);
        assert!(matches!(exported, Err(ExportError::Write(WriteError::Exists(_)))), "{exported:?}");
    }
    assert_eq!(fs::read(&path).expect("read"), b"mine");
    let nothing = bench.store.export(
        &Digest::from_bytes([1; 32]),
        &bench.path("new"),
        Form::Directory,
        "x",
        Compression::None,
    );
    assert!(matches!(nothing, Err(ExportError::Missing(_))));
    assert!(!bench.path("new").exists());
}

#[tokio::test]
async fn an_image_is_copied_byte_for_byte_and_other_programs_read_it() {
    let (bench, parts) = (Bench::new(), parts());
    let server = registry(parts.clone());
    let repository = Repository { registry: server.address.clone(), name: "a/b".to_owned() };
    let client = Client::new(ClientOptions::default()).expect("a client");
    let source = Source::Registry { client, repository };
    let (platform, path) = (Platform::linux("amd64"), bench.path("copy.tar"));
    let mut layout = LayoutWriter::create(&path, Form::Archive).expect("begun");
    let mut copied = Vec::new();
    let wanted = parts.digest();
    for _ in 0..2 {
        let copy = archive::copy(&source, "image", &wanted, &platform, &mut layout, &());
        copied.push(copy.await.expect("copied"));
    }
    assert_eq!(copied[0], copied[1], "what is there is not fetched again");
    let of_layer = |seen: &Seen| seen.path.ends_with(&sha256::digest(&parts.layers[0]).to_string());
    assert_eq!(server.seen().iter().filter(|seen| of_layer(seen)).count(), 1);
    let mut listed = copied.remove(0);
    listed.annotations.insert(REF_NAME.to_owned(), "example.com/app:1".to_owned());
    layout.finish(&[listed], &BTreeMap::new()).expect("finished");
    assert_eq!(bench.import(&path).await.digest, parts.digest());
    let files = Arc::new(Files::open(&path).expect("readable").expect("a layout"));
    let checked = archive::check(&Source::Archive(files), "image", &parts.digest(), &platform).await;
    let bytes = parts.layers.iter().chain([&parts.config, &parts.manifest]).map(Vec::len).sum::<usize>();
    assert_eq!(checked.expect("sound"), bytes as u64);
    let files = Arc::new(Files::open(&path).expect("readable").expect("a layout"));
    let foreign = Platform::linux("s390x");
    let checked = archive::check(&Source::Archive(files), "image", &parts.digest(), &foreign).await;
    assert!(matches!(checked, Err(CopyError::Pull(PullError::WrongPlatform { .. }))), "{checked:?}");
    if has_program("skopeo") {
        let from = format!("oci-archive:{}:example.com/app:1", path.display());
        let digest = run("skopeo", &["inspect", "--format", "{{.Digest}}", &from]);
        assert_eq!(digest.trim(), parts.digest().to_string());
    }
}

#[tokio::test]
async fn t12_what_a_registry_lies_about_is_not_copied() {
    let parts = parts();
    let mut lying = parts.clone();
    let digest = sha256::digest(&parts.layers[1]);
    *lying.layers[1].last_mut().expect("not empty") ^= 1;
    let server = Server::start(move |seen| {
        if seen.path.ends_with(&digest.to_string()) {
            return Answer::ok("application/octet-stream", lying.layers[1].clone());
        }
        parts.answer(&seen.path)
    });
    let parts = self::parts();
    let bench = Bench::new();
    let repository = Repository { registry: server.address.clone(), name: "a/b".to_owned() };
    let client = Client::new(ClientOptions::default()).expect("a client");
    let source = Source::Registry { client, repository };
    let (platform, path) = (Platform::linux("amd64"), bench.path("copy.tar"));
    let mut layout = LayoutWriter::create(&path, Form::Archive).expect("begun");
    let copied = archive::copy(&source, "image", &parts.digest(), &platform, &mut layout, &()).await;
    assert!(matches!(copied, Err(CopyError::Pull(ref error)) if error.is_refusal()), "{copied:?}");
    assert!(!layout.has(&digest));
    drop(layout);
    assert_eq!(fs::read_dir(bench.dir.path()).expect("listed").count(), 1, "only the store");
}

#[test]
fn an_artifact_is_read_as_it_was_written_and_not_if_it_changed() {
    let bench = Bench::new();
    let part = |title: &str, bytes: &[u8]| Part {
        media_type: "text/x".to_owned(),
        title: title.to_owned(),
        bytes: bytes.to_owned(),
    };
    let parts = [part("one", b"first"), part("two", b"second")];
    let path = bench.path("folder");
    let mut layout = LayoutWriter::create(&path, Form::Directory).expect("begun");
    let listed = layout.artifact("text/kind", &parts).expect("written");
    layout.finish(std::slice::from_ref(&listed), &BTreeMap::new()).expect("finished");
    let files = Files::open(&path).expect("readable").expect("a layout");
    assert_eq!(files.artifact("text/kind").expect("there"), parts);
    assert!(matches!(files.artifact("text/other"), Err(ArtifactError::Number { found: 0, .. })));
    assert!(matches!(files.choose(None), Err(ChooseError::Empty)), "an artifact is no image");
    for (bytes, changed) in
        [(&b"first"[..], Some(&b"fIrst"[..])), (b"first", Some(b"first!")), (b"first", None)]
    {
        let blob = path.join("blobs/sha256").join(sha256::digest(bytes).hex());
        match changed {
            Some(changed) => fs::write(&blob, changed).expect("written"),
            None => fs::remove_file(&blob).expect("removed"),
        }
        let read = files.artifact("text/kind");
        assert!(
            matches!(read, Err(ArtifactError::Digest(_) | ArtifactError::Missing(_))),
            "{changed:?}: {read:?}"
        );
    }
}

#[test]
fn a_blob_that_is_not_finished_is_as_if_it_had_not_been() {
    use std::io::Write;
    let bench = Bench::new();
    for (name, form) in [("folder", Form::Directory), ("archive.tar", Form::Archive)] {
        let path = bench.path(name);
        let mut layout = LayoutWriter::create(&path, form).expect("begun");
        layout.blob().expect("begun").write_all(&[7; 10_000]).expect("written");
        let first = layout.bytes(b"first").expect("written");
        assert_eq!(layout.bytes(b"first").expect("written"), first, "once is enough");
        assert_eq!(layout.size(), 5);
        layout.blob().expect("begun").write_all(&[8; 200_000]).expect("written");
        layout.finish(&[], &BTreeMap::new()).expect("finished");
        let files = Files::open(&path).expect("readable").expect("a layout");
        assert!(files.listed().is_empty());
        let archive: &dyn bennu_image_store::source::Archive = &files;
        let mut read = Vec::new();
        archive.blob(&first.0).expect("read").expect("there").read_to_end(&mut read).expect("read");
        assert_eq!(read, b"first");
        let size: u64 = if form == Form::Archive { fs::metadata(&path).expect("there").len() } else { 0 };
        assert!(size < 10_000, "{size} bytes: what was not finished is not there");
        if form == Form::Directory {
            let blobs = fs::read_dir(path.join("blobs/sha256")).expect("listed");
            assert_eq!(blobs.count(), 1, "what was not finished is not there");
        }
    }
    let mut names: Vec<_> =
        fs::read_dir(bench.dir.path()).expect("listed").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["archive.tar", "folder", "store"]);
}
