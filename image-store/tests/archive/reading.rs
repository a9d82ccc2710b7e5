//! What other programs wrote.

use super::*;

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
        let exported = bench.store.export_native(&image.digest, &path, form, "app:1", 3, &[]).expect(name);
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
