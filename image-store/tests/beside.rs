//! Collections beside pulls, imports and whoever else relies on what is in a store.

mod common;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bennu_image_store::registry::Served;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::source::{Archive, Source};
use bennu_image_store::{GcPlan, Held, Holder, Image, PullError, Store, sha256};
use bennu_manifests::model::Digest;
use common::Tar;
use common::registry::{MANIFEST, Parts};

const UNCOMPRESSED: &str = "application/vnd.oci.image.layer.v1.tar";

/// Serves an image, and does something before it gives a layer.
struct Interrupted<F> {
    parts: Parts,
    before: F,
}

impl<F: Fn(usize) -> io::Result<()> + Send + Sync> Archive for Interrupted<F> {
    fn document(&self, _: &Digest) -> io::Result<Option<Served>> {
        Ok(Some(Served { bytes: self.parts.manifest.clone(), media_type: MANIFEST.to_owned() }))
    }

    fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        let layer = self.parts.layers.iter().position(|layer| sha256::digest(layer) == *digest);
        let Some(layer) = layer else {
            return Ok(Some(Box::new(io::Cursor::new(self.parts.config.clone()))));
        };
        (self.before)(layer)?;
        Ok(Some(Box::new(io::Cursor::new(self.parts.layers[layer].clone()))))
    }
}

fn image(contents: &[u8]) -> Parts {
    let tars: Vec<_> =
        contents.iter().map(|i| Tar::new().file(&format!("file{i}"), vec![*i; 50_000]).end()).collect();
    Parts::with_layers("amd64", &tars, tars.clone(), UNCOMPRESSED)
}

fn pull_and(
    store: &Store,
    parts: &Parts,
    before: impl Fn(usize) -> io::Result<()> + Send + Sync + 'static,
) -> Result<Image, PullError> {
    let source = Source::Archive(Arc::new(Interrupted { parts: parts.clone(), before }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let platform = Platform::linux("amd64");
    runtime.block_on(store.pull_from(&source, "image", &parts.digest(), &platform, &()))
}

fn pull(store: &Store, parts: &Parts) -> Image {
    pull_and(store, parts, |_| Ok(())).expect("pulled")
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

fn claimed(plan: &GcPlan) -> Vec<Digest> {
    let of_operations = plan.held.iter().filter(|held| held.by == Holder::Operation);
    of_operations.flat_map(|held| held.blobs.iter().copied()).collect()
}

fn count(root: &Path, directory: &str) -> usize {
    fs::read_dir(root.join(directory)).expect("listed").count()
}

fn assert_sound(store: &Store) {
    assert_eq!(store.verify().expect("looked at"), []);
    assert_eq!(store.scrub().expect("read"), []);
}

#[test]
fn a_collection_in_the_middle_of_a_pull_leaves_what_the_pull_found_here() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let (old, new) = (image(&[1, 2]), image(&[1, 3]));
    let [shared, own] = pull(&store, &old).layers[..] else { panic!("it has two layers") };
    let collecting = store.clone();
    let pulled = pull_and(&store, &new, move |_| {
        // Layers are looked for side by side.
        until("the shared layer is claimed", || {
            claimed(&collecting.gc_plan().expect("planned")).contains(&shared.blob)
        });
        let plan = collecting.gc().expect("collected");
        assert_eq!((plan.blobs, plan.images.len()), (vec![own.blob], 1));
        let held = Held { by: Holder::Operation, image: None, blobs: vec![shared.blob], bytes: shared.size };
        assert_eq!((plan.held, plan.held_bytes), (vec![held], shared.size));
        Ok(())
    });
    assert_eq!(pulled.expect("pulled").layers[0], shared);
    assert_sound(&store);
    assert!(store.image(&new.digest()).expect("read").is_some());
}

#[test]
fn a_collection_in_the_middle_of_a_pull_leaves_what_the_pull_has_brought() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let new = image(&[1, 2]);
    let (collecting, root) = (store.clone(), dir.path().to_owned());
    let pulled = pull_and(&store, &new, move |layer| {
        if layer == 1 {
            until("the other layer is in the store", || count(&root, "layers/sha256") == 1);
            let plan = collecting.gc().expect("collected");
            assert!(plan.is_empty() && claimed(&plan).len() == 1, "{plan:?}");
        }
        Ok(())
    });
    assert_eq!(pulled.expect("pulled").layers.len(), 2);
    assert_sound(&store);
}

#[test]
fn a_pull_that_begins_after_a_collection_has_looked_brings_again_what_goes() {
    use nix::fcntl::{Flock, FlockArg};
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let (old, new) = (image(&[1, 2]), image(&[1, 3]));
    let [shared, own] = pull(&store, &old).layers[..] else { panic!("it has two layers") };
    // As a collection does: it looks and removes under the lock.
    let lock = fs::File::open(dir.path().join("lock")).expect("opened");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("free");
    let (pulling, wanted) = (store.clone(), new.clone());
    let begun = std::thread::spawn(move || pull(&pulling, &wanted));
    for path in [
        dir.path().join("images/sha256").join(old.digest().hex()),
        store.blob_path(&own.blob),
        store.blob_path(&shared.blob),
    ] {
        fs::remove_file(path).expect("removed");
    }
    drop(lock);
    assert_eq!(begun.join().expect("no panic").layers[0], shared);
    assert_sound(&store);
}

#[test]
fn an_image_that_was_just_pulled_or_is_claimed_can_be_pinned_whatever_is_collected_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let parts = image(&[1, 2]);
    let pulled = pull(&store, &parts);
    assert!(store.gc().expect("collected").is_empty());
    let again = store.claim(&parts.digest()).expect("read").expect("there");
    drop(pulled);
    let copy = again.clone();
    drop(again);
    assert!(store.gc().expect("collected").is_empty());
    store.pin("p", &[copy.digest]).expect("pinned");
    drop(copy);
    assert!(store.gc().expect("collected").is_empty());
    store.unpin("p").expect("unpinned");
    assert_eq!(store.gc().expect("collected").images, [parts.digest()]);
    assert!(store.claim(&parts.digest()).expect("read").is_none());
}

#[test]
fn a_pull_that_fails_lets_go_of_what_it_had() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let root = dir.path().to_owned();
    let failed = pull_and(&store, &image(&[1, 2]), move |layer| {
        if layer == 0 {
            return Ok(());
        }
        until("the other layer is in the store", || count(&root, "layers/sha256") == 1);
        Err(io::Error::other("the archive cannot be read"))
    });
    assert!(matches!(failed, Err(PullError::Archive { .. })), "{failed:?}");
    assert_eq!(store.gc().expect("collected").blobs.len(), 1);
    assert_eq!((count(dir.path(), "blobs/sha256"), count(dir.path(), "tmp")), (0, 0));
}

#[test]
fn pulls_pins_and_collections_side_by_side_never_lose_what_is_held() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let images = [image(&[1, 2]), image(&[1, 3]), image(&[2, 3])];
    // So often at least, and until something was collected meanwhile: on a busy machine a collection may come seldom.
    const ROUNDS: usize = 30;
    let collected = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let pulling: Vec<_> = images
            .iter()
            .zip(["a", "b", "c"])
            .map(|(parts, name)| {
                let (store, collected) = (&store, &collected);
                scope.spawn(move || {
                    let enough = |round| round >= ROUNDS && collected.load(Ordering::Relaxed) > 0;
                    for _ in (0..).take_while(|round| !enough(*round)) {
                        let pulled = pull(store, parts);
                        store.pin(name, &[pulled.digest]).expect("a pulled image can be pinned");
                        drop(pulled);
                        assert!(store.image(&parts.digest()).expect("read").is_some(), "a pin was ignored");
                        store.unpin(name).expect("unpinned");
                    }
                    store.pin(name, &[pull(store, parts).digest]).expect("pinned");
                })
            })
            .collect();
        while pulling.iter().any(|thread| !thread.is_finished()) {
            collected.fetch_add(store.gc().expect("collected").blobs.len(), Ordering::Relaxed);
        }
    });
    assert_sound(&store);
    assert_eq!(store.images().expect("read").len(), 3);
    store.gc().expect("collected");
    assert_eq!(count(dir.path(), "blobs/sha256"), 3);
}
