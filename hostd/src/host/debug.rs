//! A shell of another image beside a container: in its namespaces of processes, network and IPC, with its users, under its
//! limits, and with no more rights than it has, but for looking into its processes.
//!
//! ```text
//! /         the image of the shell, mounted with the container's ids; what is written to it is in memory
//! /target   what the container has at /, read-only: its tree, and what is bound into it
//! ```

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bennu_image_store::Image;
use bennu_image_store::mount::Mounts;
use bennu_manifests::model::Runtime;
use bennu_planner::Instance;
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, MountBuilder,
    RootBuilder, Spec, UserBuilder,
};

use super::describe::config_of;
use super::exec::{self, ExecError, Input, Running, Talk};
use super::inspect::read_spec;
use super::record::{self, Record};
use super::rootfs::{self, RootfsError};
use super::{Host, namespaces, runtime, unit, volume};

/// Where the container's tree appears.
const TARGET: &str = "/target";

/// What is run where neither the client nor the image names anything.
const SHELL: &str = "/bin/sh";

/// Why a shell was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebugError {
    /// The container has no first process any more.
    #[error("open a shell beside {instance}: it is not running")]
    NotRunning {
        /// The container.
        instance: Instance,
    },
    /// The file system said no.
    #[error("open a shell beside {instance}")]
    Io {
        /// The container.
        instance: Instance,
        /// What it said.
        source: io::Error,
    },
    /// The image can't be mounted.
    #[error("mount the image of the shell")]
    Rootfs(#[from] RootfsError),
    /// It can't be described to the runtime.
    #[error("put the specification of the shell together")]
    Format(#[from] OciSpecError),
    /// It can't be run.
    #[error(transparent)]
    Run(#[from] ExecError),
}

/// What a shell leaves: unmounted and removed when this is dropped.
pub(super) struct Left {
    dir: PathBuf,
    runtime: Runtime,
    runtime_state: PathBuf,
    id: String,
    mounts: Mounts,
}

impl Left {
    fn remove(&self) -> io::Result<()> {
        let mut delete = runtime::command(self.runtime, &self.runtime_state);
        delete.args(["delete", "--force", &self.id]);
        // It complains where the runtime has forgotten it already.
        delete.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status()?;
        remove(&self.dir, &self.mounts)
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, dir = %self.dir.display(), "remove what a shell left");
        }
    }
}

fn remove(dir: &Path, mounts: &Mounts) -> io::Result<()> {
    namespaces::unmount_below(dir)?;
    mounts.unmount_image(&rootfs::path(dir)).map_err(io::Error::other)?;
    std::fs::remove_dir_all(dir)
}

/// Removes what shells of a daemon before this one left. Their processes have ended.
pub(super) fn clear(dir: &Path, mounts: &Mounts) {
    for left in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Err(error) = remove(&left.path(), mounts) {
            tracing::warn!(%error, dir = %left.path().display(), "remove what a shell left");
        }
    }
}

impl Host {
    /// Opens a shell of `image` beside an instance. It ends with the instance, and when nobody talks with it any more.
    ///
    /// # Errors
    /// Where the instance does not run, or any part of the shell can't be made. What had been made is removed then.
    pub async fn debug_shell(
        &self,
        instance: &Instance,
        image: &Image,
        talk: Talk<'_>,
    ) -> Result<(Running, Input), DebugError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let io = |source| DebugError::Io { instance: instance.clone(), source };
        let not_running = || DebugError::NotRunning { instance: instance.clone() };
        let of_target = self.paths.instance(instance);
        let record: Record =
            record::read(&of_target.join("record.json")).map_err(io)?.ok_or_else(not_running)?;
        let target = read_spec(&config_of(&of_target)).map_err(io)?;
        let pid = self.process(instance).ok_or_else(not_running)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = self.paths.debug().join(number.to_string());
        volume::make_dir(&dir, 0o711).map_err(io)?;
        let (runtime_state, consoles) = (dir.join("runtime"), self.paths.consoles());
        // No container's instance has such a name.
        let left = Left {
            dir: dir.clone(),
            runtime: record.runtime,
            runtime_state: runtime_state.clone(),
            id: format!("debug_{number}"),
            mounts: self.mounts.clone(),
        };
        let users = record.host_start.map(|_| namespaces::of_users(&of_target));
        let wanted = rootfs::Wanted { layers: &image.layers, dir: &dir, upper: None, users };
        let rootfs = rootfs::mount(&self.store, &self.mounts, wanted).await?;
        let beside = Beside { target: &target, pid, rootfs: &rootfs, own_users: record.host_start.is_some() };
        let mut spec = spec(&beside, image, &talk)?;
        let unit = unit::group(instance);
        // A runtime that makes groups makes it one beside that of the container, which is a leaf.
        let own = unit.join(format!("{}{}", exec::PREFIX, left.id));
        runtime::complete(record.runtime, &mut spec, &own, record.host_start)?;
        record::write(&dir.join("config.json"), &spec).map_err(io)?;
        let places = exec::Places {
            dir: &dir,
            runtime: record.runtime,
            runtime_state: &runtime_state,
            consoles: &consoles,
            group: &unit,
        };
        let opened = exec::start(places, instance, &talk, |_, console, cleanup| {
            let mut arguments: Vec<OsString> = vec!["run".into(), "--bundle".into(), dir.clone().into()];
            arguments.extend(console);
            arguments.push(left.id.clone().into());
            cleanup.left = Some(left);
            Ok(arguments)
        });
        Ok(opened.await?)
    }
}

/// What a shell is beside.
struct Beside<'a> {
    /// What the runtime was told of the container.
    target: &'a Spec,
    /// Its first process.
    pid: u32,
    /// Where the shell's own tree is mounted.
    rootfs: &'a Path,
    /// Whether the container has users of its own.
    own_users: bool,
}

/// The container's specification with another tree and another program.
fn spec(beside: &Beside<'_>, image: &Image, talk: &Talk<'_>) -> Result<Spec, OciSpecError> {
    let mut spec = beside.target.clone();
    let tree = beside.target.root().as_ref().map(|root| root.path().clone());
    spec.set_root(Some(RootBuilder::default().path(beside.rootfs).readonly(false).build()?));
    let own_processes = shares(beside.target, LinuxNamespaceType::Pid);
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_user(UserBuilder::default().uid(0_u32).gid(0_u32).build()?);
    process.set_cwd("/".into());
    process.set_args(Some(command(image, talk)));
    process.set_env(Some(environment(image)));
    process.set_no_new_privileges(Some(true));
    // Its own processes are all that it sees: where that is all of the host's, it may not look into them.
    if own_processes
        && beside.own_users
        && let Some(mut sets) = process.capabilities().clone()
    {
        let with = |set: &Option<Capabilities>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(Capability::SysPtrace);
            Some(set)
        };
        let (bounding, permitted) = (with(sets.bounding()), with(sets.permitted()));
        let effective = with(sets.effective());
        sets.set_bounding(bounding).set_permitted(permitted).set_effective(effective);
        process.set_capabilities(Some(sets));
    }
    exec::at_terminal(&mut process, talk.terminal);
    spec.set_process(Some(process));
    spec.set_mounts(Some(mounts(beside.target, tree)?));
    // The container has made it so already.
    spec.set_hostname(None);
    if let Some(linux) = spec.linux_mut() {
        linux.set_sysctl(None);
        let namespaces = linux.namespaces().iter().flatten().map(|one| joined(one, beside.pid));
        let namespaces: Vec<_> = namespaces.collect::<Result<_, _>>()?;
        linux.set_namespaces(Some(namespaces));
    }
    Ok(spec)
}

fn shares(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// Each namespace of the container's but that of mounts, which is the shell's own.
fn joined(namespace: &LinuxNamespace, pid: u32) -> Result<LinuxNamespace, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let file = match namespace.typ() {
        Mount | LinuxNamespaceType::Time => return Ok(namespace.clone()),
        Pid => "pid",
        Ipc => "ipc",
        Uts => "uts",
        Cgroup => "cgroup",
        User => "user",
        Network => "net",
    };
    let path = namespace.path().clone().unwrap_or_else(|| format!("/proc/{pid}/ns/{file}").into());
    LinuxNamespaceBuilder::default().typ(namespace.typ()).path(path).build()
}

/// The kernel's file systems as the container has them, and below [`TARGET`] what is the container's, read-only.
fn mounts(target: &Spec, tree: Option<PathBuf>) -> Result<Vec<Mount>, OciSpecError> {
    let at = |path: &Path, source: &Path| {
        let options = ["bind", "ro", "nosuid", "nodev", "private"].map(str::to_owned).to_vec();
        MountBuilder::default().destination(path).typ("bind").source(source).options(options).build()
    };
    let (mut mounts, mut below) = (Vec::new(), Vec::new());
    for mount in target.mounts().iter().flatten() {
        let (destination, options) = (mount.destination(), mount.options().clone().unwrap_or_default());
        let bound = options.iter().any(|option| option == "bind" || option == "rbind");
        let kernels = ["/proc", "/sys", "/dev"].iter().any(|tree| destination.starts_with(tree));
        if kernels {
            mounts.push(mount.clone());
        } else if destination.starts_with("/etc")
            && bound
            && NAMES.iter().any(|name| destination.ends_with(name))
        {
            // Names are found as in the container.
            mounts.push(mount.clone());
        } else if let Some(source) = mount.source().as_ref().filter(|_| bound) {
            let inside = Path::new(TARGET).join(destination.strip_prefix("/").unwrap_or(destination));
            below.push(at(&inside, source)?);
        }
    }
    if let Some(tree) = tree {
        mounts.push(at(Path::new(TARGET), &tree)?);
        mounts.extend(below);
    }
    Ok(mounts)
}

/// Files by which names are found.
const NAMES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

fn command(image: &Image, talk: &Talk<'_>) -> Vec<String> {
    if !talk.command.is_empty() {
        return talk.command.to_vec();
    }
    let config = image.config.config().as_ref();
    let said = |field: Option<&Option<Vec<String>>>| field.cloned().flatten().unwrap_or_default();
    let mut words = said(config.map(|config| config.entrypoint()));
    words.extend(said(config.map(|config| config.cmd())));
    if words.first().is_none_or(String::is_empty) { vec![SHELL.to_owned()] } else { words }
}

/// The image's own variables: those of the container may be secret, and are not the shell's.
fn environment(image: &Image) -> Vec<String> {
    let own = image.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default();
    let sound = |variable: &String| variable.split_once('=').is_some_and(|(key, _)| !key.is_empty());
    let mut variables: Vec<String> = own.into_iter().filter(|v| sound(v) && !v.contains('\0')).collect();
    if !variables.iter().any(|variable| variable.starts_with("PATH=")) {
        variables.push(format!("PATH={}", super::spec::DEFAULT_PATH));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Spec {
        serde_json::from_value(serde_json::json!({
            "ociVersion": "1.0.2", "hostname": "web", "root": {"path": "/run/x/rootfs", "readonly": true},
            "process": {"user": {"uid": 101, "gid": 102}, "args": ["serve"], "cwd": "/srv",
                "env": ["PASSWORD=hunter2"], "noNewPrivileges": true,
                "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
                {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
                {"destination": "/etc/hosts", "type": "bind", "source": "/run/x/files/hosts", "options": ["bind", "ro"]},
                {"destination": "/data", "type": "bind", "source": "/run/host/bennu/volumes/web-3/data", "options": ["bind", "rw"]}],
            "linux": {"sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"}, "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "mount"}, {"type": "user", "path": "/run/x/ns/user"},
                {"type": "network", "path": "/run/x/ns/net"}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_shell_is_in_the_containers_namespaces_but_for_that_of_mounts() {
        let spec = target();
        let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        let paths: Vec<_> = namespaces
            .iter()
            .map(|namespace| {
                joined(namespace, 77).unwrap().path().as_ref().map(|path| path.display().to_string())
            })
            .collect();
        let kept = |path: &str| Some(path.to_owned());
        let expected = [
            kept("/proc/77/ns/pid"),
            kept("/proc/77/ns/ipc"),
            None,
            kept("/run/x/ns/user"),
            kept("/run/x/ns/net"),
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn a_shell_sees_what_is_the_containers_below_target_and_cannot_write_it() {
        let mounts = mounts(&target(), Some("/run/x/rootfs".into())).unwrap();
        let told: Vec<_> = mounts
            .iter()
            .map(|mount| {
                (mount.destination().display().to_string(), mount.options().clone().unwrap_or_default())
            })
            .collect();
        let targets: Vec<_> = told.iter().map(|(target, _)| target.as_str()).collect();
        assert_eq!(targets, ["/proc", "/etc/hosts", "/target", "/target/data"]);
        for (target, options) in told.iter().filter(|(target, _)| target.starts_with("/target")) {
            assert!(options.contains(&"ro".to_owned()) && !options.contains(&"rw".to_owned()), "{target}");
        }
    }

    #[test]
    fn a_shell_may_look_into_processes_only_where_users_and_processes_are_the_containers_own() {
        let image = image();
        let talk = Talk { command: &["sh".to_owned()], input: true, terminal: None };
        let rights = |target: &Spec, own_users| {
            let beside = Beside { target, pid: 77, rootfs: Path::new("/run/y"), own_users };
            let spec = spec(&beside, &image, &talk).unwrap();
            let process = spec.process().clone().unwrap();
            assert_eq!(process.no_new_privileges(), Some(true));
            assert!(!process.env().iter().flatten().any(|variable| variable.contains("hunter2")));
            assert_eq!(process.user().uid(), 0);
            let sets = process.capabilities().clone().unwrap();
            sets.bounding().clone().unwrap().len()
        };
        assert_eq!(rights(&target(), true), 2);
        assert_eq!(rights(&target(), false), 1, "there its users are the host's");
        let mut shared = target();
        let linux = shared.linux_mut().as_mut().unwrap();
        let others = linux.namespaces().iter().flatten().filter(|one| one.typ() != LinuxNamespaceType::Pid);
        let others: Vec<_> = others.cloned().collect();
        linux.set_namespaces(Some(others));
        assert_eq!(rights(&shared, true), 1, "there its processes are the host's");
    }

    fn image() -> Image {
        let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Entrypoint":["bash"],"Cmd":["-l"],"Env":["A=b","=x"]}}"#;
        Image {
            digest: bennu_manifests::model::Digest::from_bytes([1; 32]),
            manifest_digest: bennu_manifests::model::Digest::from_bytes([1; 32]),
            manifest_size: 0,
            index: Vec::new(),
            config: serde_json::from_str(config).unwrap(),
            layers: Vec::new(),
            size: 0,
            claims: Default::default(),
        }
    }

    #[test]
    fn a_shell_is_what_was_asked_for_or_the_images_own() {
        let image = image();
        let none = Talk { command: &[], input: true, terminal: None };
        assert_eq!(command(&image, &none), ["bash", "-l"]);
        let asked = ["ls".to_owned()];
        assert_eq!(command(&image, &Talk { command: &asked, ..none }), ["ls"]);
        let environment = environment(&image);
        assert_eq!(environment[0], "A=b");
        assert!(environment[1].starts_with("PATH=/usr/local/sbin"), "{environment:?}");
    }
}
