//! `hostctl store` beside what people use instead.
//!
//! Every run has a new file system, ext4 where nothing else is said, and nothing in the kernel's caches, unless it asks for what is
//! there already. A pull ends when the program ends, and what it left to be written is not waited for. Processor time and memory are
//! those of the program, its children, and its daemon.

mod daemon;
mod delta;
mod images;
mod newer;
mod packages;
mod peers;
mod scratch;
mod traffic;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};
use serde_json::Value;
use vm_tests::registry::Registry;

use super::measure;
use super::program::{read, succeed};
use crate::build::target_dir;
use crate::{Failure, packages as distribution};
use images::{APP, BIG, Recipe};
use peers::{Peer, Target};
use scratch::{Kind, Scratch};
use traffic::{Mark, Traffic};

/// What is measured, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Measure this alone
    #[arg(long)]
    only: Option<Part>,
    /// How often each pull is measured; the middle one is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Measure this `hostctl` and not the one of this workspace, which is built for it
    #[arg(long, value_name = "PATH")]
    hostctl: Option<PathBuf>,
}

/// One table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// An image of which nothing is there
    Cold,
    /// The image that is there already
    NoChange,
    /// A version of which one layer is new
    Second,
    /// A version of which every layer is new
    Update,
    /// Later versions beside what fetches differences, in bytes alone
    Delta,
}

/// Times that the store may take in a cold pull: of the best peer, and of the floor.
const CPU_OF_BEST: f64 = 1.0 / 4.0;
const WALL_OF_BEST: f64 = 1.0 / 3.0;
const OF_FLOOR: f64 = 1.5;
/// KiB that the store may hold.
const PEAK: i64 = 64 << 10;
/// Inodes that an image may take.
const INODES: i64 = 10;
/// Seconds that a pull of what is there may take.
const NO_CHANGE: f64 = 0.005;

/// Measures and prints tables.
///
/// # Errors
/// Where this process is not root, something cannot be built or run, or the store is over a bound.
pub(super) fn bench(options: &Options) -> Result<(), Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the peers and their file systems need root; run this as root".into());
    }
    distribution::install(distribution::BENCH)?;
    let hostctl = options.hostctl.clone().map_or_else(super::build, Ok)?;
    let shelf = target_dir().join("bench");
    std::fs::create_dir_all(&shelf)?;
    let folder = tempfile::tempdir_in(&shelf)?;
    let registry = Registry::start_with_access_log(folder.path())?;
    let lab = Lab {
        hostctl,
        address: registry.address().to_string(),
        log: folder.path().join("registry.log"),
        runs: options.runs,
    };
    let mut over = Vec::new();
    let wanted = |part| options.only.is_none_or(|only| only == part);
    let app = lab.stock(&shelf, &APP)?;
    if wanted(Part::Cold) {
        let big = lab.stock(&shelf, &BIG)?;
        for images in [&app, &big] {
            let rows = lab.rows(&format!("{}, cold", images.name), images, None, "one")?;
            over.extend(cold_bounds(&images.name, &rows));
        }
    }
    if wanted(Part::NoChange) {
        let rows = lab.rows("app, nothing new", &app, Some("one"), "one")?;
        let ours = &rows[0].1;
        if ours.seconds > NO_CHANGE {
            over.push("time where nothing is new".to_owned());
        }
        if ours.traffic.requests > 0 {
            over.push("requests where nothing is new".to_owned());
        }
    }
    if wanted(Part::Second) {
        lab.rows("app, one layer new", &app, Some("one"), "two")?;
    }
    if wanted(Part::Update) {
        lab.rows("app, every layer new, of upgraded packages", &app, Some("one"), "upgraded")?;
    }
    if wanted(Part::Delta) {
        over.extend(lab.deltas(&shelf)?);
    }
    if over.is_empty() { Ok(()) } else { Err(format!("over the bound: {}", over.join(", ")).into()) }
}

/// What all runs share.
struct Lab {
    hostctl: PathBuf,
    address: String,
    log: PathBuf,
    runs: u8,
}

/// The versions of an image in the registry.
struct Images {
    /// Of the repository.
    name: String,
    /// Digest of the manifest and of the layers, by tag.
    versions: BTreeMap<&'static str, (String, Vec<String>)>,
}

/// What one pull took.
#[derive(Debug, Clone, Copy)]
struct Pulled {
    seconds: f64,
    processor: f64,
    /// KiB.
    peak: i64,
    /// Bytes more on disc.
    bytes: i64,
    inodes: i64,
    traffic: Traffic,
}

impl Lab {
    /// Makes an image, and puts its versions into the registry.
    fn stock(&self, shelf: &Path, recipe: &'static Recipe) -> Result<Images, Failure> {
        let mut versions = BTreeMap::new();
        for made in images::made(shelf, recipe)? {
            let from = format!("oci:{}:{}", made.layout.display(), made.tag);
            let to = format!("docker://{}/{}:{}", self.address, recipe.name, made.tag);
            succeed(Command::new("skopeo").args(["copy", "--quiet", "--dest-tls-verify=false", &from, &to]))?;
            versions.insert(made.tag, self.described(recipe.name, made.tag)?);
        }
        Ok(Images { name: recipe.name.to_owned(), versions })
    }

    /// Digests of the manifest and of the layers of an image in the registry.
    fn described(&self, name: &str, tag: &str) -> Result<(String, Vec<String>), Failure> {
        let image = format!("docker://{}/{name}:{tag}", self.address);
        let manifest = read(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &image]))?;
        let parsed: Value = serde_json::from_str(&manifest)?;
        let layers = parsed["layers"].as_array().into_iter().flatten();
        let layers = layers.filter_map(|layer| layer["digest"].as_str().map(str::to_owned)).collect();
        let digest = ["inspect", "--tls-verify=false", "--format={{.Digest}}", &image];
        Ok((read(Command::new("skopeo").args(digest))?.trim().to_owned(), layers))
    }

    /// Every peer in turn, the middle of its runs each, printed as they come. The store is the first.
    fn rows(
        &self,
        title: &str,
        images: &Images,
        first: Option<&str>,
        then: &str,
    ) -> Result<Vec<(Peer, Pulled)>, Failure> {
        println!(
            "\n| {title} | wall s | beside ours | CPU s | beside ours | peak MiB | disc MB | inodes | fetched MB | requests |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        let mut rows: Vec<(Peer, Pulled)> = Vec::new();
        for peer in Peer::ALL.into_iter().filter(|peer| first.is_none() || peer.keeps()) {
            let runs: Result<Vec<_>, _> =
                (0..self.runs).map(|_| self.run(peer, images, first, then, Kind::Ext4)).collect();
            let row = middle(runs.map_err(|failure| format!("{}: {failure}", peer.name()))?);
            let ours = rows.first().map_or(row, |(_, ours)| *ours);
            println!(
                "| {} | {:.3} | {:.2} | {:.3} | {:.2} | {:.1} | {:.1} | {} | {:.2} | {} |",
                peer.name(),
                row.seconds,
                row.seconds / ours.seconds,
                row.processor,
                row.processor / ours.processor,
                row.peak as f64 / 1024.0,
                row.bytes as f64 / 1e6,
                row.inodes,
                row.traffic.bytes as f64 / 1e6,
                row.traffic.requests,
            );
            rows.push((peer, row));
        }
        Ok(rows)
    }

    /// One pull on a file system of its own, after that of `first`.
    fn run(
        &self,
        peer: Peer,
        images: &Images,
        first: Option<&str>,
        then: &str,
        on: Kind,
    ) -> Result<Pulled, Failure> {
        let scratch = Scratch::mount(on)?;
        let folder = scratch.path();
        let daemon = peer.daemon(&folder)?;
        let pull = |tag: &str| {
            let (digest, layers) = &images.versions[tag];
            let (registry, name) = (self.address.as_str(), images.name.as_str());
            let run = measure::run(&peer.pull(
                &self.hostctl,
                &folder,
                &Target { registry, name, tag, digest, layers },
            ))?;
            if run.code == Some(0) { Ok(run) } else { Err(Failure::from(run.said)) }
        };
        if let Some(first) = first {
            pull(first)?;
        }
        let before = scratch.used()?;
        // What is there already is asked for again and again, so it is in the kernel's caches.
        if first != Some(then) {
            scratch::drop_caches()?;
        }
        let mark = Mark::end_of(&self.log)?;
        let taken = daemon.as_ref().map(daemon::Daemon::taken).unwrap_or_default();
        let run = pull(then)?;
        let since = daemon.as_ref().map(daemon::Daemon::taken).unwrap_or_default();
        let (traffic, after) = (mark.since()?, scratch.used()?);
        Ok(Pulled {
            seconds: run.seconds,
            processor: run.processor + since.processor - taken.processor,
            peak: run.peak + since.peak,
            bytes: after.bytes.cast_signed() - before.bytes.cast_signed(),
            inodes: after.inodes.cast_signed() - before.inodes.cast_signed(),
            traffic,
        })
    }
}

/// The run in the middle by time, with the most memory that any of them held.
fn middle(mut runs: Vec<Pulled>) -> Pulled {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
    Pulled { peak, ..runs[runs.len() / 2] }
}

/// What the store takes too much of in a cold pull.
fn cold_bounds(image: &str, rows: &[(Peer, Pulled)]) -> Vec<String> {
    let ours = &rows[0].1;
    let least = |of: fn(&Pulled) -> f64| {
        let others = rows.iter().filter(|(peer, _)| *peer != Peer::Store && peer.keeps());
        others.map(|(_, row)| of(row)).fold(f64::INFINITY, f64::min)
    };
    let floor =
        rows.iter().find(|(peer, _)| *peer == Peer::Floor).map_or(f64::INFINITY, |(_, row)| row.seconds);
    let checks = [
        ("CPU time beside the best peer", ours.processor <= CPU_OF_BEST * least(|row| row.processor)),
        ("time beside the best peer", ours.seconds <= WALL_OF_BEST * least(|row| row.seconds)),
        ("time beside the floor", ours.seconds <= OF_FLOOR * floor),
        ("memory", ours.peak <= PEAK),
        ("inodes", ours.inodes <= INODES),
    ];
    let over = checks.into_iter().filter(|(_, held)| !held);
    over.map(|(what, _)| format!("{what} ({image}, cold)")).collect()
}
