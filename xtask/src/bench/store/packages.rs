//! Which packages of Debian an image is made of, and their files.
//!
//! The release is always bookworm, whatever this machine runs, so that figures of different machines are about the same
//! files. apt works in a folder of its own, as if nothing was installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_os_image::mirror;

use crate::Failure;
use crate::bench::program::{read, succeed};

/// Which versions of the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// Those of the point release.
    Released,
    /// Those of the security archive and the updates, where they are newer.
    Upgraded,
}

/// apt with a folder of its own.
#[derive(Debug)]
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Prepares apt in `folder` and asks the mirror that this machine uses what there is.
    ///
    /// # Errors
    /// Where this machine does not say which mirror it uses, or the mirror does not answer.
    pub(super) fn prepare(folder: &Path, versions: Versions) -> Result<Self, Failure> {
        for part in ["etc", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let known = mirror::sources(Path::new("/"));
        let release = ["bookworm", "trixie"].iter().find_map(|suite| mirror::archive_of(&known, suite));
        let security = ["bookworm-security", "trixie-security"];
        let security = security.iter().find_map(|suite| mirror::archive_of(&known, suite));
        let (Some(release), Some(security)) = (release, security) else {
            return Err("apt's sources name no mirror of Debian and of its security archive".into());
        };
        let mut lines = format!("deb {release} bookworm main\n");
        if versions == Versions::Upgraded {
            lines += &format!("deb {release} bookworm-updates main\ndeb {security} bookworm-security main\n");
        }
        fs::write(folder.join("etc/sources.list"), lines)?;
        fs::write(folder.join("state/status"), "")?;
        let apt = Self { folder: folder.to_owned() };
        succeed(apt.get().args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    /// The files of these packages and of all that they depend on, fetched. Each group is the packages that the groups before
    /// it did not bring.
    ///
    /// # Errors
    /// Where a package is unknown or cannot be fetched.
    pub(super) fn groups(&self, wanted: &[&[&str]]) -> Result<Vec<Vec<PathBuf>>, Failure> {
        let archives = self.folder.join("cache/archives");
        let (mut names, mut seen, mut groups) = (Vec::new(), BTreeSet::new(), Vec::new());
        for group in wanted {
            names.extend_from_slice(group);
            let listed = read(self.get().args(["--yes", "--print-uris", "install"]).args(&names))?;
            succeed(self.get().args(["--yes", "--quiet=2", "--download-only", "install"]).args(&names))?;
            // `'URL' FILE SIZE HASH`, of each package that is to be fetched; those of earlier groups are here already.
            let files = listed.lines().filter(|line| line.starts_with('\''));
            let files = files.filter_map(|line| line.split(' ').nth(1).map(str::to_owned));
            let new: Vec<PathBuf> =
                files.filter(|file| seen.insert(file.clone())).map(|file| archives.join(file)).collect();
            groups.push(new);
        }
        Ok(groups)
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        let within = |part: &str| self.folder.join(part).display().to_string();
        for (option, value) in [
            ("Dir::Etc", within("etc")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::Etc::Trusted", "/usr/share/keyrings/debian-archive-keyring.gpg".into()),
            ("Dir::State", within("state")),
            ("Dir::State::status", within("state/status")),
            ("Dir::Cache", within("cache")),
            ("APT::Sandbox::User", "root".into()),
            ("APT::Install-Recommends", "false".into()),
            ("APT::Architecture", "amd64".into()),
            ("Debug::NoLocking", "1".into()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }
}
