//! From requests to the daemon's verbs and back.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Json, Router, middleware};
use bennu_api::{
    Accepted, BundleQuery, Container, Containers, Dump, Event, EventsQuery, Exec, History, Images, LogsQuery,
    MAX_REQUEST, Operation, Planned, Problem, ProblemKind, Receipts, ReceiptsQuery, Status, Submission,
    TrustInForce, TrustSubmission, TrustTaken,
};
use bennu_manifests::model::Name;
use bennu_planner::Instance;
use futures_util::{TryStreamExt as _, stream};

use super::caller::require_role;
use super::stream::lines;
use super::{copy, metrics, talk, updates, volumes};
use crate::bundle;
use crate::core::{Core, chain, failed};
use crate::host::{LogsOf, LogsWanted};

pub(super) type Shared = State<Arc<Core>>;

/// All routes: those of the table, which says for each what role it needs.
pub(super) fn routes(core: Arc<Core>) -> Router {
    Operation::ALL
        .into_iter()
        .fold(Router::new(), |router, operation| router.route(operation.path(), handler(operation)))
        .route_layer(middleware::from_fn(require_role))
        .fallback(async || Refused(not_found("there is no such route")))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(core)
}

/// No route: whatever is asked, the answer is the same.
pub(super) fn only(what: &str) -> Router {
    let problem = Problem::new(ProblemKind::Failed, what);
    Router::new().fallback(move || {
        let problem = problem.clone();
        async { Refused(problem) }
    })
}

/// Who answers; each takes the one method that the table says.
fn handler(operation: Operation) -> MethodRouter<Arc<Core>> {
    match operation {
        Operation::Manifest => post(manifest),
        // Its body is bounded like that of an imported volume.
        Operation::Bundle => post(bundle),
        Operation::Plan => post(plan),
        Operation::Trust => get(trust),
        Operation::TakeTrust => post(take_trust),
        Operation::Status => get(status),
        Operation::Containers => get(containers),
        Operation::Inspect => get(inspect),
        Operation::Metrics => get(metrics),
        Operation::Health => get(health),
        Operation::Images => get(images),
        Operation::Volumes => get(volumes::list),
        Operation::Snapshots => get(volumes::snapshots),
        Operation::TakeSnapshot => post(volumes::take),
        Operation::RemoveSnapshot => delete(volumes::remove),
        Operation::RestoreVolume => post(volumes::restore),
        Operation::ExportVolume => get(volumes::export),
        // Its body has no limit of its own, since it is passed on as it comes; what bounds it is the room that there is.
        Operation::ImportVolume => post(volumes::import),
        Operation::Files => get(copy::copy),
        Operation::Why => get(updates::why),
        Operation::Confirm => post(updates::confirm),
        Operation::Approve => post(updates::approve),
        Operation::Rollback => post(updates::roll_back),
        Operation::Rebirth => post(updates::rebirth),
        Operation::History => get(history),
        Operation::Receipts => get(receipts),
        Operation::Events => get(events),
        Operation::Logs => get(logs),
        Operation::Exec => post(exec),
        Operation::Talk => get(talk::talk),
        Operation::DebugShell => get(talk::debug_shell),
        Operation::Dump => get(dump),
        Operation::OpenApi => get(openapi),
    }
}

/// A [`Problem`] as an answer.
pub(super) struct Refused(pub(super) Problem);

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

pub(super) fn invalid(message: String) -> Problem {
    Problem::new(ProblemKind::Invalid, message)
}

pub(super) fn not_found(message: &str) -> Problem {
    Problem::new(ProblemKind::NotFound, message)
}

async fn manifest(
    State(core): Shared,
    body: Result<Json<Submission>, JsonRejection>,
) -> Result<Json<Accepted>, Refused> {
    Ok(Json(core.submit(&body?.0).await?))
}

async fn bundle(
    State(core): Shared,
    query: Result<Query<BundleQuery>, QueryRejection>,
    body: Body,
) -> Result<Json<Accepted>, Refused> {
    let Query(BundleQuery { require_plan }) = query?;
    let body = body.into_data_stream().map_err(io::Error::other);
    Ok(Json(bundle::take(&core, require_plan, body).await?))
}

async fn plan(
    State(core): Shared,
    body: Result<Json<Submission>, JsonRejection>,
) -> Result<Json<Planned>, Refused> {
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
    let volumes = core.volumes().await?.volumes;
    let page = metrics::page(&status, &containers, &volumes, images.images.len() as u64, bytes);
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

async fn history(State(core): Shared) -> Json<History> {
    Json(core.history().await)
}

async fn receipts(
    State(core): Shared,
    query: Result<Query<ReceiptsQuery>, QueryRejection>,
) -> Result<Json<Receipts>, Refused> {
    Ok(Json(core.receipts(query?.0.generation).await?))
}

async fn dump(State(core): Shared) -> Result<Json<Dump>, Refused> {
    Ok(Json(core.dump().await?))
}

async fn events(
    State(core): Shared,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(EventsQuery { after, since, follow }) = query?;
    let recent = move |event: &Event| since.is_none_or(|since| event.time >= since);
    if !follow {
        let events = core.events.after(after.as_ref());
        return Ok(lines(stream::iter(events.into_iter().filter(recent))));
    }
    let newest = core.events.watch();
    let start = (core, newest, after, VecDeque::<Event>::new());
    Ok(lines(stream::unfold(start, move |(core, mut newest, after, mut ready)| async move {
        while ready.is_empty() {
            newest.borrow_and_update();
            // A reader that was too slow, and missed some, is told so by the first of these.
            ready = core.events.after(after.as_ref()).into_iter().filter(recent).collect();
            if ready.is_empty() {
                newest.changed().await.ok()?;
            }
        }
        let event = ready.pop_front()?;
        let after = Some(event.cursor.clone());
        Some((event, (core, newest, after, ready)))
    })))
}

async fn logs(
    State(core): Shared,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(LogsQuery { container, lines: count, follow, since, until, grep }) = query?;
    if follow && until.is_some() {
        return Err(Refused(invalid("what is followed has no end; leave `until` away".to_owned())));
    }
    let of = match container.as_deref() {
        None => LogsOf::EveryContainer,
        Some("hostd") => LogsOf::Hostd,
        Some(name) => LogsOf::Container(declared(&core, name).await?),
    };
    if let Some(pattern) = &grep {
        core.host.check_pattern(pattern).await.map_err(|error| Refused(invalid(chain(&error))))?;
    }
    let logs =
        core.host.logs(&LogsWanted { of, lines: count, follow, since, until, grep }).map_err(failed)?;
    Ok(lines(logs))
}

async fn exec(State(core): Shared, body: Result<Json<Exec>, JsonRejection>) -> Result<Response, Refused> {
    let Json(Exec { container, command }) = body?;
    check_command(&command)?;
    let instance = running(&core, &container).await?;
    let running = core.host.exec(&instance, &command).await.map_err(failed)?;
    Ok(lines(running))
}

/// The most bytes of a command, as the kernel takes them of one (execve(2), `MAX_ARG_STRLEN`).
const MAX_COMMAND: usize = 128 << 10;

/// A command that a process can be given.
pub(super) fn check_command(command: &[String]) -> Result<(), Problem> {
    if command.first().is_none_or(String::is_empty) {
        return Err(invalid("a command is needed".to_owned()));
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err(invalid("a word of the command holds a zero byte".to_owned()));
    }
    if command.iter().map(|word| word.len() + 1).sum::<usize>() > MAX_COMMAND {
        return Err(invalid(format!("the command is longer than {MAX_COMMAND} bytes")));
    }
    Ok(())
}

/// The newest instance of a container that runs.
pub(super) async fn running(core: &Core, container: &Name) -> Result<Instance, Problem> {
    let there = core.host.containers().await.map_err(failed)?;
    let found = there.iter().rfind(|c| c.name == *container && c.pid != 0);
    let Some(found) = found else {
        let declared = there.iter().any(|c| c.name == *container);
        let message = if declared { "is not running" } else { "is not there" };
        return Err(not_found(&format!("container {container} {message}")));
    };
    found.instance.parse().map_err(failed)
}

/// The description of all this, as it is written in the API's own folder.
async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], bennu_api::OPENAPI).into_response()
}

async fn inspect(
    State(core): Shared,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Json<bennu_api::Inspected>, Refused> {
    let name = declared(&core, &name).await?;
    let told = all_containers(&core).await?.into_iter().filter(|container| container.name == name);
    let active = core.generations().await.0;
    let program = active.as_ref().and_then(|active| {
        active.manifest.programs().find(|(declared, _)| **declared == name).map(|(_, program)| program)
    });
    let declared = program.map(serde_json::to_value).transpose().map_err(failed)?;
    let instances = told.map(|container| core.host.inspect(container)).collect::<Result<_, _>>();
    let instances = instances.map_err(failed)?;
    Ok(Json(bennu_api::Inspected { name, declared, instances }))
}

/// A container of the active generation, or of which an instance is there still.
async fn declared(core: &Core, name: &str) -> Result<Name, Refused> {
    let missing = || Refused(not_found(&format!("there is no container {name}")));
    let name: Name = name.parse().map_err(|_| missing())?;
    let active = core.generations().await.0;
    if active.is_some_and(|a| a.manifest.programs().any(|(declared, _)| *declared == name)) {
        return Ok(name);
    }
    let there = core.seen().await?;
    if there.instances.keys().any(|i| i.name == name) { Ok(name) } else { Err(missing()) }
}
