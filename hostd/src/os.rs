//! What `hostd` needs to know of, and tell, the OS that it runs on.

use std::io;
use std::path::Path;

use bennu_api::{Machine, Os};
use bennu_manifests::HostFacts;
use bennu_manifests::model::Digest;
use jiff::Timestamp;

use crate::sealed;
use crate::update::secure_boot;

/// This machine's architecture in the words of OCI (image index specification, `platform.architecture`, which are
/// Go's).
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The OS that runs.
pub fn running() -> Os {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let secure_boot = secure_boot::is_on(Path::new(secure_boot::VARIABLES));
    Os {
        version: version(&release),
        root: root(&command_line),
        kernel: kernel.trim().to_owned(),
        secure_boot,
        sealed: sealed::is_sealed(),
    }
}

/// This machine.
pub fn machine(facts: &HostFacts) -> Machine {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u64);
    let (arch, labels) = (facts.arch.clone(), facts.labels.clone());
    Machine { arch, labels, memory: total_memory(&memory), cpus }
}

/// `MemTotal` of `/proc/meminfo` (proc_meminfo(5)), in bytes; 0 where it is not there.
fn total_memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// A time before which this OS was not built: that of one of its files. The image builder gives all of them the same.
pub fn built() -> Timestamp {
    let modified = std::fs::metadata("/usr/lib/os-release").and_then(|file| file.modified());
    modified.ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `IMAGE_VERSION`, else `VERSION_ID`, of an os-release file (os-release(5)).
fn version(os_release: &str) -> String {
    let field = |name: &str| {
        let value = os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.trim_matches('"').to_owned())
    };
    field("IMAGE_VERSION").or_else(|| field("VERSION_ID")).unwrap_or_default()
}

/// The digest that the boot entry names.
fn root(command_line: &str) -> Option<Digest> {
    command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("bennu.root=")?.parse().ok())
}

/// Tells the service manager that the API answers (sd_notify(3)). Does nothing where nobody asked to be told.
///
/// # Errors
/// Where its socket can't be written to.
pub fn tell_systemd_ready() -> io::Result<()> {
    tell_systemd(b"READY=1")
}

/// How often it is told that the daemon is alive, and for how long it serves before it has come up.
pub const ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// Tells the service manager again and again that the daemon is alive: from the one thread that does everything else, so that it
/// is not told where that thread hangs.
pub async fn tell_systemd_alive() -> std::convert::Infallible {
    loop {
        if let Err(error) = tell_systemd(b"WATCHDOG=1") {
            tracing::warn!(%error, "tell systemd that the daemon is alive");
        }
        tokio::time::sleep(ALIVE).await;
    }
}

/// Says again and again that the OS came up, to what would have the machine start again otherwise (`bennu-came-up.service`), which takes
/// away what it says. `run` is the directory for what a boot forgets.
pub async fn tell_that_it_came_up(run: &Path) -> std::convert::Infallible {
    loop {
        if let Err(error) = std::fs::write(run.join("came-up"), "") {
            tracing::warn!(%error, "tell that the OS came up");
        }
        tokio::time::sleep(ALIVE).await;
    }
}

/// For how long the service manager is asked at once to wait, and how often.
const MORE_TIME: std::time::Duration = std::time::Duration::from_secs(30);
const ASKED: std::time::Duration = std::time::Duration::from_secs(10);

/// Does `work`, which containers may need their time for, while the service manager waits for the daemon to start or to stop: it is asked
/// for more time again and again (sd_notify(3), `EXTEND_TIMEOUT_USEC`).
pub async fn with_time_for<T>(work: impl Future<Output = T>) -> T {
    let more = format!("EXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros());
    let ask = async {
        loop {
            if let Err(error) = tell_systemd(more.as_bytes()) {
                tracing::warn!(%error, "ask systemd for time");
            }
            tokio::time::sleep(ASKED).await;
        }
    };
    tokio::select! {
        done = work => done,
        never = ask => never,
    }
}

fn tell_systemd(message: &[u8]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    std::os::unix::net::UnixDatagram::unbound()?.send_to(message, path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_the_image_is_preferred_to_that_of_the_distribution() {
        assert_eq!(version("NAME=x\nVERSION_ID=\"13\"\nIMAGE_VERSION=1.2\n"), "1.2");
        assert_eq!(version("NAME=x\nVERSION_ID=\"13\"\n"), "13");
        assert_eq!(version(""), "");
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(total_memory("MemTotal:        2014584 kB\nMemFree: 1 kB\n"), 2_014_584 * 1024);
        assert_eq!(total_memory("MemFree: 1 kB\n"), 0);
    }

    #[test]
    fn the_root_is_read_from_the_command_line() {
        let hex = "ab".repeat(32);
        assert_eq!(root(&format!("quiet bennu.root=sha256:{hex} ro")).unwrap().hex(), hex);
        assert_eq!(root("quiet bennu.root=sha256:zz"), None);
        assert_eq!(root("quiet"), None);
    }
}
