//! `store` and `debug layer`, where no registry is needed.

use crate::Desk;

/// A tar with one file `a` of six bytes (POSIX.1-1988, "ustar interchange format").
fn tar() -> Vec<u8> {
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
