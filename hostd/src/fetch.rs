//! Bringing into the store what a generation needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use bennu_api::{Activity, Happening};
use bennu_image_store::registry::Client;
use bennu_image_store::source::Source;
use bennu_image_store::{Image, Progress, Shortage, Store, StoreError};
use bennu_manifests::model::{Digest, ImageRef};
use bennu_planner::{Seen, Step, Wanted, plan};

use crate::core::{Core, chain};
use crate::ledger::Applicable;
use crate::pins;

/// Why nothing was staged.
#[derive(Debug)]
pub(crate) enum Staging {
    /// A newer manifest was accepted.
    Superseded,
    /// It did not work.
    Failed(String),
}

/// Fetches the images that `wanted` needs and the store lacks.
pub(crate) async fn fetch(core: &Core, wanted: &Applicable, seen: &Seen) -> Result<(), Staging> {
    // Which jobs are due, and what was rejected, changes nothing about what has to be there.
    let (rejected, due) = (BTreeSet::new(), BTreeSet::new());
    let (generation, manifest) = (wanted.generation.number, &*wanted.manifest);
    let plan = plan(Wanted { generation, manifest, rejected: &rejected, due: &due, completed: &due }, seen);
    let images: Vec<_> = plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Fetch { image, .. } => Some(image),
            _ => None,
        })
        .collect();
    if images.is_empty() {
        return Ok(());
    }
    let client = core.client(wanted).map_err(|e| Staging::Failed(chain(&e)))?;
    let platform = core.platform();
    tokio::select! {
        room = require_room(core, wanted, &client, &images) => room?,
        () = core.accepted.notified() => return Err(Staging::Superseded),
    }
    for (index, image) in images.iter().enumerate() {
        let (number, of) = (index + 1, images.len());
        let progress = Shown { core, image: image.to_string(), number, of, counted: Mutex::default() };
        progress.show(0, 0);
        let pulled = tokio::select! {
            pulled = core.store.pull(&client, image, &platform, &progress) => {
                let failed = |error| Staging::Failed(format!("fetch {image}: {}", chain(&error)));
                pulled.map(drop).map_err(failed)
            }
            () = core.accepted.notified() => Err(Staging::Superseded),
        };
        // Also where it came to nothing: what arrived of it is not fetched again.
        let bytes = progress.fetched();
        if let Err(error) = core.ledger.lock().await.fetched(generation, &image.to_string(), bytes) {
            tracing::warn!(error = chain(&error), "write down how much was fetched");
        }
        pulled?;
        core.events.add(Happening::Fetched { image: image.to_string() });
    }
    Ok(())
}

/// Refuses a generation of which it is sure that it does not fit, before any of it is fetched.
async fn require_room(
    core: &Core,
    wanted: &Applicable,
    client: &Client,
    images: &[&ImageRef],
) -> Result<(), Staging> {
    let failed = |error: &dyn std::error::Error| Staging::Failed(chain(error));
    let mut missing = BTreeMap::new();
    for image in images {
        let source = Source::registry(client, image);
        let layers = core.store.missing(&source, &image.to_string(), &image.digest, &core.platform()).await;
        missing.extend(layers.map_err(|e| Staging::Failed(format!("fetch {image}: {}", chain(&e))))?);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let (store, needed) = (core.store.clone(), missing.values().sum());
    let kept = pins::images(&wanted.manifest);
    let made = tokio::task::spawn_blocking(move || make_room(&store, &kept, needed)).await;
    match made.map_err(|e| failed(&e))?.map_err(|e| failed(&e))? {
        Some(shortage) => Err(Staging::Failed(format!("the generation does not fit: {shortage}"))),
        None => Ok(()),
    }
}

/// Removes what nothing needs where so many bytes do not fit otherwise, but for the images `kept`: they may have arrived
/// already, and no pin holds them yet. Gives what is missing even so.
fn make_room(store: &Store, kept: &[Digest], needed: u64) -> Result<Option<Shortage>, StoreError> {
    let Some(shortage) = store.shortage(needed)? else { return Ok(None) };
    if shortage.collectable == 0 {
        return Ok(Some(shortage));
    }
    // One that is damaged is fetched again.
    let _claimed: Vec<Image> = kept.iter().filter_map(|image| store.claim(image).ok().flatten()).collect();
    store.gc()?;
    store.shortage(needed)
}

/// Shows how an image is coming, summed over its layers.
struct Shown<'a> {
    core: &'a Core,
    image: String,
    number: usize,
    of: usize,
    counted: Mutex<Counted>,
}

/// What came of an image.
#[derive(Debug, Default)]
struct Counted {
    /// Of each layer, the bytes that came and those that are to come.
    layers: BTreeMap<Digest, (u64, u64)>,
    /// Bytes that came over the network.
    fetched: u64,
}

impl Counted {
    /// Takes in how far a layer is, and gives how far the image is.
    fn layer(&mut self, digest: &Digest, done: u64, total: u64) -> (u64, u64) {
        self.fetched += match self.layers.insert(*digest, (done, total)) {
            // One that is here already is told once, as done.
            None if done == total => 0,
            Some((before, _)) if before <= done => done - before,
            // It begins again.
            _ => done,
        };
        self.layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1))
    }
}

impl Shown<'_> {
    fn fetched(&self) -> u64 {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).fetched
    }

    fn show(&self, done: u64, total: u64) {
        let (image, number, of) = (self.image.clone(), self.number, self.of);
        self.core.now().activity = Activity::Fetching { image, number, of, done, total };
    }
}

impl Progress for Shown<'_> {
    fn layer(&self, digest: &Digest, done: u64, total: u64) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = counted.layer(digest, done, total);
        drop(counted);
        self.show(sum.0, sum.1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::Arc;

    use bennu_image_store::registry::Served;
    use bennu_image_store::registry::document::Platform;
    use bennu_image_store::source::Archive;

    use bennu_image_store::Confinement;

    use super::*;

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    /// An image with one empty layer.
    #[derive(Clone)]
    struct Empty {
        manifest: String,
        blobs: [Vec<u8>; 2],
    }

    impl Empty {
        fn new() -> Self {
            let tar = vec![0; 1024];
            let config = format!(
                r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
                Digest::of(&tar)
            );
            let descriptor = |kind: &str, bytes: &[u8]| {
                let (digest, size) = (Digest::of(bytes), bytes.len());
                format!(
                    r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#
                )
            };
            let manifest = format!(
                r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
                descriptor("config.v1+json", config.as_bytes()),
                descriptor("layer.v1.tar", &tar)
            );
            Self { manifest, blobs: [config.into_bytes(), tar] }
        }
    }

    impl Archive for Empty {
        fn document(&self, _: &Digest) -> io::Result<Option<Served>> {
            let bytes = self.manifest.clone().into_bytes();
            Ok(Some(Served { bytes, media_type: MANIFEST.to_owned() }))
        }

        fn blob(&self, digest: &Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
            let found = self.blobs.iter().find(|blob| Digest::of(blob) == *digest).cloned();
            Ok(found.map(|bytes| Box::new(io::Cursor::new(bytes)) as _))
        }
    }

    #[test]
    fn what_came_is_counted_what_was_here_is_not_and_what_came_twice_is_counted_twice() {
        let [here, whole, wrong] = [1, 2, 3].map(|n| Digest::from_bytes([n; 32]));
        let mut counted = Counted::default();
        counted.layer(&here, 500, 500);
        counted.layer(&whole, 0, 100);
        counted.layer(&whole, 60, 100);
        assert_eq!(counted.layer(&whole, 100, 100), (600, 600));
        assert_eq!(counted.fetched, 100);
        counted.layer(&wrong, 0, 10);
        counted.layer(&wrong, 10, 10);
        counted.layer(&wrong, 0, 10);
        counted.layer(&wrong, 10, 10);
        assert_eq!(counted.fetched, 120);
    }

    #[tokio::test]
    async fn what_nothing_needs_makes_room_and_what_has_arrived_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Confinement::None).expect("a store");
        let image = Empty::new();
        let digest = Digest::of(image.manifest.as_bytes());
        let source = Source::Archive(Arc::new(image));
        let arrived = store.pull_from(&source, "image", &digest, &Platform::linux("amd64"), &()).await;
        drop(arrived.expect("pulled"));
        let lost = store.import_layer(one_file().as_slice(), Default::default()).expect("a layer").path;

        assert_eq!(make_room(&store, &[digest], 0).expect("looked at"), None);
        assert!(lost.exists(), "something was removed though there is room");
        let shortage = make_room(&store, &[digest], u64::MAX).expect("looked at").expect("too much");
        assert!(shortage.missing() > 0 && !lost.exists(), "nothing was removed: {shortage}");
        assert!(store.image(&digest).expect("read").is_some(), "what has arrived was removed");
        make_room(&store, &[], u64::MAX).expect("looked at");
        assert!(store.image(&digest).expect("read").is_none(), "it is held by something else");
    }

    /// A tar with an empty file.
    fn one_file() -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        let mut builder = tar::Builder::new(Vec::new());
        let added = builder.append_data(&mut header, "file", io::empty());
        added.and_then(|()| builder.into_inner()).expect("in memory")
    }
}
