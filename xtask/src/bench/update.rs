//! A new operating system: how long it interrupts beside a restart of the one that runs, how long a boot takes beside one of systemd
//! alone, and how large an operating system is.
//!
//! The machine is translated where there is no KVM, so its times are long; what counts is the columns beside each other.

use std::time::{Duration, Instant};

use bennu_os_image::Variant;
use clap::Args;
use serde_json::Value;
use vm_tests::os::Releases;
use vm_tests::{Host, on_host_alone, wait};

use super::runtime::{middle, over, slower};
use crate::{Failure, packages};

/// How often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each is done; the middle one is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
}

/// What an update may interrupt beyond a restart, in seconds, on a machine that is not translated.
const BEYOND: f64 = 2.0;
/// What a boot may take until all containers are healthy, beside one of systemd alone.
const BOOT: f64 = 1.25;
/// MiB that the boot image and the root may have.
const UKI: f64 = 25.0;
const ROOT: f64 = 200.0;

/// How often the published port is asked.
const EVERY: Duration = Duration::from_millis(100);
/// How long a boot is left alone before it is asked what became of it, translated.
const UNDISTURBED: Duration = Duration::from_secs(45);
/// How long anything may take, translated on a busy machine.
const WITHIN: Duration = Duration::from_secs(600);

/// Measures and prints tables.
///
/// # Errors
/// Where something cannot be built or run, or is over its bound.
pub(super) fn bench(options: &Options) -> Result<(), Failure> {
    packages::install(&[packages::IMAGE, packages::TEST].concat())?;
    let mut missed = Vec::new();
    on_host_alone("bench-update", |host| {
        missed.extend(sizes(host)?);
        let releases = Releases::new()?;
        let manifest = |host: &Host, serial: u64, os: &str| {
            let registries = [host.registry.from_guest(), releases.from_guest()];
            format!("{}{os}{}", head(&registries, serial), containers(&host.registry))
        };
        let first = manifest(host, 1, "");
        host.converge("manifest.toml", &first)?;
        kept(host, 1)?;
        let (mut restarts, mut updates, mut boots) = (Vec::new(), Vec::new(), Vec::new());
        for run in 1..=options.runs {
            let before = host.vm.boot_id()?;
            restarts.push(interrupted(host, |host| {
                let _late = host.vm.guest_within("systemctl --no-block reboot", Duration::from_secs(10));
                Ok(())
            })?);
            boots.push(since_start(host, &before)?);
            host.wait_until_converged()?;

            let before = host.vm.boot_id()?;
            let os = releases.publish(host, &Variant::of_version(&format!("9.0.{run}")))?;
            let os = format!("[os]\nimage = \"{}\"\n", os.reference);
            let text = manifest(host, u64::from(run) + 1, &os);
            let file = host.signed("manifest.toml", &text)?;
            updates.push(interrupted(host, |host| Ok(host.push(&file, &[])?.done().map(drop)?))?);
            host.vm.wait_for_boot(&before)?;
            kept(host, u64::from(run) + 1)?;
        }
        let mut bare = Vec::new();
        for _ in 0..options.runs {
            host.vm.power_on_without_hostd()?;
            bare.push(finished(host)?);
        }
        // That is a boot without the daemon; a loop of a shell does not mind.
        let slower = slower(host)?;
        missed.extend(print(slower, middle(restarts), middle(updates), middle(boots), middle(bare)));
        Ok(())
    })?;
    if missed.is_empty() { Ok(()) } else { Err(format!("over the bound: {}", missed.join(", ")).into()) }
}

fn print(slower: f64, restart: f64, update: f64, boot: f64, bare: f64) -> Vec<String> {
    println!(
        "\n| nobody answers on the published port | s in the machine | beside a restart |\n|---|---|---|"
    );
    println!("| a restart of the machine | {restart:.1} | 1.00 |");
    println!("| another OS, tried | {update:.1} | {:.2} |", update / restart);
    println!("\n| from the kernel's start | s in the machine | beside systemd alone |\n|---|---|---|");
    println!("| systemd alone, to its default target | {bare:.1} | 1.00 |");
    println!("| until all containers are healthy | {boot:.1} | {:.2} |", boot / bare);
    let beyond = (update - restart) / slower;
    println!(
        "\nThe machine is {slower:.1} times slower than this one, so another OS interrupts {beyond:.1} s longer than a restart; {BEYOND} s is the \
         bound."
    );
    over([
        ("the interruption beyond a restart", beyond <= BEYOND),
        ("the boot beside systemd alone", boot / bare <= BOOT),
    ])
}

fn sizes(host: &mut Host) -> Result<Vec<String>, Failure> {
    let root = host.fixture.disk().root_digest.clone();
    let look = "mkdir -p /run/look && mount -o ro /dev/disk/by-partlabel/bennu-esp /run/look";
    let uki = format!("{look} && stat -c %s /run/look/EFI/bennu/{root}.efi; umount /run/look");
    let bytes = |text: String| -> Result<f64, Failure> { Ok(text.parse::<f64>()? / f64::from(1 << 20)) };
    let uki = bytes(host.vm.guest_ok(&uki)?)?;
    let root = bytes(host.vm.guest_ok(&format!("stat -c %s /state/store/blobs/sha256/{root}"))?)?;
    println!("\n| part of the OS | MiB | bound |\n|---|---|---|");
    println!("| boot image | {uki:.1} | {UKI} |");
    println!("| root | {root:.1} | {ROOT} |");
    Ok(over([("the boot image", uki <= UKI), ("the root", root <= ROOT)]))
}

fn head(registries: &[String], serial: u64) -> String {
    let plain = |registry: &String| format!("[registry.\"{registry}\"]\nplain-http = true\n");
    let registries: String = registries.iter().map(plain).collect();
    format!(
        "schema = 1\nname = \"bench\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
         [update]\ntrial = \"5s\"\n{registries}"
    )
}

/// nginx, which waits for redis, both with a check of their health.
fn containers(registry: &vm_tests::registry::Stocked) -> String {
    let (nginx, redis) = (registry.pinned("nginx", "1"), registry.pinned("redis", "1"));
    format!(
        "[volume.data]\nlife = \"keep\"\n\
         [container.cache]\nimage = \"{redis}\"\nvolumes = [\"data:/data\"]\nhealth = {{ tcp = 6379, interval = \"1s\" }}\n\
         [container.web]\nimage = \"{nginx}\"\nports = [\"8080:80\"]\n\
         tmpfs = [\"/run\", \"/var/log/nginx\", \"/var/lib/nginx\"]\nhealth = {{ http = \"http://:80/\", interval = \"1s\" }}\n"
    )
}

fn kept(host: &mut Host, generation: u64) -> Result<(), Failure> {
    let is_kept = |s: &Value| s["update"]["kept"] == generation && s["update"]["phase"] == "settled";
    let hostctl = host.hostctl();
    Ok(wait::until_good("the generation to be kept", WITHIN, || hostctl.status(), is_kept).map(drop)?)
}

/// Seconds from the last answer of the published port until the first one of the time after `act`.
fn interrupted(host: &mut Host, act: impl FnOnce(&mut Host) -> Result<(), Failure>) -> Result<f64, Failure> {
    host.wait_for_page("first edition")?;
    act(host)?;
    let (began, mut last) = (Instant::now(), Instant::now());
    let mut was_away = false;
    while began.elapsed() < WITHIN {
        let answers = host.http(8080, "/").is_ok_and(|(code, _)| code == 200);
        match (answers, was_away) {
            (true, true) => return Ok(last.elapsed().as_secs_f64()),
            (true, false) => last = Instant::now(),
            // One answer that is late is no interruption; a machine that starts again is away for longer.
            (false, _) => was_away = last.elapsed() > Duration::from_secs(5),
        }
        std::thread::sleep(EVERY);
    }
    Err("the machine did not come back".into())
}

/// Seconds from the kernel's start until all containers are healthy, in the boot after the one that is `before`.
fn since_start(host: &mut Host, before: &str) -> Result<f64, Failure> {
    let hostctl = host.hostctl();
    let healthy = |ps: &Value| {
        let all = ps["containers"].as_array();
        all.is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["health"] == "healthy"))
    };
    wait::until_good("all to be healthy", WITHIN, || hostctl.json(&["ps"]), healthy)?;
    host.vm.wait_for_boot(before)?;
    // As the journal has it: whoever asks now and then takes part of the processors.
    let told = "journalctl --boot --unit hostd --output short-monotonic --no-pager \
                | sed -n 's/^\\[ *\\([0-9.]*\\)\\].* event=Health .* health: Healthy,.*/\\1/p' | tail -n 1";
    Ok(host.vm.guest_ok(told)?.parse()?)
}

/// Seconds from the kernel's start until systemd has started all that it was to start.
fn finished(host: &mut Host) -> Result<f64, Failure> {
    std::thread::sleep(UNDISTURBED);
    let ask = "systemctl show --property=FinishTimestampMonotonic --value";
    let done = |text: &String| text.parse::<u64>().is_ok_and(|microseconds| microseconds > 0);
    let text = wait::until_good("the boot to be finished", WITHIN, || host.vm.guest_ok(ask), done)?;
    Ok(text.parse::<f64>()? / 1e6)
}
