//! The stages in their order, each looked up before it is done.

use crate::base::{self, Base};
use crate::cache::{Shelf, cache_dir};
use crate::command::at;
use crate::{BuildError, Disk, Event, Inputs, disk, recipe, root, uki};
use bennu_image_store::sha256;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Raised whenever the same inputs would make another disk because this crate changed.
const BUILDER: &[u8] = b"1";

/// Builds the disk, or finds it in the cache.
///
/// The first build of a recipe installs packages from the network and takes about a minute; after a change of the
/// programs alone it takes seconds. Two builds at once wait for each other.
///
/// # Errors
/// [`BuildError`]; a build that failed leaves nothing that a later one would take for complete.
pub fn build(inputs: &Inputs<'_>) -> Result<Disk, BuildError> {
    let cache = cache_dir();
    let base = stage(inputs, "base", |size| {
        let (folder, cached) = Shelf::open(&cache, "base")?.entry(&recipe::base_key(), base::install)?;
        *size = bytes_of(&folder.join("root.tar"))?;
        Ok((Base::at(folder), cached))
    })?;
    let key = disk_key(inputs)?;
    let folder = stage(inputs, "disk", |size| {
        let (folder, cached) =
            Shelf::open(&cache, "disk")?.entry(&key, |folder| make_disk(&base, inputs, folder))?;
        *size = bytes_of(&folder.join(QCOW2))?;
        Ok((folder, cached))
    })?;
    let digest = folder.join(DIGEST);
    let root_digest = fs::read_to_string(&digest).map_err(at("read", &digest))?;
    Ok(Disk { qcow2: folder.join(QCOW2), key, root_digest, version: recipe::VERSION.to_owned() })
}

const QCOW2: &str = "bennu.qcow2";
const DIGEST: &str = "root-digest";

fn make_disk(base: &Base, inputs: &Inputs<'_>, folder: &Path) -> Result<(), BuildError> {
    let work = folder.join("work");
    fs::create_dir(&work).map_err(at("create", &work))?;
    let blob = work.join("root.erofs");
    let digest = stage(inputs, "  root", |size| {
        let digest = root::convert(base, inputs, &blob, &work)?.digest;
        *size = bytes_of(&blob)?;
        Ok((digest, false))
    })?;
    let uki = stage(inputs, "  boot image", |size| {
        let uki = uki::build(base, inputs.init, &digest, &work)?;
        *size = bytes_of(&uki)?;
        Ok((uki, false))
    })?;
    stage(inputs, "  partitions", |size| {
        let qcow2 = folder.join(QCOW2);
        disk::build(base, &uki, &blob, &digest, &work, &qcow2)?;
        *size = bytes_of(&qcow2)?;
        Ok(((), false))
    })?;
    let path = folder.join(DIGEST);
    fs::write(&path, &digest).map_err(at("write", &path))?;
    fs::remove_dir_all(&work).map_err(at("remove", &work))
}

/// Covers everything that the disk is made from, the base by its recipe.
fn disk_key(inputs: &Inputs<'_>) -> Result<String, BuildError> {
    let mut parts: Vec<Vec<u8>> = vec![
        BUILDER.to_vec(),
        recipe::base_key().into_bytes(),
        recipe::os_release().into_bytes(),
        uki::command_line("").into_bytes(),
    ];
    parts.extend(
        recipe::FILES
            .iter()
            .chain(&recipe::LINKS)
            .flat_map(|(path, text)| [path.as_bytes().to_vec(), text.as_bytes().to_vec()]),
    );
    for program in [inputs.hostd, inputs.hostctl, inputs.init] {
        let bytes = fs::read(program).map_err(at("read", program))?;
        parts.push(sha256::digest(&bytes).as_bytes().to_vec());
    }
    Ok(recipe::key(parts.iter().map(Vec::as_slice)))
}

/// Tells of a stage as it begins and ends. The stage says how many bytes it made, and whether they were there already.
fn stage<T>(
    inputs: &Inputs<'_>,
    name: &str,
    work: impl FnOnce(&mut u64) -> Result<(T, bool), BuildError>,
) -> Result<T, BuildError> {
    let start = Instant::now();
    (inputs.progress)(Event::Started(name));
    let mut bytes = 0;
    let (made, cached) = work(&mut bytes)?;
    (inputs.progress)(Event::Finished { stage: name, bytes, took: start.elapsed(), cached });
    Ok(made)
}

/// Bytes that a file takes on disk, holes not counted.
fn bytes_of(path: &Path) -> Result<u64, BuildError> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path).map_err(at("look at", path))?.blocks() * 512)
}
