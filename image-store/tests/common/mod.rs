//! What several tests need.
#![expect(dead_code, reason = "each test file uses its own part of this")]

pub(crate) mod layout;
pub(crate) mod live;
pub(crate) mod native;
pub(crate) mod oracle;
pub(crate) mod registry;

use std::io::Write;
use std::path::Path;

use bennu_image_store::Confinement;
use bennu_image_store::worker::Program;

/// Builds an archive, byte by byte, so that it can say what no honest program would.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "", b"", |_| {})
    }

    pub(crate) fn file(self, name: &str, data: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'0', "", data.as_ref(), |_| {})
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', target, b"", |_| {})
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', target, b"", |_| {})
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.entry("pax", b'x', "", &pax_records(records), |_| {})
    }

    /// An entry whose header `change` may spoil; the checksum is right all the same.
    pub(crate) fn entry(
        mut self,
        name: &str,
        kind: u8,
        link: &str,
        data: &[u8],
        change: impl FnOnce(&mut [u8; 512]),
    ) -> Self {
        let mut header = [0; 512];
        header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        let mode = if kind == b'5' { 0o755 } else { 0o644 };
        header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000144\0");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        change(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// Records with their lengths, which count themselves.
pub(crate) fn pax_records(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        write!(out, "{len} {key}=").expect("memory can be written");
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// Whether this test can mount. Where it cannot it is skipped, and says so; `BENNU_TESTS_MUST_RUN` makes that a failure.
pub(crate) fn can_mount() -> bool {
    let able = nix::unistd::geteuid().is_root()
        && std::fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\terofs"));
    if !able {
        skipped("mounting EROFS needs root and a kernel that has it");
    }
    able
}

/// Whether a program is installed; see [`can_mount`].
pub(crate) fn has_program(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join(name).exists());
    if !found {
        skipped(&format!("the program {name} is not installed"));
    }
    found
}

fn skipped(why: &str) {
    assert!(std::env::var_os("BENNU_TESTS_MUST_RUN").is_none(), "this test has to run: {why}");
    println!("skipped: {why}");
}

/// Layers are parsed in processes of their own, as hosts do it.
pub(crate) fn confined() -> Confinement {
    Confinement::Process(worker())
}

/// The program that tests start to parse layers.
pub(crate) fn worker() -> Program {
    Program::at(Path::new(env!("CARGO_BIN_EXE_layer-worker")))
}
