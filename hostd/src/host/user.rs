//! Which user a container's process is: from `USER[:GROUP]` and the image's own lists of users and groups.
//!
//! The lists are the image's, so they are read without following anything out of it, and only so far.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// The largest list of users or groups that is read, in bytes.
const MAX_LIST: u64 = 1 << 20;

/// The most groups that a user is in besides its own.
const MAX_GROUPS: usize = 256;

/// The last id inside a container.
const MAX_ID: u32 = super::idrange::COUNT - 1;

/// A user, in ids of the container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct User {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoUser {
    /// The image does not know the name.
    #[error("run as user {name:?}: the image has no such user")]
    UnknownUser {
        /// The name.
        name: String,
    },
    /// The image does not know the name.
    #[error("run as group {name:?}: the image has no such group")]
    UnknownGroup {
        /// The name.
        name: String,
    },
    /// The id is none that a container has.
    #[error("run as id {id}: a container has ids 0 to {MAX_ID}")]
    OutOfRange {
        /// The id.
        id: u32,
    },
}

/// Finds a user.
///
/// `passwd` and `group` are the image's `/etc/passwd` and `/etc/group` (passwd(5), group(5)), empty where it has none.
///
/// # Errors
/// Where it knows a name not, or an id is none that a container has.
pub(super) fn find(wanted: &str, passwd: &str, group: &str) -> Result<User, NoUser> {
    let (user, group_wanted) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let entry = passwd.lines().filter_map(Entry::parse).find(|e| e.name == user || number == Some(e.uid));
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) => return Err(NoUser::UnknownUser { name: user.to_owned() }),
    };
    let gid = match group_wanted {
        Some(name) => find_group(name, group)?,
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    // As others do: who names a group means that one alone.
    let groups = match (&entry, group_wanted) {
        (Some(entry), None) => groups_of(entry.name, gid, group),
        _ => Vec::new(),
    };
    let all = [uid, gid].into_iter().chain(groups.iter().copied());
    match all.into_iter().find(|&id| id > MAX_ID) {
        Some(id) => Err(NoUser::OutOfRange { id }),
        None => Ok(User { uid, gid, groups }),
    }
}

impl User {
    /// The same user in further groups, by name or number; `list` is the image's `/etc/group`.
    ///
    /// # Errors
    /// Where the image knows a name not, or an id is none that a container has.
    pub(super) fn with_groups(mut self, further: &[String], list: &str) -> Result<Self, NoUser> {
        for name in further {
            let id = find_group(name, list)?;
            if id > MAX_ID {
                return Err(NoUser::OutOfRange { id });
            }
            if id != self.gid && !self.groups.contains(&id) {
                self.groups.push(id);
            }
        }
        Ok(self)
    }
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some(Self { name, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }
}

/// Name, id and members of each group.
fn group_lines(list: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    list.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn find_group(wanted: &str, list: &str) -> Result<u32, NoUser> {
    let by_name = group_lines(list).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
    by_name.or_else(|| wanted.parse().ok()).ok_or_else(|| NoUser::UnknownGroup { name: wanted.to_owned() })
}

fn groups_of(user: &str, own: u32, list: &str) -> Vec<u32> {
    let member = |members: &str| members.split(',').any(|name| name == user);
    let groups = group_lines(list).filter(|&(_, gid, members)| gid != own && member(members));
    groups.map(|(_, gid, _)| gid).take(MAX_GROUPS).collect()
}

/// Opens a path of an image's file tree as a process inside would find it: links stay inside, and nothing that is
/// special to the kernel is followed.
///
/// # Errors
/// Whatever openat2(2) says.
pub(super) fn open_in_root(root: &impl AsFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    Ok(openat2(root, relative, how)?)
}

/// Reads one of an image's lists; empty where there is none.
///
/// # Errors
/// Where it is there and can't be read, is no ordinary file, or is larger than 1 MiB.
pub(super) fn read_list(root: &impl AsFd, path: &Path) -> io::Result<String> {
    // Neither a FIFO nor a terminal in the image makes the daemon wait.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match open_in_root(root, path, flags) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        other => File::from(other?),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_LIST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LIST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:101:102::/var/lib/redis:/bin/false\nbroken:x\nbig:x:70000:0::/:\n";
    const GROUP: &str = "root:x:0:\nredis:x:102:\nssl:x:110:other,redis\nadm:x:4:redis\nbroken\n";

    #[track_caller]
    fn check(wanted: &str, uid: u32, gid: u32, groups: &[u32]) {
        assert_eq!(find(wanted, PASSWD, GROUP), Ok(User { uid, gid, groups: groups.into() }), "{wanted}");
    }

    #[test]
    fn names_and_numbers_are_found() {
        check("", 0, 0, &[]);
        check("redis", 101, 102, &[110, 4]);
        check("101", 101, 102, &[110, 4]);
        check("redis:", 101, 102, &[110, 4]);
        check("redis:adm", 101, 4, &[]);
        check("redis:7", 101, 7, &[]);
        check("500", 500, 0, &[]);
        check("500:500", 500, 500, &[]);
        check(":adm", 0, 4, &[]);
    }

    #[test]
    fn further_groups_are_added_once() {
        let user = find("redis", PASSWD, GROUP).unwrap();
        let further = ["adm", "44", "redis", "44"].map(str::to_owned);
        assert_eq!(user.clone().with_groups(&further, GROUP).unwrap().groups, [110, 4, 44]);
        let unknown = user.clone().with_groups(&["none".to_owned()], GROUP);
        assert_eq!(unknown, Err(NoUser::UnknownGroup { name: "none".into() }));
        assert_eq!(user.with_groups(&["65536".to_owned()], GROUP), Err(NoUser::OutOfRange { id: 65536 }));
    }

    #[test]
    fn unknown_names_and_ids_out_of_range_are_refused() {
        assert_eq!(find("nobody", PASSWD, GROUP), Err(NoUser::UnknownUser { name: "nobody".into() }));
        assert_eq!(find("broken", PASSWD, GROUP), Err(NoUser::UnknownUser { name: "broken".into() }));
        assert_eq!(find("redis:no", PASSWD, GROUP), Err(NoUser::UnknownGroup { name: "no".into() }));
        assert_eq!(find("big", PASSWD, GROUP), Err(NoUser::OutOfRange { id: 70000 }));
        assert_eq!(find("65536", PASSWD, GROUP), Err(NoUser::OutOfRange { id: 65536 }));
    }

    #[test]
    fn a_link_in_the_image_does_not_lead_out_of_it() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "outside").unwrap();
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir(image.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), image.path().join("etc/passwd")).unwrap();
        let root = File::open(image.path()).unwrap();
        assert_eq!(read_list(&root, Path::new("/etc/passwd")).unwrap(), "");
        std::fs::write(image.path().join("target"), "inside").unwrap();
        std::os::unix::fs::symlink("/target", image.path().join("etc/group")).unwrap();
        assert_eq!(read_list(&root, Path::new("/etc/group")).unwrap(), "inside");
    }

    #[test]
    fn a_list_that_is_too_large_or_no_file_is_an_error() {
        let image = tempfile::tempdir().unwrap();
        std::fs::create_dir(image.path().join("passwd")).unwrap();
        std::fs::write(image.path().join("group"), vec![b'x'; MAX_LIST as usize + 1]).unwrap();
        nix::unistd::mkfifo(&image.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = File::open(image.path()).unwrap();
        for name in ["/passwd", "/group", "/fifo"] {
            assert!(read_list(&root, Path::new(name)).is_err(), "{name}");
        }
    }
}
