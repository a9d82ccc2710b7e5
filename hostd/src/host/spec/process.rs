//! The program of a container: what it is, as whom it runs, and what it may do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bennu_manifests::DEFAULT_CAPABILITIES;
use bennu_manifests::model::{Container, Name};
use oci_spec::OciSpecError;
use oci_spec::image::Config;
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType, Process, ProcessBuilder, UserBuilder,
};

use super::{INIT, SpecError, Wanted, hostname};

/// Where programs are looked for when the image does not say.
pub(in crate::host) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files of one process: what it has, and what it may ask for (the values that systemd gives a service).
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// The kernel's own file systems, within which no program has its working directory.
const KERNEL_TREES: [&str; 3] = ["/proc", "/sys", "/dev"];

pub(super) fn process(wanted: &Wanted<'_>, capabilities: &BTreeSet<String>) -> Result<Process, SpecError> {
    let Wanted { name, container, image, user, .. } = wanted;
    let user =
        UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(user.groups.clone()).build()?;
    let mut args = arguments(name, container, *image)?;
    if container.init {
        args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(args)
        .env(environment(wanted))
        .cwd(working_directory(container, *image)?)
        .capabilities(sets(container, capabilities)?)
        .rlimits(limits(container)?)
        .no_new_privileges(container.no_new_privileges && !container.privileged)
        .build()?;
    Ok(process)
}

/// Entry point and command. As everywhere, one's own entry point makes the image's command void.
fn arguments(name: &Name, container: &Container, image: Option<&Config>) -> Result<Vec<String>, SpecError> {
    let of_image = |field: Option<&Option<Vec<String>>>| field.cloned().flatten().unwrap_or_default();
    let entrypoint = || of_image(image.map(Config::entrypoint));
    let (mut arguments, fallback) = match &container.entrypoint {
        Some(own) => (own.clone(), Vec::new()),
        None => (entrypoint(), of_image(image.map(Config::cmd))),
    };
    arguments.extend(container.command.clone().unwrap_or(fallback));
    if arguments.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoProgram { name: (*name).clone() });
    }
    Ok(arguments)
}

/// The image's variables, over them those of files, over them the manifest's. What is no variable is left out.
fn environment(wanted: &Wanted<'_>) -> Vec<String> {
    let Wanted { name, container, image, .. } = wanted;
    let defaults = [("PATH", DEFAULT_PATH), ("HOSTNAME", hostname(name, container))];
    let of_image = image.and_then(|image| image.env().as_ref()).into_iter().flatten();
    let of_image = of_image.filter_map(|variable| variable.split_once('='));
    let of_files = wanted.variables.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let own = container.environment.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let merged: BTreeMap<_, _> = defaults.into_iter().chain(of_image).chain(of_files).chain(own).collect();
    let sound = |(key, value): &(&str, &str)| !key.is_empty() && !key.contains('\0') && !value.contains('\0');
    merged.into_iter().filter(sound).map(|(key, value)| format!("{key}={value}")).collect()
}

/// CVE-2024-21626: a working directory under `/proc` could be an open directory of the host.
fn working_directory(container: &Container, image: Option<&Config>) -> Result<PathBuf, SpecError> {
    let of_image =
        || image.and_then(|image| image.working_dir().clone()).filter(|directory| !directory.is_empty());
    let directory = container.working_directory.clone().or_else(of_image).unwrap_or_else(|| "/".to_owned());
    let path = Path::new(&directory);
    let climbs = path.components().any(|c| c == std::path::Component::ParentDir);
    let special = KERNEL_TREES.iter().any(|tree| path.starts_with(tree));
    if !path.is_absolute() || climbs || special || directory.contains('\0') {
        return Err(SpecError::WorkingDirectory { directory });
    }
    Ok(path.to_owned())
}

/// The capabilities that a container has: the default ones, less and more by what is declared; all where it is privileged.
pub(super) fn capabilities(container: &Container) -> Result<BTreeSet<String>, SpecError> {
    let unknown = |name: &&String| name.parse::<Capability>().is_err();
    let named = || container.add_capabilities.iter().chain(&container.drop_capabilities);
    if let Some(name) = named().find(unknown) {
        return Err(SpecError::UnknownCapability { capability: name.clone() });
    }
    let begin: BTreeSet<String> = match container.privileged {
        true => ALL.iter().map(ToString::to_string).collect(),
        false => DEFAULT_CAPABILITIES.map(str::to_owned).into_iter().collect(),
    };
    let dropped = |capability: &String| !container.drop_capabilities.contains(capability);
    Ok(begin.into_iter().filter(dropped).chain(container.add_capabilities.iter().cloned()).collect())
}

/// All of capabilities(7).
const ALL: [Capability; 41] = {
    use Capability::*;
    [
        AuditControl,
        AuditRead,
        AuditWrite,
        BlockSuspend,
        Bpf,
        CheckpointRestore,
        Chown,
        DacOverride,
        DacReadSearch,
        Fowner,
        Fsetid,
        IpcLock,
        IpcOwner,
        Kill,
        Lease,
        LinuxImmutable,
        MacAdmin,
        MacOverride,
        Mknod,
        NetAdmin,
        NetBindService,
        NetBroadcast,
        NetRaw,
        Perfmon,
        Setgid,
        Setfcap,
        Setpcap,
        Setuid,
        SysAdmin,
        SysBoot,
        SysChroot,
        SysModule,
        SysNice,
        SysPacct,
        SysPtrace,
        SysRawio,
        SysResource,
        SysTime,
        SysTtyConfig,
        Syslog,
        WakeAlarm,
    ]
};

fn sets(container: &Container, capabilities: &BTreeSet<String>) -> Result<LinuxCapabilities, OciSpecError> {
    let parsed = |names: &mut dyn Iterator<Item = &String>| -> Capabilities {
        names.filter_map(|name| name.parse().ok()).collect()
    };
    let all = parsed(&mut capabilities.iter());
    // A process that is not root keeps across execve(2) only what is ambient: what is added is to hold for it too.
    let added = parsed(&mut container.add_capabilities.iter());
    LinuxCapabilitiesBuilder::default()
        .bounding(all.clone())
        .effective(all.clone())
        .permitted(all)
        .inheritable(added.clone())
        .ambient(added)
        .build()
}

/// The declared limits of processes (getrlimit(2)), and that of open files where none is declared.
fn limits(container: &Container) -> Result<Vec<PosixRlimit>, SpecError> {
    let mut limits: BTreeMap<&str, (u64, u64)> = BTreeMap::from([("nofile", OPEN_FILES)]);
    limits.extend(container.ulimits.iter().map(|(name, limit)| (name.as_str(), (limit.soft, limit.hard))));
    let limit = |(name, (soft, hard)): (&str, (u64, u64))| {
        let unknown = || SpecError::UnknownLimit { limit: name.to_owned() };
        let typ: PosixRlimitType = serde_json::from_value(format!("RLIMIT_{}", name.to_uppercase()).into())
            .map_err(|_| unknown())?;
        Ok(PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build()?)
    };
    limits.into_iter().map(limit).collect()
}
