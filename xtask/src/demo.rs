//! `cargo xtask demo`: from nothing to nginx and redis on a booted host, out of one signed manifest.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::session::{Desk, Session};
use crate::steps::Steps;
use crate::{Failure, build, vm};

/// Runs the demo. `once` cleans up behind itself and ends with a line that begins with `demo ok`; otherwise the host
/// keeps running.
///
/// # Errors
/// Whatever stopped it; what was started is ended then.
pub(crate) fn demo(once: bool) -> Result<(), Failure> {
    let mut steps = Steps::default();
    // Its files go away with it.
    let temporary = tempfile::tempdir()?;
    let directory = if once { temporary.path().to_owned() } else { vm::fresh_directory()? };
    let mut session = Session::start(&directory, &mut steps)?;
    let desk = session.desk.clone();

    let example = build::workspace().join("manifests/examples/demo.toml");
    let file = desk.take(&example)?;
    eprintln!("\nThe manifest, {}, is pinned, signed and pushed:", example.display());
    if let Err(failure) = desk.deliver(&file) {
        let kept = vm_tests::evidence::keep(&mut session.vm, Some(&desk.hostctl()), "demo");
        return Err(format!("{failure}\nlogs and state of the host are in {}", kept.display()).into());
    }
    let (pull, start) = pull_and_start(&desk)?;
    steps.add("pull", pull);
    steps.add("start", start);

    let url = format!("http://127.0.0.1:{}", desk.ports[&8080]);
    eprintln!("\n{url}/ answers:");
    let page = desk.page(8080, "/")?;
    println!("{}", page.trim_end());
    let counted = steps.step("first answer", || desk.page(8080, "/cache"))?;
    println!("{url}/cache, where nginx asks redis by its name: {}", counted.trim_end());
    desk.show(&["ps"])?;
    desk.show(&["status"])?;
    eprint!("\nHow long it took:\n{}", steps.table());

    if !once {
        eprint!("{}", vm::guide(&desk));
        return vm::keep(session);
    }
    session.vm.shut_down()?;
    drop(session);
    println!(
        "demo ok: nginx and redis ran from one signed manifest on a host that booted from a verified root"
    );
    Ok(())
}

/// How long the host took from accepting the manifest to the last image, and from there to the last container.
fn pull_and_start(desk: &Desk) -> Result<(Duration, Duration), Failure> {
    let events = desk.hostctl().run(&["--json", "events"])?.done()?;
    let events = events.stdout.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let last = |kind: &str| -> Result<Timestamp, Failure> {
        let event = events.iter().rev().find(|event| event["event"] == kind);
        let time =
            event.and_then(|event| event["time"].as_str()).ok_or_else(|| format!("no event {kind}"))?;
        Ok(time.parse()?)
    };
    let (accepted, fetched, converged) = (last("accepted")?, last("fetched")?, last("converged")?);
    let between = |from: Timestamp, to: Timestamp| to.duration_since(from).unsigned_abs();
    Ok((between(accepted, fetched), between(fetched, converged)))
}
