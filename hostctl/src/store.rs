//! `store`: an image store on this machine, without a daemon.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bennu_image_store::listing::{self, Line};
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions};
use bennu_image_store::tar::Limits;
use bennu_image_store::{
    Finding, Image, ImportError, LayerRecord, OpenError, Progress, PullError, Store as ImageStore, StoreError,
};
use bennu_manifests::UnpinnedRef;
use bennu_manifests::model::{Digest, ImageRef};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::{Store, StoreCommand};
use crate::exit::{Code, Failure, Outcome};
use crate::pin::failed as not_resolved;
use crate::render::{Out, Table, bytes, counted, facts, interactive, progress};

/// An image, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    digest: Digest,
    #[serde(rename = "manifest-digest")]
    manifest_digest: Digest,
    size: u64,
    layers: Vec<LayerRecord>,
    /// Pins that hold it.
    pins: Vec<String>,
}

impl Shown {
    fn new(image: &Image, pins: &[(String, Vec<Digest>)]) -> Self {
        let holding = pins.iter().filter(|(_, holds)| holds.contains(&image.digest));
        Self {
            digest: image.digest,
            manifest_digest: image.manifest_digest,
            size: image.size,
            layers: image.layers.clone(),
            pins: holding.map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// Carries one command out.
pub(crate) async fn run(args: &Store, out: &mut Out) -> Outcome {
    match &args.command {
        StoreCommand::Pull { reference, plain_http } => pull(&args.root, reference, *plain_http, out).await,
        StoreCommand::Import { path } => import(&open(&args.root)?, path, out),
        StoreCommand::Files { reference, plain_http } => {
            files(&open_existing(&args.root)?, reference, *plain_http, out).await
        }
        StoreCommand::Ls => list(&open_existing(&args.root)?, out),
        StoreCommand::Verify => verify(&open_existing(&args.root)?, out),
        StoreCommand::Scrub { discard } => scrub(&open_existing(&args.root)?, *discard, out),
        StoreCommand::Gc { dry_run } => collect(&open_existing(&args.root)?, *dry_run, out),
    }
}

fn open(root: &Path) -> Result<ImageStore, Failure> {
    ImageStore::open(root).map_err(|error| {
        let code = match error {
            OpenError::NotAStore { .. } => Code::Invalid,
            _ => Code::Failed,
        };
        Failure::new(code, format!("open the store {}", root.display())).because(error)
    })
}

/// A look into a store must not make one.
fn open_existing(root: &Path) -> Result<ImageStore, Failure> {
    let empty = std::fs::read_dir(root).map_or(true, |mut entries| entries.next().is_none());
    if empty {
        return Err(Failure::not_found(format!("there is no store at {}", root.display())));
    }
    open(root)
}

fn client(plain_http: bool) -> Result<Client, Failure> {
    let mut options = ClientOptions::default();
    options.plain_http_everywhere = plain_http;
    Client::new(options).map_err(|e| Failure::failed("reach registries").because(e))
}

/// The image that a reference names; what a tag means is asked of its registry.
async fn pinned(client: &Client, reference: &str) -> Result<ImageRef, Failure> {
    let wanted: UnpinnedRef = reference
        .parse()
        .map_err(|e| Failure::invalid(format!("'{reference}' is no image reference")).because(e))?;
    match wanted.pinned() {
        Some(image) => Ok(image),
        None => Ok(wanted.pin(client.resolve(&wanted).await.map_err(|e| not_resolved(&wanted, e))?)),
    }
}

async fn pull(root: &Path, reference: &str, plain_http: bool, out: &mut Out) -> Outcome {
    let store = open(root)?;
    let client = client(plain_http)?;
    let image = pinned(&client, reference).await?;
    let display = Display::new(image.to_string());
    let pulled = store.pull(&client, &image, &Platform::host(), &display).await;
    display.end();
    let pulled = pulled.map_err(not_pulled)?;
    let shown = Shown::new(&pulled, &[]);
    out.result(&shown, |s| {
        facts(&[
            ("image", image.to_string()),
            ("layers", format!("{}, {}", counted(s.layers.len(), "layer"), bytes(s.size))),
        ])
    })?;
    Ok(0)
}

fn not_pulled(error: PullError) -> Failure {
    let code = match &error {
        error if error.is_refusal() => Code::Refused,
        PullError::NotFound { .. } => Code::NotFound,
        PullError::WrongPlatform { .. } => Code::Invalid,
        _ => Code::Failed,
    };
    Failure::new(code, "pull").because(error)
}

/// One imported layer.
#[derive(Debug, Serialize)]
struct Imported {
    #[serde(rename = "diff-id")]
    diff_id: Digest,
    blob: Digest,
    size: u64,
    path: PathBuf,
}

fn import(store: &ImageStore, path: &Path, out: &mut Out) -> Outcome {
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let failed = |e| Failure::failed(format!("read {}", path.display())).because(e);
        Box::new(std::io::BufReader::new(File::open(path).map_err(failed)?))
    };
    let layer = store.import_layer(reader, Limits::default()).map_err(|error| {
        let code = if matches!(error, ImportError::Refused(_)) { Code::Invalid } else { Code::Failed };
        Failure::new(code, format!("import {}", path.display())).because(error)
    })?;
    let imported = Imported { diff_id: layer.diff_id, blob: layer.blob, size: layer.size, path: layer.path };
    out.result(&imported, |i| {
        facts(&[("diff id", i.diff_id.to_string()), ("blob", i.blob.to_string()), ("size", bytes(i.size))])
    })?;
    Ok(0)
}

fn list(store: &ImageStore, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct List {
        images: Vec<Shown>,
    }
    let pins = store.pins().map_err(failed)?;
    let images = store.images().map_err(failed)?;
    let list = List { images: images.iter().map(|image| Shown::new(image, &pins)).collect() };
    out.result(&list, |list| {
        let mut table = Table::new(&[">LAYERS", ">SIZE", "HELD BY", "DIGEST"]);
        for image in &list.images {
            table.row([
                image.layers.len().to_string(),
                bytes(image.size),
                image.pins.join(","),
                image.digest.to_string(),
            ]);
        }
        table.text("no images")
    })?;
    Ok(0)
}

async fn files(store: &ImageStore, reference: &str, plain_http: bool, out: &mut Out) -> Outcome {
    let digest = match reference.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => pinned(&client(plain_http)?, reference).await?.digest,
    };
    let missing = || Failure::not_found(format!("the store has no image {digest}"));
    let image = store.image(&digest).map_err(failed)?.ok_or_else(missing)?;
    let lines = listing::files(store, &image)
        .map_err(|e| Failure::failed(format!("list the files of {digest}")).because(e))?;
    show_listing(lines, out)?;
    Ok(0)
}

/// The entries of a tree, one a line, with nothing shortened: it is for comparing.
pub(crate) fn show_listing(entries: Vec<Line>, out: &mut Out) -> Result<(), Failure> {
    #[derive(Debug, Serialize)]
    struct Listing {
        entries: Vec<Line>,
    }
    out.result(&Listing { entries }, |listing| {
        listing.entries.iter().map(|line| format!("{line}\n")).collect()
    })
}

/// Exit code 1 where something is not as it should be.
fn verify(store: &ImageStore, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Report {
        sound: bool,
        findings: Vec<Finding>,
    }
    let findings = store.verify().map_err(failed)?;
    let report = Report { sound: findings.is_empty(), findings };
    out.result(&report, |report| {
        let line = |finding: &Finding| match finding {
            Finding::Record { path, fault } => format!("{}: {fault}\n", path.display()),
            Finding::MissingBlob { path, blob } => {
                format!("{}: its blob is missing: {blob}\n", path.display())
            }
            Finding::DanglingPin { name, digest } => {
                format!("pin {name} holds what is not there: {digest}\n")
            }
            Finding::Unknown { path } => format!("{}: not a file of a store\n", path.display()),
            other => format!("{other:?}\n"),
        };
        let lines: String = report.findings.iter().map(line).collect();
        if report.sound { "records, pins and lengths are sound\n".to_owned() } else { lines }
    })?;
    Ok(if report.sound { Code::Done } else { Code::Failed }.number())
}

/// Exit code 1 where a blob is not what its name says.
fn scrub(store: &ImageStore, discard: bool, out: &mut Out) -> Outcome {
    #[derive(Debug, Serialize)]
    struct Report {
        sound: bool,
        bad: Vec<bennu_image_store::BadBlob>,
        discarded: bool,
    }
    let bad = store.scrub().map_err(failed)?;
    let discarded = discard && !bad.is_empty();
    if discarded {
        store.discard(&bad).map_err(failed)?;
    }
    let report = Report { sound: bad.is_empty(), bad, discarded };
    out.result(&report, |report| {
        if report.sound {
            return "every blob is what its name says\n".to_owned();
        }
        let after = if report.discarded { "removed; the next pull fetches it again" } else { "bad" };
        report.bad.iter().map(|bad| format!("{after}: {}\n", bad.blob)).collect()
    })?;
    Ok(if report.sound { Code::Done } else { Code::Failed }.number())
}

fn collect(store: &ImageStore, dry_run: bool, out: &mut Out) -> Outcome {
    let plan = if dry_run { store.gc_plan() } else { store.gc() }.map_err(failed)?;
    out.result(&plan, |plan| {
        let done = if dry_run { "would be removed" } else { "removed" };
        let (images, blobs) = (counted(plan.images.len(), "image"), counted(plan.blobs.len(), "blob"));
        match plan.is_empty() {
            true => "nothing to collect\n".to_owned(),
            false => format!("{images} and {blobs} {done}, {}\n", bytes(plan.bytes)),
        }
    })?;
    Ok(0)
}

fn failed(error: StoreError) -> Failure {
    let code = if matches!(error, StoreError::Busy) { Code::Waiting } else { Code::Failed };
    Failure::new(code, "use the store").because(error)
}

/// How far a pull is: a bar over all layers on a terminal, elsewhere a line for each layer that has come.
struct Display {
    bar: Option<ProgressBar>,
    layers: Mutex<BTreeMap<Digest, (u64, u64)>>,
}

impl Display {
    fn new(image: String) -> Self {
        let bar = interactive().then(|| {
            let template = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes}";
            let style = ProgressStyle::with_template(template).expect("the template is well formed");
            ProgressBar::new(0).with_style(style).with_message(image)
        });
        Self { bar, layers: Mutex::default() }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Display {
    fn layer(&self, digest: &Digest, done: u64, total: u64) {
        let mut layers = self.layers.lock().expect("nothing panics while it is held");
        let before = layers.insert(*digest, (done, total));
        match &self.bar {
            Some(bar) => {
                bar.set_length(layers.values().map(|(_, total)| total).sum());
                bar.set_position(layers.values().map(|(done, _)| done).sum());
            }
            None if done == total && before != Some((done, total)) => {
                progress(&format!("{digest}  {}", bytes(total)));
            }
            None => {}
        }
    }
}
