//! Settings of the host itself. All of them end with the boot: kernel parameters and modules live in the kernel, files of systemd's
//! daemons in `/run`, so a host that starts again begins with none and is told all of them anew.
//!
//! ```text
//! module NAME       modprobe; never unloaded: something may use it
//! sysctl NAME       /proc/sys
//! host-name         sethostname(2)
//! time-servers      /run/systemd/timesyncd.conf.d/50-bennu.conf
//! vlan NAME         /run/systemd/network/40-bennu-NAME.netdev
//! interface NAME    /run/systemd/network/40-bennu-NAME.network, read before that of the operating system
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_manifests::model::Name;
use bennu_planner::{LOADED, Setting, plain};
use tokio::process::Command;

use super::command::{self, CommandError};
use super::links::{self, LinkError};
use super::{BusError, Host, record};

/// How long a module has to be loaded, and a link to be removed.
const COMMAND: Duration = Duration::from_secs(60);

/// How long the client of time servers has to come back.
const RESTART: Duration = Duration::from_secs(60);

const TIME_CLIENT: &str = "systemd-timesyncd.service";

/// What is remembered of a module that is part of the kernel, and has no directory that could be missed.
const BUILT_IN: &str = "built-in";

/// Why something of the host is not as it is declared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file system or the kernel said no.
    #[error("read or write {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The kernel has no such parameter.
    #[error(
        "this kernel has no parameter {name}; one of a module is there once the module is loaded, which `modules` in [os] does"
    )]
    NoParameter {
        /// Its name.
        name: String,
    },
    /// The kernel took a value and has another one.
    #[error("the kernel makes {kept:?} of {value:?}; declare that, or a value that it takes")]
    Other {
        /// What was written.
        value: String,
        /// What it reads.
        kept: String,
    },
    /// The host can't be called so.
    #[error("call the host {name:?}")]
    HostName {
        /// What it is to be called.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// An interface that is declared no more can't be removed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A daemon of systemd does not follow.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Where settings are, and what of them was set in this boot.
#[derive(Debug)]
pub(super) struct Settings {
    /// `/`, but for tests.
    root: PathBuf,
    /// What each was before it was set.
    known: PathBuf,
}

impl Settings {
    pub(super) fn new(root: &Path, known: PathBuf) -> Self {
        Self { root: root.to_owned(), known }
    }

    /// What was set in this boot, as it is now; empty where it is not there any more.
    pub(super) fn look(&self) -> io::Result<BTreeMap<Setting, String>> {
        let known = self.known()?;
        let now = |(setting, before): (Setting, String)| {
            let value = match &setting {
                Setting::Module(_) if before == BUILT_IN => LOADED.to_owned(),
                _ => self.current(&setting)?,
            };
            Ok((setting, value))
        };
        known.into_iter().map(now).collect()
    }

    fn known(&self) -> io::Result<BTreeMap<Setting, String>> {
        Ok(record::read(&self.known)?.unwrap_or_default())
    }

    fn remember(&self, known: &BTreeMap<Setting, String>) -> Result<(), SettingsError> {
        record::write(&self.known, known).map_err(|source| self.unknown(source))
    }

    fn unknown(&self, source: io::Error) -> SettingsError {
        SettingsError::File { path: self.known.clone(), source }
    }

    fn current(&self, setting: &Setting) -> io::Result<String> {
        if *setting == Setting::HostName {
            return Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned());
        }
        let path = self.path(setting);
        if matches!(setting, Setting::Module(_)) {
            return Ok(if path.exists() { LOADED.to_owned() } else { String::new() });
        }
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            other => other?,
        };
        Ok(match setting {
            Setting::Sysctl(_) => plain(&text),
            Setting::TimeServers => {
                text.lines().find_map(|line| line.strip_prefix("NTP=")).unwrap_or_default().to_owned()
            }
            _ => text,
        })
    }

    /// The file that a setting is in.
    fn path(&self, setting: &Setting) -> PathBuf {
        self.root.join(match setting {
            // A module's directory has its name with underscores (Linux, `scripts/Makefile.lib`, `name-fix`).
            Setting::Module(name) => format!("sys/module/{}", name.replace('-', "_")),
            Setting::Sysctl(name) => format!("proc/sys/{}", name.replace('.', "/")),
            Setting::HostName => "proc/sys/kernel/hostname".to_owned(),
            Setting::TimeServers => "run/systemd/timesyncd.conf.d/50-bennu.conf".to_owned(),
            Setting::Vlan(name) => format!("run/systemd/network/40-bennu-{name}.netdev"),
            Setting::Interface(name) => format!("run/systemd/network/40-bennu-{name}.network"),
        })
    }

    /// Notes what something is before it is set for the first time in this boot.
    fn note(&self, setting: &Setting) -> Result<(), SettingsError> {
        let failed = |source| SettingsError::File { path: self.path(setting), source };
        self.note_as(setting, self.current(setting).map_err(failed)?)
    }

    fn note_as(&self, setting: &Setting, before: String) -> Result<(), SettingsError> {
        let mut known = self.known().map_err(|source| self.unknown(source))?;
        known.entry(setting.clone()).or_insert(before);
        self.remember(&known)
    }

    /// What something was before it was set.
    fn before(&self, setting: &Setting) -> Result<String, SettingsError> {
        let known = self.known().map_err(|source| self.unknown(source))?;
        Ok(known.get(setting).cloned().unwrap_or_default())
    }

    fn forget(&self, setting: &Setting) -> Result<(), SettingsError> {
        let mut known = self.known().map_err(|source| self.unknown(source))?;
        known.remove(setting);
        self.remember(&known)
    }

    fn set_parameter(&self, name: &str, value: &str) -> Result<(), SettingsError> {
        let setting = Setting::Sysctl(name.to_owned());
        let path = self.path(&setting);
        if !path.is_file() {
            return Err(SettingsError::NoParameter { name: name.to_owned() });
        }
        self.note(&setting)?;
        let failed = |source| SettingsError::File { path: path.clone(), source };
        std::fs::write(&path, value).map_err(failed)?;
        let kept = self.current(&setting).map_err(failed)?;
        if kept == plain(value) {
            Ok(())
        } else {
            Err(SettingsError::Other { value: value.to_owned(), kept })
        }
    }

    /// Writes a file of one of systemd's daemons, which read what anybody may read.
    fn write(&self, setting: &Setting, text: &str) -> Result<(), SettingsError> {
        self.note(setting)?;
        let path = self.path(setting);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let written = written.and_then(|()| std::fs::write(&path, text));
        written.map_err(|source| SettingsError::File { path, source })
    }

    fn remove(&self, setting: &Setting) -> Result<(), SettingsError> {
        let path = self.path(setting);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SettingsError::File { path, source })
            }
            _ => Ok(()),
        }
    }
}

impl Host {
    /// Sets something of the host itself.
    ///
    /// # Errors
    /// Where it can't be, or does not hold.
    pub async fn set(&self, setting: &Setting, value: &str) -> Result<(), SettingsError> {
        match setting {
            Setting::Module(name) => {
                let mut modprobe = Command::new("modprobe");
                modprobe.arg("--").arg(name);
                command::run(modprobe, &[], COMMAND).await?;
                let is_there = self.settings.path(setting).exists();
                self.settings.note_as(setting, if is_there { LOADED } else { BUILT_IN }.to_owned())
            }
            Setting::Sysctl(name) => self.settings.set_parameter(name, value),
            Setting::HostName => {
                self.settings.note(setting)?;
                call_host(value)
            }
            Setting::TimeServers => {
                self.settings.write(setting, &format!("[Time]\nNTP={value}\n"))?;
                Ok(self.bus.restart(TIME_CLIENT, RESTART).await?)
            }
            Setting::Vlan(name) => {
                self.settings.write(setting, value)?;
                // systemd-networkd changes none that is there (networkctl(1), `reload`); it makes it again when its parent, which has
                // the number of the VLAN, is configured.
                self.remove_link(name).await?;
                Ok(self.bus.reload_networks().await?)
            }
            Setting::Interface(_) => {
                self.settings.write(setting, value)?;
                Ok(self.bus.reload_networks().await?)
            }
        }
    }

    /// Has something of the host itself be as it was before it was set.
    ///
    /// # Errors
    /// Where it can't be.
    pub async fn reset(&self, setting: &Setting) -> Result<(), SettingsError> {
        match setting {
            Setting::Module(_) => {}
            // With what it was of (a module, an interface) a parameter goes away.
            Setting::Sysctl(_) if !self.settings.path(setting).exists() => {}
            Setting::Sysctl(name) => self.settings.set_parameter(name, &self.settings.before(setting)?)?,
            Setting::HostName => call_host(&self.settings.before(setting)?)?,
            Setting::TimeServers => {
                self.settings.remove(setting)?;
                self.bus.restart(TIME_CLIENT, RESTART).await?;
            }
            Setting::Vlan(name) => {
                self.settings.remove(setting)?;
                self.remove_link(name).await?;
                self.bus.reload_networks().await?;
            }
            Setting::Interface(_) => {
                self.settings.remove(setting)?;
                self.bus.reload_networks().await?;
            }
        }
        self.settings.forget(setting)
    }

    /// Calls the host by the name that it was provisioned with, unless it was given another one in this boot.
    ///
    /// # Errors
    /// Where the kernel does not take it.
    pub fn introduce(&self, name: &Name) -> Result<(), SettingsError> {
        let known = self.settings.known();
        if known.is_ok_and(|known| known.contains_key(&Setting::HostName)) {
            return Ok(());
        }
        call_host(name.as_str())
    }

    async fn remove_link(&self, name: &str) -> Result<(), SettingsError> {
        Ok(links::delete(name).await?)
    }
}

fn call_host(name: &str) -> Result<(), SettingsError> {
    nix::unistd::sethostname(name)
        .map_err(|error| SettingsError::HostName { name: name.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/sys/vm")).unwrap();
        std::fs::write(dir.path().join("proc/sys/vm/swappiness"), "60\n").unwrap();
        let settings = Settings::new(dir.path(), dir.path().join("settings.json"));
        (dir, settings)
    }

    #[test]
    fn a_parameter_is_seen_as_it_is_and_goes_back_to_what_it_was_before_the_first_time() {
        let (dir, settings) = place();
        let file = dir.path().join("proc/sys/vm/swappiness");
        let setting = Setting::Sysctl("vm.swappiness".into());
        assert!(settings.look().unwrap().is_empty(), "nothing was set");
        for value in ["10", "20"] {
            settings.set_parameter("vm.swappiness", value).unwrap();
            assert_eq!(settings.look().unwrap()[&setting], value);
        }
        std::fs::write(&file, "30\n").unwrap();
        assert_eq!(settings.look().unwrap()[&setting], "30", "somebody changed it");
        assert_eq!(settings.before(&setting).unwrap(), "60");
        settings.forget(&setting).unwrap();
        assert!(settings.look().unwrap().is_empty());
    }

    #[test]
    fn a_parameter_that_is_not_there_is_an_error_that_leaves_nothing() {
        let (_dir, settings) = place();
        let error = settings.set_parameter("vm.swapiness", "10").unwrap_err().to_string();
        assert!(error.contains("no parameter vm.swapiness"), "{error}");
        assert!(settings.look().unwrap().is_empty());
    }

    #[test]
    fn what_the_kernel_makes_of_a_value_is_compared_without_its_tabs() {
        let (dir, settings) = place();
        std::fs::create_dir_all(dir.path().join("proc/sys/net/ipv4")).unwrap();
        std::fs::write(dir.path().join("proc/sys/net/ipv4/tcp_rmem"), "4096\t131072\t6291456\n").unwrap();
        settings.set_parameter("net.ipv4.tcp_rmem", "4096\t131072  6291456").unwrap();
        let setting = Setting::Sysctl("net.ipv4.tcp_rmem".into());
        assert_eq!(settings.look().unwrap()[&setting], "4096 131072 6291456");
    }

    #[test]
    fn a_file_that_is_gone_or_changed_is_seen_so() {
        let (_dir, settings) = place();
        let eth0 = Setting::Interface("eth0".into());
        settings.write(&eth0, "[Match]\nName=eth0\n").unwrap();
        assert_eq!(settings.look().unwrap()[&eth0], "[Match]\nName=eth0\n");
        settings.remove(&eth0).unwrap();
        assert_eq!(settings.look().unwrap()[&eth0], "");
        let servers = Setting::TimeServers;
        settings.write(&servers, "[Time]\nNTP=a.example b.example\n").unwrap();
        assert_eq!(settings.look().unwrap()[&servers], "a.example b.example");
    }

    #[test]
    fn a_module_of_the_kernel_itself_is_not_missed_and_another_one_is() {
        let (dir, settings) = place();
        let (built_in, module) = (Setting::Module("ext4".into()), Setting::Module("nf-tables".into()));
        settings.note_as(&built_in, BUILT_IN.into()).unwrap();
        settings.note_as(&module, LOADED.into()).unwrap();
        std::fs::create_dir_all(dir.path().join("sys/module/nf_tables")).unwrap();
        let now = settings.look().unwrap();
        assert_eq!((now[&built_in].as_str(), now[&module].as_str()), (LOADED, LOADED));
        std::fs::remove_dir(dir.path().join("sys/module/nf_tables")).unwrap();
        assert_eq!(settings.look().unwrap()[&module], "");
    }
}
