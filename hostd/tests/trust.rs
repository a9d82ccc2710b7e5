//! The ledger while keys change: cuts, restarts and meddling. Signatures are made by `ssh-keygen`, as users make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_api::SignedDocument;
use bennu_manifests::{
    ChainNotAccepted, Floors, HostFacts, NotAccepted, Rule, Trust, VerifiedChain, check_trust, verify,
    verify_trust_chain,
};
use hostd::ledger::{Ledger, LedgerError};
use jiff::Timestamp;

/// Keys `old`, `new` and `root`, in a folder.
struct Keys(tempfile::TempDir);

fn run(command: &mut Command) {
    let output = command.output().expect("ssh-keygen is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Keys {
    fn new() -> Self {
        let keys = Self(tempfile::tempdir().expect("a directory"));
        for name in ["old", "new", "root"] {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(keys.path(name)));
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sign(&self, name: &str, namespace: &str, text: &str) -> String {
        let file = self.path("text");
        fs::write(&file, text).expect("written");
        let sig = self.path("text.sig");
        let _ = fs::remove_file(&sig);
        run(Command::new("ssh-keygen")
            .args(["-q", "-Y", "sign", "-n", namespace, "-f"])
            .arg(self.path(name))
            .arg(&file));
        fs::read_to_string(sig).expect("the signature")
    }

    /// A trust document of this version by which `deployer` decides about manifests, and `root` about trust.
    fn trust(&self, version: u64, deployer: &str) -> SignedDocument {
        let keys: String = [deployer, "root"]
            .map(|name| {
                let public = fs::read_to_string(self.path(name).with_extension("pub")).expect("a public key");
                format!("[key.{name}]\npublic = \"{}\"\n", public.trim())
            })
            .concat();
        let document = format!(
            "schema = 1\nversion = {version}\n{keys}[role.deploy]\nkeys = [\"{deployer}\"]\nthreshold = 1\n\
             [role.trust]\nkeys = [\"root\"]\nthreshold = 1\n"
        );
        let signatures = self.sign("root", "bennu-trust", &document);
        SignedDocument { document, signatures }
    }

    fn manifest(&self, signer: &str, serial: u64) -> (String, String) {
        let text = format!(
            "schema = 1\nname = \"edge\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
             expires = 2100-01-01T00:00:00Z\nallow-empty = true\n"
        );
        let sig = self.sign(signer, "bennu-manifest", &text);
        (text, sig)
    }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().expect("a time")
}

fn facts() -> HostFacts {
    HostFacts { arch: "amd64".into(), ..HostFacts::default() }
}

fn read(signed: &SignedDocument) -> Trust {
    check_trust(signed.document.as_bytes()).expect("a trust document")
}

fn chain(ledger: &Ledger, documents: &[SignedDocument]) -> Result<VerifiedChain, ChainNotAccepted> {
    let links: Vec<(&[u8], &[u8])> =
        documents.iter().map(|d| (d.document.as_bytes(), d.signatures.as_bytes())).collect();
    verify_trust_chain(ledger.trust(), &links, ledger.floors(), now())
}

fn take(ledger: &mut Ledger, documents: &[SignedDocument]) -> Option<u64> {
    let chain = chain(ledger, documents).expect("each follows the one before it");
    ledger.take_trust(&chain, documents).expect("written")
}

/// What refuses a manifest, or the generation that it became.
fn submit(ledger: &mut Ledger, (text, sig): &(String, String)) -> Result<u64, Rule> {
    let (bytes, sig) = (text.as_bytes(), sig.as_bytes());
    match verify(bytes, sig, ledger.trust(), ledger.floors(), &facts(), now()) {
        Ok(verified) => Ok(ledger.accept(verified, bytes, sig, None, now()).expect("written").number),
        Err(NotAccepted::Refused(refusal)) => Err(refusal.rule),
        Err(NotAccepted::Invalid(invalid)) => panic!("{invalid}"),
    }
}

fn numbers(ledger: &Ledger) -> (Option<u64>, Option<u64>) {
    (ledger.active().map(|a| a.generation.number), ledger.pending().map(|p| p.generation.number))
}

#[test]
fn a_manifest_that_only_an_evicted_key_signed_is_refused_and_what_runs_goes_on() {
    let (keys, dir) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let provisioned = read(&keys.trust(1, "old"));
    let mut ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("begun");
    assert_eq!(submit(&mut ledger, &keys.manifest("old", 1)), Ok(1));
    ledger.activate(1).expect("written");
    let second = keys.trust(2, "new");
    assert_eq!(take(&mut ledger, std::slice::from_ref(&second)), None);

    for mut ledger in [ledger, Ledger::open(dir.path(), &provisioned, &facts()).expect("read again")] {
        assert_eq!((ledger.trust().version, ledger.floors().trust_version), (2, 2));
        assert_eq!(ledger.trust_document(), Some(&second));
        assert_eq!(numbers(&ledger), (Some(1), None), "what runs goes on running");
        assert_eq!(submit(&mut ledger, &keys.manifest("old", 2)), Err(Rule::SigUntrusted));
    }
    let mut ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("read again");
    assert_eq!(submit(&mut ledger, &keys.manifest("new", 2)), Ok(2));
    assert_eq!(ledger.history().map(|entry| entry.trust_version).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_waits_and_only_an_evicted_key_signed_is_given_up() {
    let (keys, dir) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let provisioned = read(&keys.trust(1, "old"));
    let mut ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("begun");
    submit(&mut ledger, &keys.manifest("old", 1)).expect("accepted");
    ledger.activate(1).expect("written");
    submit(&mut ledger, &keys.manifest("old", 2)).expect("accepted");
    // While its signer counts, it stays.
    assert_eq!(take(&mut ledger, &[keys.trust(2, "old")]), None);
    assert_eq!(numbers(&ledger), (Some(1), Some(2)));
    assert_eq!(take(&mut ledger, &[keys.trust(3, "new")]), Some(2));
    for ledger in [&ledger, &Ledger::open(dir.path(), &provisioned, &facts()).expect("read again")] {
        assert_eq!(numbers(ledger), (Some(1), None));
        let told = ledger.history().last().and_then(|entry| entry.failure.clone()).expect("a reason");
        assert!(told.starts_with("by the new trust document: sig.untrusted"), "{told}");
    }
    // Its serial is used up all the same.
    assert_eq!(
        submit(&mut ledger, &keys.manifest("new", 2)).err(),
        None,
        "the same bytes, signed by who counts"
    );
    assert_eq!(submit(&mut ledger, &keys.manifest("new", 1)), Err(Rule::SerialReplayed));
}

/// The files in the order in which taking versions 2 and 3 writes them.
fn writes(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        ["2.toml", "2.toml.sig", "3.toml", "3.toml.sig"].map(|name| dir.join("trust").join(name)).into();
    files.extend(["floors.json", "generations/2/record.json", "pointer.json"].map(|name| dir.join(name)));
    files
}

#[test]
fn t08_a_cut_between_any_two_writes_of_a_rotation_leaves_the_old_trust_or_the_new() {
    let keys = Keys::new();
    let provisioned = read(&keys.trust(1, "old"));
    let documents = [keys.trust(2, "old"), keys.trust(3, "new")];
    let (first, second) = (keys.manifest("old", 1), keys.manifest("old", 2));
    let mut seen = Vec::new();
    for n in 0..=7 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("begun");
        submit(&mut ledger, &first).expect("accepted");
        ledger.activate(1).expect("written");
        submit(&mut ledger, &second).expect("accepted");
        let before: Vec<Option<Vec<u8>>> =
            writes(dir.path()).iter().map(|path| fs::read(path).ok()).collect();
        assert_eq!(take(&mut ledger, &documents), Some(2));
        drop(ledger);
        let after: Vec<Vec<u8>> =
            writes(dir.path()).iter().map(|path| fs::read(path).expect("it was written")).collect();
        for (path, old) in writes(dir.path()).iter().zip(&before).skip(n).rev() {
            match old {
                Some(old) => fs::write(path, old).expect("restored"),
                None => fs::remove_file(path).expect("removed"),
            }
        }
        let mut ledger = Ledger::open(dir.path(), &provisioned, &facts())
            .unwrap_or_else(|error| panic!("cut before write {n}: {error}"));
        let version = ledger.trust().version;
        assert_eq!(version, if n < 5 { 1 } else { 3 }, "cut before write {n}");
        assert_eq!(ledger.floors().trust_version, if n < 5 { 1 } else { 3 }, "cut before write {n}");
        let pending = if version == 1 { Some(2) } else { None };
        assert_eq!(numbers(&ledger), (Some(1), pending), "cut before write {n}");
        if version == 1 {
            assert_eq!(take(&mut ledger, &documents), Some(2), "it can be handed in again");
        }
        assert_eq!(submit(&mut ledger, &keys.manifest("old", 3)), Err(Rule::SigUntrusted));
        for (path, after) in writes(dir.path()).iter().zip(&after) {
            let end = fs::read(path).expect("it was written");
            assert!(
                end == *after,
                "cut before write {n}: {} ends otherwise than without a cut",
                path.display()
            );
        }
        seen.push(version);
    }
    assert_eq!(seen, [1, 1, 1, 1, 1, 3, 3, 3]);
}

#[test]
fn a_trust_document_that_somebody_wrote_beside_the_daemon_is_not_believed() {
    let keys = Keys::new();
    let provisioned = read(&keys.trust(1, "old"));
    let begun = |documents: &[SignedDocument]| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("begun");
        if !documents.is_empty() {
            take(&mut ledger, documents);
        }
        dir
    };
    let open = |dir: &Path| Ledger::open(dir, &provisioned, &facts());
    let next = keys.trust(2, "new");

    // One that the floors do not name is as if it were not there.
    let dir = begun(&[]);
    fs::write(dir.path().join("trust/2.toml"), &next.document).expect("written");
    assert_eq!(open(dir.path()).expect("read").trust().version, 1);

    // One that was changed, or is gone, is an error and not the one before it.
    let dir = begun(std::slice::from_ref(&next));
    let file = dir.path().join("trust/2.toml");
    fs::write(&file, next.document.replace("key.new", "key.now").replace("\"new\"", "\"now\""))
        .expect("written");
    assert!(matches!(open(dir.path()), Err(LedgerError::TrustDamaged { .. })));
    fs::remove_file(&file).expect("removed");
    assert!(matches!(open(dir.path()), Err(LedgerError::Io { .. })));

    // One that is properly signed, and yet not what was taken.
    let dir = begun(std::slice::from_ref(&next));
    let other = keys.trust(2, "old");
    fs::write(dir.path().join("trust/2.toml"), other.document).expect("written");
    fs::write(dir.path().join("trust/2.toml.sig"), other.signatures).expect("written");
    assert!(matches!(open(dir.path()), Err(LedgerError::Damaged { .. })));
}

#[test]
fn t03_none_of_the_last_20_manifests_comes_back_after_a_restart_or_a_cut() {
    let (keys, dir) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let provisioned = read(&keys.trust(1, "old"));
    let manifests: Vec<_> = (1..=21).map(|serial| keys.manifest("old", serial)).collect();
    let open = || Ledger::open(dir.path(), &provisioned, &facts()).expect("it can be read");
    for manifest in &manifests {
        submit(&mut open(), manifest).expect("newer than all before it");
    }
    let pointer = dir.path().join("pointer.json");
    let before = fs::read(&pointer).expect("read");
    // A restart; and one after a cut between the floors and the pointer, when nobody was told that it was accepted.
    let last = keys.manifest("old", 22);
    for cut in [false, true] {
        if cut {
            submit(&mut open(), &last).expect("accepted");
            fs::write(&pointer, &before).expect("restored");
        }
        let mut again = open();
        for manifest in &manifests[..20] {
            assert_eq!(submit(&mut again, manifest), Err(Rule::SerialReplayed));
        }
        assert_eq!(submit(&mut again, &manifests[20]), if cut { Err(Rule::SerialReplayed) } else { Ok(22) });
    }
}

#[test]
fn a_host_is_never_earlier_than_its_programs() {
    let (keys, dir) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let provisioned = read(&keys.trust(1, "old"));
    let ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("begun").built_at(now());
    assert_eq!(ledger.floors(), &Floors { latest_time: now(), ..Floors::default() });
    assert!(hostd::os::built() > Timestamp::UNIX_EPOCH);
}

/// The documents are written before the floors name them: where one of them can't be, none counts.
#[test]
fn t08_a_rotation_that_cannot_be_written_is_as_if_it_had_not_been() {
    let keys = Keys::new();
    let provisioned = read(&keys.trust(1, "old"));
    let documents = [keys.trust(2, "old"), keys.trust(3, "new")];
    for obstacle in ["2.toml", "2.toml.sig", "3.toml", "3.toml.sig"] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut ledger = Ledger::open(dir.path(), &provisioned, &facts()).expect("begun");
        submit(&mut ledger, &keys.manifest("old", 1)).expect("accepted");
        let floors = ledger.floors().clone();
        // A folder can't be replaced by a file.
        let obstacle = dir.path().join("trust").join(obstacle);
        fs::create_dir(&obstacle).expect("made");
        let verified = chain(&ledger, &documents).expect("each follows the one before it");
        assert!(matches!(ledger.take_trust(&verified, &documents), Err(LedgerError::Io { .. })));
        assert_eq!((ledger.trust().version, ledger.floors()), (1, &floors), "{}", obstacle.display());
        fs::remove_dir(&obstacle).expect("removed");
        let mut again = Ledger::open(dir.path(), &provisioned, &facts()).expect("read again");
        assert_eq!((again.trust().version, again.floors()), (1, &floors), "{}", obstacle.display());
        assert_eq!(numbers(&again), (None, Some(1)));
        take(&mut again, &documents);
        assert_eq!(again.trust().version, 3);
    }
}
