//! A real database on a kept volume.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vm_tests::{Action, Error, Failure, Host, on_host, wait};

use crate::manifest::{allow_empty, manifest};

const VOLUME: &str = "[volume.pg]\nlife = \"keep\"\nowner = \"999:999\"\n";

/// What the container and the job that checks its files have in common.
fn program(host: &Host, table: &str, more: &str) -> String {
    format!(
        "[{table}]\nimage = \"{}\"\nuser = \"999:999\"\nvolumes = [\"pg:/var/lib/postgresql\"]\ntmpfs = [\"/tmp\"]\n\
         stop-timeout = \"60s\"\nenvironment = {{ PATH = \"/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/bin\", PGHOST = \"/tmp\", PGUSER = \"postgres\" }}\n{more}\n",
        host.registry.pinned("postgres", "17")
    )
}

/// The database; `edition` changes nothing but that it is replaced.
fn database(host: &Host, serial: u64, edition: &str) -> String {
    let health =
        "health = { exec = [\"pg_isready\"], interval = \"1s\", timeout = \"20s\", start-period = \"5m\" }";
    let container =
        program(host, "container.db", health).replace("PGHOST", &format!("EDITION = \"{edition}\", PGHOST"));
    manifest(&host.registry, serial, &format!("{VOLUME}{container}"))
}

fn sql(host: &Host, statement: &str) -> Result<String, Failure> {
    let hostctl = host.hostctl();
    let arguments = ["exec", "db", "--", "psql", "-v", "ON_ERROR_STOP=1", "-qtAc", statement];
    let ask = || hostctl.run(&arguments);
    let ran = wait::until_good("the database to answer", Duration::from_secs(240), ask, |ran| ran.code == 0)?;
    Ok(ran.stdout.trim().to_owned())
}

/// Writes that go on beside the test, and the highest row that the database said is committed.
struct Load {
    children: Vec<Child>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    fn begin(host: &Host, first: u64) -> Result<Self, Failure> {
        let hostctl = host.hostctl();
        let spawn = |line: &str| {
            let mut command = Command::new(&hostctl.program);
            command.arg("--host").arg(&hostctl.address).arg("--identity").arg(&hostctl.identity);
            command.args(["exec", "db", "--", "sh", "-c", line]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
        };
        // One statement, one transaction; what is echoed comes after the answer to it.
        let rows = format!(
            "i={first}; while :; do printf 'insert into acked values (%d);\\n\\\\echo %d\\n' $i $i; i=$((i+1)); done \
             | stdbuf -oL psql -q -v ON_ERROR_STOP=1"
        );
        let mut children = vec![spawn(&rows)?, spawn("pgbench -n -c 2 -T 3600 postgres >/dev/null 2>&1")?];
        let acknowledged = Arc::new(AtomicU64::new(first - 1));
        let (seen, from) = (acknowledged.clone(), children[0].stdout.take().ok_or("no output")?);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if let Ok(number) = line.trim().parse::<u64>() {
                    seen.fetch_max(number, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { children, acknowledged })
    }

    fn wait_for(&self, row: u64) -> Result<(), Error> {
        let seen = || Ok(self.acknowledged.load(Ordering::SeqCst));
        wait::until_good("rows to be acknowledged", Duration::from_secs(240), seen, |seen| *seen >= row)
            .map(drop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ended_already = child.kill();
            let _status = child.wait();
        }
    }
}

#[test]
fn postgres_keeps_every_acknowledged_row_and_its_own_checks_pass() -> Result<(), Failure> {
    on_host("postgres_keeps_every_acknowledged_row_and_its_own_checks_pass", |host| {
        host.converge("first.toml", &database(host, 1, "first"))?;
        sql(host, "create table acked (n bigint primary key)")?;
        host.hostctl().run(&["exec", "db", "--", "pgbench", "-i", "-s", "1", "-q", "postgres"])?.done()?;
        let mut known = 0;

        for action in [Action::Nothing, Action::Reboot, Action::PowerCut] {
            let load = Load::begin(host, known + 1)?;
            load.wait_for(known + 20)?;
            match action {
                // It is replaced while it works.
                Action::Nothing => host.converge("second.toml", &database(host, 2, "second"))?,
                other => host.act(other)?,
            }
            // What was told before the end counts; what was committed and not told may be there besides.
            known = load.acknowledged.load(Ordering::SeqCst);
            drop(load);
            host.wait_until_converged()?;
            let rows = sql(host, &format!("select count(*) from acked where n <= {known}"))?;
            assert_eq!(rows, known.to_string(), "every acknowledged row is there after {action:?}");
            let check =
                ["exec", "db", "--", "pg_amcheck", "--install-missing", "--heapallindexed", "postgres"];
            let checked = host.hostctl().run(&check)?;
            assert_eq!(
                (checked.code, checked.stdout.as_str()),
                (0, ""),
                "after {action:?}: {}",
                checked.stderr
            );
            known = sql(host, "select max(n) from acked")?.parse()?;
        }

        // Checksums are checked of a database that was stopped in order.
        let check = program(
            host,
            "job.check",
            "when = \"once\"\ncommand = [\"pg_checksums\", \"--check\", \"-D\", \"/var/lib/postgresql/data\"]",
        );
        let alone = manifest(&host.registry, 3, &format!("{VOLUME}{check}"));
        host.converge("third.toml", &allow_empty(&alone))?;
        let hostctl = host.hostctl();
        let ended = |status: &serde_json::Value| status["jobs"]["check"][0]["outcome"].is_string();
        let status = wait::until_good("the check", Duration::from_secs(180), || hostctl.status(), ended)?;
        assert_eq!(status["jobs"]["check"][0]["outcome"], "completed", "{status}");
        Ok(())
    })
}
