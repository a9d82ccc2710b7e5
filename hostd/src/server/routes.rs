//! From requests to the daemon's verbs and back.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bennu_api::{
    Accepted, Container, Containers, Dump, Event, Exec, History, Images, MAX_REQUEST, Problem, ProblemKind,
    Status, Submission, TrustInForce, TrustSubmission, TrustTaken, Volumes,
};
use bennu_manifests::model::Name;
use bennu_planner::{Instance, Plan};
use futures_util::stream;
use serde::Deserialize;

use super::metrics;
use super::stream::lines;
use crate::core::{Core, chain, failed};
use crate::host::{LogsOf, LogsWanted};

type Shared = State<Arc<Core>>;

/// All routes.
pub(super) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v1/manifest", post(manifest))
        .route("/v1/plan", post(plan))
        .route("/v1/trust", get(trust).post(take_trust))
        .route("/v1/status", get(status))
        .route("/v1/containers", get(containers))
        .route("/v1/metrics", get(metrics))
        .route("/v1/health", get(health))
        .route("/v1/images", get(images))
        .route("/v1/volumes", get(volumes))
        .route("/v1/history", get(history))
        .route("/v1/events", get(events))
        .route("/v1/logs", get(logs))
        .route("/v1/exec", post(exec))
        .route("/v1/dump", get(dump))
        .fallback(async || Refused(not_found("there is no such route")))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(core)
}

/// A [`Problem`] as an answer.
struct Refused(Problem);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let code = match self.0.kind {
            ProblemKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ProblemKind::Refused => StatusCode::FORBIDDEN,
            ProblemKind::NotFound => StatusCode::NOT_FOUND,
            ProblemKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, Json(self.0)).into_response()
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self(invalid(rejection.body_text()))
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self(invalid(rejection.body_text()))
    }
}

fn invalid(message: String) -> Problem {
    Problem { kind: ProblemKind::Invalid, rule: String::new(), message, detail: String::new() }
}

fn not_found(message: &str) -> Problem {
    Problem {
        kind: ProblemKind::NotFound,
        rule: String::new(),
        message: message.to_owned(),
        detail: String::new(),
    }
}

async fn manifest(
    State(core): Shared,
    body: Result<Json<Submission>, JsonRejection>,
) -> Result<Json<Accepted>, Refused> {
    Ok(Json(core.submit(&body?.0).await?))
}

async fn plan(
    State(core): Shared,
    body: Result<Json<Submission>, JsonRejection>,
) -> Result<Json<Plan>, Refused> {
    Ok(Json(core.plan(&body?.0).await?))
}

async fn trust(State(core): Shared) -> Json<TrustInForce> {
    Json(core.trust().await)
}

async fn take_trust(
    State(core): Shared,
    body: Result<Json<TrustSubmission>, JsonRejection>,
) -> Result<Json<TrustTaken>, Refused> {
    Ok(Json(core.take_trust(&body?.0).await?))
}

async fn status(State(core): Shared) -> Json<Status> {
    Json(core.status().await)
}

async fn containers(State(core): Shared) -> Result<Json<Containers>, Refused> {
    Ok(Json(Containers { containers: all_containers(&core).await? }))
}

async fn all_containers(core: &Core) -> Result<Vec<Container>, Problem> {
    let mut containers = core.host.containers().await.map_err(failed)?;
    if let Some(active) = core.generations().await.0 {
        for container in &mut containers {
            if let Some(declared) = active.manifest.containers.get(&container.name) {
                container.ports.clone_from(&declared.ports);
                let instance = container.instance.parse().ok();
                container.health = instance.map(|instance| core.health.health(&instance)).unwrap_or_default();
            }
        }
    }
    containers
        .sort_by(|a, b| (&a.name, a.generation, &a.instance).cmp(&(&b.name, b.generation, &b.instance)));
    Ok(containers)
}

async fn metrics(State(core): Shared) -> Result<Response, Refused> {
    let (status, containers, images) =
        (core.status().await, all_containers(&core).await?, core.images().await?);
    let bytes = images.images.iter().map(|image| image.size).sum();
    let page = metrics::page(&status, &containers, images.images.len() as u64, bytes);
    Ok(([(CONTENT_TYPE, metrics::TYPE)], page).into_response())
}

/// Whether the host is what its manifest says, as a status code for those who ask nothing else: 200 or 503.
async fn health(State(core): Shared) -> Response {
    let status = core.status().await;
    let well = status.converged;
    let code = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let why = status.failure.unwrap_or_else(|| if well { "converged" } else { "converging" }.to_owned());
    (code, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{why}\n")).into_response()
}

async fn images(State(core): Shared) -> Result<Json<Images>, Refused> {
    Ok(Json(core.images().await?))
}

async fn volumes(State(core): Shared) -> Result<Json<Volumes>, Refused> {
    Ok(Json(core.volumes().await?))
}

async fn history(State(core): Shared) -> Json<History> {
    Json(core.history().await)
}

async fn dump(State(core): Shared) -> Result<Json<Dump>, Refused> {
    Ok(Json(core.dump().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

async fn events(
    State(core): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(EventsQuery { after, follow }) = query?;
    if !follow {
        return Ok(lines(stream::iter(core.events.after(after))));
    }
    let newest = core.events.watch();
    let start = (core, newest, after, VecDeque::<Event>::new());
    Ok(lines(stream::unfold(start, |(core, mut newest, after, mut ready)| async move {
        while ready.is_empty() {
            newest.borrow_and_update();
            ready = core.events.after(after).into();
            if ready.is_empty() {
                newest.changed().await.ok()?;
            }
        }
        let event = ready.pop_front()?;
        let after = event.cursor;
        Some((event, (core, newest, after, ready)))
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsQuery {
    container: Option<String>,
    #[serde(default = "some_lines")]
    lines: u32,
    #[serde(default)]
    follow: bool,
    since: Option<jiff::Timestamp>,
    grep: Option<String>,
}

fn some_lines() -> u32 {
    200
}

async fn logs(
    State(core): Shared,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(LogsQuery { container, lines: count, follow, since, grep }) = query?;
    let of = match container.as_deref() {
        None => LogsOf::EveryContainer,
        Some("hostd") => LogsOf::Hostd,
        Some(name) => LogsOf::Container(declared(&core, name).await?),
    };
    if let Some(pattern) = &grep {
        core.host.check_pattern(pattern).await.map_err(|error| Refused(invalid(chain(&error))))?;
    }
    let logs = core.host.logs(&LogsWanted { of, lines: count, follow, since, grep }).map_err(failed)?;
    Ok(lines(logs))
}

async fn exec(State(core): Shared, body: Result<Json<Exec>, JsonRejection>) -> Result<Response, Refused> {
    let Json(Exec { container, command }) = body?;
    if command.is_empty() {
        return Err(Refused(invalid("a command is needed".to_owned())));
    }
    let running = core.host.containers().await.map_err(failed)?;
    let found = running.iter().rfind(|c| c.name == container && c.pid != 0);
    let Some(found) = found else {
        let declared = running.iter().any(|c| c.name == container);
        let message = if declared { "is not running" } else { "is not there" };
        return Err(Refused(not_found(&format!("container {container} {message}"))));
    };
    let instance: Instance = found.instance.parse().map_err(failed)?;
    Ok(lines(core.host.exec(&instance, &command).map_err(failed)?))
}

/// A container of the active generation, or of which an instance is there still.
async fn declared(core: &Core, name: &str) -> Result<Name, Refused> {
    let missing = || Refused(not_found(&format!("there is no container {name}")));
    let name: Name = name.parse().map_err(|_| missing())?;
    let active = core.generations().await.0;
    if active.is_some_and(|a| a.manifest.containers.contains_key(&name)) {
        return Ok(name);
    }
    let there = core.seen().await?;
    if there.instances.keys().any(|i| i.name == name) { Ok(name) } else { Err(missing()) }
}
