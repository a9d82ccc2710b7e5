//! The stages in their order, each looked up before it is done.

use crate::base::{self, Base};
use crate::cache::{Shelf, cache_dir};
use crate::command::at;
use crate::{
    BuildError, Disk, Event, Inputs, Packages, Variant, again, archive, artifact, disk, recipe, root, sbom,
    uki,
};
use bennu_image_store::layer::Converted;
use bennu_image_store::sha256;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Raised whenever the same inputs would make another disk because this crate changed.
const BUILDER: &[u8] = b"6";

/// Builds the disk, or finds it in the cache.
///
/// The first build of a recipe installs packages from the network and takes about a minute, as the first after the archive has others
/// does; after a change of the
/// programs alone it takes seconds. Two builds at once wait for each other.
///
/// # Errors
/// [`BuildError`]; a build that failed leaves nothing that a later one would take for complete.
pub fn build(inputs: &Inputs<'_>) -> Result<Disk, BuildError> {
    let cache = cache_dir();
    let base = base(inputs)?;
    let key = disk_key(&base, inputs)?;
    let folder = stage(inputs, "disk", |size| {
        let (folder, cached) =
            Shelf::open(&cache, "disk")?.entry(&key, |folder| make_disk(&base, inputs, folder))?;
        *size = bytes_of(&folder.join(QCOW2))?;
        Ok((folder, cached))
    })?;
    let digest = folder.join(DIGEST);
    let root_digest = fs::read_to_string(&digest).map_err(at("read", &digest))?;
    Ok(Disk {
        qcow2: folder.join(QCOW2),
        key,
        packages: base.key()?,
        root_digest,
        version: recipe::VERSION.to_owned(),
    })
}

const QCOW2: &str = "bennu.qcow2";
const DIGEST: &str = "root-digest";

fn make_disk(base: &Base, inputs: &Inputs<'_>, folder: &Path) -> Result<(), BuildError> {
    let work = folder.join("work");
    fs::create_dir(&work).map_err(at("create", &work))?;
    let blob = work.join("root.erofs");
    let Parts { root, uki } = make_parts(base, inputs, &Variant::plain(), &blob, &work)?;
    let digest = root.blob.hex();
    stage(inputs, "  partitions", |size| {
        let qcow2 = folder.join(QCOW2);
        disk::build(base, inputs, &disk::Parts { uki: &uki, blob: &blob, digest: &digest }, &work, &qcow2)?;
        *size = bytes_of(&qcow2)?;
        Ok(((), false))
    })?;
    let path = folder.join(DIGEST);
    fs::write(&path, &digest).map_err(at("write", &path))?;
    fs::remove_dir_all(&work).map_err(at("remove", &work))
}

/// Bytes that a boot image may have, so that the ESP ([`crate::disk`]) has room for those of a dozen generations.
const MAX_UKI: u64 = 25 << 20;

/// What was made of an operating system.
struct Parts {
    root: Converted,
    uki: PathBuf,
}

/// Makes the root at `blob`, a new file, and the boot image in `work`.
fn make_parts(
    base: &Base,
    inputs: &Inputs<'_>,
    variant: &Variant,
    blob: &Path,
    work: &Path,
) -> Result<Parts, BuildError> {
    let root = stage(inputs, "  root", |size| {
        let root = root::convert(base, inputs, variant, blob, work)?;
        *size = bytes_of(blob)?;
        Ok((root, false))
    })?;
    let uki = stage(inputs, "  boot image", |size| {
        let uki = uki::build(base, inputs, &root.blob.hex(), variant, work)?;
        *size = bytes_of(&uki)?;
        Ok((uki, false))
    })?;
    let bytes = fs::metadata(&uki).map_err(at("look at", &uki))?.len();
    if bytes > MAX_UKI {
        return Err(BuildError::TooLarge { what: "boot image", bytes, most: MAX_UKI });
    }
    Ok(Parts { root, uki })
}

fn base(inputs: &Inputs<'_>) -> Result<Base, BuildError> {
    stage(inputs, "base", |size| {
        let shelf = Shelf::open(&cache_dir(), "base")?;
        let found = shelf.newest(&recipe::shelf_key())?.map(Base::at);
        let ask = |base: &Base| archive::is_as(&base.archive());
        let (base, cached) = match still_good(found, inputs, ask) {
            Some(base) => (base, true),
            None => (Base::at(shelf.put(base::install)?), false),
        };
        shelf.was_of_use(base.folder())?;
        *size = bytes_of(&base.root())?;
        Ok((base, cached))
    })
}

/// What was installed before, where it is what is wanted. `is_current` tells whether it is what would be installed now; where nobody can say,
/// it is good enough.
fn still_good<T>(
    found: Option<T>,
    inputs: &Inputs<'_>,
    is_current: impl FnOnce(&T) -> Result<bool, BuildError>,
) -> Option<T> {
    let asked = |base: &T| {
        is_current(base).unwrap_or_else(|error| {
            (inputs.progress)(Event::Unasked(&error));
            true
        })
    };
    found.filter(|base| inputs.packages == Packages::AsInstalled || asked(base))
}

/// An operating system as an image for registries, in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsImage {
    /// An OCI image layout with one image, which `skopeo copy oci:…` pushes. Never write to it.
    pub layout: PathBuf,
    /// SHA-256 digest of its manifest: what a host's manifest pins it by.
    pub digest: String,
    /// fs-verity SHA-256 digest of its root, lower-case hexadecimal.
    pub root_digest: String,
    /// As [`Disk::packages`].
    pub packages: String,
}

/// Makes an operating system as an image for registries, or finds it in the cache. It needs no loop device, no mount and no
/// privileges, and takes seconds once the packages are installed.
///
/// # Errors
/// As [`build`].
pub fn os_image(inputs: &Inputs<'_>, variant: &Variant) -> Result<OsImage, BuildError> {
    let base = base(inputs)?;
    let key = os_key(&base, inputs, variant)?;
    let folder = stage(inputs, "image", |size| {
        let shelf = Shelf::open(&cache_dir(), "os")?.keeping(OS_IMAGES);
        let (folder, cached) = shelf.entry(&key, |folder| make_os_image(&base, inputs, variant, folder))?;
        *size = 0;
        Ok((folder, cached))
    })?;
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(at("read", &path))
    };
    let (digest, root_digest) = (read(IMAGE_DIGEST)?, read(DIGEST)?);
    Ok(OsImage { digest, root_digest, packages: base.key()?, layout: folder.join("layout") })
}

const IMAGE_DIGEST: &str = "image-digest";
/// How many images of operating systems are kept: tests have a dozen of them.
const OS_IMAGES: usize = 16;

fn make_os_image(
    base: &Base,
    inputs: &Inputs<'_>,
    variant: &Variant,
    folder: &Path,
) -> Result<(), BuildError> {
    let work = folder.join("work");
    fs::create_dir(&work).map_err(at("create", &work))?;
    let (blob, boot_blob) = (work.join("root.erofs"), work.join("boot.erofs"));
    let Parts { root, uki } = make_parts(base, inputs, variant, &blob, &work)?;
    let boot = artifact::boot_layer(&uki, &boot_blob, &work)?;
    let layers = [
        artifact::Layer { blob: &blob, converted: &root },
        artifact::Layer { blob: &boot_blob, converted: &boot },
    ];
    let digest = artifact::write(&layers, variant, &folder.join("layout"))?;
    for (name, text) in [(DIGEST, root.blob.hex()), (IMAGE_DIGEST, digest)] {
        let path = folder.join(name);
        fs::write(&path, text).map_err(at("write", &path))?;
    }
    fs::remove_dir_all(&work).map_err(at("remove", &work))
}

/// Covers everything that the disk is made from, the base by how it is installed and the versions of its packages.
fn disk_key(base: &Base, inputs: &Inputs<'_>) -> Result<String, BuildError> {
    let parts =
        [os_key(base, inputs, &Variant::plain())?, again::source().to_owned(), disk::LOADER.to_owned()];
    Ok(recipe::key(parts.iter().map(String::as_bytes)))
}

/// Covers everything that an operating system is made from.
fn os_key(base: &Base, inputs: &Inputs<'_>, variant: &Variant) -> Result<String, BuildError> {
    let mut parts: Vec<Vec<u8>> = vec![
        BUILDER.to_vec(),
        base.key()?.into_bytes(),
        recipe::os_release(&variant.version).into_bytes(),
        uki::command_line("", variant).into_bytes(),
        sbom::lock()?,
    ];
    parts.extend(variant.parts()?);
    parts.extend(
        recipe::FILES
            .iter()
            .chain(&recipe::LINKS)
            .flat_map(|(path, text)| [path.as_bytes().to_vec(), text.as_bytes().to_vec()]),
    );
    if let Some(keys) = inputs.keys.secure_boot {
        parts.extend(keys.parts()?);
    }
    if let Some(measured) = inputs.keys.measured {
        parts.extend(measured.parts()?);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Whether what was installed before is used again, and whether it was told that the archive could not be asked.
    fn used(packages: Packages, is_current: Result<bool, BuildError>) -> (bool, bool) {
        let told = Cell::new(false);
        let progress = |event: Event<'_>| told.set(told.get() | matches!(event, Event::Unasked(_)));
        let none = Path::new("/none");
        let keys = crate::Keys::default();
        let inputs = Inputs { hostd: none, hostctl: none, init: none, keys, packages, progress: &progress };
        let used = still_good(Some(()), &inputs, |()| is_current).is_some();
        (used, told.get())
    }

    #[test]
    fn what_was_installed_is_installed_anew_once_the_archive_has_something_else() {
        let unreachable = || BuildError::Incomplete { what: "network".into() };
        assert_eq!(used(Packages::Current, Ok(true)), (true, false));
        assert_eq!(used(Packages::Current, Ok(false)), (false, false));
        assert_eq!(used(Packages::Current, Err(unreachable())), (true, true), "and it is told");
        assert_eq!(used(Packages::AsInstalled, Ok(false)), (true, false), "nobody asks");
    }
}
