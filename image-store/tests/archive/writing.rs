//! What other programs are to read.

use super::*;

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
        let native = bench.store.export_native(&image.digest, &bench.path(name), form, "x", 3, &[]);
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
