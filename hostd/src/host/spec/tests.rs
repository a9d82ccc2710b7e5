use std::path::Path;

use bennu_manifests::model::{Bind, Tmpfs, Ulimit, VolumeMount};
use oci_spec::image::ConfigBuilder;
use oci_spec::runtime::{Capability, Process};

use super::*;

/// A declared container that says little.
pub(in crate::host) fn container() -> Container {
    let image = format!("registry.example/web:1@sha256:{}", "ab".repeat(32));
    let text = format!(
        "schema = 1\nname = \"test\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\n\
         expires = 2036-01-01T00:00:00Z\n[container.web]\nimage = \"{image}\"\n"
    );
    let manifest = bennu_manifests::check(text.as_bytes()).unwrap();
    manifest.containers.into_values().next().unwrap()
}

fn image() -> Config {
    ConfigBuilder::default()
        .entrypoint(vec!["/entry".to_owned()])
        .cmd(vec!["serve".to_owned()])
        .env(vec!["PATH=/bin".to_owned(), "A=image".to_owned(), "none".to_owned(), "=x".to_owned()])
        .working_dir("/srv")
        .build()
        .unwrap()
}

fn made(container: &Container, image: &Config) -> Result<Spec, SpecError> {
    let name = "web".parse().unwrap();
    let base = Path::new("/run/host/bennu/instances/web-3");
    let places = Places {
        rootfs: base.join("rootfs"),
        user_namespace: base.join("ns/user"),
        network_namespace: base.join("ns/net"),
        files: base.join("files"),
    };
    let none = BTreeMap::new();
    let volumes = BTreeMap::from([("data".parse().unwrap(), "/state/volumes/data".into())]);
    let user = User { uid: 101, gid: 102, groups: vec![4] };
    spec(&Wanted {
        name: &name,
        container,
        image: Some(image),
        user: &user,
        network_kind: NetworkKind::Bridge,
        variables: &BTreeMap::new(),
        volumes: &volumes,
        files: &none,
        devices: &none,
        places: &places,
    })
}

fn process(container: &Container) -> Process {
    made(container, &image()).unwrap().process().clone().unwrap()
}

#[test]
fn a_container_becomes_this_specification() {
    let mut container = container();
    container.volumes = vec![VolumeMount {
        volume: "data".parse().unwrap(),
        target: "/var/lib/data".into(),
        read_only: false,
    }];
    container.tmpfs = vec![Tmpfs { target: "/var".into(), size: 1 << 20 }];
    let mut value = serde_json::to_value(made(&container, &image()).unwrap()).unwrap();
    // The sets of capabilities have no order; the profile of system calls has tests of its own.
    for set in value["process"]["capabilities"].as_object_mut().unwrap().values_mut() {
        set.as_array_mut().unwrap().sort_by_key(|c| c.as_str().map(str::to_owned));
    }
    let profile = value["linux"]["seccomp"].take();
    assert!(profile["syscalls"].is_array());
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap());
}

#[test]
fn the_manifest_is_stronger_than_the_image() {
    let mut container = container();
    assert_eq!(process(&container).args().as_ref().unwrap(), &["/entry", "serve"]);
    container.command = Some(vec!["other".into()]);
    assert_eq!(process(&container).args().as_ref().unwrap(), &["/entry", "other"]);
    container.command = None;
    container.entrypoint = Some(vec!["/own".into()]);
    assert_eq!(process(&container).args().as_ref().unwrap(), &["/own"]);
    container.environment = BTreeMap::from([("A".into(), "manifest".into()), ("B".into(), "x=y".into())]);
    let environment = process(&container).env().clone().unwrap();
    assert_eq!(environment, ["A=manifest", "B=x=y", "HOSTNAME=web", "PATH=/bin"]);
}

#[test]
fn without_any_program_it_is_an_error() {
    let empty = ConfigBuilder::default().build().unwrap();
    assert!(matches!(made(&container(), &empty), Err(SpecError::NoProgram { .. })));
}

#[test]
fn a_working_directory_that_could_be_the_hosts_is_refused() {
    for directory in
        ["/proc/self/fd/7", "/proc", "relative", "/srv/../proc/1/cwd", "/sys", "/dev/fd/3", "//proc/self/cwd"]
    {
        let image =
            ConfigBuilder::default().cmd(vec!["x".to_owned()]).working_dir(directory).build().unwrap();
        assert!(matches!(made(&container(), &image), Err(SpecError::WorkingDirectory { .. })), "{directory}");
    }
    let image = ConfigBuilder::default().cmd(vec!["x".to_owned()]).working_dir("").build().unwrap();
    assert_eq!(made(&container(), &image).unwrap().process().as_ref().unwrap().cwd(), Path::new("/"));
}

#[test]
fn added_capabilities_hold_for_users_that_are_not_root_and_unknown_ones_are_refused() {
    let mut container = container();
    container.add_capabilities = vec!["NET_ADMIN".into()];
    let capabilities = process(&container).capabilities().clone().unwrap();
    assert_eq!(capabilities.ambient().clone().unwrap(), [Capability::NetAdmin].into());
    assert!(capabilities.bounding().as_ref().unwrap().contains(&Capability::NetAdmin));
    container.add_capabilities = vec!["EVERYTHING".into()];
    assert!(matches!(made(&container, &image()), Err(SpecError::UnknownCapability { .. })));
}

#[test]
fn a_volume_that_is_not_there_is_an_error() {
    let mut container = container();
    container.volumes =
        vec![VolumeMount { volume: "gone".parse().unwrap(), target: "/x".into(), read_only: true }];
    assert!(matches!(made(&container, &image()), Err(SpecError::NoVolume { .. })));
}

fn options_of(spec: &Spec, target: &str) -> Option<Vec<String>> {
    let mounts = spec.mounts().as_ref().unwrap();
    mounts.iter().find(|mount| mount.destination() == Path::new(target)).map(|m| m.options().clone().unwrap())
}

fn has_namespace(spec: &Spec, typ: LinuxNamespaceType) -> bool {
    let linux = spec.linux().as_ref().unwrap();
    linux.namespaces().as_ref().unwrap().iter().any(|namespace| namespace.typ() == typ)
}

#[test]
fn what_is_declared_of_isolation_is_what_the_runtime_is_told() {
    let mut container = container();
    container.hostname = Some("www.example.org".into());
    container.drop_capabilities = vec!["CHOWN".into()];
    container.no_new_privileges = false;
    container.seccomp = Seccomp::Unconfined;
    container.sysctls = [("net.core.somaxconn".to_owned(), "1024".to_owned())].into();
    container.ulimits = [("nofile".to_owned(), Ulimit { soft: 5, hard: 6 })].into();
    container.shm_size = 1 << 20;
    container.init = true;
    let spec = made(&container, &image()).unwrap();
    assert_eq!(spec.hostname().as_deref(), Some("www.example.org"));
    let process = spec.process().clone().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &[INIT, "--", "/entry", "serve"]);
    assert!(process.env().as_ref().unwrap().contains(&"HOSTNAME=www.example.org".to_owned()));
    assert_eq!(process.no_new_privileges(), Some(false));
    let bounding = process.capabilities().clone().unwrap().bounding().clone().unwrap();
    assert!(!bounding.contains(&Capability::Chown) && bounding.contains(&Capability::Setuid));
    let limits = process.rlimits().clone().unwrap();
    assert_eq!((limits.len(), limits[0].soft(), limits[0].hard()), (1, 5, 6));
    let linux = spec.linux().clone().unwrap();
    assert!(linux.seccomp().is_none());
    assert_eq!(linux.sysctl().as_ref().unwrap()["net.core.somaxconn"], "1024");
    assert!(options_of(&spec, "/dev/shm").unwrap().contains(&"size=1048576".to_owned()));
    assert!(options_of(&spec, INIT).unwrap().contains(&"ro".to_owned()));
}

#[test]
fn a_shared_namespace_is_not_made_and_its_file_systems_are_the_hosts() {
    use LinuxNamespaceType::{Ipc, Network, Pid, User};
    let own = made(&container(), &image()).unwrap();
    assert!([Ipc, Network, Pid, User].into_iter().all(|typ| has_namespace(&own, typ)));
    let mut container = container();
    (container.pid, container.ipc, container.user_namespace) = (Scope::Host, Scope::Host, Scope::Host);
    let shared = made(&container, &image()).unwrap();
    assert!(![Ipc, Pid, User].into_iter().any(|typ| has_namespace(&shared, typ)));
    for target in ["/proc", "/dev/shm", "/dev/mqueue"] {
        assert!(options_of(&shared, target).unwrap().contains(&"rbind".to_owned()), "{target}");
        assert!(!options_of(&own, target).unwrap().contains(&"rbind".to_owned()), "{target}");
    }
}

#[test]
fn a_privileged_container_is_not_kept_apart_and_others_are() {
    let mut container = container();
    container.privileged = true;
    container.binds = vec![Bind { source: "/etc".into(), target: "/host/etc".into(), read_only: true }];
    let spec = made(&container, &image()).unwrap();
    let linux = spec.linux().clone().unwrap();
    assert!(linux.seccomp().is_none());
    assert_eq!(linux.masked_paths().as_deref().unwrap_or_default(), [] as [String; 0]);
    assert!(!has_namespace(&spec, LinuxNamespaceType::User));
    let bounding =
        spec.process().clone().unwrap().capabilities().clone().unwrap().bounding().clone().unwrap();
    assert_eq!(bounding.len(), 41);
    assert!(options_of(&spec, "/host/etc").unwrap().contains(&"ro".to_owned()));
}
