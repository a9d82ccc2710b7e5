//! Talking with a command over a WebSocket (RFC 6455): `exec` with input or a terminal, and debugging shells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use bennu_api::{FromCommand, MAX_MESSAGE, Problem, ProblemKind, STDERR, STDOUT, Start, ToCommand};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::caller::Caller;
use super::routes::{Refused, Shared, check_command, invalid, running};
use crate::core::{Core, failed};
use crate::host::{Input, Output, Running, Talk};

/// How many commands are talked with at the same time on the whole host.
static PLACES: Semaphore = Semaphore::const_new(64);

/// How long a client has to say what it wants.
const FIRST: Duration = Duration::from_secs(10);

/// How often a client that says nothing is asked whether it is there still.
const PING: Duration = Duration::from_secs(20);

/// After how many such questions without an answer it is not. Anything that it says is one.
const SILENT: u32 = 3;

/// What a socket is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Command,
    DebugShell,
}

pub(super) async fn talk(
    core: Shared,
    caller: ConnectInfo<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    open(core, caller, upgrade, Purpose::Command)
}

pub(super) async fn debug_shell(
    core: Shared,
    caller: ConnectInfo<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    open(core, caller, upgrade, Purpose::DebugShell)
}

fn open(
    State(core): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    purpose: Purpose,
) -> Result<Response, Refused> {
    let upgrade = upgrade.map_err(|rejection| invalid(rejection.body_text()))?;
    let place = PLACES.try_acquire().map_err(|_| {
        Problem::new(ProblemKind::Failed, "so many commands are talked with already; end one of them first")
    })?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    Ok(upgrade.on_upgrade(move |socket| serve(core, caller, socket, purpose, place)))
}

async fn serve(
    core: Arc<Core>,
    caller: Caller,
    mut socket: WebSocket,
    purpose: Purpose,
    _place: SemaphorePermit<'static>,
) {
    let begun = tokio::time::timeout(FIRST, first(&mut socket)).await;
    let begun =
        begun.unwrap_or_else(|_| Err(invalid(format!("nothing was asked for within {} s", FIRST.as_secs()))));
    let last = match begun {
        Ok(start) => match begin(&core, &caller, &start, purpose).await {
            Ok((running, input)) => converse(&mut socket, running, input).await,
            Err(problem) => Some(FromCommand::Problem { problem }),
        },
        Err(problem) => Some(FromCommand::Problem { problem }),
    };
    if let Some(last) = last {
        let _ = socket.send(text(&last)).await;
        let _ = socket.send(Message::Close(None)).await;
    }
}

/// What the client wants, which it says first.
async fn first(socket: &mut WebSocket) -> Result<Start, Problem> {
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            Message::Text(said) => match parse(&said)? {
                ToCommand::Start(start) => return Ok(*start),
                _ => break,
            },
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) => break,
        }
    }
    Err(invalid("the first message has to say what to run".to_owned()))
}

async fn begin(
    core: &Arc<Core>,
    caller: &Caller,
    start: &Start,
    purpose: Purpose,
) -> Result<(Running, Input), Problem> {
    let talk = Talk { command: &start.command, input: start.input, terminal: start.terminal.as_ref() };
    match (purpose, &start.image) {
        (Purpose::Command, None) => {
            check_command(&start.command)?;
            let instance = running(core, &start.container).await?;
            core.host.talk(&instance, talk).await.map_err(failed)
        }
        (Purpose::Command, Some(_)) => Err(invalid("a command runs in the container's own image".to_owned())),
        (Purpose::DebugShell, None) => Err(invalid("a debugging shell needs an image".to_owned())),
        (Purpose::DebugShell, Some(image)) => {
            if !start.command.is_empty() {
                check_command(&start.command)?;
            }
            let instance = running(core, &start.container).await?;
            crate::debug_shell::open(core, &instance, image, talk, &caller.name).await
        }
    }
}

/// Passes on what both sides say until the command ends, which is what is told last; `None` where the client went away.
async fn converse(socket: &mut WebSocket, mut running: Running, mut input: Input) -> Option<FromCommand> {
    let resize = running.resizer();
    let (mut sink, mut stream) = socket.split();
    // Whatever the client says shows that it is there.
    let (heard, busy) = (AtomicU32::new(0), AtomicBool::new(false));
    let listen = async {
        while let Some(Ok(message)) = stream.next().await {
            heard.store(0, Ordering::Relaxed);
            let said = match message {
                Message::Binary(bytes) => {
                    // A command that takes no more is no error: how it ends tells. While it takes its time, nothing is heard.
                    busy.store(true, Ordering::Relaxed);
                    let _ = input.write(&bytes).await;
                    busy.store(false, Ordering::Relaxed);
                    continue;
                }
                Message::Text(said) => parse(&said),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return None,
            };
            match said {
                Ok(ToCommand::Resize(size)) => drop(resize(size)),
                Ok(ToCommand::EndOfInput) => input.end().await,
                Ok(ToCommand::Start(_)) => return Some(invalid("a command runs already".to_owned())),
                Err(problem) => return Some(problem),
            }
        }
        None
    };
    let tell = async {
        loop {
            let message = tokio::select! {
                output = running.next() => match output {
                    Output::Stdout(bytes) => framed(STDOUT, &bytes),
                    Output::Stderr(bytes) => framed(STDERR, &bytes),
                    Output::Exit(code) => return Some(FromCommand::Exit { code }),
                },
                () = tokio::time::sleep(PING) => {
                    if !busy.load(Ordering::Relaxed) && heard.fetch_add(1, Ordering::Relaxed) >= SILENT {
                        return None;
                    }
                    Message::Ping(Default::default())
                }
            };
            if sink.send(message).await.is_err() {
                return None;
            }
        }
    };
    tokio::select! {
        problem = listen => problem.map(|problem| FromCommand::Problem { problem }),
        last = tell => last,
    }
}

fn parse(said: &Utf8Bytes) -> Result<ToCommand, Problem> {
    serde_json::from_str(said).map_err(|error| invalid(format!("what was said is not understood: {error}")))
}

fn text(said: &FromCommand) -> Message {
    Message::Text(serde_json::to_string(said).expect("text and numbers always become JSON").into())
}

fn framed(stream: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(stream);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}
