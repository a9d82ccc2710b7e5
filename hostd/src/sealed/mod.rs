//! A state that only this machine opens, and only for an operating system of its owner's.
//!
//! ```text
//! disk:  bennu-esp │ bennu-state: btrfs, roots of operating systems │ bennu-data: LUKS2 ──► btrfs, all else
//!                                                                        ├ slot: TPM, policy signed for what boots
//!                                                                        └ slot: recovery key, shown once
//! ```
//! The initrd has to find the root before anything can be opened, so roots stay where they are; each is public, and checked against the
//! digest on the signed command line. At [`BOOT`] they are once more than in the store, which is in what is sealed.
//!
//! The TPM gives its key where PCR 11 is as the signer of the boot image said that it would be (systemd-measure(1)): the boot image is one of
//! the owner's, and the boot has come to `sysinit`. This is done right then, by a unit of its own; what runs later can't ask again. What
//! else has to be as it was is said where it is asked for.
//!
//! **Invariants:** a host that was told to seal its state never goes on with one that is not. What is made is there as a whole or not at
//! all: the partition is in the table only when it has its file system (systemd-repart(8)), and each further step is looked for.

mod boot;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bennu_api::provision::{CREDENTIAL, Provision, Seal};
use bennu_image_store::verity;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::disk::{self, Place, ReadError};
use crate::provision::{self, ProvisionError};

pub(crate) use boot::Roots;

/// What the program is told to do this and nothing else.
pub const OPEN: &str = "--open-state";

/// Where the partition with the roots is, on a host whose state is sealed.
pub const BOOT: &str = "/run/bennu-boot";
/// Where the file system of the state is looked at before it is the state.
const NEW: &str = "/run/bennu-new-state";
/// The partition, by its name in the partition table, and the mapping.
const DATA: &str = "bennu-data";
/// What systemd-repart is told each time. What is there stays: nothing is made on a disk without a partition table.
pub(crate) const REPART: [&str; 6] =
    ["--dry-run=no", "--empty=refuse", "--discard=no", "--no-pager", "--no-legend", "--definitions"];
/// What it is to make of the disk: files of the operating system.
const PLAIN: &str = "/usr/lib/bennu/repart.d";
const SEALED: &str = "/usr/lib/bennu/repart.sealed.d";
/// Where systemd's programs look for what the boot image brought (systemd-stub(7); the initrd puts it there).
pub(crate) const PUBLIC_KEY: &str = "/run/systemd/tpm2-pcr-public-key.pem";
/// The kernel's resource manager of the TPM.
const TPM: &str = "/dev/tpmrm0";
/// The most bytes of a key that is typed: a recovery key has 71 characters (systemd-cryptenroll(1), "--recovery-key").
const MAX_KEY: u64 = 1024;
/// How long the machine has to find its TPM and the partition.
const WAIT: Duration = Duration::from_secs(30);

/// Why the state is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealedError {
    /// The kernel does not tell what is there.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not known what the host was told.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// There is no TPM.
    #[error(
        "seal the state by a TPM: this machine has none (no {TPM}); switch it on in the firmware's setup"
    )]
    NoTpm,
    /// The boot image brought no key.
    #[error(
        "seal the state by a TPM: the boot image carries no signed measurements; build it with `cargo xtask image --measured FOLDER`"
    )]
    NotMeasured,
    /// The state is on no partition of a disk.
    #[error("seal the state: {} is on no partition of a disk", .0.display())]
    NoPartition(PathBuf),
    /// A file can't be used.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program failed.
    #[error("{program}: {said}")]
    Program {
        /// The program.
        program: &'static str,
        /// How it ended, and the end of what it wrote.
        said: String,
    },
}

fn io_error(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SealedError {
    let path = path.into();
    move |source| SealedError::Io { doing, path, source }
}

/// What is to be done about the state at a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// Nothing: it is not sealed, or open already.
    Nothing,
    /// It is sealed on this partition, and to be opened.
    Open(PathBuf),
    /// It is to be sealed from now on.
    Seal,
}

/// What is decided about a state that is open or not, the partition of a sealed one where there is one, and what a host without a memory
/// was told.
fn wanted(is_open: bool, data: Option<PathBuf>, told: Option<Seal>) -> Wanted {
    match (is_open, data, told) {
        (true, ..) => Wanted::Nothing,
        (false, Some(data), _) => Wanted::Open(data),
        (false, None, Some(Seal::Tpm2)) => Wanted::Seal,
        (false, None, None) => Wanted::Nothing,
    }
}

/// Has the state be at `state`: opens it where it is sealed, and seals it where a new host was told so.
///
/// # Errors
/// [`SealedError`]; what is at `state` is not to be used then.
pub fn open(state: &Path, credentials: Option<&Path>) -> Result<(), SealedError> {
    let block = Path::new(disk::BLOCK);
    let mapped = Path::new("/dev/mapper").join(DATA);
    // However the kernel calls a mapping: it is no partition.
    let is_open = disk::device_at(state)?.is_some_and(|device| {
        ["/dev/mapper", "/dev/dm-"].iter().any(|of| device.to_string_lossy().starts_with(of))
    });
    let data = match wanted(is_open, disk::named(block, DATA)?, told(state, credentials)?) {
        Wanted::Nothing => return Ok(()),
        Wanted::Open(data) => data,
        Wanted::Seal => {
            seal(state)?;
            // A partition that was added to a disk in use has no name for the kernel, only for udev.
            let link = Path::new("/dev/disk/by-partlabel").join(DATA);
            there_within(&link, WAIT);
            fs::canonicalize(&link).map_err(io_error("find", &link))?
        }
    };
    if !mapped.exists() {
        attach(&data);
    }
    let enroll = |arguments: &[&str]| {
        let mut command = Command::new("systemd-cryptenroll");
        finish("systemd-cryptenroll", command.args(arguments).arg(&data), b"")
    };
    let slots = enroll(&[])?;
    if !slots.lines().any(|line| line.split_whitespace().nth(1) == Some("recovery")) {
        show_once(enroll(&["--unlock-tpm2-device=auto", "--recovery-key"])?.trim());
    }
    fill(state, &mapped)?;
    make_dir(Path::new(BOOT))?;
    let none = None::<&str>;
    mount(Some(state), BOOT, none, MsFlags::MS_BIND, none).map_err(mount_error(BOOT))?;
    // What is mounted over the one would else be over the other as well (mount_namespaces(7), "Shared subtrees").
    mount(none, BOOT, none, MsFlags::MS_PRIVATE, none).map_err(mount_error(BOOT))?;
    mount_data(&mapped, state)
}

fn mount_data(mapped: &Path, at: &Path) -> Result<(), SealedError> {
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(mapped), at, Some("btrfs"), flags, None::<&str>).map_err(mount_error(at))
}

/// What a host was told that does not remember anything yet. What one remembers was decided at its first boot.
fn told(state: &Path, credentials: Option<&Path>) -> Result<Option<Seal>, SealedError> {
    if state.join("identity/provision.toml").exists() {
        return Ok(None);
    }
    let Some(path) = credentials.map(|dir| dir.join(CREDENTIAL)) else { return Ok(None) };
    // A document that is none is told of by the daemon; a host without one is not provisioned.
    let text = provision::read(&path)?;
    Ok(text.and_then(|text| toml::from_str::<Provision>(&text).ok()).and_then(|told| told.seal))
}

/// Makes the partition, with a file system in it that the TPM opens.
fn seal(state: &Path) -> Result<(), SealedError> {
    if !there_within(Path::new(TPM), WAIT) {
        return Err(SealedError::NoTpm);
    }
    if !Path::new(PUBLIC_KEY).exists() {
        return Err(SealedError::NotMeasured);
    }
    let device = disk::device_at(state)?.unwrap_or_default();
    let place = Place::of(Path::new(disk::BLOCK), &device)?;
    let place = place.ok_or_else(|| SealedError::NoPartition(state.to_owned()))?;
    let mut command = Command::new("systemd-repart");
    command.args(policy()).args(REPART).arg(SEALED).arg(place.disk_device());
    finish("systemd-repart", &mut command, b"").map(drop)
}

/// What the TPM gives its key for (UAPI group, Linux TPM PCR Registry). Register 11 is as the boot image's signer said. Anybody who may start a
/// program of their own could bring it there; so 7, which says whom the firmware starts programs of (Secure Boot), and 12, which holds all that was
/// handed to the boot image from outside, have to be as they are now. Those of the firmware's own code change with its version, and say nothing of
/// who started what.
fn policy() -> [String; 4] {
    [
        "--tpm2-device=auto".to_owned(),
        "--tpm2-pcrs=7+12".to_owned(),
        format!("--tpm2-public-key={PUBLIC_KEY}"),
        "--tpm2-public-key-pcrs=11".to_owned(),
    ]
}

/// Opens the partition by the TPM; where that does not give its key, by one that a person types at the console.
fn attach(data: &Path) {
    there_within(Path::new(TPM), WAIT);
    let mut command = Command::new("systemd-cryptsetup");
    command.args(["attach", DATA]).arg(data).args(["-", "tpm2-device=auto,headless=true"]);
    let Err(error) = finish("systemd-cryptsetup", &mut command, b"") else { return };
    say(&format!("the TPM does not open the state of this host: {error}"));
    loop {
        let opened = ask("type the recovery key that was shown when the state was sealed:").and_then(|key| {
            let mut command = Command::new("cryptsetup");
            command
                .args(["open", "--type=luks2", "--disable-external-tokens", "--key-file=-"])
                .arg(data)
                .arg(DATA);
            finish("cryptsetup", &mut command, key.as_bytes())?;
            Ok(key)
        });
        match opened {
            Ok(key) => return seal_again(data, &key),
            Err(error) => say(&error.to_string()),
        }
        std::thread::sleep(Duration::from_secs(5));
    }
}

/// Has the TPM open it from now on: a machine that got another one would else ask at each boot.
fn seal_again(data: &Path, key: &str) {
    if !Path::new(TPM).exists() || !Path::new(PUBLIC_KEY).exists() {
        return;
    }
    let enroll = |arguments: &[String]| {
        let mut command = Command::new("systemd-cryptenroll");
        finish("systemd-cryptenroll", command.args(arguments).arg(data).env("PASSWORD", key), b"")
    };
    // First the slot of the TPM that is not there any more: one of the same policy would be taken for the one that is asked for.
    match enroll(&["--wipe-slot=tpm2".to_owned()]).and_then(|_| enroll(&policy())) {
        Ok(_) => say("from now on the TPM of this machine opens it"),
        Err(error) => say(&format!("the TPM of this machine does not take it: {error}")),
    }
}

/// Has a person type a line at the console, which is not shown.
fn ask(what: &str) -> Result<String, SealedError> {
    let path = Path::new("/dev/console");
    let console = OpenOptions::new().read(true).write(true).open(path).map_err(io_error("open", path))?;
    let failed = || io_error("read", path);
    let shown = tcgetattr(&console).map_err(|errno| failed()(errno.into()))?;
    let mut hidden = shown.clone();
    hidden.local_flags.remove(LocalFlags::ECHO);
    say(what);
    tcsetattr(&console, SetArg::TCSAFLUSH, &hidden).map_err(|errno| failed()(errno.into()))?;
    let mut line = String::new();
    let read = BufReader::new(&console).take(MAX_KEY).read_line(&mut line);
    tcsetattr(&console, SetArg::TCSADRAIN, &shown).map_err(|errno| failed()(errno.into()))?;
    read.map_err(failed())?;
    Ok(line.trim().to_owned())
}

/// Has the file system hold what a state begins with: the roots that the host may boot.
fn fill(state: &Path, mapped: &Path) -> Result<(), SealedError> {
    let new = Path::new(NEW);
    make_dir(new)?;
    mount_data(mapped, new)?;
    let filled = copy_roots(&boot::blobs(state), &new.join("store"));
    let unmounted = umount(new).map_err(mount_error(new));
    filled.and(unmounted)
}

/// Makes a store of the roots in a directory, unless there is a store.
fn copy_roots(roots: &Path, store: &Path) -> Result<(), SealedError> {
    if store.exists() {
        return Ok(());
    }
    let making = store.with_extension("new");
    let blobs = boot::blobs_of(&making);
    if making.exists() {
        fs::remove_dir_all(&making).map_err(io_error("remove", &making))?;
    }
    fs::create_dir_all(&blobs).map_err(io_error("make", &blobs))?;
    for entry in fs::read_dir(roots).map_err(io_error("list", roots))? {
        let from = entry.map_err(io_error("list", roots))?.path();
        let Some(name) = from.file_name() else { continue };
        let to = blobs.join(name);
        fs::copy(&from, &to).map_err(io_error("copy", &from))?;
        let copied = File::open(&to).map_err(io_error("open", &to))?;
        copied.sync_all().and_then(|()| verity::enable(&copied)).map_err(io_error("protect", &to))?;
    }
    let synced = File::open(&blobs).and_then(|blobs| nix::unistd::syncfs(blobs).map_err(Into::into));
    synced.map_err(io_error("write", &blobs))?;
    fs::rename(&making, store).map_err(io_error("rename", &making))
}

/// What systemd-repart is to make of the disk of this host when it grows.
pub(crate) fn definitions() -> &'static str {
    if is_sealed() { SEALED } else { PLAIN }
}

/// Whether the state of this host is sealed.
pub(crate) fn is_sealed() -> bool {
    boot::blobs(Path::new(BOOT)).exists()
}

/// Shows the recovery key where a person is who installs the machine, and nowhere else: neither a file nor the journal gets it.
fn show_once(key: &str) {
    say(&format!(
        "the state of this host is sealed by its TPM now. Where that is lost, this recovery key opens it. It is shown once:\n\n    {key}\n"
    ));
}

/// Writes to the console. A machine whose console can't be written to goes on.
fn say(text: &str) {
    let console = OpenOptions::new().write(true).open("/dev/console");
    let _nobody_reads = console.and_then(|mut console| writeln!(console, "bennu: {text}"));
}

fn there_within(path: &Path, within: Duration) -> bool {
    const LOOK: Duration = Duration::from_millis(100);
    let mut left = within;
    while !path.exists() && !left.is_zero() {
        std::thread::sleep(LOOK);
        left = left.saturating_sub(LOOK);
    }
    path.exists()
}

fn make_dir(path: &Path) -> Result<(), SealedError> {
    fs::create_dir_all(path).map_err(io_error("make", path))
}

fn mount_error(at: impl Into<PathBuf>) -> impl FnOnce(nix::errno::Errno) -> SealedError {
    let failed = io_error("mount at", at);
    move |errno| failed(errno.into())
}

/// Runs a program to its end, and gives what it wrote.
fn finish(program: &'static str, command: &mut Command, input: &[u8]) -> Result<String, SealedError> {
    let failed = |said| SealedError::Program { program, said };
    let mut ended = || -> io::Result<std::process::Output> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // One that does not want its input says why when it ends.
        let _unread = child.stdin.take().map(|mut stdin| stdin.write_all(input));
        child.wait_with_output()
    };
    let output = ended().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let mut last: Vec<_> = errors.lines().rev().take(3).collect();
        last.reverse();
        return Err(failed(format!("{}: {}", output.status, last.join(" · "))));
    }
    String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_sealed_once_where_a_new_host_was_told_so_and_opened_ever_after() {
        let (tpm, data) = (Some(Seal::Tpm2), PathBuf::from("/dev/vda3"));
        assert_eq!(wanted(false, None, None), Wanted::Nothing);
        assert_eq!(wanted(false, None, tpm), Wanted::Seal);
        for told in [None, tpm] {
            assert_eq!(wanted(false, Some(data.clone()), told), Wanted::Open(data.clone()));
            assert_eq!(wanted(true, Some(data.clone()), told), Wanted::Nothing, "a second start in one boot");
        }
    }

    #[test]
    fn only_a_host_that_remembers_nothing_is_told_to_seal() {
        let (state, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let told = || told(state.path(), Some(credentials.path())).unwrap();
        let write = |text: &str| fs::write(credentials.path().join(CREDENTIAL), text).unwrap();
        assert_eq!(told(), None, "a host without a document");
        write("schema = 1\nname = \"one\"\ntrust = \"\"\n");
        assert_eq!(told(), None);
        write("schema = 1\nseal = \"tpm2\"\nname = \"one\"\ntrust = \"\"\n");
        assert_eq!(told(), Some(Seal::Tpm2));
        fs::create_dir(state.path().join("identity")).unwrap();
        fs::write(state.path().join("identity/provision.toml"), "").unwrap();
        assert_eq!(told(), None, "it was provisioned before");
    }

    #[test]
    fn a_store_of_roots_is_there_as_a_whole_or_not_at_all() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (roots, store) = (boot::blobs(old.path()), new.path().join("store"));
        assert!(copy_roots(&roots, &store).is_err(), "there is nothing to copy");
        assert!(!store.exists());
        fs::create_dir_all(&roots).unwrap();
        fs::write(roots.join("aa"), "a root").unwrap();
        copy_roots(&roots, &store).unwrap();
        assert_eq!(fs::read_to_string(boot::blobs_of(&store).join("aa")).unwrap(), "a root");
        fs::write(roots.join("bb"), "another one").unwrap();
        copy_roots(&roots, &store).unwrap();
        assert!(!boot::blobs_of(&store).join("bb").exists(), "what is there is the host's own");
    }
}
