//! Parsers that are nobody's business outside of this crate, for the fuzzers of its repository. Nothing here is stable.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use bennu_manifests::model::Digest;

use crate::erofs::records::{self, Build};
use crate::erofs::{Image, Sink};
use crate::leaves::{self, Extent};
use crate::native::{Layout, Native, Patch, apply, parse_index, patch as format};
use crate::record::{self, ImageRecord, LayerRecord};
use crate::registry::document::Descriptor;
use crate::registry::{read_challenge, read_token};
use crate::sealed;
use crate::verity::{self, BLOCK};

/// Reads a header `WWW-Authenticate`, and the answer of a token server.
pub fn authentication(header: &str, body: &[u8]) {
    if let Some(url) = read_challenge(header) {
        assert!(url.len() <= 3 * header.len() + 128, "an address of {} bytes", url.len());
    }
    if let Some(token) = read_token(body) {
        assert!(token.bytes().all(|b| b.is_ascii_graphic()), "a token that could end a header");
    }
}

/// Reads a record: whether it is what was written, and, whatever it is, what it says. Gives whether any kind of record can be read.
pub fn record(bytes: &[u8]) -> bool {
    let layer: Result<LayerRecord, _> = serde_json::from_slice(bytes);
    let pin = crate::pins::read(bytes);
    let image: Result<ImageRecord, _> = serde_json::from_slice(bytes);
    if let Ok(image) = &image {
        let index = image.index.as_ref().unwrap_or(&image.manifest);
        // Only the digest could keep a record from being read that someone made on purpose.
        if let Ok(image) = record::Image::assemble(&Digest::of(index.as_bytes()), image) {
            assert_eq!(image.layers.len(), image.config.rootfs().diff_ids().len());
        }
    }
    if let (Ok(layer), Ok(())) = (&layer, sealed::check(bytes)) {
        assert_eq!(sealed::encode(layer), bytes, "a record that holds has one form");
    }
    layer.is_ok() || pin.is_ok() || image.is_ok()
}

/// Reads the index of a native layer: of so many blocks, of which so many are data, and bytes, with this table and these details.
pub fn native_index(blocks: u64, data: u64, size: u64, table: &[u8], details: &[u8]) -> bool {
    parse_index(blocks, data, size, table, details)
}

/// The records of what may be a blob, as far as they can be read.
pub fn records(blob: &File) -> Vec<u8> {
    let mut all = Vec::new();
    let mut read = |image: &Image| {
        records::read(image, |record| {
            all.extend_from_slice(record);
            Ok(())
        })
    };
    let blob = blob.try_clone().expect("a descriptor");
    let _as_far_as_they_go = Image::open(blob).and_then(|image| read(&image));
    all
}

/// Makes what records make, in `folder` where it does not fit into memory. Gives its bytes; `None` where they are refused.
pub fn make(records: &[u8], folder: &Path) -> Option<u64> {
    struct Counted(u64);
    impl Sink for Counted {
        fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            self.0 += bytes.len() as u64;
            Ok(())
        }
        fn written(&self) -> u64 {
            self.0
        }
    }
    let (mut build, mut made) = (Build::new(folder), Counted(0));
    records.chunks(1000).try_for_each(|piece| build.push(piece)).ok()?;
    build.finish(&mut made).ok()?;
    assert!(made.0.is_multiple_of(BLOCK as u64) && made.0 > 0, "{} bytes are no blocks", made.0);
    Some(made.0)
}

/// Applies a patch to a blob of 16 blocks, each filled with its number, that is to make the same blob again; `folder` is for files.
/// Gives whether it does.
pub fn patch(bytes: &[u8], folder: &Path) -> bool {
    const MEMORY: u64 = 1 << 20;
    let image: Vec<u8> = (0..16).flat_map(|number| [number; BLOCK]).collect();
    let extent = Extent::of_image((image.len() / BLOCK) as u64);
    let leaves: Vec<Digest> = image.chunks(BLOCK).map(leaves::leaf).collect();
    let blob = [image, leaves::encode(&leaves)].concat();
    let (name, _) = verity::digest(blob.as_slice()).expect("in memory");
    let file = |name: &str| -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        options.open(folder.join(name)).expect("a file")
    };
    let (mut old, new) = (file("old"), file("new"));
    old.write_all(&blob).expect("written");
    let layout = Layout::new(extent.image, extent.image, 16, 1 << 20).expect("room for its index");
    let native = Native { blob: name, extent, layout };
    let layer = Descriptor {
        media_type: format::MEDIA_TYPE.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        platform: None,
        annotations: Default::default(),
    };
    let described = Patch { layer, from: name, blob: name, memory: MEMORY };
    let applied = apply(&native, &described, &old, bytes, &new, folder);
    assert!(new.metadata().expect("there").len() <= extent.bytes(), "more was written than the blob has");
    if applied.is_ok() {
        assert!(std::fs::read(folder.join("new")).expect("read") == blob, "another blob");
    }
    applied.is_ok()
}
