//! Files of containers, carried out.

use std::path::PathBuf;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bennu_planner::Instance;
use serde::Deserialize;

use super::routes::{Refused, Shared, not_found};
use super::volumes::TAR;
use crate::core::failed;
use crate::host::CopyError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyQuery {
    container: String,
    path: PathBuf,
}

pub(super) async fn copy(
    State(core): Shared,
    query: Result<Query<CopyQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(CopyQuery { container, path }) = query?;
    let there = core.host.containers().await.map_err(failed)?;
    let running = there.iter().rfind(|one| one.name.as_str() == container && one.pid != 0);
    let missing = || Refused(not_found(&format!("container {container:?} is not there, or does not run")));
    let running = running.ok_or_else(missing)?;
    let instance: Instance = running.instance.parse().map_err(failed)?;
    let files = core.host.copy_out(&instance, running.pid, &path).map_err(|error| match error {
        CopyError::NotThere { .. } => not_found(&error.to_string()),
        other => failed(other),
    })?;
    Ok(([(CONTENT_TYPE, TAR)], Body::from_stream(files)).into_response())
}
