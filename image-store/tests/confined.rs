//! What the processes that parse layers cannot do, and what becomes of a layer whose process dies, hangs or is left alone.

mod common;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bennu_image_store::registry::document::Platform;
use bennu_image_store::tar::Limits;
use bennu_image_store::worker::Program;
use bennu_image_store::{Confinement, ImportError, PullError, Store, WorkerError, sha256};
use common::Tar;
use common::registry::Parts;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid};

const WORKER: &str = env!("CARGO_BIN_EXE_layer-worker");
/// The beginning of the command line of a worker.
const NAME: &str = "bennu-layer-worker";

fn attempt(how: &str, what: &str) -> String {
    let output = Command::new(WORKER).args([how, what]).output().expect("started");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_confined_process_opens_connects_starts_traces_and_signals_nothing() {
    for what in [
        "read-a-file",
        "make-a-file",
        "connect",
        "talk-to-a-neighbour",
        "start-a-program",
        "start-a-thread",
        "trace-its-parent",
        "signal-its-parent",
        "become-root",
        "mount",
        "make-a-namespace",
        "make-memory-executable",
    ] {
        assert_eq!(attempt("confined", what), "EPERM", "{what}");
    }
    assert_eq!(attempt("confined", "take-memory"), "ENOMEM");
}

#[test]
fn what_a_confined_process_cannot_do_an_ordinary_one_can() {
    for what in [
        "read-a-file",
        "make-a-file",
        "connect",
        "talk-to-a-neighbour",
        "start-a-program",
        "start-a-thread",
        "make-memory-executable",
        "take-memory",
    ] {
        assert_eq!(attempt("free", what), "done", "{what}");
    }
}

/// The processes that parse for the store in `directory`.
fn workers(directory: &Path) -> Vec<Pid> {
    let names = std::fs::read_dir("/proc").expect("listed").filter_map(|entry| {
        let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(format!("/proc/{number}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.starts_with(NAME) && line.contains(directory.to_str()?)).then_some(Pid::from_raw(number))
    });
    names.collect()
}

/// Gives a sound archive, and after half of it does something to the processes that read it.
struct Meddling<'a> {
    archive: &'a [u8],
    half: usize,
    meddle: Option<Box<dyn FnOnce() + 'a>>,
}

impl Read for Meddling<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.archive.len() <= self.half
            && let Some(meddle) = self.meddle.take()
        {
            meddle();
        }
        self.archive.read(buf)
    }
}

fn import(
    store: &Store,
    archive: &[u8],
    meddle: impl FnOnce(),
) -> Result<bennu_image_store::Layer, ImportError> {
    let meddling = Meddling { archive, half: archive.len() / 2, meddle: Some(Box::new(meddle)) };
    store.import_layer(meddling, Limits::default())
}

/// More than the pipes hold.
fn large() -> Vec<u8> {
    Tar::new().file("a", vec![7; 8 << 20]).file("b", "b").end()
}

fn is_empty(store: &Path) -> bool {
    ["tmp", "blobs/sha256", "layers/sha256", "images/sha256"]
        .iter()
        .all(|directory| std::fs::read_dir(store.join(directory)).expect("listed").next().is_none())
}

#[test]
fn a_process_that_parses_a_layer_has_no_user_no_rights_and_no_file_but_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let mut seen = Vec::new();
    let look = || {
        for worker in workers(dir.path()) {
            let of = |file: &str| std::fs::read_to_string(format!("/proc/{worker}/{file}")).expect("read");
            let files = std::fs::read_dir(format!("/proc/{worker}/fd")).expect("listed").count();
            seen.push((of("status"), of("limits"), files));
        }
    };
    import(&store, &large(), look).expect("sound");
    let [(status, limits, files)] = &seen[..] else { panic!("{} processes", seen.len()) };
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field(status, "NoNewPrivs:"), ["1"]);
    assert_eq!(field(status, "Seccomp:"), ["2"]);
    assert_eq!(field(status, "CapEff:"), ["0000000000000000"]);
    assert_eq!(field(status, "CapPrm:"), ["0000000000000000"]);
    assert_eq!(field(status, "Threads:"), ["1"]);
    for name in ["Max processes", "Max open files", "Max core file size"] {
        assert_eq!(field(limits, name)[..2], ["0", "0"], "{name}");
    }
    assert_ne!(field(limits, "Max data size")[1], "unlimited");
    // Three pipes or files of its own, twice where it reads past the standard library, and two for temporary data.
    assert!(*files <= 7, "{files} files are open");
    if Uid::effective().is_root() {
        assert_eq!(field(status, "Uid:"), ["65534"; 4]);
        assert_eq!(field(status, "Gid:"), ["65534"; 4]);
        assert!(field(status, "Groups:").is_empty());
    }
}

/// An archive of so many small files in directories of a thousand, made while it is read.
struct Many {
    left: u32,
    piece: io::Cursor<Vec<u8>>,
}

impl Read for Many {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.piece.position() as usize == self.piece.get_ref().len() && self.left > 0 {
            let some = self.left.min(1000);
            let directory = format!("usr/share/directory-{}", self.left / 1000);
            let entries = (0..some).fold(Tar::new(), |tar, i| {
                tar.file(&format!("{directory}/file-with-a-name-{i}"), format!("{i} is all that is in it\n"))
            });
            self.left -= some;
            self.piece = io::Cursor::new(if self.left == 0 { entries.end() } else { entries.cut() });
        }
        self.piece.read(buf)
    }
}

#[test]
fn a_layer_of_100_000_entries_is_converted_in_40_mib() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let many = Many { left: 100_000, piece: io::Cursor::default() };
    store.import_layer(many, Limits::default()).expect("sound");
    let used = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("known");
    assert!(used.max_rss() <= 40 << 10, "{} KiB", used.max_rss());
}

#[test]
fn a_worker_that_dies_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let kill = || {
        for worker in workers(dir.path()) {
            nix::sys::signal::kill(worker, Signal::SIGKILL).expect("killed");
        }
    };
    let error = import(&store, &large(), kill).expect_err("killed");
    assert!(matches!(error, ImportError::Worker(WorkerError::Ended { .. })), "{error:?}");
    assert!(is_empty(dir.path()));
    import(&store, &large(), || ()).expect("the next one is none the worse");
}

#[test]
fn a_worker_that_hangs_is_ended_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let impatient = common::worker().with_patience(Duration::from_millis(300));
    let store = Store::open(dir.path(), Confinement::Process(impatient)).expect("a store");
    let stop = || {
        for worker in workers(dir.path()) {
            nix::sys::signal::kill(worker, Signal::SIGSTOP).expect("stopped");
        }
    };
    let error = import(&store, &large(), stop).expect_err("stopped");
    assert!(matches!(error, ImportError::Worker(WorkerError::Stalled(_))), "{error:?}");
    assert!(is_empty(dir.path()));
    assert!(workers(dir.path()).is_empty(), "it is still there");
}

#[tokio::test]
async fn a_worker_that_cannot_work_is_an_error_that_names_the_layer() {
    let parts = Parts::new("amd64", &[Tar::new().file("a", "a").end()]);
    for program in ["/bin/false", "/nowhere/at/all"] {
        let dir = tempfile::tempdir().expect("a directory");
        let confinement = Confinement::Process(Program::at(Path::new(program)));
        let store = Store::open(dir.path(), confinement).expect("a store");
        let server = parts.clone().serve();
        let client = bennu_image_store::registry::Client::new(Default::default()).expect("a client");
        let pulled = store.pull(&client, &server.image(parts.digest()), &Platform::linux("amd64"), &()).await;
        let error = pulled.expect_err("there is nobody to parse it");
        assert!(!error.is_refusal(), "{error:?}");
        let PullError::Worker { layer, .. } = error else { panic!("{error:?}") };
        assert_eq!(layer, sha256::digest(&parts.layers[0]));
        assert!(is_empty(dir.path()));
    }
}

#[test]
fn a_worker_dies_with_the_program_that_started_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut parent = Command::new(WORKER)
        .args(["import".as_ref(), dir.path()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = parent.stdin.take().expect("piped");
    input.write_all(&large()[..1 << 20]).expect("written");
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_until = |done: &dyn Fn() -> bool, what: &str| {
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait_until(&|| !workers(dir.path()).is_empty(), "no worker was started");
    parent.kill().expect("killed");
    parent.wait().expect("waited for");
    wait_until(&|| workers(dir.path()).is_empty(), "it lives on");
}
