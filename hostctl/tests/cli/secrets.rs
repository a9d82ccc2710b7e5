//! `secret encrypt`.

use bennu_secrets::{Identity, open};

use crate::Desk;

fn age_of(text: &str, name: &str) -> String {
    let table: toml::Table = toml::from_str(text).expect("it is TOML");
    table["secret"][name]["age"].as_str().expect("text").to_owned()
}

#[test]
fn a_secret_is_printed_as_a_table_that_its_recipients_open() {
    let desk = Desk::new();
    let (one, two) = (Identity::generate(), Identity::generate());
    desk.write("hosts.txt", &format!("# the attic\n\n{}\n{}\n", two.recipient(), one.recipient()));
    let recipient = one.recipient().to_string();
    let arguments = ["secret", "encrypt", "--recipient", &recipient, "--recipients-file", "hosts.txt"];

    let text = desk.run_with(&[&arguments[..], &["--name", "db"]].concat(), b"s3cret\n").with(0);
    assert!(text.starts_with("[secret.db]\nage = \"\"\"\n-----BEGIN AGE ENCRYPTED FILE-----\n"), "{text}");
    assert!(!text.contains("s3cret"));
    let table: toml::Table = toml::from_str(&text).expect("it is TOML");
    let named = table["secret"]["db"]["recipients"].as_array().expect("an array");
    let named: Vec<_> = named.iter().filter_map(|r| r.as_str()).map(str::to_owned).collect();
    assert_eq!(named, [one.recipient().to_string(), two.recipient().to_string()], "each once");
    for identity in [one, two] {
        assert_eq!(open(&identity, &age_of(&text, "db")).expect("opened").as_slice(), b"s3cret\n");
    }

    desk.write("tls.key", "PEM");
    let json = desk.run(&[&arguments[..], &["tls.key", "--json"]].concat()).json(0);
    assert_eq!(json["name"], "tls", "the name is that of the file");
}

#[test]
fn a_secret_is_put_into_a_manifest_that_keeps_its_comments() {
    let desk = Desk::new();
    let identity = Identity::generate();
    let recipient = identity.recipient().to_string();
    let before = "name = \"demo\" # the stream\n";
    desk.write("host.toml", before);
    desk.write("host.toml.sig", "an old one");
    let arguments = ["secret", "encrypt", "--recipient", &recipient, "--name", "db", "--in", "host.toml"];
    for secret in [&b"first"[..], b"second"] {
        let ended = desk.run_with(&arguments, secret);
        assert!(ended.stderr.contains("signed again"), "{}", ended.stderr);
        assert_eq!(ended.with(0), "[secret.db] for 1 recipient in host.toml\n");
        let text = desk.read("host.toml");
        assert!(text.starts_with(before) && text.matches("[secret.db]").count() == 1, "{text}");
        assert_eq!(open(&identity, &age_of(&text, "db")).expect("opened").as_slice(), secret);
    }
}

#[test]
fn a_secret_that_is_not_right_is_not_encrypted_and_nothing_is_written() {
    let desk = Desk::new();
    let recipient = Identity::generate().recipient().to_string();
    desk.write("host.toml", "a = 1\n");
    desk.write("none.txt", "# nobody\n");
    desk.write("strange.txt", "ssh-ed25519 AAAA\n");
    let large = vec![b'x'; (64 << 10) + 1];
    let named = ["--recipient", recipient.as_str(), "--name", "db"];
    for (arguments, input, code) in [
        (&["--recipient", "age1x", "--name", "db"][..], &b"a"[..], 2),
        (&["--recipients-file", "none.txt", "--name", "db"], b"a", 2),
        (&["--recipients-file", "strange.txt", "--name", "db"], b"a", 2),
        (&["--name", "db"], b"a", 2),
        (&["--recipient", &recipient], b"a", 2),
        (&["--recipient", &recipient, "--name", "Not A Name"], b"a", 2),
        (&named, b"", 2),
        (&named, &large, 2),
        (&["--recipient", &recipient, "no-such-file"], b"", 5),
        (&["--recipient", &recipient, "--name", "db", "--in", "missing.toml"], b"a", 5),
    ] {
        let into: &[&str] = if arguments.contains(&"--in") { &[] } else { &["--in", "host.toml"] };
        let arguments = [&["secret", "encrypt"][..], arguments, into].concat();
        let ended = desk.run_with(&arguments, input);
        assert_eq!(ended.code, code, "{arguments:?}: {ended:#?}");
        assert_eq!(desk.read("host.toml"), "a = 1\n", "{arguments:?}");
    }
}
