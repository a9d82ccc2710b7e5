//! What the store keeps for a host: the images of the generation that is active, and those of the last one before it that worked.

use bennu_api::HistoryEntry;
use bennu_image_store::{Store, StoreError};
use bennu_manifests::model::{Digest, Manifest};

use crate::ledger::Applicable;

/// What the active generation needs.
const ACTIVE: &str = "active";
/// What the host goes back to.
const PREVIOUS: &str = "previous";

/// Pins what `next` needs, which is about to become active, and what the last generation needs that converged: that is
/// `active`, or whatever was pinned before where `active` never did.
///
/// # Errors
/// [`StoreError`]; what was pinned as the last that worked is still pinned as such, or `active` is.
pub fn advance<'a>(
    store: &Store,
    active: Option<&Applicable>,
    history: impl IntoIterator<Item = &'a HistoryEntry>,
    next: &Manifest,
) -> Result<(), StoreError> {
    if let Some(active) = active.filter(|active| converged(active.generation.number, history)) {
        store.pin(PREVIOUS, &images(&active.manifest))?;
    }
    store.pin(ACTIVE, &images(next))
}

/// Whether a generation was whole at some time.
fn converged<'a>(generation: u64, history: impl IntoIterator<Item = &'a HistoryEntry>) -> bool {
    let entry = history.into_iter().find(|entry| entry.generation.number == generation);
    entry.is_some_and(|entry| entry.converged.is_some())
}

/// The images of a manifest, sorted.
pub(crate) fn images(manifest: &Manifest) -> Vec<Digest> {
    let mut digests: Vec<_> = manifest.programs().map(|(_, program)| program.image.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bennu_api::Generation;
    use bennu_manifests::check;
    use jiff::Timestamp;

    use super::*;

    const IMAGE: &str = "registry.example/app@";

    /// A generation whose one container has the image with this digest.
    fn generation(number: u64, image: &Digest) -> Applicable {
        let text = format!(
            "schema = 1\nname = \"edge\"\nserial = {number}\nsigned-at = 2026-01-01T00:00:00Z\n\
             expires = 2100-01-01T00:00:00Z\n[container.app]\nimage = \"{IMAGE}{image}\"\n"
        );
        let manifest = check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("host.toml", &text)));
        let header = &manifest.header;
        let generation = Generation {
            number,
            name: header.name.clone(),
            serial: header.serial,
            manifest: Digest::from_bytes([number as u8; 32]),
            expires: header.expires,
        };
        Applicable { generation, manifest: Arc::new(manifest) }
    }

    fn entry(of: &Applicable, converged: bool) -> HistoryEntry {
        HistoryEntry {
            generation: of.generation.clone(),
            accepted: Timestamp::UNIX_EPOCH,
            signers: Vec::new(),
            trust_version: 1,
            converged: converged.then_some(Timestamp::UNIX_EPOCH),
            failure: None,
        }
    }

    #[test]
    fn a_generation_that_never_converged_does_not_take_the_pin_of_the_last_good_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        // A blob stands for an image: a pin may hold either.
        let images: Vec<Digest> = (0..4_u8)
            .map(|i| {
                let tar = tar_with(&[i]);
                store.import_layer(tar.as_slice(), Default::default()).expect("sound").blob
            })
            .collect();
        let generations: Vec<_> =
            (1..).zip(&images).map(|(number, image)| generation(number, image)).collect();
        let mut history: Vec<HistoryEntry> = Vec::new();
        let mut active: Option<&Applicable> = None;
        let mut pinned = Vec::new();
        for (next, converges) in generations.iter().zip([true, false, false, true]) {
            advance(&store, active, &history, &next.manifest).expect("pinned");
            let pins: BTreeMap<_, _> = store.pins().expect("read").into_iter().collect();
            assert_eq!(pins[ACTIVE], self::images(&next.manifest));
            pinned.push(pins.get(PREVIOUS).cloned());
            history.push(entry(next, converges));
            active = Some(next);
        }
        let first = Some(vec![images[0]]);
        assert_eq!(pinned, [None, first.clone(), first.clone(), first]);
        advance(&store, active, &history, &generations[0].manifest).expect("pinned");
        let pins: BTreeMap<_, _> = store.pins().expect("read").into_iter().collect();
        assert_eq!(pins[PREVIOUS], [images[3]], "one that converged is the last good one now");
    }

    fn tar_with(data: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, "file", data).and_then(|()| builder.into_inner()).expect("in memory")
    }
}
