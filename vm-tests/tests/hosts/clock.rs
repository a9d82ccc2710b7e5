//! A machine whose clock is wrong.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use vm_tests::agent::Output;
use vm_tests::{Error, Failure, Host, on_host, wait};

use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status};

/// Runs `hostctl` in the machine, as somebody at its console would: certificates are not valid at its time.
fn hostctl(host: &mut Host, arguments: &str) -> Result<Output, Error> {
    host.vm.guest_within(&format!("hostctl {arguments} 2>&1"), Duration::from_secs(60))
}

/// Waits until the host says so of itself, asked in the machine.
fn settles(host: &mut Host, what: &str, good: impl Fn(&Value) -> bool) -> Result<(), Failure> {
    let asked = || -> Result<Value, Error> {
        let said = hostctl(host, "--json status")?;
        Ok(serde_json::from_str(&said.text).unwrap_or(Value::String(said.text)))
    };
    wait::until_good(what, Duration::from_secs(300), asked, good)?;
    Ok(())
}

/// Hands a manifest to the host, from within the machine.
fn push(host: &mut Host, serial: u64, rest: &str) -> Result<Output, Failure> {
    let file = host.signed(&format!("{serial}.toml"), &manifest(&host.registry, serial, rest))?;
    for (name, here) in [("m.toml", file.clone()), ("m.toml.sig", file.with_extension("toml.sig"))] {
        let bytes = BASE64_STANDARD.encode(std::fs::read(&here)?);
        host.vm.guest_ok(&format!("echo {bytes} | base64 -d >/run/{name}"))?;
    }
    Ok(hostctl(host, "push /run/m.toml")?)
}

#[test]
fn t05_a_wrong_clock_stops_nothing_and_is_forgotten_once_it_is_right() -> Result<(), Failure> {
    on_host("t05_a_wrong_clock_stops_nothing_and_is_forgotten_once_it_is_right", |host| {
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;

        // A battery that is empty: what ran runs again, and what is signed is taken.
        host.vm.power_cut_until("1999-12-31T23:00:00")?;
        let time: i64 = host.vm.guest_ok("date +%s")?.parse()?;
        let day = 24 * 60 * 60;
        assert!(time < jiff::Timestamp::now().as_second() - day, "the clock stands at {time}");
        settles(host, "the host to work in the past", |s| kept(s, 1) && s["generation"]["number"] == 1)?;
        let two = format!("{SHORT}{one}{}", sleeper(&host.registry, "two", ""));
        let taken = push(host, 2, &two)?;
        assert_eq!(taken.code, 0, "{}", taken.text);
        settles(host, "the second generation to be kept in the past", |s| kept(s, 2))?;

        // Far in the future all that was signed has expired: it runs on, and nothing else is taken.
        host.vm.guest_ok("date -s 2099-01-01")?;
        let refused = push(host, 3, &format!("{SHORT}{one}"))?;
        assert!(refused.code != 0 && refused.text.contains("[expired]"), "{}", refused.text);
        host.vm.guest_ok("systemctl restart hostd")?;
        settles(host, "the host to work in the future", |s| kept(s, 2) && s["converged"] == true)?;

        host.vm.set_clock()?;
        let file = host.signed("four.toml", &manifest(&host.registry, 4, &format!("{SHORT}{one}")))?;
        host.push(&file, &[])?.done()?;
        status(host, "what is new to be kept once the clock is right", |s| kept(s, 3))?;
        Ok(())
    })
}
