//! `hostd`: the daemon of a Bennu host. What it does is in the library; this is how it starts.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use bennu_image_store::worker::{Program, run_if_asked};
use bennu_image_store::{Confinement, Store};
use bennu_manifests::HostFacts;
use hostd::core::{Core, Remembered, chain};
use hostd::events::Events;
use hostd::host::{Host, NOTE, Paths, note, prepare_disk};
use hostd::jobs::Jobs;
use hostd::kills::{self, Kills};
use hostd::ledger::Ledger;
use hostd::provision::Identity;
use hostd::rejections::Rejections;
use hostd::server::Server;
use hostd::update::{self, Updates};
use hostd::{departure, os, reconcile, rescue, scrub, sealed};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where the initrd has mounted the state partition.
const STATE: &str = "/state";

/// Where everything is mounted. systemd makes a unit of each mount that it sees, and tells of it; below `/run/host` it takes them for those of a
/// container manager and leaves them alone (systemd.io, "The Container Interface"; `mount_point_ignore` in its `src/shared/mount-setup.c`).
const MOUNTS: &str = "/run/host/bennu";

fn main() -> ExitCode {
    // Before there is a second thread: where this was started to parse a layer, it does nothing else.
    run_if_asked();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [option] if option == "--version" => {
            println!("hostd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        // A unit of its own, before the daemon: it may wait for a person.
        [option] if option == sealed::OPEN => {
            let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            return match sealed::open(Path::new(STATE), credentials.as_deref()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}", chain(&error));
                    ExitCode::FAILURE
                }
            };
        }
        // The end of a container's unit, within its memory: a runtime with threads would be too much.
        [option, instance, group] if option == NOTE => {
            return match note(instance.as_ref(), group.as_ref()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        _ => {}
    }
    // The journal adds times and ranks; colours would only be in the way.
    tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(std::io::stderr).init();
    // One thread decides; what computes or blocks goes to a few others, which end when they are idle.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(start_and_serve()),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

async fn start_and_serve() -> Result<(), Failure> {
    // From now on: who is asked to end while it starts, where the machine stops, still ends the containers in their order.
    let mut end = signal(SignalKind::terminate())?;
    let paths = Paths { state: STATE.into(), run: "/run/bennu".into(), mounts: MOUNTS.into() };
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let (run, state) = (paths.run.clone(), paths.state.clone());
    let (socket, scrubbed) = (run.join("hostd.sock"), state.join("scrubbed.json"));
    let (api, failure) = match Identity::load(&state, credentials.as_deref()) {
        Ok(identity) => {
            let api = identity.provision.api.clone();
            match start(paths, identity, &socket).await {
                Ok((core, server)) => return serve(core, server, &scrubbed, end).await,
                Err(failure) => (api, failure),
            }
        }
        // Who may ask over the network is not known.
        Err(error) => (None, error.into()),
    };
    let why = chain(failure.as_ref());
    tokio::select! {
        () = rescue::tell(api.as_ref(), &run, &socket, &why) => {}
        _ = end.recv() => {}
    }
    Err(failure)
}

/// Reads everything that the daemon works on, takes up what was under way, and listens.
async fn start(paths: Paths, identity: Identity, socket: &Path) -> Result<(Arc<Core>, Server), Failure> {
    let state = paths.state.clone();
    let disk = tokio::spawn(async move { prepare_disk(&state).await });
    let facts = HostFacts { arch: os::arch().to_owned(), labels: identity.provision.labels.clone() };
    let ledger = Ledger::open(&paths.state.join("ledger"), &identity.trust, &facts)?.built_at(os::built());
    let store = Arc::new(Store::open(&paths.state.join("store"), Confinement::Process(Program::this()))?);
    let os = os::running();
    if let Some(root) = os.root {
        // Held by name, or it would be collected as a blob that no image has.
        store.pin("os", &[root])?;
    }
    let state = paths.state.clone();
    let (events, killed) = (paths.run.join("events"), paths.run.join("oom-kills.json"));
    let host = Host::connect(paths, store.clone()).await?;
    host.introduce(&identity.provision.name)?;
    let remembered = Remembered {
        jobs: Jobs::open(&state.join("jobs"), host.boot())?,
        rejections: Rejections::open(&state.join("ledger/rejected.json"))?,
        updates: Updates::open(&state.join("ledger"), host.run_directory())?,
        events: Events::open(&events, host.boot()),
        kills: Kills::open(&killed),
        ledger,
    };
    let core = Arc::new(Core::new(host, store, identity, facts, remembered, os));
    core.events.add(bennu_api::Happening::Started { version: env!("CARGO_PKG_VERSION").to_owned() });
    // What is given back to a generation is looked for among all volumes.
    disk.await??;
    if update::begin(&core).await? {
        tracing::info!("the machine starts again, for the OS of the generation that was kept");
    }
    let server = Server::bind(core.identity.provision.api.as_ref(), socket).await?;
    Ok((core, server))
}

async fn serve(core: Arc<Core>, server: Server, scrubbed: &Path, mut end: Signal) -> Result<(), Failure> {
    os::tell_systemd_ready()?;
    update::serves(&core);
    tokio::select! {
        () = reconcile::run(&core) => unreachable!("the loop has no end"),
        alive = os::tell_systemd_alive() => match alive {},
        never = stay(&core) => match never {},
        () = kills::run(&core) => unreachable!("the loop has no end"),
        () = scrub::run(&core, scrubbed) => unreachable!("the loop has no end"),
        ended = server.run(core.clone()) => Ok(ended?),
        _ = end.recv() => {
            update::ends(&core).await;
            departure::before_the_machine_stops(&core).await;
            Ok(())
        }
    }
}

/// What there is to do once the daemon has served for a while.
async fn stay(core: &Core) -> Infallible {
    tokio::time::sleep(os::ALIVE).await;
    update::stays(core).await;
    os::tell_that_it_came_up(core.host.run_directory()).await
}
