//! What is asked of a host and shown: `status`, `ps`, `images`, `history`, `logs`, `events`, `dump`.

use bennu_api::{
    Activity, Container, Containers, Dump, ForwardStatus, Generation, History, Images, LogLine, OomKills,
    Outcome as RunOutcome, Rejection, Status,
};
use bennu_manifests::HostDescription;
use bennu_manifests::model::{Name, Protocol};
use bennu_planner::{Health, State};
use jiff::Timestamp;

use crate::cli::Logs;
use crate::client::{Host, Lines};
use crate::exit::{Failure, Outcome};
use crate::render::{Out, Table, age, bytes, facts, moment, names, printable, span};

/// Shows the host's status.
pub(crate) async fn status(host: &Host, now: Timestamp, out: &mut Out) -> Outcome {
    let status: Status = host.get("/v1/status").await?;
    out.result(&status, |s| status_text(s, now))?;
    Ok(0)
}

fn status_text(status: &Status, now: Timestamp) -> String {
    let mut lines = vec![("host", status.host.clone())];
    let root = status.os.root.map(|root| format!(", root {root}")).unwrap_or_default();
    lines.push(("os", format!("{}, kernel {}{root}", status.os.version, status.os.kernel)));
    if status.os.secure_boot {
        lines.push((
            "secure boot",
            "on: the firmware starts only what is signed by whom it trusts".to_owned(),
        ));
    }
    if status.os.sealed {
        lines.push((
            "state",
            "sealed: the TPM gives its key to boot images that are signed for it".to_owned(),
        ));
    }
    lines.push(("hostd", status.version.clone()));
    let none = || "none: no manifest was accepted yet".to_owned();
    lines.push(("generation", status.generation.as_ref().map_or_else(none, generation)));
    if let Some(pending) = &status.pending {
        lines.push(("pending", generation(pending)));
    }
    let state = match (&status.generation, &status.pending, status.converged) {
        (None, None, _) => "waiting for its first manifest",
        (_, _, true) => "converged",
        (_, _, false) => "converging",
    };
    lines.push(("state", state.to_owned()));
    if let Some(expired) = status.generation.as_ref().filter(|_| status.stale) {
        lines.push((
            "stale",
            format!("its manifest expired {} ago; it keeps running", age(expired.expires, now)),
        ));
    }
    if status.activity != Activity::Idle {
        lines.push(("doing", activity(&status.activity)));
    }
    if let Some(failure) = &status.failure {
        let retry = status.retry_at.map(|at| format!("\ntried again in {}", span(at.duration_since(now))));
        lines.push(("failure", format!("{failure}{}", retry.unwrap_or_default())));
    }
    lines.extend(crate::update::lines(&status.update, now));
    for Rejection { container, image, generation, why, said, .. } in &status.rejected {
        let said: String = said.iter().map(|line| format!("\n  {}", printable(line))).collect();
        lines
            .push(("rejected", format!("{container} with {image}, of generation {generation}: {why}{said}")));
    }
    for (job, run) in status.jobs.iter().filter_map(|(job, runs)| Some((job, runs.last()?))) {
        lines.push(("job", format!("{job} {} {} ago", outcome(run.outcome), age(run.ended, now))));
    }
    for (name, ForwardStatus { sent, dropped, waiting, failure }) in &status.forwards {
        let failure = failure.as_ref().map(|why| format!("; takes none: {}", printable(why)));
        let told = format!("{name}: {sent} lines sent, {dropped} dropped, {} wait", bytes(*waiting));
        lines.push(("forward", told + &failure.unwrap_or_default()));
    }
    for (instance, OomKills { count, last, limit }) in &status.oom_kills {
        let told = out_of_memory(*count, *limit);
        lines.push(("oom kills", format!("{instance}: {told}; the last one {} ago", age(*last, now))));
    }
    let reads = if status.verified_reads { "verified by the kernel" } else { "not verified by the kernel" };
    lines.push(("reads", reads.to_owned()));
    if let Some(completed) = status.scrub.completed {
        lines.push(("scrubbed", format!("every blob was read {} ago", age(completed, now))));
    }
    if !status.scrub.bad.is_empty() {
        let bad: Vec<_> = status.scrub.bad.iter().map(ToString::to_string).collect();
        lines.push(("bad blobs", bad.join("\n")));
    }
    if !status.secrets_recipient.is_empty() {
        lines.push(("secrets", format!("encrypt them for {}", status.secrets_recipient)));
    }
    facts(&lines)
}

/// What the kernel did for want of memory.
pub(crate) fn out_of_memory(killed: u64, limit: Option<u64>) -> String {
    let programs = if killed == 1 { "a program was".to_owned() } else { format!("{killed} programs were") };
    let whose =
        limit.map_or("the host's memory".to_owned(), |limit| format!("its {} of memory", bytes(limit)));
    format!("{programs} ended because {whose} ran out")
}

pub(crate) fn outcome(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Completed => "completed",
        RunOutcome::Failed => "failed",
        RunOutcome::Interrupted => "interrupted",
    }
}

pub(crate) fn health_word(health: Health) -> &'static str {
    match health {
        Health::Unchecked => "",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    }
}

fn generation(generation: &Generation) -> String {
    let Generation { number, name, serial, manifest, expires } = generation;
    format!("{number}, {name} serial {serial}, valid until {}, {manifest}", moment(*expires))
}

/// Shows the facts of a host that manifests are checked against.
pub(crate) async fn facts_for_checks(host: &Host, out: &mut Out) -> Outcome {
    let Status { machine, secrets_recipient, .. } = host.get("/v1/status").await?;
    let known = |number: u64| Some(number).filter(|number| *number > 0);
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let description = HostDescription {
        arch: said(machine.arch),
        labels: machine.labels,
        memory: known(machine.memory),
        cpus: known(machine.cpus),
        recipient: said(secrets_recipient),
    };
    out.result(&description, |it| {
        let labels: Vec<String> = it.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let unknown = || "not known".to_owned();
        facts(&[
            ("architecture", it.arch.clone().unwrap_or_else(unknown)),
            ("labels", if labels.is_empty() { "none".to_owned() } else { labels.join("\n") }),
            ("memory", it.memory.map_or_else(unknown, bytes)),
            ("processors", it.cpus.map_or_else(unknown, |cpus| cpus.to_string())),
            ("secrets for", it.recipient.clone().unwrap_or_else(unknown)),
        ])
    })?;
    Ok(0)
}

/// What a host does, in one line.
pub(crate) fn activity(activity: &Activity) -> String {
    match activity {
        Activity::Idle => "nothing".to_owned(),
        Activity::Fetching { image, number, of, done, total } => {
            let total = if *total == 0 { String::new() } else { format!(" of {}", bytes(*total)) };
            format!("fetching image {number}/{of} {image}, {}{total}", bytes(*done))
        }
        // Steps are printed right-aligned by their verb.
        Activity::Applying { step, number, of } => format!("step {number}/{of} {}", step.trim_start()),
    }
}

/// Shows the containers.
pub(crate) async fn containers(host: &Host, stats: bool, now: Timestamp, out: &mut Out) -> Outcome {
    let containers: Containers = host.get("/v1/containers").await?;
    out.result(&containers, |c| {
        if stats {
            return usage(c, now);
        }
        let mut table = Table::new(&[
            "NAME",
            "STATE",
            "SINCE",
            ">RESTARTS",
            ">PID",
            ">MEMORY",
            "PORTS",
            "ADDRESS",
            "IMAGE",
        ]);
        for container in &c.containers {
            table.row(row(container, now));
        }
        table.text("no containers")
    })?;
    Ok(0)
}

/// What containers use, as a table.
fn usage(containers: &Containers, now: Timestamp) -> String {
    let mut table = Table::new(&[
        "INSTANCE",
        ">CPU",
        ">THROTTLED",
        ">MEMORY",
        ">PEAK",
        ">LIMIT",
        ">OOM",
        ">PIDS",
        ">READ",
        ">WRITTEN",
    ]);
    for Container { instance, usage, since, .. } in &containers.containers {
        let seconds = |micros: u64| format!("{:.1} s", micros as f64 / 1e6);
        // Over its whole life, so that one look is enough.
        let life = since.map(|since| now.duration_since(since).as_secs_f64()).filter(|life| *life > 0.0);
        let percent = life.map(|life| format!(" ({:.1} %)", usage.cpu_usec as f64 / 1e4 / life));
        table.row([
            instance.clone(),
            format!("{}{}", seconds(usage.cpu_usec), percent.unwrap_or_default()),
            seconds(usage.throttled_usec),
            bytes(usage.memory),
            bytes(usage.memory_peak),
            usage.memory_limit.map(bytes).unwrap_or_default(),
            usage.oom_kills.to_string(),
            usage.pids_limit.map_or(usage.pids.to_string(), |limit| format!("{}/{limit}", usage.pids)),
            bytes(usage.read_bytes),
            bytes(usage.written_bytes),
        ]);
    }
    table.text("no containers")
}

fn row(container: &Container, now: Timestamp) -> [String; 9] {
    let image = &container.image;
    let tag = image.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
    [
        container.name.to_string(),
        does(container),
        container.since.map(|since| age(since, now)).unwrap_or_default(),
        container.restarts.to_string(),
        if container.pid == 0 { String::new() } else { container.pid.to_string() },
        container.memory.map(bytes).unwrap_or_default(),
        container.ports.iter().map(port).collect::<Vec<_>>().join(","),
        container.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        format!("{}/{}{tag}@{}", image.registry, image.repository, image.digest.short()),
    ]
}

/// What a container does, how well, and what should not go unnoticed.
fn does(container: &Container) -> String {
    let mut words = vec![state(container.state).to_owned()];
    words.extend(Some(health_word(container.health).to_owned()).filter(|health| !health.is_empty()));
    let kills = Some(container.usage.oom_kills).filter(|kills| *kills > 0);
    words.extend(kills.map(|kills| format!("{kills} oom kill{}", if kills == 1 { "" } else { "s" })));
    words.join(", ")
}

/// A published port, as people read it.
pub(crate) fn port(port: &bennu_manifests::model::Port) -> String {
    let protocol = if port.protocol == Protocol::Udp { "/udp" } else { "" };
    let address = match port.address {
        Some(std::net::IpAddr::V6(address)) => format!("[{address}]:"),
        Some(address) => format!("{address}:"),
        None => String::new(),
    };
    format!("{address}{}->{}{protocol}", port.host, port.container)
}

pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Restarting => "restarting",
        State::Completed => "completed",
        State::Failed => "failed",
        State::Stopped => "stopped",
    }
}

/// Shows the images.
pub(crate) async fn images(host: &Host, out: &mut Out) -> Outcome {
    let images: Images = host.get("/v1/images").await?;
    out.result(&images, |i| {
        let mut table = Table::new(&[">LAYERS", ">SIZE", "USED BY", "DIGEST"]);
        for image in &i.images {
            let cells = [
                image.layers.to_string(),
                bytes(image.size),
                names(&image.used_by),
                image.digest.to_string(),
            ];
            table.row(cells);
        }
        table.text("no images")
    })?;
    Ok(0)
}

/// Shows what became of the manifests handed in.
pub(crate) async fn history(host: &Host, out: &mut Out) -> Outcome {
    let history: History = host.get("/v1/history").await?;
    out.result(&history, |h| {
        let mut table =
            Table::new(&[">GENERATION", "NAME", ">SERIAL", "ACCEPTED", "CONVERGED", "SIGNED BY", "MANIFEST"]);
        for entry in &h.entries {
            let converged = match (&entry.converged, &entry.failure) {
                (Some(at), _) => moment(*at),
                (None, Some(_)) => "failed".to_owned(),
                (None, None) => String::new(),
            };
            let generation = &entry.generation;
            table.row([
                generation.number.to_string(),
                generation.name.to_string(),
                generation.serial.to_string(),
                moment(entry.accepted),
                converged,
                entry.signers.join(","),
                generation.manifest.to_string(),
            ]);
        }
        let failures =
            h.entries.iter().filter_map(|entry| Some((entry.generation.number, entry.failure.as_ref()?)));
        let failures: String =
            failures.map(|(number, why)| format!("generation {number}: {}\n", printable(why))).collect();
        table.text("no manifest was accepted yet") + &failures
    })?;
    Ok(0)
}

/// Shows what containers wrote.
pub(crate) async fn logs(host: &Host, args: &Logs, now: Timestamp, out: &mut Out) -> Outcome {
    let mut path = format!("/v1/logs?lines={}&follow={}", args.lines, args.follow);
    if let Some(name) = &args.name {
        path = format!("{path}&container={}", container_name(name)?);
    }
    if let Some(since) = args.since {
        path = format!("{path}&since={}", since.before(now));
    }
    if let Some(until) = args.until {
        path = format!("{path}&until={}", until.before(now));
    }
    if let Some(pattern) = &args.grep {
        path = format!("{path}&grep={}", percent_encoded(pattern));
    }
    let lines = host.get_lines(&path).await?;
    let several = args.name.is_none();
    show_lines(lines, out, |line: &LogLine| {
        let who = match line.container.as_str() {
            _ if !several => String::new(),
            "" => "hostd  ".to_owned(),
            name => format!("{name}  "),
        };
        format!("{}  {who}{}\n", moment(line.time), printable(line.message.trim_end_matches('\n')))
    })
    .await
}

/// Text as a value of a query (RFC 3986, section 2.3): all but the unreserved characters as `%` and two hex digits.
pub(crate) fn percent_encoded(text: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Shows values until the stream ends or nobody reads any more.
async fn show_lines<T>(mut lines: Lines, out: &mut Out, text: impl Fn(&T) -> String) -> Outcome
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    while !out.closed() {
        let Some(line) = lines.next::<T>().await? else { break };
        out.item(&line, &text)?;
    }
    Ok(0)
}

/// What a plan is made of: JSON in any case, for `plan --state`.
pub(crate) async fn dump(host: &Host, out: &mut Out) -> Outcome {
    let dump: Dump = host.get("/v1/dump").await?;
    out.result(&dump, |dump| {
        let json = serde_json::to_string_pretty(dump).expect("it came as JSON");
        format!("{json}\n")
    })?;
    Ok(0)
}

/// A name that a container can have; others are surely not there.
pub(crate) fn container_name(name: &str) -> Result<Name, Failure> {
    name.parse().map_err(|_| Failure::not_found(format!("there is no container {}", printable(name))))
}
