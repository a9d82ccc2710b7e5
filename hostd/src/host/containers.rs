//! What people are told of containers.

use bennu_api::{Container, Usage};
use futures_util::future::try_join_all;

use super::bus::ServiceDetails;
use super::known::Known;
use super::observe::{Found, ObserveError, state};
use super::record::Membership;
use super::{Host, stats, unit};

impl Host {
    /// The containers that are there, with what they do and need; which ports are published for them, and what their
    /// checks say, is not known here.
    ///
    /// # Errors
    /// Where systemd or the records can't be asked.
    pub async fn containers(&self) -> Result<Vec<Container>, ObserveError> {
        let found = self.found().await?;
        let known = found.into_values().filter_map(|Found { record, unit }| Some((record?, unit)));
        let told = known.map(|(known, status)| async move {
            let record = &known.record;
            let details = match &status {
                Some(status) => {
                    self.bus.service(&unit::name(&record.instance)).await.map(|d| (state(Some(status)), d))
                }
                None => Ok((state(None), ServiceDetails::default())),
            };
            let usage = stats::usage(&record.instance, &self.paths.instance(&record.instance));
            details.map(|(state, details)| container(&known, usage, state, details))
        });
        Ok(try_join_all(told).await?)
    }
}

fn container(known: &Known, usage: Usage, state: bennu_planner::State, details: ServiceDetails) -> Container {
    let record = &known.record;
    Container {
        usage,
        instance: record.instance.to_string(),
        generation: record.instance.generation,
        name: record.instance.name.clone(),
        state,
        health: bennu_planner::Health::Unchecked,
        pid: details.pid,
        restarts: details.restarts,
        since: details.since,
        image: record.image.clone(),
        ports: Vec::new(),
        addresses: record.networks.iter().flat_map(Membership::addresses).collect(),
        memory: details.memory,
    }
}
