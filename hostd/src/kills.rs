//! Telling of programs that the kernel ended because memory ran out.
//!
//! What was told of which instance is in memory and in one file that a boot empties, so that a restart of the daemon tells
//! nothing twice, and what happened meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_api::{Happening, OomKills};
use bennu_image_store::durable;
use jiff::Timestamp;

use crate::core::Core;
use crate::host;

/// How long further kills are gathered after one was told, so that who starts programs again and again which are ended at
/// once fills no list of events.
const GATHER: Duration = Duration::from_secs(1);

/// How long it is waited where the kernel does not tell.
const AGAIN: Duration = Duration::from_secs(30);

/// What was told.
#[derive(Debug)]
pub struct Kills {
    path: PathBuf,
    told: BTreeMap<String, OomKills>,
}

impl Kills {
    /// What the file says was told already. Where it can't be read, everything is told again.
    pub fn open(path: &Path) -> Self {
        let told = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path: path.to_owned(), told: told.unwrap_or_default() }
    }

    /// The instances of which programs were ended.
    pub(crate) fn status(&self) -> BTreeMap<String, OomKills> {
        self.told.clone()
    }

    /// What is to be told, which counts as told from then on. Instances that are not `seen` are forgotten.
    fn take(&mut self, seen: &[host::Kills], now: Timestamp) -> Vec<Happening> {
        let mut events = Vec::new();
        for host::Kills { instance, count, limit, gone } in seen {
            let name = instance.to_string();
            let known = self.told.get(&name).map_or(0, |told| told.count);
            if *count > known {
                let (container, killed) = (instance.name.clone(), count - known);
                events.push(Happening::OomKill { container, instance: name.clone(), killed, limit: *limit });
                self.told.insert(name.clone(), OomKills { count: *count, last: now, limit: *limit });
            }
            if *gone {
                self.told.remove(&name);
            }
        }
        let there: BTreeSet<_> =
            seen.iter().filter(|seen| !seen.gone).map(|seen| seen.instance.to_string()).collect();
        self.told.retain(|name, _| there.contains(name));
        events
    }

    fn write(&self) -> io::Result<()> {
        durable::replace(&self.path, &serde_json::to_vec(&self.told)?)
    }
}

/// Tells of what was not told yet.
pub(crate) fn tell(core: &Core) {
    let seen = match core.host.kills() {
        Ok(seen) => seen,
        Err(error) => return tracing::warn!(%error, "look whether memory ran out"),
    };
    let mut kills = core.kills();
    let before = kills.told.clone();
    let events = kills.take(&seen, Timestamp::now());
    // Told first and written down then: told twice is better than never.
    events.into_iter().for_each(|event| core.events.add(event));
    if kills.told != before
        && let Err(error) = kills.write()
    {
        tracing::warn!(%error, "write down which kills were told");
    }
}

/// Tells of each kill soon after it. What the kernel does not tell here is found when the host is looked at.
pub async fn run(core: &Core) {
    loop {
        if let Err(error) = core.host.kills_may_have_changed().await {
            tracing::warn!(%error, "wait for the kernel to end programs");
            tokio::time::sleep(AGAIN).await;
        }
        tell(core);
        tokio::time::sleep(GATHER).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(instance: &str, count: u64, gone: bool) -> host::Kills {
        host::Kills { instance: instance.parse().expect("an instance"), count, limit: Some(32 << 20), gone }
    }

    /// How many are told of whom.
    fn told(kills: &mut Kills, seen: &[host::Kills]) -> Vec<(String, u64)> {
        let events = kills.take(seen, Timestamp::UNIX_EPOCH).into_iter();
        let told = events.filter_map(|event| match event {
            Happening::OomKill { instance, killed, limit: Some(_), .. } => Some((instance, killed)),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn each_kill_is_told_once_also_over_a_restart_of_the_daemon() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("told");
        let mut kills = Kills::open(&path);
        assert_eq!(told(&mut kills, &[seen("web-3", 0, false)]), []);
        assert_eq!(told(&mut kills, &[seen("web-3", 2, false)]), [("web-3".to_owned(), 2)]);
        assert_eq!(told(&mut kills, &[seen("web-3", 2, false)]), []);
        kills.write().expect("written");
        let mut kills = Kills::open(&path);
        assert_eq!(told(&mut kills, &[seen("web-3", 3, false)]), [("web-3".to_owned(), 1)]);
        assert_eq!(kills.status()["web-3"].count, 3);
    }

    #[test]
    fn what_an_instance_suffered_until_its_end_is_told_and_one_of_its_name_begins_anew() {
        let mut kills = Kills::open(Path::new("/nowhere"));
        assert_eq!(told(&mut kills, &[seen("web-3", 1, false)]).len(), 1);
        let again = [seen("web-3", 2, true), seen("web-3", 1, false)];
        assert_eq!(told(&mut kills, &again), [("web-3".to_owned(), 1), ("web-3".to_owned(), 1)]);
        assert_eq!(told(&mut kills, &[]), []);
        assert!(kills.status().is_empty());
    }
}
