//! The ledger through cuts, restarts and meddling. Signatures are made by `ssh-keygen`, as users make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_api::{Change, Receipt};
use bennu_manifests::{Floors, HostFacts, NotAccepted, Rule, Trust, Verified, check_trust, verify};
use bennu_planner::{Interruption, Measured};
use hostd::ledger::{Ledger, LedgerError, OpenReceipt};
use jiff::Timestamp;

struct Author {
    dir: tempfile::TempDir,
    trust: Trust,
    facts: HostFacts,
}

impl Author {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("key");
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "author", "-f"])
            .arg(&key));
        let public = fs::read_to_string(key.with_extension("pub")).expect("the public key");
        let roles = ["deploy", "os", "trust"]
            .map(|r| format!("[role.{r}]\nkeys = [\"author\"]\nthreshold = 1\n"))
            .concat();
        let text = format!("schema = 1\nversion = 1\n[key.author]\npublic = \"{}\"\n{roles}", public.trim());
        let trust =
            check_trust(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("trust.toml", &text)));
        Self { dir, trust, facts: HostFacts { arch: "amd64".into(), ..HostFacts::default() } }
    }

    /// A manifest of this serial, and its signature.
    fn signed(&self, serial: u64) -> (Vec<u8>, Vec<u8>) {
        let text = format!(
            "schema = 1\nname = \"edge\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2100-01-01T00:00:00Z\nallow-empty = true\n"
        );
        let file = self.dir.path().join(format!("{serial}.toml"));
        fs::write(&file, &text).expect("written");
        let key = self.dir.path().join("key");
        run(Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", "bennu-manifest", "-f"])
            .arg(key)
            .arg(&file));
        (text.into_bytes(), fs::read(file.with_extension("toml.sig")).expect("the signature"))
    }

    fn open(&self, dir: &Path) -> Result<Ledger, LedgerError> {
        Ledger::open(dir, &self.trust, &self.facts)
    }

    fn verified(&self, bytes: &[u8], sig: &[u8], floors: &Floors) -> Result<Verified, NotAccepted> {
        verify(bytes, sig, &self.trust, floors, &self.facts, now())
    }

    fn accept(&self, ledger: &mut Ledger, serial: u64) -> u64 {
        let (bytes, sig) = self.signed(serial);
        let verified = self.verified(&bytes, &sig, ledger.floors()).expect("accepted");
        ledger.accept(verified, &bytes, &sig, None, now()).expect("written").number
    }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("a time")
}

fn run(command: &mut Command) {
    let output = command.output().expect("ssh-keygen is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn numbers(ledger: &Ledger) -> (Option<u64>, Option<u64>) {
    (ledger.active().map(|a| a.generation.number), ledger.pending().map(|p| p.generation.number))
}

#[test]
fn what_was_accepted_and_activated_is_there_after_a_restart() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    let mut ledger = author.open(dir.path()).expect("begun");
    assert_eq!(author.accept(&mut ledger, 5), 1);
    ledger.activate(1).expect("written");
    assert_eq!(author.accept(&mut ledger, 6), 2);
    ledger.record(1, Ok(now())).expect("written");
    ledger.record(2, Err("the registry is gone")).expect("written");

    let again = author.open(dir.path()).expect("read");
    assert_eq!(numbers(&again), (Some(1), Some(2)));
    assert_eq!(again.next_generation(), 3);
    let told: Vec<_> = again.history().map(|e| (e.converged, e.failure.as_deref())).collect();
    assert_eq!(told, [(Some(now()), None), (None, Some("the registry is gone"))]);
    assert_eq!(again.history().next().expect("one").signers, ["author"]);
}

#[test]
fn a_lower_serial_is_refused_after_a_restart() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    author.accept(&mut author.open(dir.path()).expect("begun"), 5);
    let again = author.open(dir.path()).expect("read");
    let (bytes, sig) = author.signed(4);
    let refused = author.verified(&bytes, &sig, again.floors()).expect_err("it is older");
    assert!(matches!(refused, NotAccepted::Refused(r) if r.rule == Rule::SerialReplayed));
}

/// The files in the order in which accepting a second manifest writes them.
fn writes(dir: &Path) -> Vec<PathBuf> {
    let generation = dir.join("generations/2");
    vec![
        generation.clone(),
        generation.join("host.toml"),
        generation.join("host.toml.sig"),
        generation.join("record.json"),
        dir.join("floors.json"),
        dir.join("pointer.json"),
    ]
}

/// Undoes all writes from the `n`th on, as a power cut before it would have.
fn cut_before(dir: &Path, n: usize, before: &[(PathBuf, Vec<u8>)]) {
    for path in writes(dir).iter().skip(n).rev() {
        match before.iter().find(|(name, _)| name == path) {
            Some((_, old)) => fs::write(path, old).expect("restored"),
            None if path.is_dir() => fs::remove_dir_all(path).expect("removed"),
            None => fs::remove_file(path).expect("removed"),
        }
    }
}

#[test]
fn a_cut_between_any_two_writes_leaves_the_old_or_the_new_and_the_manifest_can_be_handed_in_again() {
    let author = Author::new();
    for n in 0..=6 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ledger = author.open(dir.path()).expect("begun");
        author.accept(&mut ledger, 1);
        ledger.activate(1).expect("written");
        let before: Vec<_> = ["floors.json", "pointer.json"]
            .map(|f| dir.path().join(f))
            .map(|f| (f.clone(), fs::read(f).expect("read")))
            .into();
        author.accept(&mut ledger, 2);
        drop(ledger);
        cut_before(dir.path(), n, &before);

        let mut after = author.open(dir.path()).unwrap_or_else(|e| panic!("cut before write {n}: {e}"));
        let expected = if n == 6 { (Some(1), Some(2)) } else { (Some(1), None) };
        assert_eq!(numbers(&after), expected, "cut before write {n}");
        // Where it was not acknowledged, the operator hands it in again, and gets the host there.
        let number = author.accept(&mut after, 2);
        after.activate(number).expect("written");
        let end = author.open(dir.path()).expect("read");
        assert_eq!(end.active().expect("active").generation.serial, 2, "cut before write {n}");
    }
}

#[test]
fn a_manifest_that_somebody_wrote_beside_the_daemon_is_not_applied() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    let mut ledger = author.open(dir.path()).expect("begun");
    author.accept(&mut ledger, 1);
    ledger.activate(1).expect("written");
    let file = dir.path().join("generations/1/host.toml");
    let changed = fs::read_to_string(&file).expect("read").replace("edge", "evil");
    fs::write(&file, changed).expect("written");
    assert!(matches!(author.open(dir.path()), Err(LedgerError::NoLongerTrusted { generation: 1, .. })));
}

#[test]
fn leftovers_of_a_cut_write_are_removed() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    author.open(dir.path()).expect("begun");
    let leftover = dir.path().join(".tmp-12-3");
    fs::write(&leftover, b"half").expect("written");
    author.open(dir.path()).expect("read");
    assert!(!leftover.exists());
}

#[test]
fn a_ledger_of_a_newer_version_is_left_alone() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    author.open(dir.path()).expect("begun");
    fs::write(dir.path().join("format.json"), b"{\"version\":2}").expect("written");
    assert!(matches!(author.open(dir.path()), Err(LedgerError::Newer { version: 2, .. })));
}

#[test]
fn old_generations_are_forgotten_but_never_the_active_one() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    let mut ledger = author.open(dir.path()).expect("begun");
    author.accept(&mut ledger, 1);
    ledger.activate(1).expect("written");
    for serial in 2..=60 {
        author.accept(&mut ledger, serial);
    }
    assert!(ledger.history().count() <= 51);
    assert_eq!(numbers(&author.open(dir.path()).expect("read")), (Some(1), Some(60)));
}

fn receipt(change: Change, from: u64, to: u64) -> OpenReceipt {
    let receipt = Receipt {
        change,
        from: Some(from),
        to,
        reason: None,
        plan: None,
        began: now(),
        ended: None,
        interruption: Interruption::default(),
        fetched: Vec::new(),
        survived: Vec::new(),
        destroyed: Vec::new(),
        written: Vec::new(),
    };
    OpenReceipt { receipt, before: Measured { boot: "one".into(), ..Measured::default() } }
}

#[test]
fn receipts_are_filed_with_their_generation_and_outlive_restarts() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    let mut ledger = author.open(dir.path()).expect("begun");
    for serial in 1..=3 {
        author.accept(&mut ledger, serial);
    }
    assert_eq!(ledger.receipts(None).expect("read"), None);
    // Begun twice, as where the daemon was ended in between, it is one.
    ledger.begin_receipt(receipt(Change::Active, 1, 2)).expect("written");
    ledger.begin_receipt(receipt(Change::Active, 1, 2)).expect("written");
    let mut ledger = author.open(dir.path()).expect("read");
    let told = ledger.receipts(None).expect("read").expect("one");
    assert_eq!((told.generation, told.receipts.len(), told.receipts[0].ended), (2, 1, None));

    // What comes before its end leaves it as it is.
    ledger.begin_receipt(receipt(Change::TakenBack, 2, 1)).expect("written");
    let open = ledger.open_receipt().expect("read").expect("it is under way");
    assert_eq!(open.before.boot, "one");
    ledger.end_receipt(Receipt { ended: Some(now()), ..open.receipt }).expect("written");
    let ledger = author.open(dir.path()).expect("read");
    let told = ledger.receipts(Some(2)).expect("read").expect("two");
    let told: Vec<_> = told.receipts.iter().map(|one| (one.change, one.ended)).collect();
    assert_eq!(told, [(Change::Active, None), (Change::TakenBack, Some(now()))]);
    assert_eq!(ledger.open_receipt().expect("read"), None);
    assert_eq!(ledger.receipts(Some(3)).expect("read"), None);
    assert_eq!(ledger.receipts(Some(9)).expect("read"), None);
}

#[test]
fn what_was_required_and_fetched_is_there_after_a_restart() {
    let (author, dir) = (Author::new(), tempfile::tempdir().expect("a directory"));
    let plan = bennu_manifests::model::Digest::from_bytes([3; 32]);
    {
        let mut ledger = author.open(dir.path()).expect("begun");
        let (bytes, sig) = author.signed(5);
        let verified = author.verified(&bytes, &sig, ledger.floors()).expect("accepted");
        ledger.accept(verified, &bytes, &sig, Some(plan), now()).expect("written");
        ledger.fetched(1, "registry.example/web", 5).expect("written");
        ledger.fetched(1, "registry.example/web", 7).expect("written");
    }
    let ledger = author.open(dir.path()).expect("read");
    assert_eq!(ledger.required_plan(1), Some(plan));
    let entry = ledger.history().next().expect("one");
    assert_eq!((entry.fetched.len(), entry.fetched[0].bytes), (1, 12));
}
