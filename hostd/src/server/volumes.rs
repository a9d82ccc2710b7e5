//! Requests about volumes.

use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bennu_api::{Replaced, Restore, Snapshot, SnapshotName, Snapshots, Volumes};
use bennu_manifests::model::Name;
use futures_util::TryStreamExt as _;
use serde::Deserialize;

use super::routes::{Refused, Shared, not_found};
use crate::volumes;

/// The type of an archive (IANA has none for tar; this one is what is used).
pub(super) const TAR: &str = "application/x-tar";

pub(super) async fn list(State(core): Shared) -> Result<Json<Volumes>, Refused> {
    Ok(Json(core.volumes().await?))
}

pub(super) async fn snapshots(
    State(core): Shared,
    Path(volume): Path<String>,
) -> Result<Json<Snapshots>, Refused> {
    Ok(Json(volumes::snapshots(&core, &named(&volume)?).await?))
}

pub(super) async fn take(State(core): Shared, Path(volume): Path<String>) -> Result<Json<Snapshot>, Refused> {
    Ok(Json(volumes::take(&core, &named(&volume)?).await?))
}

pub(super) async fn remove(
    State(core): Shared,
    Path((volume, snapshot)): Path<(String, String)>,
) -> Result<StatusCode, Refused> {
    volumes::remove(&core, &named(&volume)?, snapshot_named(&snapshot)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restore(
    State(core): Shared,
    Path(volume): Path<String>,
    body: Result<Json<Restore>, JsonRejection>,
) -> Result<Json<Replaced>, Refused> {
    let Json(Restore { snapshot }) = body?;
    Ok(Json(volumes::restore(&core, &named(&volume)?, snapshot).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportQuery {
    snapshot: Option<SnapshotName>,
}

pub(super) async fn export(
    State(core): Shared,
    Path(volume): Path<String>,
    query: Result<Query<ExportQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(ExportQuery { snapshot }) = query?;
    let archive = volumes::export(&core, &named(&volume)?, snapshot).await?;
    Ok(([(CONTENT_TYPE, TAR)], Body::from_stream(archive)).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportQuery {
    #[serde(default)]
    replace: bool,
}

pub(super) async fn import(
    State(core): Shared,
    Path(volume): Path<String>,
    query: Result<Query<ImportQuery>, QueryRejection>,
    body: Body,
) -> Result<Json<Replaced>, Refused> {
    let Query(ImportQuery { replace }) = query?;
    let archive = body.into_data_stream().map_err(io::Error::other);
    Ok(Json(volumes::import(&core, &named(&volume)?, replace, archive).await?))
}

/// Whatever is no name is surely not there.
fn named(volume: &str) -> Result<Name, Refused> {
    volume.parse().map_err(|_| Refused(not_found(&format!("there is no volume {volume:?}"))))
}

fn snapshot_named(snapshot: &str) -> Result<SnapshotName, Refused> {
    snapshot.parse().map_err(|_| Refused(not_found(&format!("there is no snapshot {snapshot:?}"))))
}
