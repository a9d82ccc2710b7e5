//! Parsers that are nobody's business outside of this crate, for the fuzzers of its repository. Nothing here is stable.

use bennu_manifests::model::Digest;

use crate::native::parse_index;
use crate::record::{Image, ImageRecord, LayerRecord};
use crate::registry::{read_challenge, read_token};
use crate::sealed;

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
