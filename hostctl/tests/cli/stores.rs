//! `store` and `debug layer`, where no registry is needed.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock};

use bennu_manifests::model::Digest;
use serde_json::json;

use crate::Desk;
use crate::server::{Answer, Asked, Script};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A tar with one file `a` of six bytes (POSIX.1-1988, "ustar interchange format").
pub(super) fn tar() -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, "a");
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, "00000000006\0");
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\u{0}00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend(b"hello\n");
    header.resize(4 * 512, 0);
    header
}

#[test]
fn a_layer_is_imported_checked_and_collected() {
    let desk = Desk::new();
    let store = ["store", "--root", "images"];
    let run = |more: &[&str]| desk.run(&[&store[..], more].concat());
    assert_eq!(run(&["ls"]).code, 5, "looking does not make a store");
    assert!(!desk.path("images").exists());

    std::fs::write(desk.path("layer.tar"), tar()).expect("it can be written");
    let imported = run(&["import", "layer.tar", "--json"]).json(0);
    assert_eq!(imported["diff-id"], bennu_manifests::model::Digest::of(&tar()).to_string());
    assert_eq!(run(&["ls"]).with(0), "no images\n");
    assert_eq!(run(&["verify"]).with(0), "records, pins and lengths are sound\n");
    assert_eq!(run(&["scrub"]).with(0), "every blob is what its name says\n");
    assert!(run(&["gc", "--dry-run"]).with(0).starts_with("0 images and 1 blob would be removed"));
    assert!(run(&["gc"]).with(0).starts_with("0 images and 1 blob removed"));
    assert_eq!(run(&["gc"]).with(0), "nothing to collect\n");
}

#[test]
fn what_is_in_a_layer_is_listed() {
    let desk = Desk::new();
    let hello = bennu_manifests::model::Digest::of(b"hello\n");
    let listed = desk.run_with(&["debug", "layer"], &tar()).with(0);
    let last = listed.lines().last().expect("there is a file");
    assert_eq!(last, format!("/a\tfile\t0644\t0:0\t6\t0\t-\t-\t{}", hello.hex()));
    let json = desk.run_with(&["debug", "layer", "--json"], &tar()).json(0);
    let entries = json["entries"].as_array().expect("it is a list");
    assert_eq!(entries.last().expect("there is a file")["sha256"], hello.to_string());
}

#[test]
fn files_of_an_image_that_is_not_there_end_with_5() {
    let desk = Desk::new();
    desk.run_with(&["store", "--root", "images", "import", "-"], &tar()).with(0);
    let digest = format!("sha256:{}", "0".repeat(64));
    let files = |reference: &str| desk.run(&["store", "--root", "images", "files", reference]).code;
    assert_eq!(files(&digest), 5);
    assert_eq!(files(&format!("localhost/a@{digest}")), 5);
    assert_eq!(files("a:1"), 2, "it names no registry");
}

#[test]
fn a_blob_that_was_changed_is_found() {
    let desk = Desk::new();
    std::fs::write(desk.path("layer.tar"), tar()).expect("it can be written");
    let imported = desk.run(&["store", "--root", "images", "import", "layer.tar", "--json"]).json(0);
    let path = desk.path(imported["path"].as_str().expect("it is a path"));
    let mut blob = std::fs::read(&path).expect("it is there");
    *blob.last_mut().expect("it is not empty") ^= 1;
    // A file with fs-verity cannot be opened for writing; another one can be put in its place.
    std::fs::remove_file(&path)
        .and_then(|()| std::fs::write(&path, blob))
        .expect("the folder can be written");
    let report = desk.run(&["store", "--root", "images", "scrub", "--json"]).json(1);
    assert_eq!(report["bad"][0]["blob"], imported["blob"]);
    // Its last byte belongs to the leaves, and those are made again from the image.
    assert_eq!(report["bad"][0]["damage"]["kind"], "leaves");
    let report = desk.run(&["store", "--root", "images", "scrub", "--repair", "--json"]).json(0);
    assert_eq!(report["repaired"][0]["repair"]["kind"], "mended");
    desk.run(&["store", "--root", "images", "scrub"]).with(0);
}

#[test]
fn a_blob_that_cannot_be_mended_is_put_aside_and_fetched_from_where_the_caller_says() {
    let desk = Desk::new();
    let run = |more: &[&str]| desk.run(&[&["store", "--root", "images"], more].concat());
    let (address, digest) = image_registry();
    let reference = format!("{address}/web:1");
    let blob = run(&["pull", &reference, "--json"]).json(0)["layers"][0]["blob"].clone();
    let name = blob.as_str().and_then(|blob| blob.strip_prefix("sha256:")).expect("a digest").to_owned();
    let path = desk.path(&format!("images/blobs/sha256/{name}"));
    let sound = std::fs::read(&path).expect("it is there");
    let spoil = || {
        let mut bytes = sound.clone();
        bytes[1100] ^= 1;
        std::fs::remove_file(&path).and_then(|()| std::fs::write(&path, bytes)).expect("it can be replaced");
    };
    spoil();
    let ended = run(&["scrub", "--repair"]);
    assert_eq!(ended.code, 1);
    let said = format!(
        "1 block bad; put aside, pull the image again: {}\n  needed by image {digest}\n",
        blob.as_str().expect("text")
    );
    assert_eq!(ended.stdout, said);
    assert!(!path.exists() && desk.path(&format!("images/quarantine/{name}")).exists());
    assert_eq!(run(&["files", &digest]).code, 5, "an image without its blob is served");
    run(&["pull", &reference]).with(0);
    assert_eq!(std::fs::read(&path).expect("it is there"), sound);
    spoil();
    let report = run(&["scrub", "--repair", "--from", &reference, "--rate", "0", "--json"]).json(0);
    assert_eq!((&report["sound"], &report["repaired"][0]["fetched"]), (&json!(true), &json!(true)));
    assert_eq!(std::fs::read(&path).expect("it is there"), sound);
    run(&["files", &digest]).with(0);
}

#[test]
fn a_pull_of_what_is_here_makes_no_client_and_asks_for_no_credentials() {
    let desk = Desk::new();
    let run = |more: &[&str]| desk.run(&[&["store", "--root", "images"], more].concat());
    let (address, digest) = image_registry();
    run(&["pull", &format!("{address}/web:1")]).with(0);
    // Who makes a client reads the logins, and cannot read these.
    std::fs::create_dir(desk.path(".docker")).expect("a folder");
    desk.write(".docker/config.json", "{");
    assert_ne!(run(&["pull", &format!("{address}/web:1")]).code, 0, "a tag has to be asked for");
    let pulled = run(&["pull", &format!("{address}/web@{digest}"), "--json"]).json(0);
    assert_eq!(pulled["digest"], digest);
}

#[test]
fn a_pull_of_what_is_here_opens_no_socket_waits_for_no_event_and_starts_nothing() {
    let desk = Desk::new();
    let (address, digest) = image_registry();
    let calls = |reference: &str| {
        let kinds = "socket,socketpair,connect,epoll_create1,eventfd2,clone,clone3,vfork,execve";
        let mut traced = std::process::Command::new("strace");
        traced.args(["-f", "-qq", "-o", "calls", "-e", &format!("trace={kinds}")]);
        traced.arg(env!("CARGO_BIN_EXE_hostctl")).args(["store", "--root", "images", "pull", reference]);
        traced.current_dir(desk.path("")).env("HOME", desk.path(""));
        let ended = traced.output().expect("strace is one of the packages that tests need");
        assert!(ended.status.success(), "{ended:?}");
        let of = |line: &str| {
            line.split(['(', ' ']).find(|word| word.starts_with(char::is_alphabetic)).map(str::to_owned)
        };
        desk.read("calls").lines().filter_map(of).collect::<Vec<String>>()
    };
    let first = calls(&format!("{address}/web@{digest}"));
    for call in ["execve", "epoll_create1", "socket", "connect"] {
        assert!(
            first.iter().any(|made| made == call),
            "a first pull makes {call}, and it is seen: {first:?}"
        );
    }
    assert_eq!(calls(&format!("{address}/web@{digest}")), ["execve"], "but for the program itself");
}

#[test]
fn a_tar_that_is_refused_ends_with_2() {
    let desk = Desk::new();
    let mut broken = tar();
    broken[0] = b'b';
    let ended = desk.run_with(&["debug", "layer"], &broken);
    assert_eq!(ended.code, 2, "{ended:#?}");
    assert_eq!(desk.run_with(&["store", "--root", "images", "import", "-"], &broken).code, 2);
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("other")).expect("it is new");
    desk.write("other/file", "mine");
    let ended = desk.run(&["store", "--root", "other", "ls"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
}

/// What a registry answers: to which line, of which type, and what.
pub(super) type Stored = Vec<(String, &'static str, Vec<u8>)>;

/// A registry that has `web:1`, an image with one layer.
pub(super) fn image_registry() -> (std::net::SocketAddr, String) {
    image_registry_with(Arc::default())
}

/// The same, and whatever it gets `later`.
pub(super) fn image_registry_with(later: Arc<OnceLock<Stored>>) -> (std::net::SocketAddr, String) {
    let layer = tar();
    let arch = architecture();
    let config = json!({
        "os": "linux", "architecture": arch, "config": {},
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "size": bytes.len(), "digest": Digest::of(bytes) });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let digest = Digest::of(&manifest).to_string();
    let stored: Stored = vec![
        ("GET /v2/web/manifests/1".to_owned(), MANIFEST, manifest.clone()),
        (format!("GET /v2/web/manifests/{digest}"), MANIFEST, manifest),
        (format!("GET /v2/web/blobs/{}", Digest::of(&config)), "application/octet-stream", config),
        (format!("GET /v2/web/blobs/{}", Digest::of(&layer)), "application/octet-stream", layer),
    ];
    let address = Script::new(move |asked: &Asked| {
        let found =
            stored.iter().chain(later.get().into_iter().flatten()).find(|(line, ..)| *line == asked.line);
        found.map_or_else(
            || Answer::json(404, &json!({})),
            |(_, kind, body)| Answer { status: 200, media_type: (*kind).to_owned(), body: body.clone() },
        )
    })
    .on_loopback();
    (address, digest)
}

/// The name that OCI has for this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[test]
fn programs_are_told_of_a_pull_on_standard_error_line_by_line() {
    let desk = Desk::new();
    let (address, _) = image_registry();
    let reference = format!("{address}/web:1");
    let ended = desk.run(&["store", "--root", "images", "pull", &reference, "--json"]);
    let size = tar().len();
    let events: Vec<serde_json::Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let event =
        |done: usize| json!({ "event": "layer", "layer": Digest::of(&tar()), "done": done, "total": size });
    assert_eq!(events, [event(0), event(size)]);
    ended.json(0);
}

#[test]
fn an_image_is_pulled_for_the_platform_that_is_asked_for() {
    let desk = Desk::new();
    let (address, _) = image_registry();
    let reference = format!("{address}/web:1");
    let pull =
        |platform: &str| desk.run(&["store", "--root", "images", "pull", &reference, "--platform", platform]);
    let ended = pull("linux/s390x");
    assert_eq!(ended.code, 2, "{ended:#?}");
    assert!(ended.stderr.contains("not for linux/s390x"), "{ended:#?}");
    assert_eq!(pull("s390x").code, 2);
    pull(&format!("linux/{}", architecture())).with(0);
}

#[test]
fn a_certificate_without_its_key_or_that_is_none_ends_with_2() {
    let desk = Desk::new();
    let (address, _) = image_registry();
    let reference = format!("{address}/web:1");
    let pull = |more: &[&str]| desk.run(&[&["store", "--root", "images", "pull", &reference], more].concat());
    desk.write("none.pem", "no PEM");
    assert_eq!(pull(&["--client-cert", "none.pem"]).code, 2);
    let ended = pull(&["--ca", "none.pem"]);
    assert_eq!(ended.code, 2, "{ended:#?}");
    assert!(ended.stderr.contains("none.pem cannot be used"), "{ended:#?}");
    assert_eq!(pull(&["--ca", "missing.pem"]).code, 5);
}

#[test]
fn a_pin_holds_an_image_until_it_is_let_go() {
    let desk = Desk::new();
    let run = |more: &[&str]| desk.run(&[&["store", "--root", "images"], more].concat());
    let (address, digest) = image_registry();
    let reference = format!("{address}/web:1");
    run(&["pull", &reference]).with(0);
    assert_eq!(run(&["pins"]).with(0), "no pins\n");
    assert_eq!(run(&["pin", "mine", &reference, &digest]).with(0), format!("mine holds {digest}\n"));
    assert_eq!(run(&["pins", "--json"]).json(0)["pins"][0], json!({ "name": "mine", "holds": [digest] }));
    assert_eq!(run(&["gc"]).with(0), "nothing to collect\n");
    assert_eq!(run(&["pin", "Mine", &digest]).code, 2, "no pin is called so");
    let absent = format!("sha256:{}", "0".repeat(64));
    assert_eq!(run(&["pin", "mine", &absent]).code, 5, "what is not there cannot be held");
    assert_eq!(run(&["unpin", "other"]).code, 5);
    assert_eq!(run(&["pins"]).with(0), format!("PIN   HOLDS\nmine  {digest}\n"));
    assert_eq!(run(&["unpin", "mine"]).with(0), "mine holds nothing any more\n");
    assert!(run(&["gc"]).with(0).starts_with("1 image and 1 blob removed"));
}

#[test]
fn an_image_is_mounted_read_only_and_unmounting_undoes_all_of_it() {
    let desk = Desk::new();
    let run = |more: &[&str]| desk.run(&[&["store", "--root", "images"], more].concat());
    let (address, digest) = image_registry();
    run(&["pull", &format!("{address}/web:1")]).with(0);
    std::fs::create_dir(desk.path("tree")).expect("it is new");
    assert_eq!(run(&["unmount", "tree", "--run", "run"]).code, 5, "nothing is mounted yet");
    assert_eq!(run(&["mount", &digest, "nowhere", "--run", "run"]).code, 5);
    let absent = format!("sha256:{}", "0".repeat(64));
    assert_eq!(run(&["mount", &absent, "tree", "--run", "run"]).code, 5);
    if !can_mount() {
        assert_eq!(run(&["mount", &digest, "tree", "--run", "run"]).code, 1, "it may not mount");
        return;
    }
    let ended = run(&["mount", &digest, "tree", "--run", "run", "--json"]);
    let degraded = ended.stderr.contains("has no fs-verity: blobs are checked at import and scrub only");
    let mounted = ended.json(0);
    assert_eq!(mounted["image"], digest);
    assert_eq!(mounted["checked"], if degraded { "at-import-only" } else { "by-kernel" });
    let again = run(&["mount", &digest, "tree", "--run", "run"]).code;
    let (content, write) = (std::fs::read(desk.path("tree/a")), std::fs::write(desk.path("tree/b"), "x"));
    run(&["unmount", "tree", "--run", "run"]).with(0);
    assert_eq!(content.expect("the file of the image"), b"hello\n");
    assert!(write.is_err(), "the tree could be written to");
    assert_eq!(again, 1, "two trees on one folder");
    for empty in ["tree", "run/layers", "run/users"] {
        assert_eq!(std::fs::read_dir(desk.path(empty)).expect("listed").count(), 0, "{empty}");
    }
    assert_eq!(run(&["unmount", "tree", "--run", "run"]).code, 5);
}

/// Whether this test may mount EROFS; CI sets `BENNU_TESTS_MUST_RUN`, which forbids that it may not.
fn can_mount() -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let able =
        root && std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\terofs"));
    if !able {
        assert!(std::env::var_os("BENNU_TESTS_MUST_RUN").is_none(), "mounting EROFS needs root and a kernel");
        println!("skipped: mounting EROFS needs root and a kernel that has it");
    }
    able
}
