//! F3: a disk that is full.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use bennu_image_store::{Confinement, PullError, Room, Store};
use crash_tests::disk::{FILE_SYSTEMS, Place, can_record};
use crash_tests::scenario::{Failure, Sample};

/// Writes until nothing more fits.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    for piece in [1 << 20, 4096, 512] {
        let full = loop {
            match file.write_all(&vec![0xa5; piece]) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        if full.kind() != io::ErrorKind::StorageFull {
            return Err(full);
        }
    }
    // What was promised space gets it or fails here; either way the disk is full.
    let _ = file.sync_all();
    Ok(())
}

fn pull_collect_and_pull_again(mounted: &Path) -> Result<(), Failure> {
    let [held, wanted] = Sample::all();
    let store = Store::open(&mounted.join("store"), Confinement::None)?;
    held.pull(&store)?;
    store.pin("held", &[held.digest()])?;
    let filler = mounted.join("filler");
    fill(&filler)?;
    let error = wanted.pull(&store).expect_err("there was room for an image on a full disk");
    assert!(matches!(error, PullError::NoRoom { .. }), "{error:?}");
    assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0, "something is left in tmp/");
    assert!(store.image(&held.digest())?.is_some() && store.scrub()?.is_empty(), "what was there is not");
    store.gc()?;
    assert!(store.image(&held.digest())?.is_some(), "a collection took what is pinned");
    fs::remove_file(filler)?;
    wanted.pull(&store)?;
    assert!(store.verify()?.is_empty() && store.scrub()?.is_empty());
    Ok(())
}

/// Leaves room for one look and half the reserve beyond it.
fn fill_but_for_a_little(mounted: &Path) -> Result<u64, Failure> {
    let room = Room::at(mounted)?;
    let left = (16 << 20) + room.reserve() / 2;
    let filler = File::create(mounted.join("filler"))?;
    nix::fcntl::posix_fallocate(&filler, 0, i64::try_from(room.available - left)?)?;
    filler.sync_all()?;
    Ok(Room::at(mounted)?.available)
}

fn swell_beyond_the_reserve(mounted: &Path) -> Result<(), Failure> {
    let store = Store::open(&mounted.join("store"), Confinement::None)?;
    let [held, _] = Sample::all();
    held.pull(&store)?;
    store.pin("held", &[held.digest()])?;
    let before = fill_but_for_a_little(mounted)?;
    let wanted = Sample::swelling(100 << 20);
    let error = wanted.pull(&store).expect_err("there was room for an image on a full disk");
    let PullError::DiskFull { source, .. } = error else { return Err(format!("{error:?}").into()) };
    assert!(source.to_string().contains("that the store leaves alone"), "the disk was filled: {source}");
    assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0, "something is left in tmp/");
    nix::unistd::sync();
    let after = Room::at(mounted)?.available;
    assert!(after + (64 << 10) >= before, "{before} bytes were free, and {after} are now");
    assert!(store.image(&held.digest())?.is_some() && store.verify()?.is_empty());
    assert!(store.gc()?.is_empty(), "something was left that nothing holds");
    Ok(())
}

#[test]
fn f3_a_layer_that_swells_is_stopped_before_the_disk_is_full() {
    if !can_record(&["mount", "mkfs.ext4"]) {
        return;
    }
    let place = Place::new().expect("a mount namespace");
    for file_system in FILE_SYSTEMS.iter().filter(|file_system| file_system.kind == "ext4") {
        let disk = place.make(file_system).expect("a file system");
        place
            .mounted_at(&disk, file_system, swell_beyond_the_reserve)
            .unwrap_or_else(|error| panic!("{}: {error}", file_system.name));
    }
}

#[test]
fn f3_a_pull_onto_a_full_disk_fails_cleanly_and_a_collection_works_there() {
    if !can_record(&["mount", "mkfs.ext4", "mkfs.btrfs"]) {
        return;
    }
    let place = Place::new().expect("a mount namespace");
    for file_system in &FILE_SYSTEMS {
        let disk = place.make(file_system).expect("a file system");
        place
            .mounted_at(&disk, file_system, pull_collect_and_pull_again)
            .unwrap_or_else(|error| panic!("{}: {error}", file_system.name));
    }
}
