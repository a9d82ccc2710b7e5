use bennu_manifests::model::{Tmpfs, VolumeMount};
use oci_spec::image::ConfigBuilder;

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
    let base = Path::new("/run/bennu/instances/web-3");
    let places = Places {
        rootfs: base.join("rootfs"),
        user_namespace: base.join("ns/user"),
        network_namespace: base.join("ns/net"),
        files: base.join("files"),
    };
    let volumes = BTreeMap::from([("data".parse().unwrap(), "/state/volumes/data".into())]);
    let user = User { uid: 101, gid: 102, groups: vec![4] };
    spec(&Wanted {
        name: &name,
        container,
        image: Some(image),
        user: &user,
        volumes: &volumes,
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
