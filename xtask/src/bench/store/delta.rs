//! What a later version costs, in bytes alone: on the wire and on the disc, which is btrfs here, where files can share blocks. These
//! figures are the same on every machine.
//!
//! ```text
//!  two versions in a layout ──► registry: as they are, as zstd:chunked, native, native with a patch ──► pulls
//!            └──► store ──► blobs of both, as files ──► casync, RAUC's block-hash-index, zstd --patch-from
//! ```

mod blobs;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::images::{self, APP};
use super::peers::Peer;
use super::scratch::Kind;
use super::{Images, Lab, Recipe, newer};
use crate::Failure;
use crate::bench::program::{read, succeed};
use blobs::Pair;

/// Times that a native second version with one small change may cost of its changed blocks, compressed together.
const OF_CHANGED: f64 = 1.2;

/// Two versions of an image.
struct Case {
    title: &'static str,
    recipe: &'static Recipe,
    old: &'static str,
    new: &'static str,
    /// Whether one small file is all that changed: of many changed blocks those that lie apart cost a frame each.
    is_small: bool,
}

const CASES: [Case; 4] = [
    Case { title: "app, one small file changed", recipe: &APP, old: "one", new: "two", is_small: true },
    Case {
        title: "app, rebuilt on an upgraded base",
        recipe: &APP,
        old: "one",
        new: "upgraded",
        is_small: false,
    },
    Case {
        title: "OS root, a handful of packages upgraded",
        recipe: &images::OS,
        old: "one",
        new: "few",
        is_small: false,
    },
    Case {
        title: "OS root, all packages upgraded, the kernel too",
        recipe: &images::OS,
        old: "one",
        new: "upgraded",
        is_small: false,
    },
];

/// A row: bytes that were fetched, and by how many the disc holds more where that says something.
struct Row {
    name: &'static str,
    fetched: u64,
    disc: Option<i64>,
}

/// What `hostctl store export --native --json` says.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Exported {
    digest: String,
    patches: Vec<Patch>,
    patches_tag: Option<String>,
}

#[derive(Deserialize)]
struct Patch {
    from: String,
    blob: String,
    size: u64,
}

impl Lab {
    /// Prints a table for each pair of versions, and gives what is over its bound.
    ///
    /// # Errors
    /// Where something cannot be made or run.
    pub(super) fn deltas(&self, shelf: &Path) -> Result<Vec<String>, Failure> {
        newer::make()?;
        let mut over = Vec::new();
        for case in &CASES {
            over.extend(self.delta(shelf, case).map_err(|failure| format!("{}: {failure}", case.title))?);
        }
        Ok(over)
    }

    fn delta(&self, shelf: &Path, case: &Case) -> Result<Vec<String>, Failure> {
        let folder = tempfile::tempdir_in(shelf)?;
        let ordinary = self.stock(shelf, case.recipe)?;
        let layout = images::layout(shelf, case.recipe);
        let chunked = self.chunked(&layout, case)?;
        let (frames, patched, pairs) = self.native(&layout, case, folder.path())?;
        let mut rows = Vec::new();
        for (name, peer, images) in [
            ("`hostctl`, ordinary image", Peer::Store, &ordinary),
            ("`hostctl`, native image", Peer::Store, &frames),
            ("`hostctl`, native image with a patch", Peer::Store, &patched),
            ("podman, ordinary image", Peer::Podman, &ordinary),
            ("podman of Debian 13, `zstd:chunked`", Peer::PodmanPartial, &chunked),
        ] {
            let pulled = self.run(peer, images, Some(case.old), case.new, Kind::Btrfs);
            let pulled = pulled.map_err(|failure| format!("{name}: {failure}"))?;
            rows.push(Row { name, fetched: pulled.traffic.bytes, disc: Some(pulled.bytes) });
        }
        if pairs.is_empty() {
            // Nothing says then which blobs take the place of which.
            print(case.title, &rows);
            return Ok(vec![format!("no patch was made ({})", case.title)]);
        }
        let sum = |of: fn(&Pair, &Path) -> Result<u64, Failure>| -> Result<u64, Failure> {
            pairs.iter().map(|pair| of(pair, folder.path())).sum()
        };
        let changed = sum(Pair::changed)?;
        let patch: u64 = pairs.iter().map(|pair| pair.patch).sum();
        for (name, fetched) in [
            ("changed blocks alone, compressed together", changed),
            ("patch alone", patch),
            ("`zstd --patch-from` of the whole blobs", sum(Pair::patch_from)?),
            ("casync of the blobs", sum(Pair::casync)?),
            ("RAUC, `block-hash-index` of the blobs, computed", sum(Pair::rauc)?),
        ] {
            rows.push(Row { name, fetched, disc: None });
        }
        print(case.title, &rows);
        let (native, patched, chunked) = (&rows[1], &rows[2], &rows[4]);
        let native = native.fetched;
        let bound = (changed as f64 * OF_CHANGED) as u64;
        let checks = [
            ("a native version beside its changed blocks", native <= bound || !case.is_small),
            ("a native version beside zstd:chunked", native <= chunked.fetched),
            ("a native version with a patch beside zstd:chunked", patched.fetched <= chunked.fetched),
            ("the disc beside zstd:chunked", patched.disc <= chunked.disc),
            ("a native version beside casync", native <= rows[8].fetched),
            ("a native version beside RAUC", native <= rows[9].fetched),
            ("a patch beside zstd", patch <= rows[7].fetched),
        ];
        let over = checks.into_iter().filter(|(_, held)| !held);
        Ok(over.map(|(what, _)| format!("{what} ({})", case.title)).collect())
    }

    /// The versions with layers of which parts can be fetched, as podman's libraries write them.
    fn chunked(&self, layout: &Path, case: &Case) -> Result<Images, Failure> {
        let name = format!("{}-chunked", case.recipe.name);
        let mut images = Images { name, versions: Default::default() };
        for tag in [case.old, case.new] {
            let from = format!("oci:{}:{tag}", layout.display());
            let to = format!("docker://{}/{}:{tag}", self.address, images.name);
            let mut copy = newer::command("skopeo", layout);
            copy.args(["copy", "--quiet", "--dest-tls-verify=false", "--dest-compress"]);
            succeed(copy.args(["--dest-compress-format", "zstd:chunked", &from, &to]))?;
            images.versions.insert(tag, self.described(&images.name, tag)?);
        }
        Ok(images)
    }

    /// The versions as native images, without and with patches, and the blobs that differ.
    fn native(
        &self,
        layout: &Path,
        case: &Case,
        folder: &Path,
    ) -> Result<(Images, Images, Vec<Pair>), Failure> {
        let store = folder.join("store");
        let hostctl = || {
            let mut command = Command::new(&self.hostctl);
            command.args(["--json", "store", "--root"]).arg(&store);
            command
        };
        let digest = |tag: &str| -> Result<String, Failure> {
            let imported = read(hostctl().arg("import").arg(layout).arg(tag))?;
            let digests = serde_json::from_str::<Value>(&imported)?;
            let found = find(&digests, "digest").ok_or("an import that names no image")?;
            Ok(found.to_owned())
        };
        let (old, new) = (digest(case.old)?, digest(case.new)?);
        let export = |image: &str, tag: &str, from: Option<&str>| -> Result<(PathBuf, Exported), Failure> {
            let target = folder.join(format!("native-{tag}"));
            let mut command = hostctl();
            command.arg("export").arg(image).arg(&target).args(["--native", "--tag", tag]);
            command.args(from.map(|from| ["--patch-from", from]).iter().flatten());
            let exported = serde_json::from_str(&read(&mut command)?)?;
            Ok((target, exported))
        };
        let versions =
            [(case.old, export(&old, case.old, None)?), (case.new, export(&new, case.new, Some(&old))?)];
        let stock = |suffix: &str, with_patches: bool| -> Result<Images, Failure> {
            let name = format!("{}-{suffix}", case.recipe.name);
            let mut images = Images { name, versions: Default::default() };
            for (tag, (target, exported)) in &versions {
                let list = exported.patches_tag.as_deref().filter(|_| with_patches);
                for name in [Some(*tag), list].into_iter().flatten() {
                    let from = format!("oci:{}:{name}", target.display());
                    let to = format!("docker://{}/{}:{name}", self.address, images.name);
                    succeed(Command::new("skopeo").args([
                        "copy",
                        "--quiet",
                        "--all",
                        "--dest-tls-verify=false",
                        &from,
                        &to,
                    ]))?;
                }
                images.versions.insert(*tag, (exported.digest.clone(), Vec::new()));
            }
            Ok(images)
        };
        let (frames, patched) =
            (stock(&format!("{}-frames", case.new), false)?, stock(&format!("{}-patched", case.new), true)?);
        let blob = |name: &str| store.join("blobs/sha256").join(name.trim_start_matches("sha256:"));
        let [_, (_, (_, exported))] = &versions;
        let pair = |patch: &Patch| Pair::copied(folder, &blob(&patch.from), &blob(&patch.blob), patch.size);
        let pairs = exported.patches.iter().map(pair).collect::<Result<_, _>>()?;
        Ok((frames, patched, pairs))
    }
}

/// The first text under this key, wherever it is.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    match value {
        Value::Object(members) => {
            let own = members.get(key).and_then(Value::as_str);
            own.or_else(|| members.values().find_map(|value| find(value, key)))
        }
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        _ => None,
    }
}

fn print(title: &str, rows: &[Row]) {
    let native = rows[1].fetched.max(1) as f64;
    println!("\n| {title} | fetched kB | beside our native image | disc kB more |");
    println!("|---|---|---|---|");
    for Row { name, fetched, disc } in rows {
        let disc = disc.map_or_else(String::new, |bytes| format!("{:.0}", bytes as f64 / 1e3));
        println!("| {name} | {:.1} | {:.2} | {disc} |", *fetched as f64 / 1e3, *fetched as f64 / native);
    }
}
