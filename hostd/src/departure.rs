//! The end of all containers where the machine stops: what depends on another one ends before it.

use bennu_planner::departures;
use futures_util::future::join_all;

use crate::core::{Core, chain};
use crate::os;

/// Ends all containers where the machine stops, in the reverse of the order in which they start. Where only the daemon stops they go on.
/// It takes no longer than the times to stop of those that wait for each other, added up.
pub async fn before_the_machine_stops(core: &Core) {
    if let Err(why) = os::with_time_for(end_all(core)).await {
        // systemd stops what is left, all at once.
        tracing::warn!("end containers in their order: {why}");
    }
}

async fn end_all(core: &Core) -> Result<(), String> {
    if !core.host.machine_stops().await.map_err(|error| chain(&error))? {
        return Ok(());
    }
    let made = core.now().made.clone();
    // Nothing else of the host is looked at: what can't be read there must not cost the order.
    let instances = core.host.instances().await.map_err(|error| chain(&error))?;
    let groups = match &made {
        Some(manifest) => departures(manifest, &instances),
        // Nothing is known of their order.
        None => vec![instances.iter().collect()],
    };
    for group in groups {
        let names: Vec<_> = group.iter().map(ToString::to_string).collect();
        tracing::info!("the machine stops: end {}", names.join(", "));
        let ended = join_all(group.iter().map(|instance| core.host.end(instance))).await;
        for error in ended.into_iter().filter_map(Result::err) {
            tracing::warn!("{}", chain(&error));
        }
    }
    for why in core.host.put_away().await {
        tracing::warn!("leave the disk in order: {why}");
    }
    Ok(())
}
