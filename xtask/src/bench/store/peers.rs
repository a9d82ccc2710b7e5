//! Who pulls: the store, and what people use instead of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_image_store::{Confinement, Store};

use super::daemon::Daemon;
use super::newer;
use crate::Failure;

/// What a run is about.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// `HOST:PORT` of the registry.
    pub(super) registry: &'a str,
    pub(super) name: &'a str,
    pub(super) tag: &'a str,
    /// Of the manifest, as `sha256:HEX`.
    pub(super) digest: &'a str,
    /// Of the layers, as `sha256:HEX`.
    pub(super) layers: &'a [String],
}

/// One way to pull an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Store,
    Podman,
    /// podman that fetches parts of layers where it can, for [`super::delta`] alone: the one of [`newer`].
    PodmanPartial,
    Containerd,
    Docker,
    Umoci,
    /// Not a store: each layer is fetched, inflated and hashed, side by side, and nothing is kept.
    Floor,
}

impl Peer {
    pub(super) const ALL: [Self; 6] =
        [Self::Store, Self::Podman, Self::Containerd, Self::Docker, Self::Umoci, Self::Floor];

    /// What the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Store => "`hostctl store pull`",
            Self::Podman => "podman",
            Self::PodmanPartial => "podman, parts of layers",
            Self::Containerd => "containerd (`ctr`)",
            Self::Docker => "docker",
            Self::Umoci => "skopeo and umoci",
            Self::Floor => "floor: curl, gzip -dc, sha256sum",
        }
    }

    /// Whether it keeps what it pulls.
    pub(super) fn keeps(self) -> bool {
        self != Self::Floor
    }

    /// Writes and starts what it needs to run beforehand, all of it below `folder`.
    ///
    /// # Errors
    /// Where a daemon does not come up.
    pub(super) fn daemon(self, folder: &Path) -> Result<Option<Daemon>, Failure> {
        let socket = folder.join("s");
        if self == Self::Store {
            // The others' daemons have made their directories, too, when a pull begins.
            Store::open(&store(folder), Confinement::None)?;
        }
        if self == Self::PodmanPartial {
            // containers-storage.conf(5); it has no option on the command line.
            let (root, run) = (folder.join("root"), folder.join("run"));
            let text = format!(
                "[storage]\ndriver = \"overlay\"\ngraphroot = {root:?}\nrunroot = {run:?}\n[storage.options]\n\
                 pull_options = {{enable_partial_images = \"true\", use_hard_links = \"false\", ostree_repos = \"\"}}\n"
            );
            std::fs::write(folder.join("storage.conf"), text)?;
        }
        let (command, ready) = match self {
            Self::Containerd => {
                let config = folder.join("c.toml");
                std::fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")?;
                let mut command = Command::new("containerd");
                command.arg("--config").arg(config).arg("--root").arg(folder.join("root"));
                command.arg("--state").arg(folder.join("state")).arg("--address").arg(&socket);
                let mut ready = Command::new("ctr");
                ready.arg("--address").arg(&socket).arg("version");
                (command, ready)
            }
            Self::Docker => {
                let mut command = Command::new("/usr/sbin/dockerd");
                command.arg("--data-root").arg(folder.join("root")).arg("--exec-root").arg(folder.join("x"));
                command.arg("--pidfile").arg(folder.join("pid"));
                command.arg("--host").arg(format!("unix://{}", socket.display()));
                command.args(["--bridge=none", "--iptables=false", "--storage-driver=overlay2"]);
                let mut ready = docker(&socket);
                ready.arg("version");
                (command, ready)
            }
            Self::Store | Self::Podman | Self::PodmanPartial | Self::Umoci | Self::Floor => return Ok(None),
        };
        Daemon::start(command, &folder.join("log"), ready).map(Some)
    }

    /// The pull.
    pub(super) fn pull(self, hostctl: &Path, folder: &Path, target: &Target<'_>) -> Command {
        let Target { registry, name, tag, digest, layers } = target;
        let pinned = format!("{registry}/{name}@{digest}");
        let mut command;
        match self {
            Self::Store => {
                command = Command::new(hostctl);
                command.args(["store", "--root"]).arg(store(folder)).args(["pull", &pinned]);
            }
            Self::Podman => {
                command = Command::new("podman");
                command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
                command.args(["--storage-driver=overlay", "pull", "--quiet", "--tls-verify=false", &pinned]);
            }
            Self::PodmanPartial => {
                command = newer::command("podman", folder);
                command.env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"));
                command.args(["pull", "--quiet", "--tls-verify=false", &pinned]);
            }
            Self::Containerd => {
                command = Command::new("ctr");
                command.arg("--address").arg(folder.join("s"));
                command.args(["images", "pull", "--plain-http", &pinned]);
            }
            Self::Docker => {
                command = docker(&folder.join("s"));
                command.args(["pull", "--quiet", &pinned]);
            }
            Self::Umoci => {
                // A second version goes into the same layout, and is unpacked beside the first one.
                let (layout, bundle) = (folder.join("layout"), folder.join(tag));
                let script = "rm -rf \"$3\" && skopeo copy --quiet --src-tls-verify=false \"docker://$1\" \"oci:$2\" && \
                              umoci unpack --image \"$2\" \"$3\"";
                command = Command::new("sh");
                command.args(["-ec", script, "sh", &pinned]);
                command.arg(format!("{}:{tag}", layout.display())).arg(bundle);
            }
            Self::Floor => {
                // Each pipe is waited for by itself, so that one that failed is no fast floor.
                let script = "url=$1; shift; all=; for layer; do \
                              curl --silent --fail \"$url/$layer\" | gzip -dc | sha256sum & all=\"$all $!\"; done; \
                              for one in $all; do wait \"$one\"; done";
                command = Command::new("bash");
                command.args([
                    "-o",
                    "pipefail",
                    "-ec",
                    script,
                    "bash",
                    &format!("http://{registry}/v2/{name}/blobs"),
                ]);
                command.args(*layers);
            }
        }
        command
    }
}

fn store(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// Debian's client; another one may stand before it in `PATH`.
fn docker(socket: &Path) -> Command {
    let mut command = Command::new("/usr/bin/docker");
    command.arg("--host").arg(format!("unix://{}", socket.display()));
    command
}
