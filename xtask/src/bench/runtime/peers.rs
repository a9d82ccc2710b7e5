//! The image with podman and docker, and the one that serves files.

use vm_tests::images::{Layer, Recipe, recipes};

/// The file that throughput is measured with, in bytes.
const BIG: usize = 4 << 20;

/// podman, docker, and what asks over the network. It is started as a container that sleeps, so that its root is there; they
/// run in it as on a host of their own.
pub(super) fn peers() -> Recipe {
    let packages = Layer {
        packages: &[
            "base-files",
            "bash",
            "coreutils",
            "dash",
            "findutils",
            "sed",
            "podman",
            "conmon",
            "crun",
            "netavark",
            "aardvark-dns",
            "docker.io",
            "docker-cli",
            "containerd",
            "runc",
            "iptables",
            "nftables",
            "iproute2",
            "kmod",
            "mount",
            "ca-certificates",
            "wrk",
        ],
        ..Layer::default()
    };
    let files = Layer {
        files: vec![
            ("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n".to_owned()),
            ("etc/group", 0o644, "root:x:0:\n".to_owned()),
            (
                "etc/containers/policy.json",
                0o644,
                "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n".to_owned(),
            ),
            (
                "etc/containers/storage.conf",
                0o644,
                "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\n\
                 graphroot = \"/var/lib/containers/storage\"\n"
                    .to_owned(),
            ),
            // There is no systemd in this root to make groups with, and no journal to write to.
            (
                "etc/containers/containers.conf",
                0o644,
                "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n\
                 [containers]\nlog_driver = \"k8s-file\"\n[network]\nfirewall_driver = \"nftables\"\n"
                    .to_owned(),
            ),
        ],
        // Scripts of packages are not run, which would choose these.
        links: vec![
            ("usr/sbin/iptables", "iptables-nft"),
            ("usr/sbin/ip6tables", "ip6tables-nft"),
            ("usr/sbin/iptables-save", "iptables-nft-save"),
            ("usr/sbin/iptables-restore", "iptables-nft-restore"),
        ],
        directories: &["dev", "proc", "sys", "run", "tmp", "root", "var/lib"],
        ..Layer::default()
    };
    Recipe {
        name: "peers",
        tag: "1",
        layers: vec![packages, files],
        entrypoint: &[],
        command: &["sleep", "1000000"],
        stop_signal: "SIGKILL",
        port: 80,
    }
}

/// nginx with a file that is large enough for its bytes to count.
pub(super) fn server() -> Recipe {
    let mut nginx = recipes().swap_remove(0);
    nginx.name = "server";
    nginx.layers.push(Layer { files: vec![("srv/www/big", 0o644, "x".repeat(BIG))], ..Layer::default() });
    nginx
}
