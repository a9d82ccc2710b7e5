//! Which user and group ids of the host belong to which container.
//!
//! Each container *name* has its own range of 65536 ids for good, so that what one container leaves on a disk never
//! belongs to another one. Inside the container the range begins at 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bennu_image_store::durable;
use bennu_manifests::model::Name;
use serde::{Deserialize, Serialize};

use super::record;

/// How many ids a container has. 65536 holds every id of an ordinary image, `nobody` (65534) among them.
pub(super) const COUNT: u32 = 0x1_0000;

/// The first range given out, in units of [`COUNT`]: below it lie the ids of the host itself and of systemd's dynamic
/// users (systemd "Users, Groups, UIDs and GIDs": 61184 to 65519, and 524288 upwards for machines, given out by nobody
/// on this host).
const FIRST: u16 = 16;

/// The last range given out: its last id is below 2³¹, above which some programs take ids for negative.
const LAST: u16 = 32000;

/// The ranges given out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct IdRanges {
    /// By container name, in units of [`COUNT`].
    ranges: BTreeMap<Name, u16>,
}

/// All ranges are taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give container {name} a range of user ids: all {} are taken", LAST - FIRST + 1)]
pub struct NoRangeLeft {
    /// The container that gets none.
    pub name: Name,
}

/// Why containers do not get their ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdsError {
    /// There are none left.
    #[error(transparent)]
    NoneLeft(#[from] NoRangeLeft),
    /// The ids that were given out are not what was written.
    #[error("read {}: it holds ranges that were never given out", path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
    },
    /// They can't be read or written.
    #[error("{what} {}", path.display())]
    Io {
        /// Which of both.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// The ranges on disk.
#[derive(Debug)]
pub(super) struct Ids {
    path: PathBuf,
    lock: Mutex<()>,
}

impl Ids {
    /// Those that this file holds.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, lock: Mutex::default() }
    }

    /// The first ids of these containers, in the same order. They are on disk before they are used, and written only where one
    /// of them is new.
    ///
    /// # Errors
    /// [`IdsError`]; then none was given out.
    pub(super) fn of<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> Result<Vec<u32>, IdsError> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let path = || self.path.clone();
        let io = |what| move |source| IdsError::Io { what, path: path(), source };
        let before: IdRanges = record::read(&self.path).map_err(io("read"))?.unwrap_or_default();
        if !before.is_sound() {
            return Err(IdsError::Unsound { path: path() });
        }
        let mut ranges = before.clone();
        let given = names.into_iter().map(|name| ranges.assign(name)).collect::<Result<_, _>>()?;
        if ranges != before {
            let bytes = serde_json::to_vec(&ranges).map_err(io::Error::from).map_err(io("write"))?;
            durable::replace(&self.path, &bytes).map_err(io("write"))?;
        }
        Ok(given)
    }
}

impl IdRanges {
    /// The first host id of a container's range, where it has one.
    pub(super) fn get(&self, name: &Name) -> Option<u32> {
        self.ranges.get(name).map(|&range| u32::from(range) * COUNT)
    }

    /// Gives a container its range and returns its first host id; one that has a range keeps it.
    ///
    /// # Errors
    /// Where all ranges are taken.
    pub(super) fn assign(&mut self, name: &Name) -> Result<u32, NoRangeLeft> {
        if let Some(start) = self.get(name) {
            return Ok(start);
        }
        let taken: BTreeSet<u16> = self.ranges.values().copied().collect();
        let range = (FIRST..=LAST)
            .find(|range| !taken.contains(range))
            .ok_or_else(|| NoRangeLeft { name: name.clone() })?;
        self.ranges.insert(name.clone(), range);
        Ok(u32::from(range) * COUNT)
    }

    /// Whether every range is one that may be given out, and no two containers share one. What is read from disk is
    /// not believed before.
    pub(super) fn is_sound(&self) -> bool {
        let mut taken: Vec<_> = self.ranges.values().collect();
        taken.sort_unstable();
        taken.windows(2).all(|pair| pair[0] != pair[1])
            && taken.iter().all(|&&range| (FIRST..=LAST).contains(&range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn each_name_has_its_own_range_for_good() {
        let mut ranges = IdRanges::default();
        let web = ranges.assign(&name("web")).unwrap();
        let db = ranges.assign(&name("db")).unwrap();
        assert_eq!((web, db), (16 * 65536, 17 * 65536));
        assert_eq!(ranges.assign(&name("web")), Ok(web));
        assert_eq!(ranges.get(&name("cache")), None);
        assert!(ranges.is_sound());
    }

    #[test]
    fn ranges_survive_being_written_and_read() {
        let mut ranges = IdRanges::default();
        ranges.assign(&name("web")).unwrap();
        let text = serde_json::to_string(&ranges).unwrap();
        assert_eq!(text, r#"{"ranges":{"web":16}}"#);
        assert_eq!(serde_json::from_str::<IdRanges>(&text).unwrap(), ranges);
    }

    #[test]
    fn a_shared_range_and_one_of_the_hosts_own_are_not_sound() {
        for text in [r#"{"ranges":{"a":16,"b":16}}"#, r#"{"ranges":{"a":0}}"#, r#"{"ranges":{"a":32001}}"#] {
            assert!(!serde_json::from_str::<IdRanges>(text).unwrap().is_sound(), "{text}");
        }
    }

    #[test]
    fn the_last_id_stays_below_two_to_the_31() {
        assert!((u32::from(LAST) + 1) * COUNT - 1 < 1 << 31);
    }

    #[test]
    fn when_all_are_taken_it_says_so() {
        let ranges = (FIRST..=LAST).map(|range| (name(&format!("c{range}")), range)).collect();
        let mut ranges = IdRanges { ranges };
        assert_eq!(ranges.assign(&name("web")), Err(NoRangeLeft { name: name("web") }));
    }

    #[test]
    fn ids_are_on_disk_once_given_and_those_that_are_known_are_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids.json");
        let ids = Ids::new(path.clone());
        let (web, db) = (name("web"), name("db"));
        let given = ids.of([&web, &db]).unwrap();
        assert_eq!(Ids::new(path.clone()).of([&db, &web]).unwrap(), [given[1], given[0]]);
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(ids.of([&web]).unwrap(), [given[0]]);
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
        std::fs::write(&path, r#"{"ranges":{"web":3}}"#).unwrap();
        assert!(matches!(ids.of([&web]), Err(IdsError::Unsound { .. })));
    }
}
