//! What the `age` program seals we open, and the other way round.
//!
//! The program is installed by `cargo xtask packages`. Where it is missing the test fails.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use bennu_secrets::{Identity, open, seal};

/// Runs a program that has to succeed; what it wrote.
fn run(program: &str, arguments: &[&str], dir: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): cargo xtask packages installs it")
        });
    child.stdin.take().expect("it was asked for").write_all(input).expect("it reads its input");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program} {arguments:?} ended with {}", output.status);
    output.stdout
}

#[test]
fn the_age_program_and_we_open_what_the_other_sealed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let theirs = String::from_utf8(run("age-keygen", &[], dir.path(), b"")).expect("text");
    let ours = Identity::generate().to_file();
    for (name, file) in [("theirs", theirs.as_str()), ("ours", ours.as_str())] {
        let identity = Identity::from_file(file).expect("both are written in one form");
        std::fs::write(dir.path().join(name), file).expect("the identity is written");
        let recipient = identity.recipient().to_string();
        assert_eq!(run("age-keygen", &["-y", name], dir.path(), b""), format!("{recipient}\n").into_bytes());
        for secret in [&b""[..], b"one line\n", &[0xff; 64 << 10]] {
            let sealed = run("age", &["--encrypt", "--armor", "-r", &recipient], dir.path(), secret);
            let sealed = String::from_utf8(sealed).expect("the armour is text");
            assert_eq!(open(&identity, &sealed).expect("it is for us").as_slice(), secret);

            let sealed = seal(&[identity.recipient()], secret).expect("sealed");
            assert_eq!(run("age", &["--decrypt", "-i", name], dir.path(), sealed.as_bytes()), secret);
        }
    }
}
