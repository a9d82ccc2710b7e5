//! Headers, long names and data of an archive, in order.

use std::io::{self, Read};
use std::ops::Range;

use super::header::Header;
use super::path::printable;
use super::pax::{self, Pax};
use super::sparse::{Map, Next, OldMap, PaxMap, TextMap};
use super::{Entry, EntryPath, Kind, Limits, MAX_PATH, Meta, PathFault, RECORD, Reason, Refusal, TarError};

/// Reads an archive entry by entry. Data that is not read before the next entry is asked for is skipped.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Bytes read so far.
    offset: u64,
    /// Where the header of the present entry begins.
    entry_offset: u64,
    entries: u64,
    /// Data of the present entry in the archive that was not read yet, and the padding behind it.
    remaining: u64,
    padding: u64,
    /// Where the holes of the present entry are, if it has any.
    sparse: Option<Map>,
    /// Bytes of holes so far.
    holes: u64,
    ended: bool,
}

/// What precedes the header of an entry.
#[derive(Debug, Default)]
struct Extension {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads from `inner`, within `limits`.
    pub fn new(inner: R, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            offset: 0,
            entry_offset: 0,
            entries: 0,
            remaining: 0,
            padding: 0,
            sparse: None,
            holes: 0,
            ended: false,
        }
    }

    /// The next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// [`TarError::Refused`] where the archive is not taken, [`TarError::Read`] where it cannot be read.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extension = Extension::default();
        loop {
            self.skip_data()?;
            let Some(bytes) = self.header()? else {
                let bare =
                    extension.pax.is_none() && extension.long_name.is_none() && extension.long_link.is_none();
                return if bare { Ok(None) } else { Err(self.refuse(None, Reason::Truncated)) };
            };
            let header = Header::parse(&bytes).map_err(|reason| self.refuse(None, reason))?;
            let size = header.size().map_err(|reason| self.refuse(None, reason))?;
            let repeated = match header.type_flag() {
                b'x' => {
                    let records = self.small_data(size, pax::MAX_PAX)?;
                    let pax = pax::parse(&records).map_err(|reason| self.refuse(None, reason))?;
                    extension.pax.replace(pax).is_some()
                }
                b'g' => {
                    let records = self.small_data(size, pax::MAX_PAX)?;
                    pax::check_global(&records).map_err(|reason| self.refuse(None, reason))?;
                    false
                }
                b'L' => extension.long_name.replace(self.long_name(size)?).is_some(),
                b'K' => extension.long_link.replace(self.long_name(size)?).is_some(),
                _ => return self.entry(&header, extension, size).map(Some),
            };
            if repeated {
                return Err(self.refuse(None, Reason::Ambiguous));
            }
        }
    }

    /// The entry that a header with its extensions describes; the data, and a sparse file's map, come next.
    fn entry(&mut self, header: &Header<'_>, mut extension: Extension, size: u64) -> Result<Entry, TarError> {
        let old_map = match header.type_flag() {
            b'S' => Some(self.old_map(header)?),
            _ => None,
        };
        let pax_map = extension.pax.as_mut().and_then(|pax| pax.sparse.take());
        if let (Some(name), Some(pax)) =
            (pax_map.as_ref().and_then(|sparse| sparse.name.clone()), &mut extension.pax)
        {
            // The ordinary name is one for readers that do not know sparse files.
            pax.path = Some(name);
        }
        let mut entry = assemble(header, extension, size)
            .map_err(|(path, reason)| TarError::from(Refusal { offset: self.entry_offset, path, reason }))?;
        let Kind::File { size } = &mut entry.kind else {
            return if pax_map.is_some() {
                Err(self.refuse(Some(&entry.path), Reason::Sparse))
            } else {
                Ok(entry)
            };
        };
        let stored = *size;
        self.expect_data(stored);
        let map = match (old_map, pax_map) {
            (None, None) => return Ok(entry),
            (Some(old), None) => old.finish(stored),
            (None, Some(pax)) => match pax.finish() {
                Ok((size, PaxMap::Parts(parts))) => Map::new(parts, size, stored),
                Ok((size, PaxMap::InData)) => {
                    let parts = self.text_map(&entry.path)?;
                    Map::new(parts, size, self.remaining)
                }
                Err(reason) => Err(reason),
            },
            (Some(_), Some(_)) => Err(Reason::Ambiguous),
        };
        let map = map.map_err(|reason| self.refuse(Some(&entry.path), reason))?;
        *size = map.size();
        self.holes = self.holes.saturating_add(map.size().saturating_sub(self.remaining));
        if self.offset.saturating_add(self.holes) > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(self
                .refuse(Some(&entry.path), Reason::TooMuch { what: "bytes in the archive".into(), limit }));
        }
        self.sparse = Some(map);
        Ok(entry)
    }

    /// The map of a header of type `S`, and of the blocks that follow it.
    fn old_map(&mut self, header: &Header<'_>) -> Result<OldMap, TarError> {
        let mut map = OldMap::begin(header).map_err(|reason| self.refuse(None, reason))?;
        while map.continued {
            let mut block = [0; RECORD];
            if self.read_full(&mut block)? < RECORD {
                return Err(self.refuse(None, Reason::Truncated));
            }
            map.extend(&block).map_err(|reason| self.refuse(None, reason))?;
        }
        Ok(map)
    }

    /// The map that stands before the data of the present entry.
    fn text_map(&mut self, path: &EntryPath) -> Result<Vec<(u64, u64)>, TarError> {
        let mut map = TextMap::default();
        loop {
            if self.remaining < RECORD as u64 {
                return Err(self.refuse(Some(path), Reason::Sparse));
            }
            let mut block = [0; RECORD];
            let mut filled = 0;
            while filled < RECORD {
                filled += self.read_stored(&mut block[filled..])?;
            }
            if let Some(parts) = map.take(&block).map_err(|reason| self.refuse(Some(path), reason))? {
                return Ok(parts);
            }
        }
    }

    /// Reads data of the present entry, holes as zeros; 0 bytes at its end.
    ///
    /// # Errors
    /// As [`Self::next_entry`].
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let Some(next) = self.sparse.as_ref().map(Map::next) else { return self.read_stored(buf) };
        let fits = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(buf.len());
        let read = match next {
            Next::Hole(count) => {
                let count = fits(count);
                buf[..count].fill(0);
                count
            }
            Next::Data(count) => {
                let count = fits(count);
                self.read_stored(&mut buf[..count])?
            }
        };
        if let Some(map) = &mut self.sparse {
            map.advance(read as u64);
        }
        Ok(read)
    }

    /// Reads data of the present entry as it is in the archive.
    fn read_stored(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.read_some(&mut buf[..want])?;
        if n == 0 {
            return Err(self.refuse(None, Reason::Truncated));
        }
        self.remaining -= n as u64;
        Ok(n)
    }

    /// A refusal at the present entry.
    pub fn refuse(&self, path: Option<&EntryPath>, reason: Reason) -> TarError {
        Refusal { offset: self.entry_offset, path: path.map(EntryPath::to_string), reason }.into()
    }

    /// Reads what follows the end marker, so that digests cover it, and gives the source back.
    ///
    /// # Errors
    /// As [`Self::next_entry`].
    pub fn finish(mut self) -> Result<R, TarError> {
        let mut buffer = vec![0; 1 << 16];
        while self.read_some(&mut buffer)? > 0 {}
        Ok(self.inner)
    }

    /// Where the data of the present entry lie in the archive; `None` for a sparse file, whose data are not all there.
    pub(crate) fn stored(&self) -> Option<Range<u64>> {
        self.sparse.is_none().then(|| self.offset..self.offset.saturating_add(self.remaining))
    }

    /// Passes over the data of the present entry without reading them: `seek` moves the source so many bytes on. Whether the
    /// source has them is for the caller to know.
    ///
    /// # Errors
    /// As [`Self::next_entry`].
    pub(crate) fn pass_over(
        &mut self,
        seek: impl FnOnce(&mut R, u64) -> io::Result<()>,
    ) -> Result<(), TarError> {
        let bytes = std::mem::take(&mut self.remaining);
        self.offset = self.offset.saturating_add(bytes);
        if self.offset > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(self.refuse(None, Reason::TooMuch { what: "bytes in the archive".into(), limit }));
        }
        seek(&mut self.inner, bytes).map_err(TarError::Read)
    }

    fn expect_data(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.next_multiple_of(RECORD as u64) - size;
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 4096];
        self.sparse = None;
        while self.read_stored(&mut buffer)? > 0 {}
        let mut padding = std::mem::take(&mut self.padding) as usize;
        while padding > 0 {
            match self.read_some(&mut buffer[..padding])? {
                // Some writers pad only what something follows; all data is there, so nobody can read it as anything else.
                0 => {
                    self.ended = true;
                    break;
                }
                n => padding -= n,
            }
        }
        Ok(())
    }

    /// The next header, or `None` at the end: two blocks of zeros, or the end of the input where a header would begin, or in the
    /// padding before it.
    fn header(&mut self) -> Result<Option<[u8; RECORD]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        self.entry_offset = self.offset;
        let mut zeros = 0;
        loop {
            let mut block = [0; RECORD];
            match self.read_full(&mut block)? {
                0 => self.ended = true,
                RECORD if block == [0; RECORD] => {
                    zeros += 1;
                    self.ended = zeros == 2;
                }
                // One block of zeros and then something else: some readers stop there and others go on.
                RECORD if zeros > 0 => return Err(self.refuse(None, Reason::Ambiguous)),
                RECORD => {
                    self.entries += 1;
                    if self.entries > self.limits.entries {
                        let limit = self.limits.entries;
                        return Err(self.refuse(None, Reason::TooMuch { what: "entries".into(), limit }));
                    }
                    return Ok(Some(block));
                }
                _ => return Err(self.refuse(None, Reason::Truncated)),
            }
            if self.ended {
                return Ok(None);
            }
        }
    }

    /// The data of an extension header, whole.
    fn small_data(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, TarError> {
        if size > limit {
            return Err(
                self.refuse(None, Reason::TooMuch { what: "bytes in an extended header".into(), limit })
            );
        }
        self.expect_data(size);
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            filled += self.read_stored(&mut data[filled..])?;
        }
        Ok(data)
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.small_data(size, MAX_PATH as u64 + 1)?;
        // GNU tar counts the terminating NUL in.
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn read_full(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_some(&mut buf[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        loop {
            match self.inner.read(buf) {
                Ok(n) => {
                    self.offset += n as u64;
                    if self.offset.saturating_add(self.holes) > self.limits.bytes {
                        let limit = self.limits.bytes;
                        return Err(
                            self.refuse(None, Reason::TooMuch { what: "bytes in the archive".into(), limit })
                        );
                    }
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
    }
}

/// Joins a header with what came before it. An error carries the path, where there is one, for the message.
fn assemble(header: &Header<'_>, extension: Extension, size: u64) -> Result<Entry, (Option<String>, Reason)> {
    let pax = extension.pax.unwrap_or_default();
    let two_names = pax.path.is_some() && extension.long_name.is_some();
    let two_links = pax.link_path.is_some() && extension.long_link.is_some();
    let raw_path = pax.path.or(extension.long_name).unwrap_or_else(|| header.name());
    let raw_link = pax.link_path.or(extension.long_link).unwrap_or_else(|| header.link_name().to_vec());
    let size = pax.size.unwrap_or(size);
    let blame = |reason| (Some(printable(&raw_path)), reason);
    if two_names || two_links {
        return Err(blame(Reason::Ambiguous));
    }
    let path = EntryPath::parse(&raw_path).map_err(|fault| blame(Reason::Path(fault)))?;
    let kind = kind(header, &raw_path, raw_link, size).map_err(blame)?;
    if size != 0 && !matches!(kind, Kind::File { .. }) {
        return Err(blame(Reason::UnexpectedData));
    }
    let id = |pax: Option<u64>, header: Result<u64, Reason>, name: &'static str| {
        let id = pax.map_or(header, Ok)?;
        // The highest number means "no user" to the kernel.
        u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(Reason::Number(name.into()))
    };
    let meta = Meta {
        mode: header.mode().map_err(blame)?,
        uid: id(pax.uid, header.uid(), "uid").map_err(blame)?,
        gid: id(pax.gid, header.gid(), "gid").map_err(blame)?,
        mtime: pax.mtime.map_or_else(|| Ok((header.mtime()?, 0)), Ok).map_err(blame)?,
        xattrs: pax.xattrs,
    };
    Ok(Entry { path, kind, meta })
}

fn kind(header: &Header<'_>, raw_path: &[u8], raw_link: Vec<u8>, size: u64) -> Result<Kind, Reason> {
    Ok(match header.type_flag() {
        // Before ustar, a directory was a file whose name ends with a slash. Of one that says to be a file, GNU tar makes a
        // directory and Go a file.
        0 if raw_path.ends_with(b"/") => Kind::Directory,
        b'0' | b'7' | b'S' if raw_path.ends_with(b"/") => return Err(Reason::FileWithSlash),
        b'0' | 0 | b'7' | b'S' => Kind::File { size },
        b'1' => Kind::HardLink { target: EntryPath::parse(&raw_link).map_err(Reason::LinkTarget)? },
        b'2' => Kind::Symlink { target: symlink_target(raw_link).map_err(Reason::LinkTarget)? },
        b'3' => match header.device()? {
            (0, 0) => return Err(Reason::WhiteoutDevice),
            (major, minor) => Kind::CharDevice { major, minor },
        },
        b'4' => header.device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(Reason::Type(char::from(other))),
    })
}

/// A symbolic link may point anywhere, it is only followed inside the mounted image; but it must be a path.
fn symlink_target(target: Vec<u8>) -> Result<Vec<u8>, PathFault> {
    match target.as_slice() {
        [] => Err(PathFault::Empty),
        long if long.len() >= MAX_PATH => Err(PathFault::Long),
        nul if nul.contains(&0) => Err(PathFault::Nul),
        _ => Ok(target),
    }
}
