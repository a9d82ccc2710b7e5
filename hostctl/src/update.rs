//! Updates by hand: `why`, `approve`, `confirm`, `rollback`, `rebirth`.

use bennu_api::{Confirmed, Phase, Reborn, RejectedGeneration, RolledBack, Update, WhyNot};
use jiff::Timestamp;
use serde_json::json;

use crate::client::Host;
use crate::exit::Outcome;
use crate::render::{Out, Table, printable, span};

/// Says why the host has not updated: one answer, and every gate.
pub(crate) async fn why(host: &Host, out: &mut Out) -> Outcome {
    let why: WhyNot = host.get("/v1/why").await?;
    out.result(&why, why_text)?;
    Ok(0)
}

fn why_text(why: &WhyNot) -> String {
    let mut text = format!("{}\n", why.answer);
    if why.gates.is_empty() {
        return text;
    }
    let mut table = Table::new(&["gate", "says", "why", "asked again"]);
    for gate in &why.gates {
        let next = gate.next.map_or("all the time".to_owned(), |next| next.to_string());
        table.row([
            gate.gate.to_string(),
            if gate.open { "yes" } else { "no" }.into(),
            gate.why.clone(),
            next,
        ]);
    }
    text.push_str(&table.text("none"));
    text
}

/// Says that the generation on trial is good.
pub(crate) async fn confirm(host: &Host, out: &mut Out) -> Outcome {
    let confirmed: Confirmed = host.post("/v1/confirm", &json!({})).await?;
    out.result(&confirmed, |c| {
        format!("generation {} is confirmed; it is kept when its trial is over\n", c.generation)
    })?;
    Ok(0)
}

/// Says that the pending generation may become the active one.
pub(crate) async fn approve(host: &Host, out: &mut Out) -> Outcome {
    let approved: Confirmed = host.post("/v1/approve", &json!({})).await?;
    out.result(&approved, |a| format!("generation {} is approved\n", a.generation))?;
    Ok(0)
}

/// Goes back to the generation before.
pub(crate) async fn roll_back(host: &Host, out: &mut Out) -> Outcome {
    let back: RolledBack = host.post("/v1/rollback", &json!({})).await?;
    out.result(&back, |b| {
        format!("generation {} is given up; the host goes back to generation {}\n", b.from, b.to)
    })?;
    Ok(0)
}

/// Has the machine start anew.
pub(crate) async fn rebirth(host: &Host, out: &mut Out) -> Outcome {
    let reborn: Reborn = host.post("/v1/rebirth", &json!({})).await?;
    out.result(&reborn, |r| format!("the machine starts anew with generation {}\n", r.generation))?;
    Ok(0)
}

/// The lines of a status about updates.
pub(crate) fn lines(update: &Update, now: Timestamp) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if update.phase != Phase::Settled {
        let why = if update.why.is_empty() { String::new() } else { format!(": {}", update.why) };
        lines.push(("update", format!("{}{why}", update.phase)));
    }
    if let Some(by) = update.confirm_by {
        let left = span(by.duration_since(now));
        lines.push(("confirm", format!("it is undone in {left} unless somebody runs `hostctl confirm`")));
    }
    if let Some(back) = update.way_back {
        lines.push(("way back", format!("generation {back}")));
    }
    for RejectedGeneration { generation, serial, why, .. } in &update.rejected {
        lines.push(("taken back", format!("generation {generation}, serial {serial}: {}", printable(why))));
    }
    lines
}
