//! Images that go into a store from files and out of it into files.

use crate::Desk;
use crate::stores::{image_registry, tar};

/// A store with one image, called `one`; its digest.
fn stocked(desk: &Desk) -> String {
    let (address, digest) = image_registry();
    desk.run(&["store", "--root", "one", "pull", &format!("{address}/web:1")]).with(0);
    digest
}

#[test]
fn an_image_goes_out_into_files_and_in_again() {
    let desk = Desk::new();
    let digest = stocked(&desk);
    let mut written = Vec::new();
    for (path, more) in [
        ("folder", &[][..]),
        ("image.tar", &[]),
        ("image", &["--format", "oci-archive", "--tag", "web:1"]),
        ("folder.tar", &["--format", "oci"]),
    ] {
        let args = [&["store", "--root", "one", "export", &digest, path, "--json"], more].concat();
        written.push(desk.run(&args).json(0)["digest"].clone());
        let is_folder = desk.path(path).is_dir();
        assert_eq!(is_folder, path.starts_with("folder"), "{path}");
        let json = desk.run(&["store", "--root", path_of_store(path), "import", path, "--json"]).json(0);
        assert_eq!(json["images"][0]["digest"], written[0], "{path}");
    }
    assert!(written.iter().all(|digest| *digest == written[0]));
    let again = desk.run(&["store", "--root", "one", "export", &digest, "image.tar"]);
    assert_eq!(again.code, 2, "what is there is not written over: {again:#?}");
    let absent = format!("sha256:{}", "0".repeat(64));
    assert_eq!(desk.run(&["store", "--root", "one", "export", &absent, "x"]).code, 5);
    let named = desk.run(&["store", "--root", "two", "import", "image", "web"]);
    assert_eq!(named.code, 5, "web:latest is not there: {named:#?}");
    assert!(named.stderr.contains("web:1"), "{named:#?}");
    let text = desk.run(&["store", "--root", "two", "import", "image", "web:1"]).with(0);
    assert!(text.contains("1 layer"), "{text}");
}

#[test]
fn patches_lead_from_images_that_are_in_the_store_to_native_ones() {
    let desk = Desk::new();
    let digest = stocked(&desk);
    let export = |path: &str, more: &[&str]| {
        desk.run(&[&["store", "--root", "one", "export", &digest, path], more].concat())
    };
    let text = export("same", &["--native", "--patch-from", &digest]).with(0);
    assert!(text.contains("none would be smaller"), "every blob is in both: {text}");
    let json = export("again", &["--native", "--patch-from", &digest, "--json"]).json(0);
    assert_eq!((&json["patches"], &json["patches-tag"]), (&serde_json::json!([]), &serde_json::Value::Null));
    let absent = format!("sha256:{}", "0".repeat(64));
    assert_eq!(export("absent", &["--native", "--patch-from", &absent]).code, 5);
    assert!(!desk.path("absent").exists());
    assert_eq!(export("ordinary", &["--patch-from", &digest]).code, 2, "only native images have patches");
}

/// A new store for each path.
fn path_of_store(path: &str) -> &'static str {
    match path {
        "folder" => "store-a",
        "image.tar" => "store-b",
        "image" => "store-c",
        _ => "store-d",
    }
}

#[test]
fn files_that_are_not_what_they_should_be_end_with_2_or_3() {
    let desk = Desk::new();
    let digest = stocked(&desk);
    desk.run(&["store", "--root", "one", "export", &digest, "image.tar"]).with(0);
    let import = |args: &[&str]| desk.run(&[&["store", "--root", "two", "import"], args].concat());

    std::fs::write(desk.path("packed.tar"), [0x1f, 0x8b, 8, 0]).expect("written");
    let packed = import(&["packed.tar"]);
    assert_eq!(packed.code, 2);
    assert!(packed.stderr.contains("decompress"), "{packed:#?}");
    std::fs::create_dir(desk.path("empty")).expect("made");
    assert_eq!(import(&["empty"]).code, 2);

    std::fs::write(desk.path("layer.tar"), tar()).expect("written");
    assert_eq!(import(&["layer.tar", "web:1"]).code, 2, "a layer has no images");
    assert_eq!(import(&["layer.tar", "--all"]).code, 2);
    assert_eq!(import(&["image.tar", "web", "--layer"]).code, 2);

    let mut bytes = std::fs::read(desk.path("image.tar")).expect("read");
    let hello = bytes.windows(6).position(|part| part == b"hello\n").expect("the file of the layer");
    bytes[hello] ^= 1;
    std::fs::write(desk.path("changed.tar"), bytes).expect("written");
    assert_eq!(import(&["changed.tar", "--json"]).json(3)["error"]["kind"], "refused");
    assert_eq!(desk.run(&["store", "--root", "two", "ls"]).with(0), "no images\n");

    // Any tar is a layer where that is asked for.
    let layer = import(&["image.tar", "--layer", "--json"]).json(0);
    let whole = std::fs::read(desk.path("image.tar")).expect("read");
    assert_eq!(layer["diff-id"], bennu_manifests::model::Digest::of(&whole).to_string());
}

#[test]
fn of_several_images_in_a_layout_one_is_named_or_all_are_taken() {
    let desk = Desk::new();
    let digest = stocked(&desk);
    for (path, compression) in [("a", "none"), ("b", "zstd")] {
        let args = ["store", "--root", "one", "export", &digest, path, "--tag", path, "--compression"];
        desk.run(&[&args[..], &[compression]].concat()).with(0);
    }
    // Both in one layout.
    let index = |path: &str| -> serde_json::Value {
        serde_json::from_str(&desk.read(&format!("{path}/index.json"))).expect("JSON")
    };
    let (mut both, other) = (index("a"), index("b"));
    both["manifests"].as_array_mut().expect("a list").push(other["manifests"][0].clone());
    desk.write("a/index.json", &both.to_string());
    for entry in std::fs::read_dir(desk.path("b/blobs/sha256")).expect("listed") {
        let path = entry.expect("an entry").path();
        let to = desk.path("a/blobs/sha256").join(path.file_name().expect("a name"));
        std::fs::copy(&path, to).expect("copied");
    }
    let import = |args: &[&str]| desk.run(&[&["store", "--root", "two", "import", "a"], args].concat());
    let several = import(&[]);
    assert_eq!(several.code, 2);
    assert!(several.stderr.contains(" a\n") && several.stderr.contains("--all"), "{several:#?}");
    let one = import(&["b", "--json"]).json(0);
    assert_eq!(one["images"][0]["digest"], other["manifests"][0]["digest"]);
    let all = import(&["--all", "--json"]).json(0);
    assert_eq!(all["images"].as_array().expect("a list").len(), 2);
}
