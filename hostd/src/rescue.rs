//! A daemon that cannot start: whoever looks at the console or asks the API is told why, until it is tried again.
//!
//! Containers go on running meanwhile. Where the loader has another entry to start, the machine starts again after a while, by
//! `bennu-came-up.timer`; where it has none, this goes on.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use bennu_api::provision::ProvisionApi;

use crate::core::chain;
use crate::server::Server;

/// How long it is told before the daemon is started anew: the first time something may only have been late, as at a boot.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The same from the second time on.
const PAUSE: Duration = Duration::from_secs(30);
/// There from the first time on, until the machine starts again.
const MARK: &str = "failed-to-start";
/// Where a person at the machine looks.
const CONSOLE: &str = "/dev/console";

/// Tells `why` for a while; `run` is the directory for what a boot forgets. What can't be served is told on the console alone.
pub async fn tell(api: Option<&ProvisionApi>, run: &Path, socket: &Path, why: &str) {
    let mark = run.join(MARK);
    let pause = if mark.exists() { PAUSE } else { FIRST_PAUSE };
    // A mark that can't be made costs tries that come too soon.
    let _less_patient = std::fs::create_dir_all(run).and_then(|()| std::fs::write(&mark, ""));
    let text = format!("hostd cannot start: {why}; it tries again every {} s", PAUSE.as_secs());
    // Control characters in what was read would move a terminal's cursor.
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Ok(mut console) = std::fs::OpenOptions::new().append(true).open(CONSOLE) {
        let _not_there = writeln!(console, "{line}\r");
    }
    let answering = async {
        match Server::bind(api, socket).await {
            Ok(server) => server.tell(&line).await,
            Err(error) => Err(error),
        }
    };
    let ended = tokio::time::timeout(pause, async {
        if let Err(error) = answering.await {
            tracing::error!(error = chain(&error), "tell why the daemon cannot start");
        }
        // Without anybody to tell it to the pause is the same.
        std::future::pending::<()>().await;
    });
    let _over = ended.await;
}
