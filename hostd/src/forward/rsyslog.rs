//! Lines that a real receiver understands: rsyslog's `rsyslogd`, as the distribution has it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bennu_api::LogLine;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use super::send::Sender;
use super::target::Declared;
use super::tests::line;

/// What it writes of each message: the fields that it found, not the text that came.
const TEMPLATE: &str =
    "%hostname% %app-name% %procid% %pri-text% %timereported:::date-rfc3339% %structured-data% %msg%\\n";

/// How long it has for anything, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A receiver on a free port. It is ended when this value is dropped.
struct Rsyslog {
    child: Child,
    dir: tempfile::TempDir,
}

/// Whom certificates are believed from.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

/// The certificate and the key of what listens on 127.0.0.1.
fn server(authority: &Authority) -> (String, String) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
}

impl Rsyslog {
    /// Starts it, with TLS where there is an authority for its certificate.
    fn start(authority: Option<&Authority>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (global, input) = match authority {
            None => (String::new(), String::new()),
            Some(authority) => {
                let (certificate, key) = server(authority);
                for (name, text) in [("ca", &authority.pem), ("certificate", &certificate), ("key", &key)] {
                    fs::write(dir.path().join(name), text).unwrap();
                }
                let global = format!(
                    "DefaultNetstreamDriver=\"gtls\" DefaultNetstreamDriverCAFile=\"{}\" \
                     DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\"",
                    path("ca"),
                    path("certificate"),
                    path("key")
                );
                (
                    global,
                    "StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\""
                        .into(),
                )
            }
        };
        let configuration = format!(
            "global(workDirectory=\"{}\" {global})\nmodule(load=\"imtcp\" {input})\n\
             template(name=\"fields\" type=\"string\" string=\"{TEMPLATE}\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"0\" listenPortFileName=\"{}\" ruleset=\"all\")\n\
             ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{}\" template=\"fields\") }}\n",
            dir.path().display(),
            path("port"),
            path("messages")
        );
        fs::write(dir.path().join("rsyslog.conf"), configuration).unwrap();
        // A copy, since Ubuntu's AppArmor lets the program in its place read and write nowhere but in its own directories.
        let program = dir.path().join("rsyslogd");
        // Made by another process: what this one has open for writing while another test forks can't be run (execve(2), ETXTBSY).
        let copied = Command::new("cp").arg("/usr/sbin/rsyslogd").arg(&program).status().unwrap();
        assert!(copied.success(), "Debian's package rsyslog is needed; `cargo xtask test` installs it");
        let said = fs::File::create(dir.path().join("said")).unwrap();
        let child = Command::new(program)
            .args(["-n", "-i", "NONE", "-f"])
            .arg(dir.path().join("rsyslog.conf"))
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap();
        Self { child, dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.file("said")).unwrap_or_default()
    }

    /// Waits for the whole of a file that ends with so many line breaks at least, and gives its lines.
    async fn lines(&self, name: &str, breaks: usize) -> Vec<String> {
        let until = Instant::now() + DEADLINE;
        loop {
            let text = fs::read_to_string(self.file(name)).unwrap_or_default();
            if !text.is_empty() && text.matches('\n').count() >= breaks {
                return text.lines().map(str::to_owned).collect();
            }
            assert!(Instant::now() < until, "{name} holds {text:?}, and rsyslogd says: {}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A way to it, as a manifest declares it.
    async fn sender(&self, scheme: &str, authority: Option<&Authority>) -> Sender {
        let port = self.lines("port", 0).await.concat();
        let (ca, config) = match authority {
            Some(authority) => {
                ("ca = \"ca\"\n", format!("[config.ca]\ncontent = '''\n{}'''\n", authority.pem))
            }
            None => ("", String::new()),
        };
        let text = format!(
            "schema = 1\nname = \"a\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
             [logs.forward.central]\nkind = \"syslog\"\nurl = \"{scheme}://127.0.0.1:{port}\"\n{ca}{config}"
        );
        let manifest = bennu_manifests::check(text.as_bytes())
            .unwrap_or_else(|invalid| panic!("{}", invalid.render("a", &text)));
        Sender::new(Declared::all(&manifest).next().expect("one").1.target().unwrap(), "attic".into())
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

#[tokio::test]
async fn rsyslog_finds_every_field_of_the_lines_that_it_gets() {
    let rsyslog = Rsyslog::start(None);
    let lines = [
        line("hello, world"),
        LogLine { image: Some("a\"b]c\\d".into()), ..line("what has to be escaped") },
        line("ein Gruß in zwei\nZeilen"),
        LogLine {
            container: String::new(),
            instance: String::new(),
            generation: None,
            image: None,
            pid: None,
            priority: Some(3),
            ..line("of the daemon")
        },
    ];
    // Its connection stays until what was sent has been read.
    let mut sender = rsyslog.sender("tcp", None).await;
    assert_eq!(sender.send(&lines.each_ref()).await.unwrap(), 0);
    let of_web = "attic web 77 user.info 2026-03-01T12:00:00.000001Z";
    let fields = r#"bennu@32473 instance="web-3" generation="3""#;
    assert_eq!(
        rsyslog.lines("messages", lines.len()).await,
        [
            format!(r#"{of_web} [{fields} image="sha256:ab"] hello, world"#),
            format!(r#"{of_web} [{fields} image="a\"b\]c\\d"] what has to be escaped"#),
            format!("{of_web} [{fields} image=\"sha256:ab\"] \u{feff}ein Gruß in zwei#012Zeilen"),
            "attic hostd - daemon.err 2026-03-01T12:00:00.000001Z - of the daemon".to_owned(),
        ]
    );
}

#[tokio::test]
async fn rsyslog_gets_lines_over_tls_and_one_of_another_authority_gets_none() {
    let (ours, another) = (authority("ours"), authority("another"));
    let rsyslog = Rsyslog::start(Some(&ours));
    let mut misled = rsyslog.sender("tls", Some(&another)).await;
    let refused = misled.send(&[&line("secret")]).await.unwrap_err();
    let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("certificate"), "{refused}: {cause}");
    let mut sender = rsyslog.sender("tls", Some(&ours)).await;
    assert_eq!(sender.send(&[&line("first"), &line("last")]).await.unwrap(), 0);
    let got = rsyslog.lines("messages", 2).await;
    let messages: Vec<_> =
        got.iter().filter_map(|line| line.rsplit_once(' ')).map(|(_, said)| said).collect();
    assert_eq!(messages, ["first", "last"], "{got:?}");
}
