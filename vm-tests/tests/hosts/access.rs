//! Who may talk to a host.

use std::process::Command;

use vm_tests::machine::API;
use vm_tests::operator::Operator;
use vm_tests::{Failure, on_host, output};

#[test]
fn the_api_is_closed_without_a_client_certificate() -> Result<(), Failure> {
    on_host("the_api_is_closed_without_a_client_certificate", |host| {
        let url = format!("https://127.0.0.1:{}/v1/status", host.vm.port(API));
        // curl asks for no proof of the server, so all that can stop it is the server.
        let ask = |more: &[&str]| {
            output(
                Command::new("curl")
                    .args(["--silent", "--show-error", "--insecure", "--max-time", "20"])
                    .args(more)
                    .arg(&url),
            )
        };
        let nobody = ask(&[])?;
        assert!(!nobody.status.success() && nobody.stdout.is_empty(), "{nobody:?}");

        let elsewhere = tempfile::tempdir()?;
        let stranger = Operator::create(elsewhere.path(), &host.fixture.programs().hostctl)?;
        let file =
            |operator: &Operator, name: &str| operator.identity().join(name).to_string_lossy().into_owned();
        let (certificate, key) = (file(&stranger, "client.crt"), file(&stranger, "client.key"));
        let other = ask(&["--cert", &certificate, "--key", &key])?;
        assert!(!other.status.success() && other.stdout.is_empty(), "{other:?}");

        // The same request with the right certificate is answered, so the two above were stopped for this reason.
        let ours = host.operator();
        let (certificate, key) = (file(&ours, "client.crt"), file(&ours, "client.key"));
        let answered = ask(&["--cert", &certificate, "--key", &key])?;
        assert!(answered.status.success(), "{answered:?}");
        assert!(String::from_utf8_lossy(&answered.stdout).contains("phoenix"), "{answered:?}");

        let ran = host.hostctl().with_identity(&stranger.identity()).run(&["status"])?;
        assert_eq!(
            ran.code, 1,
            "and the stranger's hostctl does not take the host for its own: {}",
            ran.stderr
        );
        Ok(())
    })
}

#[test]
fn nothing_but_the_api_listens() -> Result<(), Failure> {
    on_host("nothing_but_the_api_listens", |host| {
        // Local addresses of listening TCP sockets, in hexadecimal (proc_pid_net(5)): 0A is LISTEN.
        let text = host
            .vm
            .guest_ok("cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\" { print $2 }' 2>/dev/null")?;
        let open: Vec<_> = text
            .lines()
            .filter_map(|line| line.rsplit_once(':'))
            // 127.0.0.0/8, little-endian; ::1.
            .filter(|(address, _)| !(address.len() == 8 && address.ends_with("7F")))
            .filter(|(address, _)| *address != "00000000000000000000000001000000")
            .map(|(_, port)| u16::from_str_radix(port, 16))
            .collect::<Result<_, _>>()?;
        assert_eq!(open, [API]);
        Ok(())
    })
}
