//! Files of a running container as a tar: its own view, with everything that is mounted in it.
//!
//! Each file is reached from the open directory that it is in, by a name without a slash, and no link is followed but
//! those on the way to the path that was asked for, which stay within the container's root. So nothing that the container
//! does meanwhile leads out of it. Only files, directories and symbolic links are carried out; devices, pipes and sockets
//! are passed over, and what the kernel makes up as it is read (`/proc`) appears empty.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bennu_planner::Instance;
use futures_util::{Stream, stream};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::Mode;
use tokio::sync::mpsc;

use super::record::{self, Record};
use super::{Host, idrange, unit, user};

/// The most copies at the same time: each has a thread of its own, which waits for whoever reads it.
const MAX_COPIES: usize = 8;

/// How deep directories may lie in each other.
const MAX_DEPTH: usize = 256;

/// The largest piece that is passed on at once, in bytes, and how many may wait.
const PIECE: usize = 128 << 10;
const WAITING: usize = 4;

/// The user and group of what belongs to nobody in the container (user_namespaces(7), "overflow").
const NOBODY: u32 = 65534;

/// Why files are not copied out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// There is no such path in it.
    #[error("there is no {} in container {instance}", path.display())]
    NotThere {
        /// The container.
        instance: Instance,
        /// The path.
        path: PathBuf,
    },
    /// Its files can't be reached.
    #[error("copy {} out of container {instance}", path.display())]
    Io {
        /// The container.
        instance: Instance,
        /// The path.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// So many copies are made already.
    #[error("copy out of container {instance}: {MAX_COPIES} copies are being made already")]
    TooMany {
        /// The container.
        instance: Instance,
    },
}

impl Host {
    /// A tar of what is at `path` in a container, whose first process is `pid`, piece by piece. An error takes the place of
    /// its end where it is not whole. When it is dropped before, the copying ends.
    ///
    /// # Errors
    /// Where there is nothing at the path, or it can't be reached.
    pub fn copy_out(
        &self,
        instance: &Instance,
        pid: u32,
        path: &Path,
    ) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static + use<>, CopyError> {
        let io = |source| CopyError::Io { instance: instance.clone(), path: path.to_owned(), source };
        let place = Place::take().ok_or_else(|| CopyError::TooMany { instance: instance.clone() })?;
        let root = root_of(instance, pid).map_err(io)?;
        let record: Option<Record> =
            record::read(&self.paths.instance(instance).join("record.json")).map_err(io)?;
        let host_start = record.and_then(|record| record.host_start);
        let found = match user::open_in_root(&root, path, OFlag::O_PATH | OFlag::O_NOFOLLOW) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(CopyError::NotThere { instance: instance.clone(), path: path.to_owned() });
            }
            other => File::from(other.map_err(io)?),
        };
        let name = path.file_name().unwrap_or(OsStr::new("root")).to_owned();
        let (pieces, taken) = mpsc::channel(WAITING);
        let copying = move || {
            let _place = place;
            let mut tar = tar::Builder::new(Pieces { to: pieces.clone(), piece: Vec::with_capacity(PIECE) });
            let copied = add(&mut tar, &found, Path::new(&name), host_start, 0);
            let ended = copied.and_then(|()| tar.into_inner()).and_then(|mut pieces| pieces.flush());
            if let Err(error) = ended {
                // Where nobody takes it any more nobody has to be told.
                let _ = pieces.blocking_send(Err(error));
            }
        };
        std::thread::Builder::new().name("copy".to_owned()).spawn(copying).map_err(io)?;
        Ok(stream::unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) }))
    }
}

/// The root directory of a container, as its processes see it.
fn root_of(instance: &Instance, pid: u32) -> io::Result<File> {
    let process = PathBuf::from("/proc").join(pid.to_string());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let root = File::options().read(true).custom_flags(flags.bits()).open(process.join("root"))?;
    // The number may have become another process's meanwhile; what is in the container's group is the container's.
    let groups = std::fs::read_to_string(process.join("cgroup"))?;
    let own = format!("/{}", unit::name(instance));
    let belongs = groups.lines().any(|line| line.ends_with(&own) || line.contains(&format!("{own}/")));
    if belongs { Ok(root) } else { Err(io::Error::other("its process has ended")) }
}

/// Adds what `found` (opened by its path alone) is, and everything below it.
fn add(
    tar: &mut tar::Builder<Pieces>,
    found: &File,
    name: &Path,
    host_start: Option<u32>,
    depth: usize,
) -> io::Result<()> {
    let meta = found.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(meta.mode() & 0o7777);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or_default());
    header.set_uid(inside(meta.uid(), host_start).into());
    header.set_gid(inside(meta.gid(), host_start).into());
    header.set_size(0);
    if meta.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        // An empty path is the link itself (readlink(2)).
        return tar.append_link(&mut header, name, readlinkat(found.as_fd(), "")?);
    }
    if meta.is_file() {
        let content = opened(found, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        header.set_size(meta.len());
        // A file that becomes shorter while it is read is filled up, one that grows is cut.
        return tar.append_data(&mut header, name, content.chain(io::repeat(0)).take(meta.len()));
    }
    if !meta.is_dir() {
        return Ok(());
    }
    if depth >= MAX_DEPTH {
        return Err(io::Error::other(format!("directories lie more than {MAX_DEPTH} deep in each other")));
    }
    header.set_entry_type(tar::EntryType::Directory);
    tar.append_data(&mut header, name, io::empty())?;
    let dir = opened(found, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    for entry in std::fs::read_dir(of_descriptor(&dir))? {
        let child = entry?.file_name();
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&dir, child.as_os_str(), flags, Mode::empty()) {
            // It was removed meanwhile.
            Err(nix::errno::Errno::ENOENT) => {}
            other => add(tar, &File::from(other?), &name.join(&child), host_start, depth + 1)?,
        }
    }
    Ok(())
}

/// Opens for reading what was opened by its path alone: the same thing, whatever its name means by now.
fn opened(found: &File, flags: OFlag) -> io::Result<File> {
    File::options().read(true).custom_flags(flags.bits()).open(of_descriptor(found))
}

fn of_descriptor(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// An id of the host as the container sees it.
fn inside(id: u32, host_start: Option<u32>) -> u32 {
    let Some(start) = host_start else { return id };
    id.checked_sub(start).filter(|id| *id < idrange::COUNT).unwrap_or(NOBODY)
}

/// Passes bytes on, and waits for whoever takes them.
struct Pieces {
    to: mpsc::Sender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE - self.piece.len())];
        self.piece.extend_from_slice(bytes);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// One of the places for copies.
struct Place;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let taken = TAKEN.fetch_add(1, Ordering::SeqCst);
        let place = Self;
        (taken < MAX_COPIES).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        TAKEN.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a tar of `path` in `root` holds: names, and content, link target or `/`.
    fn copied(root: &Path, path: &str) -> io::Result<BTreeMap<String, String>> {
        let root = File::open(root)?;
        let found =
            File::from(user::open_in_root(&root, Path::new(path), OFlag::O_PATH | OFlag::O_NOFOLLOW)?);
        let (to, mut taken) = mpsc::channel(1000);
        let mut tar = tar::Builder::new(Pieces { to, piece: Vec::new() });
        add(&mut tar, &found, Path::new("it"), None, 0)?;
        tar.into_inner()?.flush()?;
        let mut bytes = Vec::new();
        while let Ok(piece) = taken.try_recv() {
            bytes.extend(piece?);
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut all = BTreeMap::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let mut content = String::new();
            entry.read_to_string(&mut content)?;
            if let Some(link) = entry.link_name()? {
                content = format!("-> {}", link.display());
            } else if entry.header().entry_type().is_dir() {
                content = "/".to_owned();
            }
            all.insert(entry.path()?.display().to_string(), content);
        }
        Ok(all)
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn files_directories_and_links_are_copied_and_what_would_make_a_reader_wait_is_not() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("d/deep")).unwrap();
        std::fs::write(root.path().join("d/x"), "content").unwrap();
        symlink("/etc/shadow", root.path().join("d/deep/link")).unwrap();
        nix::unistd::mkfifo(&root.path().join("d/pipe"), Mode::S_IRWXU).unwrap();
        let expect =
            map(&[("it", "/"), ("it/deep", "/"), ("it/deep/link", "-> /etc/shadow"), ("it/x", "content")]);
        let named: BTreeMap<_, _> = copied(root.path(), "/d")
            .unwrap()
            .into_iter()
            .map(|(name, c)| (name.trim_end_matches('/').to_owned(), c))
            .collect();
        assert_eq!(named, expect);
        assert_eq!(copied(root.path(), "/d/x").unwrap(), map(&[("it", "content")]));
        assert_eq!(copied(root.path(), "/d/deep/link").unwrap(), map(&[("it", "-> /etc/shadow")]));
    }

    #[test]
    fn no_link_on_the_way_leads_out_of_the_container() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("absolute")).unwrap();
        symlink("../../../../../../../..", root.path().join("up")).unwrap();
        let up = format!("/up{}/secret", outside.path().display());
        for path in ["/absolute/secret", &up, "/../../../../etc/passwd"] {
            assert_eq!(copied(root.path(), path).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
        }
        // The same links lead where a process inside would find something.
        std::fs::write(root.path().join("found"), "inside").unwrap();
        assert_eq!(copied(root.path(), "/up/found").unwrap(), map(&[("it", "inside")]));
    }

    #[test]
    fn owners_are_those_that_the_container_sees() {
        assert_eq!(inside(1 << 20, Some(1 << 20)), 0);
        assert_eq!(inside((1 << 20) + 33, Some(1 << 20)), 33);
        assert_eq!(inside(0, Some(1 << 20)), NOBODY, "the host's root is nobody there");
        assert_eq!(inside(7, None), 7);
    }

    #[test]
    fn so_many_copies_are_made_and_no_more() {
        let places: Vec<_> = std::iter::from_fn(Place::take).take(MAX_COPIES).collect();
        assert_eq!(places.len(), MAX_COPIES);
        assert!(Place::take().is_none());
        drop(places);
        assert!(Place::take().is_some());
    }
}
