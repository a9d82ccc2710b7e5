//! What the store keeps for a host: what the generations need that count, and the roots that they run on.

use bennu_image_store::{Store, StoreError};
use bennu_manifests::model::{Digest, Manifest};

use crate::core::Core;

/// What the pending generation needs, from when all of it is there until it is pinned as the active one.
pub(crate) const NEXT: &str = "next";

/// Pins what the active generation, the one that was kept last and the one before it need. What is not there is not held: those
/// two may be from before the host had what they name.
///
/// # Errors
/// [`StoreError`]; what was pinned before is pinned still, or what is to be pinned is already.
pub async fn follow(core: &Core) -> Result<(), StoreError> {
    let (held, pending) = {
        let ledger = core.ledger.lock().await;
        let pointer = ledger.pointer();
        let of = |number: Option<u64>| {
            let number = number?;
            let generation = ledger.generation(number).ok()??;
            let mut digests = images(&generation.manifest);
            digests.extend(ledger.root_of(number));
            Some(digests)
        };
        let held = [("active", pointer.active), ("kept", pointer.kept), ("previous", pointer.previous)];
        (held.map(|(name, number)| (name, of(number))), pointer.pending)
    };
    for (name, digests) in held {
        hold(&core.store, name, digests.as_deref())?;
    }
    match pending {
        Some(_) => Ok(()),
        None => core.store.unpin(NEXT),
    }
}

/// Pins what of `digests` is there, or nothing any more.
fn hold(store: &Store, name: &str, digests: Option<&[Digest]>) -> Result<(), StoreError> {
    let Some(digests) = digests else { return store.unpin(name) };
    let mut there = Vec::new();
    for digest in digests {
        if store.image(digest)?.is_some() || store.blob_path(digest).exists() {
            there.push(*digest);
        }
    }
    store.pin(name, &there)
}

/// The images of a manifest, sorted.
pub(crate) fn images(manifest: &Manifest) -> Vec<Digest> {
    let mut digests: Vec<_> = manifest.images().map(|image| image.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_held_and_nothing_any_more_where_nothing_is_to_be() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), bennu_image_store::Confinement::None).expect("a store");
        let blob = store.import_layer(tar_with(b"1").as_slice(), Default::default()).expect("sound").blob;
        hold(&store, "kept", Some(&[blob, Digest::from_bytes([7; 32])])).expect("pinned");
        assert_eq!(store.pins().expect("read"), [("kept".to_owned(), vec![blob])]);
        hold(&store, "kept", None).expect("unpinned");
        assert_eq!(store.pins().expect("read"), []);
    }

    fn tar_with(data: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "file", data).and_then(|()| builder.into_inner()).expect("in memory")
    }
}
