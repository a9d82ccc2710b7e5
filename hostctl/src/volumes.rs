//! `volumes`: lists them, takes and restores snapshots, and carries data out and in.

pub(crate) mod args;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use bennu_api::{Replaced, Restore, Snapshot, SnapshotName, Snapshots, Volumes};
use bennu_manifests::model::{Name, VolumeLife};
use jiff::Timestamp;
use serde::Serialize;

use self::args::Volumes as Command;
use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::render::{Out, Table, age, bytes, names, printable};

/// Runs one of the commands.
pub(crate) async fn run(host: &Host, command: Option<&Command>, now: Timestamp, out: &mut Out) -> Outcome {
    match command {
        None | Some(Command::Ls) => list(host, out).await,
        Some(Command::Snapshot { name }) => {
            let path = format!("{}/snapshots", route(name)?);
            let taken: Snapshot = host.post_patiently(&path, &()).await?;
            out.result(&taken, |taken| format!("{}\n", taken.name))?;
            Ok(0)
        }
        Some(Command::Snapshots { name }) => snapshots(host, name, now, out).await,
        Some(Command::Restore { name, snapshot }) => {
            let body = Restore { snapshot: *snapshot };
            let replaced = host.post_patiently(&format!("{}/restore", route(name)?), &body).await?;
            tell(&replaced, &format!("holds what it held in {snapshot}"), out)
        }
        Some(Command::RmSnapshot { name, snapshot }) => {
            host.delete(&format!("{}/snapshots/{snapshot}", route(name)?)).await?;
            let removed = Removed { volume: name.clone(), removed: *snapshot };
            out.result(&removed, |removed| format!("{} is removed\n", removed.removed))?;
            Ok(0)
        }
        Some(Command::Export { name, snapshot, out: file }) => {
            export(host, name, *snapshot, file.as_deref(), out).await
        }
        Some(Command::Import { name, file, replace }) => {
            let path = format!("{}/import?replace={replace}", route(name)?);
            let replaced = host.post_file(&path, file).await?;
            tell(&replaced, "holds what was in the archive", out)
        }
    }
}

/// What is left to say of a snapshot that is gone.
#[derive(Serialize)]
struct Removed {
    volume: String,
    removed: SnapshotName,
}

/// What was written of a volume.
#[derive(Serialize)]
struct Exported<'a> {
    volume: &'a str,
    file: &'a Path,
    bytes: u64,
}

/// The route of a volume; what is no name is surely not there.
fn route(name: &str) -> Result<String, Failure> {
    let name: Name =
        name.parse().map_err(|_| Failure::not_found(format!("there is no volume {}", printable(name))))?;
    Ok(format!("/v1/volumes/{name}"))
}

async fn list(host: &Host, out: &mut Out) -> Outcome {
    let volumes: Volumes = host.get("/v1/volumes").await?;
    out.result(&volumes, |v| {
        let mut table = Table::new(&["NAME", "LIFE", ">USED", ">SIZE", ">SNAPSHOTS", "USED BY", "PATH"]);
        for volume in &v.volumes {
            let life = match volume.life {
                VolumeLife::Keep => "keep",
                VolumeLife::Snapshot => "snapshot",
                VolumeLife::Scratch => "scratch",
            };
            table.row([
                volume.name.to_string(),
                life.to_owned(),
                volume.used.map(bytes).unwrap_or_default(),
                volume.size.map(bytes).unwrap_or_default(),
                volume.snapshots.to_string(),
                names(&volume.used_by),
                volume.path.clone(),
            ]);
        }
        table.text("no volumes")
    })?;
    Ok(0)
}

async fn snapshots(host: &Host, name: &str, now: Timestamp, out: &mut Out) -> Outcome {
    let snapshots: Snapshots = host.get(&format!("{}/snapshots", route(name)?)).await?;
    out.result(&snapshots, |s| {
        let mut table = Table::new(&["SNAPSHOT", "AGE", ">OWN"]);
        for snapshot in &s.snapshots {
            let own = snapshot.own.map(bytes).unwrap_or_default();
            table.row([snapshot.name.to_string(), age(snapshot.taken, now), own]);
        }
        table.text("no snapshots")
    })?;
    Ok(0)
}

/// Says what became of a volume and of those that use it.
fn tell(replaced: &Replaced, what: &str, out: &mut Out) -> Outcome {
    out.result(replaced, |replaced| {
        let mut text = format!("volume {} {what}\n", replaced.volume);
        if let Some(before) = replaced.before {
            text += &format!("what it held before is snapshot {before}\n");
        }
        if !replaced.stopped.is_empty() {
            text += &format!("started again: {}\n", names(&replaced.stopped));
        }
        text
    })?;
    Ok(0)
}

async fn export(
    host: &Host,
    name: &str,
    snapshot: Option<SnapshotName>,
    file: Option<&Path>,
    out: &mut Out,
) -> Outcome {
    let query = snapshot.map(|snapshot| format!("?snapshot={snapshot}")).unwrap_or_default();
    let path = format!("{}/export{query}", route(name)?);
    let Some(file) = file else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::invalid("a tar is nothing for a terminal")
                .advice("give --out FILE, or redirect standard output"));
        }
        let mut archive = host.get_bytes(&path).await?;
        while let Some(bytes) = archive.next().await? {
            if out.closed() {
                break;
            }
            out.write(&bytes)?;
        }
        return Ok(0);
    };
    let failed = |e: std::io::Error| Failure::failed(format!("write {}", file.display())).because(e);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut archive = host.get_bytes(&path).await?;
    // Beside its place until it is whole.
    let mut written = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    let mut total = 0;
    while let Some(bytes) = archive.next().await? {
        written.write_all(&bytes).map_err(failed)?;
        total += bytes.len() as u64;
    }
    written.as_file().sync_all().map_err(failed)?;
    written.persist(file).map_err(|error| failed(error.error))?;
    out.result(&Exported { volume: name, file, bytes: total }, |exported| {
        format!("{}  {}\n", exported.file.display(), bytes(exported.bytes))
    })?;
    Ok(0)
}
