//! Records that are here: those of local blobs, read from them when a layer is planned.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use bennu_manifests::model::Digest;

use super::cut::units;
use super::encode::group_digest;
use super::local::{Local, groups};
use super::short;
use crate::erofs::ReadError;
use crate::spill::Spill;

/// Bytes of records that wait in memory before they go to an unnamed file.
const IN_MEMORY: usize = 4 << 20;
/// Bytes of records that are read beside as many as the image that is wanted has bytes.
const BUDGET: u64 = 64 << 20;

/// Records of local blobs, one behind the other.
#[derive(Debug)]
pub(crate) struct Kept {
    bytes: Spill,
    units: HashMap<u64, Range<u64>>,
    groups: HashMap<u64, Range<u64>>,
}

impl Kept {
    /// Those of the blobs that have most in common with the image that is wanted, as `found` says for each of them. The image has so many
    /// bytes. What does not fit into memory waits in an unnamed file in `spill`; what cannot be read or kept is not here.
    pub(crate) fn of(local: &Local, found: &[usize], image: u64, spill: &Path) -> Self {
        let mut kept =
            Self { bytes: Spill::new(spill, IN_MEMORY), units: HashMap::new(), groups: HashMap::new() };
        let mut blobs: Vec<_> = local.files().zip(found).collect();
        blobs.sort_by_key(|(_, found)| std::cmp::Reverse(**found));
        let budget = BUDGET.saturating_add(image);
        for (blob, _) in blobs {
            let Ok(blob) = blob.try_clone() else { continue };
            let (mut leaves, mut ends) = (Vec::new(), vec![kept.bytes.len()]);
            // One that breaks off has given what came before.
            let _whole_or_not = units(blob, |unit, leaf| {
                if kept.bytes.len() + unit.len() as u64 > budget {
                    return Err(ReadError::Damaged("more than is read"));
                }
                kept.bytes.add(unit);
                kept.bytes.settle()?;
                leaves.push(leaf);
                ends.push(kept.bytes.len());
                Ok(())
            });
            kept.note(&leaves, &ends);
            if kept.bytes.len() >= budget {
                break;
            }
        }
        kept
    }

    fn note(&mut self, leaves: &[Digest], ends: &[u64]) {
        for (leaf, ends) in leaves.iter().zip(ends.windows(2)) {
            self.units.insert(short(leaf), ends[0]..ends[1]);
        }
        for group in groups(leaves) {
            let bytes = ends[group.start]..ends[group.end];
            self.groups.insert(short(&group_digest(&leaves[group])), bytes);
        }
    }

    /// Where the records of a group are.
    pub(crate) fn group(&self, short: u64) -> Option<Range<u64>> {
        self.groups.get(&short).cloned()
    }

    /// Where the records of a unit are.
    pub(crate) fn unit(&self, short: u64) -> Option<Range<u64>> {
        self.units.get(&short).cloned()
    }

    /// Fills `out` with what is at `at`.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.bytes.read(at, out)
    }
}
