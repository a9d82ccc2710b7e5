//! Parsers that are nobody's business outside of this crate, for the fuzzers of its repository. Nothing here is stable.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use bennu_manifests::model::Digest;

use crate::leaves::{self, Extent};
use crate::native::{Layout, Native, Patch, apply, parse_index, patch as format};
use crate::record::{Image, ImageRecord, LayerRecord};
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
        if let Ok(image) = Image::assemble(&Digest::of(index.as_bytes()), image) {
            assert_eq!(image.layers.len(), image.config.rootfs().diff_ids().len());
        }
    }
    if let (Ok(layer), Ok(())) = (&layer, sealed::check(bytes)) {
        assert_eq!(sealed::encode(layer), bytes, "a record that holds has one form");
    }
    layer.is_ok() || pin.is_ok() || image.is_ok()
}

/// Reads the index of a native layer: of so many blocks and bytes, with this table and these details.
pub fn native_index(blocks: u64, size: u64, table: &[u8], details: &[u8]) -> bool {
    parse_index(blocks, size, table, details)
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
    let layout = Layout::new(extent.image, 1 << 20).expect("room for its index");
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
