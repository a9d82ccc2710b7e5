//! What becomes of bits that flip on the disk: in blobs, and in what is known about them.

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions};
use bennu_image_store::{
    Damage, Finding, Layer, OpenError, Pass, PullError, Repair, Store, StoreError, Watch, leaves,
};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::Digest;
use common::Tar;
use common::registry::Parts;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    (dir, store)
}

fn import(store: &Store, tar: Tar) -> Layer {
    store.import_layer(tar.end().as_slice(), Default::default()).expect("sound")
}

/// Blocks that no other file has.
fn content(seed: u8, blocks: usize) -> Vec<u8> {
    (0..blocks * 4096).map(|i| (i / 4096 + i % 251) as u8 ^ seed).collect()
}

/// Flips bits of a file. With fs-verity it can't be written to, so another one takes its place.
fn flip(path: &Path, bits: &[usize]) {
    let mut bytes = fs::read(path).expect("read");
    bits.iter().for_each(|bit| bytes[bit / 8] ^= 1 << (bit % 8));
    fs::remove_file(path).and_then(|()| fs::write(path, bytes)).expect("written");
}

fn client() -> Client {
    let mut options = ClientOptions::default();
    options.first_pause = std::time::Duration::from_millis(1);
    Client::new(options).expect("a client")
}

#[tokio::test]
async fn t20_a_flipped_bit_in_each_of_200_blobs_is_found_and_healed_when_a_source_is_up() {
    let (_dir, store) = store();
    let tars: Vec<_> =
        (0..200_u32).map(|i| Tar::new().file(&format!("f{i}"), i.to_le_bytes().repeat(4000)).end()).collect();
    let parts = Parts::new("amd64", &tars);
    let server = parts.clone().serve();
    let image = server.image(parts.digest());
    let platform = Platform::linux("amd64");
    let pulled = store.pull(&client(), &image, &platform, &()).await.expect("pulled");
    let paths: Vec<_> = pulled.layers.iter().map(|layer| store.blob_path(&layer.blob)).collect();
    let sound: Vec<_> = paths.iter().map(|path| fs::read(path).expect("read")).collect();
    for (i, (path, bytes)) in paths.iter().zip(&sound).enumerate() {
        flip(path, &[i * 7919 * 64 % (bytes.len() * 8)]);
    }
    let bad = store.scrub().expect("read");
    assert_eq!(bad.len(), 200);

    let mut mended = 0;
    for bad in &bad {
        match store.repair(&bad.blob).expect("repaired") {
            Repair::Mended { .. } => mended += 1,
            Repair::Quarantined { images } => assert_eq!(images, [image.digest]),
            other => panic!("{other:?}"),
        }
    }
    let aside = store.quarantined().expect("listed").len();
    assert!(aside > 0 && mended > 0 && aside + mended == 200, "{aside} {mended}");
    assert!(store.scrub().expect("read").is_empty(), "a bad blob is still under its name");
    assert!(store.image(&image.digest).expect("read").is_none(), "an image without all its blobs is served");
    assert!(store.verify().expect("looked at").iter().any(|f| matches!(f, Finding::Record { .. })));

    // Nobody there to ask: a clear error, and what was good stays.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = listener.local_addr().expect("bound");
    drop(listener);
    let nowhere: UnpinnedRef = format!("{nobody}/web@{}", image.digest).parse().expect("a reference");
    let nowhere = nowhere.pinned().expect("it has a digest");
    let error = store.pull(&client(), &nowhere, &platform, &()).await.map(drop).expect_err("nobody answers");
    assert!(matches!(error, PullError::Network { .. }), "{error}");
    assert_eq!(store.quarantined().expect("listed").len(), aside);

    store.pull(&client(), &image, &platform, &()).await.expect("pulled again");
    assert!(store.scrub().expect("read").is_empty() && store.verify().expect("looked at").is_empty());
    for (path, sound) in paths.iter().zip(&sound) {
        assert_eq!(&fs::read(path).expect("read"), sound);
    }
}

#[test]
fn t20_a_flipped_bit_in_any_byte_of_a_record_is_found_and_what_it_says_is_not_believed() {
    let (dir, store) = store();
    let layer = import(&store, Tar::new().file("a", "b"));
    store.pin("p", &[layer.blob]).expect("pinned");
    let record = dir.path().join("layers/sha256").join(layer.diff_id.hex());
    for (path, is_pin) in [(dir.path().join("pins/p"), true), (record, false)] {
        let sound = fs::read(&path).expect("read");
        for byte in 0..sound.len() {
            flip(&path, &[byte * 8 + byte % 8]);
            let findings = store.verify().expect("looked at");
            let named = |f: &Finding| matches!(f, Finding::Record { path: named, .. } if *named == path);
            assert!(findings.iter().any(named), "byte {byte} of {}: {findings:?}", path.display());
            if is_pin {
                assert!(matches!(store.gc(), Err(StoreError::Damaged { .. })), "byte {byte}");
            } else {
                assert_eq!(store.layer(&layer.diff_id).expect("read"), None, "byte {byte}");
            }
            fs::write(&path, &sound).expect("written");
        }
    }
    assert!(store.verify().expect("looked at").is_empty());
    let format = dir.path().join("format.json");
    let sound = fs::read(&format).expect("read");
    for bit in 0..sound.len() * 8 {
        flip(&format, &[bit]);
        let opened = Store::open(dir.path(), common::confined()).map(drop);
        assert!(
            matches!(opened, Err(OpenError::Format { .. } | OpenError::Incompatible { .. })),
            "bit {bit}: {opened:?}"
        );
        fs::write(&format, &sound).expect("written");
    }
}

#[tokio::test]
async fn t20_a_flipped_bit_in_any_byte_of_the_record_of_an_image_is_found_and_healed_by_a_pull() {
    let (dir, store) = store();
    let parts = Parts::new("amd64", &[Tar::new().file("a", "b").end()]);
    let server = parts.clone().serve();
    let image = server.image(parts.digest());
    store.pull(&client(), &image, &Platform::linux("amd64"), &()).await.expect("pulled");
    let path = dir.path().join("images/sha256").join(image.digest.hex());
    let sound = fs::read(&path).expect("read");
    for byte in 0..sound.len() {
        flip(&path, &[byte * 8 + byte % 8]);
        assert!(matches!(store.image(&image.digest), Err(StoreError::Damaged { .. })), "byte {byte}");
        fs::write(&path, &sound).expect("written");
    }
    flip(&path, &[1000]);
    store.pull(&client(), &image, &Platform::linux("amd64"), &()).await.expect("pulled again");
    assert_eq!(fs::read(&path).expect("read"), sound);
}

#[test]
fn bad_blocks_are_taken_from_another_blob_that_has_them() {
    let (dir, store) = store();
    let shared = content(1, 40);
    let old = import(&store, Tar::new().file("data", &shared).file("version", "1"));
    let new = import(&store, Tar::new().file("data", &shared).file("version", "2"));
    assert_ne!(old.blob, new.blob);
    let sound = fs::read(&new.path).expect("read");
    let at = sound.windows(4096).position(|w| w == &shared[4096 * 20..4096 * 21]).expect("there");
    flip(&new.path, &[at * 8 + 3, (at + 4096) * 8 + 4]);
    let bad = store.scrub().expect("read");
    let block = at as u64 / 4096;
    assert_eq!((bad.len(), &bad[0].damage), (1, &Damage::Blocks { blocks: vec![block, block + 1] }));
    assert_eq!(store.repair(&new.blob).expect("repaired"), Repair::Mended { blocks: 2 });
    assert_eq!(fs::read(&new.path).expect("read"), sound);
    assert!(store.quarantined().expect("listed").is_empty());
    assert_eq!(fs::read_dir(dir.path().join("tmp")).expect("listed").count(), 0);
    assert_eq!(store.repair(&new.blob).expect("looked at"), Repair::Sound);

    // The other blob has lost the same block, so there is nothing to take it from.
    let at_old =
        fs::read(&old.path).expect("read").windows(4096).position(|w| w == &shared[4096 * 20..4096 * 21]);
    flip(&old.path, &[at_old.expect("there") * 8 + 3]);
    flip(&new.path, &[at * 8 + 3]);
    assert_eq!(store.repair(&new.blob).expect("put aside"), Repair::Quarantined { images: Vec::new() });
    assert_eq!(store.layer(&new.diff_id).expect("read"), None, "a blob that is put aside is served");
    assert!(fs::read_to_string(dir.path().join("format.json")).expect("read").contains("\"quarantine\""));
    // The next import brings it back, and then a collection removes the bad one.
    store
        .pin("p", &[import(&store, Tar::new().file("data", &shared).file("version", "2")).blob])
        .expect("pinned");
    assert_eq!(fs::read(&new.path).expect("read"), sound);
    assert_eq!(store.gc().expect("collected").quarantined, [new.blob]);
    assert!(store.quarantined().expect("listed").is_empty() && new.path.exists());
}

#[test]
fn bad_leaves_are_made_from_the_image_and_what_is_lost_is_put_aside() {
    let (_dir, store) = store();
    let layer = import(&store, Tar::new().file("a", content(2, 9)));
    let sound = fs::read(&layer.path).expect("read");
    let extent = leaves::Extent::of_blob(layer.size).expect("a blob");
    flip(&layer.path, &[extent.image_bytes() as usize * 8 + 77]);
    assert_eq!(store.scrub().expect("read")[0].damage, Damage::Leaves);
    assert_eq!(store.repair(&layer.blob).expect("repaired"), Repair::Mended { blocks: extent.leaves });
    assert_eq!(fs::read(&layer.path).expect("read"), sound);
    flip(&layer.path, &[0, extent.image_bytes() as usize * 8]);
    assert_eq!(store.scrub().expect("read")[0].damage, Damage::Lost);
    assert_eq!(store.repair(&layer.blob).expect("put aside"), Repair::Quarantined { images: Vec::new() });
    assert!(store.scrub().expect("read").is_empty());
}

/// Stops after some blobs.
struct Stopping {
    after: usize,
    passes: Vec<Pass>,
}

impl Watch for Stopping {
    fn pace(&mut self, _: usize) -> ControlFlow<()> {
        if self.passes.len() == self.after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn checked(&mut self, pass: Pass) {
        self.passes.push(pass);
    }
}

#[test]
fn a_blob_that_nothing_could_bring_back_is_not_put_aside() {
    let (_dir, store) = store();
    let root = import(&store, Tar::new().file("a", content(1, 3)));
    store.pin("os", &[root.blob]).expect("pinned");
    flip(&root.path, &[5]);
    assert_eq!(store.repair(&root.blob).expect("looked at"), Repair::Kept);
    assert!(root.path.exists() && store.quarantined().expect("listed").is_empty());
    store.unpin("os").expect("unpinned");
    assert_eq!(store.repair(&root.blob).expect("put aside"), Repair::Quarantined { images: Vec::new() });
}

/// Begins another scrub in the middle of one.
struct Meddling<'a>(&'a Store, Vec<Result<bool, StoreError>>);

impl Watch for Meddling<'_> {
    fn pace(&mut self, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn checked(&mut self, _: Pass) {
        self.1.push(self.0.scrub_on(false, &mut ()).map(|scrubbed| scrubbed.complete));
    }
}

#[test]
fn of_two_scrubs_at_once_one_waits_its_turn_and_the_cursor_is_not_shared() {
    let (dir, store) = store();
    for i in 0..3 {
        import(&store, Tar::new().file("a", content(i, 3)));
    }
    let mut watch = Meddling(&store, Vec::new());
    let scrubbed = store.scrub_on(false, &mut watch).expect("read");
    assert!(scrubbed.complete && !dir.path().join("scrub.json").exists());
    assert_eq!(watch.1.len(), 3);
    assert!(watch.1.iter().all(|other| matches!(other, Err(StoreError::Busy))), "{:?}", watch.1);
    assert!(store.scrub_on(false, &mut ()).expect("the first is done").complete);
}

#[test]
fn a_scrub_that_was_stopped_goes_on_and_forgets_nothing_that_it_found() {
    let (dir, store) = store();
    let mut blobs: Vec<Digest> =
        (0..6).map(|i| import(&store, Tar::new().file("a", content(i, 3))).blob).collect();
    blobs.sort();
    flip(&store.blob_path(&blobs[1]), &[5]);
    let scrub = |restart: bool, after: usize| {
        // As after a new start of the program.
        let store = Store::open(dir.path(), common::confined()).expect("a store");
        let mut watch = Stopping { after, passes: Vec::new() };
        let scrubbed = store.scrub_on(restart, &mut watch).expect("read");
        (scrubbed, watch.passes.len())
    };
    let bad =
        |scrubbed: &bennu_image_store::Scrubbed| scrubbed.bad.iter().map(|b| b.blob).collect::<Vec<_>>();
    let (first, read) = scrub(false, 3);
    assert_eq!((first.complete, first.resumed, read, bad(&first)), (false, false, 3, vec![blobs[1]]));
    assert!(dir.path().join("scrub.json").exists());
    // The bad one again, and the three that are left.
    let (second, read) = scrub(false, 99);
    assert_eq!((second.complete, second.resumed, read, bad(&second)), (true, true, 4, vec![blobs[1]]));
    assert_eq!(second.pass.blobs, 6);
    assert!(!dir.path().join("scrub.json").exists());

    scrub(false, 3);
    assert_eq!(scrub(true, 99).1, 6, "it did not begin anew");
    // A cursor in which a bit has changed is no reason to leave blobs out.
    scrub(false, 3);
    let cursor = dir.path().join("scrub.json");
    let sound = fs::read(&cursor).expect("read");
    for byte in 0..sound.len() {
        fs::write(&cursor, &sound).expect("written");
        flip(&cursor, &[byte * 8 + byte % 8]);
        assert_eq!(scrub(false, 99).1, 6, "byte {byte}");
    }
}
