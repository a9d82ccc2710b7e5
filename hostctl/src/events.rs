//! `events`: what happened on a host, and what happens.

use std::time::{Duration, Instant};

use bennu_api::{Cursor, Event, Happening, Rejection};
use jiff::Timestamp;

use crate::cli::{Events, EventsSince};
use crate::client::{Host, NoAnswer};
use crate::exit::{Failure, Outcome};
use crate::host::{health_word, out_of_memory, outcome};
use crate::render::{Out, age, moment, printable};

/// For how long a host that went away while it was followed is asked again: it may be restarting.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often.
const AGAIN: Duration = Duration::from_secs(1);

/// Shows what happened; with `follow` it goes on behind what it has shown when the connection is lost.
pub(crate) async fn run(host: &Host, args: &Events, now: Timestamp, out: &mut Out) -> Outcome {
    let mut last: Option<Cursor> = None;
    let mut since = args.since.clone();
    let mut lost_at: Option<Instant> = None;
    while !out.closed() {
        let mut path = format!("/v1/events?follow={}", args.follow);
        match (&last, &since) {
            (Some(cursor), _) | (None, Some(EventsSince::Cursor(cursor))) => {
                path += &format!("&after={cursor}")
            }
            (None, Some(EventsSince::Time(time))) => path += &format!("&since={}", time.before(now)),
            (None, None) => {}
        }
        let lost = match host.get_lines(&path).await {
            Ok(mut lines) => loop {
                if out.closed() {
                    return Ok(0);
                }
                match lines.next::<Event>().await {
                    Ok(Some(event)) => {
                        lost_at = None;
                        out.item(&event, text)?;
                        last = Some(event.cursor);
                        since = None;
                    }
                    Ok(None) => break None,
                    Err(failure) => break Some(failure),
                }
            },
            Err(NoAnswer::Lost(failure)) if last.is_some() || lost_at.is_some() => Some(failure),
            Err(error) => return Err(error.into()),
        };
        if !args.follow {
            return lost.map_or(Ok(0), Err);
        }
        if lost_at.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            return Err(lost.unwrap_or_else(|| Failure::failed("the host does not tell of events any more")));
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(0)
}

fn text(event: &Event) -> String {
    format!("{}  {}\n", moment(event.time), printable(&happening(&event.what)))
}

fn happening(what: &Happening) -> String {
    match what {
        Happening::Gap { missed: Some(missed) } => {
            format!("gap        {missed} events are not kept any more")
        }
        Happening::Gap { missed: None } => {
            "gap        events are missing: the host was booted, say".to_owned()
        }
        Happening::Forward { name, failure: Some(reason) } => {
            format!("forward    {name} takes no lines: {reason}")
        }
        Happening::Forward { name, failure: None } => format!("forward    {name} takes lines"),
        Happening::DebugShell { container, image, by } => {
            let by = if by.is_empty() { "somebody" } else { by };
            format!("debug      {by} opened a shell of {image} beside {container}")
        }
        Happening::Started { version } => format!("started    hostd {version}"),
        Happening::Accepted { generation, serial } => {
            format!("accepted   generation {generation}, serial {serial}")
        }
        Happening::TrustTaken { version } => format!("trust      version {version}"),
        Happening::Refused { rule, reason } => format!("refused    {rule}: {reason}"),
        Happening::Fetched { image } => format!("fetched    {image}"),
        Happening::Applied { step } => format!("applied    {}", step.to_string().trim_start()),
        Happening::Drift { what } => format!("drift      {what}"),
        Happening::BadBlob { blob, damage, outcome } => format!("bad blob   {damage}; {outcome}: {blob}"),
        Happening::Scrubbed { bad } => format!("scrubbed   every blob was read, {bad} were bad"),
        Happening::Failed { generation, reason } => format!("failed     generation {generation}: {reason}"),
        Happening::Tried { generation, os: None } => format!("tried      generation {generation}"),
        Happening::Tried { generation, os: Some(root) } => {
            format!("tried      generation {generation}, for which the machine starts again with root {root}")
        }
        Happening::Kept { generation } => format!("kept       generation {generation}"),
        Happening::TakenBack { generation, reason } => {
            format!("taken back generation {generation}: {reason}")
        }
        Happening::SnapshotTaken { volume, snapshot } => format!("snapshot   {volume} {snapshot}"),
        Happening::SnapshotFailed { volume, reason } => format!("failed     snapshot of {volume}: {reason}"),
        Happening::VolumeReplaced { replaced } => {
            let before = replaced.before.map(|name| format!(", before {name}")).unwrap_or_default();
            format!("volume     {} holds other data{before}", replaced.volume)
        }
        Happening::Converged { generation } => format!("converged  generation {generation}"),
        Happening::Health { instance, health, reason } => {
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("health     {instance} {}{reason}", health_word(*health))
        }
        Happening::OomKill { instance, killed, limit, .. } => {
            format!("oom kill   {instance}: {}", out_of_memory(*killed, *limit))
        }
        Happening::Rejected { rejection } => {
            let Rejection { container, image, why, .. } = &**rejection;
            format!("rejected   {container} with {image}: {why}")
        }
        Happening::JobEnded { job, run } => {
            format!("job        {job} {} after {}", outcome(run.outcome), age(run.began, run.ended))
        }
        // A newer host may tell of more; its JSON says what.
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}
