//! The directory of a store: opening, pinning, collecting, checking.

mod common;

use std::fs;
use std::io::{self, Read};
use std::sync::mpsc;

use bennu_image_store::{Finding, Held, Holder, Layer, OpenError, Store, StoreError};
use bennu_manifests::model::Digest;
use common::Tar;

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), common::confined()).expect("a store");
        Self { dir, store }
    }

    fn import(&self, name: &str) -> Layer {
        let tar = Tar::new().file(name, vec![b'x'; 20_000]).end();
        self.store.import_layer(tar.as_slice(), Default::default()).expect("sound")
    }
}

/// Gives its bytes only when it is told to go on, so that an import can be looked at while it runs.
struct Halting {
    bytes: io::Cursor<Vec<u8>>,
    reached: Option<mpsc::Sender<()>>,
    go_on: mpsc::Receiver<()>,
}

impl Read for Halting {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(reached) = self.reached.take() {
            reached.send(()).expect("the test waits");
            self.go_on.recv().expect("the test goes on");
        }
        self.bytes.read(buf)
    }
}

/// Runs `meanwhile` while an import is under way.
fn during_an_import(bench: &Bench, meanwhile: impl FnOnce()) -> Layer {
    let (reached, is_reached) = mpsc::channel();
    let (go, go_on) = mpsc::channel();
    let tar = Tar::new().file("halting", "x").end();
    let reader = Halting { bytes: io::Cursor::new(tar), reached: Some(reached), go_on };
    let store = bench.store.clone();
    let import = std::thread::spawn(move || store.import_layer(reader, Default::default()).expect("sound"));
    is_reached.recv().expect("the import begins");
    meanwhile();
    go.send(()).expect("the import waits");
    import.join().expect("no panic")
}

#[test]
fn a_store_is_made_once_and_found_again() {
    let bench = Bench::new();
    let layer = bench.import("a");
    let again = Store::open(bench.dir.path(), common::confined()).expect("the same store");
    assert_eq!(again.layer(&layer.diff_id).expect("read").map(|l| l.blob), Some(layer.blob));
    assert!(fs::metadata(&layer.path).expect("there").permissions().readonly());
}

#[test]
fn a_directory_with_something_else_in_it_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("letter"), "x").expect("written");
    assert!(matches!(Store::open(dir.path(), common::confined()), Err(OpenError::NotAStore { .. })));
    assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
}

#[test]
fn a_store_whose_making_broke_off_is_finished() {
    for made in [&[][..], &["tmp"], &["tmp", "blobs", "blobs/sha256", "layers"]] {
        let dir = tempfile::tempdir().expect("a directory");
        for name in made {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        fs::write(dir.path().join(".tmp-1-1"), "half a format").expect("written");
        Store::open(dir.path(), common::confined()).expect("finished");
        assert!(!dir.path().join(".tmp-1-1").exists());
    }
}

#[test]
fn formats_from_the_future_are_refused_or_only_read() {
    let bench = Bench::new();
    bench.import("a");
    let format = bench.dir.path().join("format.json");
    let sound = fs::read_to_string(&format).expect("read");
    let write = |from: &str, to: &str| {
        assert!(sound.contains(from), "{sound}");
        fs::write(&format, sound.replace(from, to)).expect("written");
    };
    write("\"version\": 1", "\"version\": 2");
    assert!(matches!(Store::open(bench.dir.path(), common::confined()), Err(OpenError::Incompatible { .. })));
    write("\"incompatible\": []", "\"incompatible\": [\"deltas\"]");
    let error = Store::open(bench.dir.path(), common::confined()).expect_err("not understood");
    assert!(error.to_string().ends_with("needs what this program does not have: deltas"), "{error}");
    write("\"compatible\": []", "\"compatible\": [\"hints\"]");
    Store::open(bench.dir.path(), common::confined())
        .expect("may be ignored")
        .pin("x", &[])
        .expect("written");
    write("\"read-only-compatible\": []", "\"read-only-compatible\": [\"x\"]");
    let store = Store::open(bench.dir.path(), common::confined()).expect("may be read");
    assert!(store.images().expect("read").is_empty());
    assert!(matches!(store.gc(), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(store.pin("y", &[]), Err(StoreError::ReadOnly { .. })));
    fs::write(&format, "{").expect("written");
    assert!(matches!(Store::open(bench.dir.path(), common::confined()), Err(OpenError::Format { .. })));
}

#[test]
fn leftovers_are_removed_at_the_next_opening_but_not_from_under_a_running_import() {
    let bench = Bench::new();
    let leftover = bench.dir.path().join("tmp/.tmp-1-1");
    fs::write(&leftover, "half a blob").expect("written");
    let layer = during_an_import(&bench, || {
        Store::open(bench.dir.path(), common::confined()).expect("opened");
        assert!(!leftover.exists());
        assert_eq!(
            fs::read_dir(bench.dir.path().join("tmp")).expect("listed").count(),
            1,
            "the import's own"
        );
    });
    assert!(layer.path.exists());
    Store::open(bench.dir.path(), common::confined()).expect("opened");
    assert_eq!(fs::read_dir(bench.dir.path().join("tmp")).expect("listed").count(), 0);
}

#[test]
fn a_collection_removes_what_no_pin_holds_and_nothing_else() {
    let bench = Bench::new();
    let (kept, lost) = (bench.import("kept"), bench.import("lost"));
    bench.store.pin("os", &[kept.blob]).expect("pinned");
    let plan = bench.store.gc_plan().expect("planned");
    assert_eq!((plan.layers.as_slice(), plan.blobs.as_slice()), (&[lost.diff_id][..], &[lost.blob][..]));
    assert_eq!(plan.bytes, lost.size);
    assert!(lost.path.exists(), "a plan removed something");
    let pinned = Holder::Pin { name: "os".to_owned() };
    let held = Held { by: pinned, image: None, blobs: vec![kept.blob], bytes: kept.size };
    assert_eq!((&plan.held, plan.held_bytes), (&vec![held], kept.size));
    assert_eq!(bench.store.gc().expect("collected"), plan);
    assert!(kept.path.exists() && !lost.path.exists());
    assert!(bench.store.gc().expect("collected").is_empty());
    bench.store.unpin("os").expect("unpinned");
    bench.store.unpin("os").expect("no error");
    assert_eq!(bench.store.gc().expect("collected").blobs, [kept.blob]);
}

#[test]
fn a_collection_beside_an_import_removes_what_nothing_holds_and_leaves_the_import_alone() {
    let bench = Bench::new();
    let lost = bench.import("a");
    let layer = during_an_import(&bench, || {
        assert_eq!(bench.store.gc().expect("collected").blobs, [lost.blob]);
    });
    assert!(layer.path.exists() && !lost.path.exists());
    assert!(bench.store.verify().expect("looked at").is_empty());
}

#[test]
fn nothing_is_collected_for_want_of_a_readable_pin() {
    let bench = Bench::new();
    let layer = bench.import("a");
    bench.store.pin("p", &[layer.blob]).expect("pinned");
    fs::write(bench.dir.path().join("pins/p"), "{\"holds\": [").expect("written");
    assert!(matches!(bench.store.gc(), Err(StoreError::Damaged { .. })));
    assert!(layer.path.exists());
}

#[test]
fn a_pin_holds_only_what_is_there_and_has_a_proper_name() {
    let bench = Bench::new();
    let nothing = Digest::from_bytes([7; 32]);
    assert!(
        matches!(bench.store.pin("p", &[nothing]), Err(StoreError::NothingToPin { digest }) if digest == nothing)
    );
    assert!(matches!(bench.store.pin("../p", &[]), Err(StoreError::PinName { .. })));
    let layer = bench.import("a");
    bench.store.pin("p", &[layer.blob, layer.blob]).expect("pinned");
    assert_eq!(bench.store.pins().expect("read"), [("p".to_owned(), vec![layer.blob])]);
}

#[test]
fn a_pin_that_is_as_it_should_be_is_not_written_again_and_one_that_cannot_be_read_is() {
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new();
    let (a, b) = (bench.import("a"), bench.import("b"));
    let path = bench.dir.path().join("pins/p");
    // What is written is another file under the same name.
    let pinned = |digests: &[Digest]| {
        bench.store.pin("p", digests).expect("pinned");
        fs::metadata(&path).expect("there").ino()
    };
    let first = pinned(&[a.blob, b.blob]);
    let held = fs::File::open(&path).expect("opened");
    assert_eq!(pinned(&[b.blob, a.blob]), first);
    assert_ne!(pinned(&[a.blob]), first);
    drop(held);
    fs::write(&path, "{\"holds\": [").expect("written");
    pinned(&[a.blob]);
    assert_eq!(bench.store.pins().expect("read"), [("p".to_owned(), vec![a.blob])]);
}

#[test]
fn a_check_finds_what_is_wrong_without_reading_blobs() {
    let bench = Bench::new();
    let (short, gone) = (bench.import("short"), bench.import("gone"));
    bench.store.pin("p", &[gone.blob]).expect("pinned");
    assert!(bench.store.verify().expect("looked at").is_empty());
    fs::remove_file(&short.path).expect("removed");
    fs::write(&short.path, "x").expect("written");
    fs::remove_file(&gone.path).expect("removed");
    fs::write(bench.dir.path().join("blobs/sha256/stray"), "x").expect("written");
    let findings = bench.store.verify().expect("looked at");
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert!(findings.iter().any(|f| matches!(f, Finding::Unknown { path } if path.ends_with("stray"))));
    assert!(
        findings.iter().any(|f| matches!(f, Finding::DanglingPin { digest, .. } if *digest == gone.blob))
    );
    for blob in [short.blob, gone.blob] {
        assert!(findings.iter().any(|f| matches!(f, Finding::MissingBlob { blob: b, .. } if *b == blob)));
    }
}

#[test]
fn an_import_over_a_rotten_blob_replaces_it() {
    let bench = Bench::new();
    let layer = bench.import("a");
    let sound = fs::read(&layer.path).expect("read");
    fs::remove_file(&layer.path).expect("removed");
    fs::write(&layer.path, vec![0; sound.len()]).expect("written");
    bench.import("a");
    assert_eq!(fs::read(&layer.path).expect("read"), sound);
}

#[test]
fn one_damaged_record_of_a_layer_does_not_stop_a_collection() {
    let bench = Bench::new();
    let (kept, lost) = (bench.import("kept"), bench.import("lost"));
    bench.store.pin("p", &[kept.blob]).expect("pinned");
    fs::write(bench.dir.path().join("layers/sha256").join(lost.diff_id.hex()), "{").expect("written");
    let collected = bench.store.gc().expect("collected");
    assert_eq!((collected.layers, collected.blobs), (vec![lost.diff_id], vec![lost.blob]));
    assert!(kept.path.exists() && !lost.path.exists());
}
