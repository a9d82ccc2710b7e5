//! The image of an OS: two layers, of which the first is the root, and the second holds its boot image.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::path::Path;

use bennu_image_store::erofs::{FileType, Image as Erofs, Inode, ReadError};
use bennu_image_store::{Image, Store, StoreError};
use bennu_manifests::model::{Digest, Runtime};

use super::{measured, secure_boot};

/// Where the boot image (UEFI program: kernel, initrd and command line) is in the second layer.
const BOOT_IMAGE: &str = "boot/bennu.efi";
/// The most bytes of a boot image.
const MAX_BOOT_IMAGE: u64 = 256 << 20;

/// Why an image is none of an OS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnOs {
    /// It is not there.
    #[error("image {0} is not in the store")]
    Missing(Digest),
    /// It has another shape.
    #[error("image {0} is no image of an OS: it has {1} layers instead of a root and a boot image")]
    Layers(Digest, usize),
    /// Its second layer has no boot image.
    #[error("image {0} is no image of an OS: there is no /boot/bennu.efi of at most {MAX_BOOT_IMAGE} bytes")]
    NoBootImage(Digest),
    /// It does not have the program that the manifest names.
    #[error("image {image} has no container runtime {runtime}: there is no /{}", runtime.program())]
    NoRuntime {
        /// The image.
        image: Digest,
        /// The runtime.
        runtime: Runtime,
    },
    /// The firmware starts only what is signed by whom it trusts.
    #[error(
        "image {0} has a boot image that is not signed by a certificate which this machine's firmware trusts, and Secure Boot is \
         on: build it with the key whose certificate is in the firmware's `db`"
    )]
    NotSigned(Digest),
    /// The TPM would not open the state for it.
    #[error(
        "image {0} has a boot image without measurements that are signed by the key of the boot image that runs, and the state of this \
         host is sealed: build it with `--measured` and that key"
    )]
    NotMeasured(Digest),
    /// The store can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer can't be read.
    #[error("read what is in image {image}")]
    Read {
        /// The image.
        image: Digest,
        /// The cause.
        source: ReadError,
    },
}

/// An OS that is in the store.
#[derive(Debug, Clone)]
pub struct OsImage {
    /// The image.
    pub image: Digest,
    /// fs-verity digest of its root, which its boot image's command line names.
    pub root: Digest,
    boot: Digest,
}

impl OsImage {
    /// The OS of an image that is in the store.
    ///
    /// # Errors
    /// [`NotAnOs`]
    pub fn of(store: &Store, digest: &Digest) -> Result<Self, NotAnOs> {
        let image: Image = store.image(digest)?.ok_or(NotAnOs::Missing(*digest))?;
        let [root, boot] = image.layers.as_slice() else {
            return Err(NotAnOs::Layers(*digest, image.layers.len()));
        };
        let os = Self { image: *digest, root: root.blob, boot: boot.blob };
        os.boot_image(store).map(|_| os)
    }

    /// Its boot image, to be read from the beginning. The kernel checks each block that is read.
    ///
    /// # Errors
    /// [`NotAnOs`]
    pub fn boot_image(&self, store: &Store) -> Result<BootImage, NotAnOs> {
        let read = |source| NotAnOs::Read { image: self.image, source };
        let file = File::open(store.blob_path(&self.boot)).map_err(|error| read(error.into()))?;
        let erofs = Erofs::open(file).map_err(read)?;
        let found = find(&erofs, BOOT_IMAGE).map_err(read)?;
        let inode =
            found.filter(|inode| inode.size <= MAX_BOOT_IMAGE).ok_or(NotAnOs::NoBootImage(self.image))?;
        Ok(BootImage { erofs, inode, offset: 0 })
    }

    /// Makes sure that the firmware, whose variables are shown at `variables`, can be expected to start it.
    ///
    /// # Errors
    /// [`NotAnOs::NotSigned`], or where its boot image can't be read.
    pub(super) fn require_signature(&self, store: &Store, variables: &Path) -> Result<(), NotAnOs> {
        let mut boot = self.boot_image(store)?;
        let starts = secure_boot::would_start(variables, &mut boot)
            .map_err(|error| NotAnOs::Read { image: self.image, source: error.into() })?;
        if starts { Ok(()) } else { Err(NotAnOs::NotSigned(self.image)) }
    }

    /// Makes sure that the TPM can be expected to open the state for it, which is sealed to whoever has the public key at `key`.
    ///
    /// # Errors
    /// [`NotAnOs::NotMeasured`], or where its boot image or the key can't be read.
    pub(super) fn require_measurements(&self, store: &Store, key: &Path) -> Result<(), NotAnOs> {
        let mut boot = self.boot_image(store)?;
        let measured = measured::is_signed_for(&mut boot, key)
            .map_err(|error| NotAnOs::Read { image: self.image, source: error.into() })?;
        if measured { Ok(()) } else { Err(NotAnOs::NotMeasured(self.image)) }
    }

    /// Makes sure that it has the program that makes the containers of a manifest.
    ///
    /// # Errors
    /// [`NotAnOs::NoRuntime`], or where its root can't be read.
    pub fn require_runtime(&self, store: &Store, runtime: Runtime) -> Result<(), NotAnOs> {
        let read = |source| NotAnOs::Read { image: self.image, source };
        let file = File::open(store.blob_path(&self.root)).map_err(|error| read(error.into()))?;
        let erofs = Erofs::open(file).map_err(read)?;
        let found = find(&erofs, runtime.program()).map_err(read)?;
        found.map(drop).ok_or(NotAnOs::NoRuntime { image: self.image, runtime })
    }
}

/// The regular file at a path without links; `None` where there is none.
fn find(erofs: &Erofs, path: &str) -> Result<Option<Inode>, ReadError> {
    let mut inode = erofs.root()?;
    for name in path.split('/') {
        let entries = match inode.file_type() {
            FileType::Directory => erofs.entries(&inode)?,
            _ => return Ok(None),
        };
        let Some((_, nid)) = entries.into_iter().find(|(entry, _)| entry == name.as_bytes()) else {
            return Ok(None);
        };
        inode = erofs.inode(nid)?;
    }
    Ok(Some(inode).filter(|inode| inode.file_type() == FileType::File))
}

/// A boot image that is being read.
#[derive(Debug)]
pub struct BootImage {
    erofs: Erofs,
    inode: Inode,
    offset: u64,
}

impl BootImage {
    /// How large it is.
    pub(super) fn bytes(&self) -> u64 {
        self.inode.size
    }
}

impl io::Read for BootImage {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.erofs.read(&self.inode, self.offset, buf).map_err(io::Error::other)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl io::Seek for BootImage {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let offset = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(distance) => self.inode.size.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.offset.checked_add_signed(distance),
        };
        self.offset = offset.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

#[cfg(test)]
mod tests {
    use bennu_image_store::layer::{self, Below};
    use bennu_image_store::tar::Limits;

    use super::*;

    #[test]
    fn a_program_is_found_where_it_is_a_file_at_its_path_and_nowhere_else() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |kind, path: &str, data: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(data.len() as u64);
            match kind {
                tar::EntryType::Symlink => archive.append_link(&mut header, path, "crun").unwrap(),
                _ => archive.append_data(&mut header, path, data).unwrap(),
            }
        };
        add(tar::EntryType::Regular, "usr/bin/crun", b"a program");
        add(tar::EntryType::Symlink, "usr/bin/other", b"");
        add(tar::EntryType::Directory, "usr/sbin/runc", b"");
        let archive = archive.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root.erofs");
        let file = File::create_new(&path).unwrap();
        layer::convert(archive.as_slice(), file, dir.path(), Limits::default(), Below::Nothing).unwrap();
        let root = Erofs::open(File::open(&path).unwrap()).unwrap();
        let found = |path| find(&root, path).unwrap().is_some();
        assert!(found(Runtime::Crun.program()));
        assert!(!found(Runtime::Runc.program()), "a directory is no program");
        for none in ["usr/bin/other", "usr/bin/crun/x", "usr/bin/none", "none/crun"] {
            assert!(!found(none), "{none}");
        }
    }
}
