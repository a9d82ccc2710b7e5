//! Where the members of a tar are: its headers are read once, and its data passed over.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::{self, BufReader};
use std::sync::Arc;

use super::OpenError;
use super::members::{Member, Members};
use crate::tar::{EntryPath, Kind, Limits, Reader, Reason, TarError};

/// The most entries that an archive of images may have: some images, a few hundred layers each, three entries a layer.
const MAX_ENTRIES: u64 = 100_000;
/// The longest path that is remembered, in bytes; those that programs write have at most 76. A stranger cannot fill our memory then.
const MAX_NAME: usize = 256;
/// Bytes that are read of each header and what follows it.
const READ_BUFFER: usize = 4096;

/// The members of an archive of images; `None` where it is something else.
pub(super) fn scan(file: File) -> Result<Option<Members>, OpenError> {
    let mut members = BTreeMap::new();
    let scanned = members_of(&file, &mut members);
    // Until a mark is seen, what is wrong with the archive is for others to say: it may be a layer.
    let has = |name: &[u8]| members.contains_key(name);
    if !has(b"oci-layout") && !has(b"manifest.json") {
        return Ok(None);
    }
    match scanned {
        Ok(()) => Ok(Some(Members::Tar(Arc::new(file), members))),
        Err(TarError::Refused(refusal)) => Err(OpenError::Refused(refusal)),
        Err(TarError::Read(error)) => Err(error.into()),
    }
}

fn members_of(file: &File, members: &mut BTreeMap<Vec<u8>, Member>) -> Result<(), TarError> {
    let length = file.metadata().map_err(TarError::Read)?.len();
    let limits = Limits { bytes: length, entries: MAX_ENTRIES, ..Limits::default() };
    let mut tar = Reader::new(BufReader::with_capacity(READ_BUFFER, file), limits);
    while let Some(entry) = tar.next_entry()? {
        let path = entry.path;
        let member = match entry.kind {
            Kind::File { .. } => {
                // No program writes an archive of images with holes.
                let stored = tar.stored().ok_or_else(|| tar.refuse(Some(&path), Reason::Sparse))?;
                if stored.end > length {
                    return Err(tar.refuse(Some(&path), Reason::Truncated));
                }
                tar.pass_over(|file, bytes| {
                    let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
                    file.seek_relative(bytes)
                })?;
                Member::Data(stored)
            }
            Kind::HardLink { target } => first_name(members, &target)
                .ok_or_else(|| tar.refuse(Some(&path), Reason::MissingLinkTarget(target.to_string())))?,
            Kind::Symlink { target } if target.len() <= MAX_NAME => Member::Link(target),
            // Directories say nothing, and what else there is belongs to no image.
            _ => continue,
        };
        if path.as_bytes().len() > MAX_NAME {
            continue;
        }
        match members.entry(path.as_bytes().to_vec()) {
            // Some programs would take the first and some the last.
            Entry::Occupied(_) => return Err(tar.refuse(Some(&path), Reason::Ambiguous)),
            Entry::Vacant(vacant) => drop(vacant.insert(member)),
        }
    }
    Ok(())
}

fn first_name(members: &BTreeMap<Vec<u8>, Member>, target: &EntryPath) -> Option<Member> {
    members.get(target.as_bytes()).cloned()
}
