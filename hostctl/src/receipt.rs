//! `receipt`: what a change of generations has come to.

use bennu_api::{Change, FetchedImage, Receipt, Receipts};

use crate::client::Host;
use crate::exit::Outcome;
use crate::plan::{ends, interrupted};
use crate::render::{Out, bytes, facts, moment, span};

/// Shows the receipts of a generation, or of the newest one that has any.
pub(crate) async fn run(host: &Host, generation: Option<u64>, out: &mut Out) -> Outcome {
    let query = generation.map(|number| format!("?generation={number}")).unwrap_or_default();
    let receipts: Receipts = host.get(&format!("/v1/receipts{query}")).await?;
    out.result(&receipts, |receipts| receipts.receipts.iter().map(text).collect::<Vec<_>>().join("\n"))?;
    Ok(0)
}

fn text(receipt: &Receipt) -> String {
    let Receipt { change, from, to, reason, plan, began, ended, .. } = receipt;
    let before = from.map_or("nothing".to_owned(), |from| format!("generation {from}"));
    let became = match change {
        Change::Active => format!("generation {to} became active, after {before}"),
        Change::TakenBack => format!("{before} was taken back for generation {to}"),
        Change::Reborn => format!("generation {to} was begun again"),
    };
    let mut lines = vec![("change", became)];
    lines.extend(reason.iter().map(|reason| ("reason", reason.clone())));
    lines.push(("began", moment(*began)));
    lines.push(match ended {
        Some(ended) => ("took", span(ended.duration_since(*began))),
        None => ("took", "it has not come to its end; what follows is what was expected".to_owned()),
    });
    lines.extend(plan.map(|plan| ("plan", plan.to_string())));
    lines.push(("interrupted", interrupted(&receipt.interruption)));
    if !receipt.fetched.is_empty() {
        let sum = bytes(receipt.fetched.iter().map(|image| image.bytes).sum());
        let image =
            |FetchedImage { image, bytes: count }: &FetchedImage| format!("\n{}  {image}", bytes(*count));
        lines.push(("fetched", sum + &receipt.fetched.iter().map(image).collect::<String>()));
    }
    let (survived, destroyed) = (&receipt.survived[..], &receipt.destroyed[..]);
    lines.extend(ends(("survived", survived), ("destroyed", destroyed), &receipt.written));
    facts(&lines)
}
