//! Talking with a command on a host, over a WebSocket. `tokio-tungstenite` is named here and nowhere else.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bennu_api::{ExecOutput, FromCommand, MAX_MESSAGE, Problem, STDERR, STDOUT, Start, ToCommand};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::client::{Connection, Host};
use crate::exit::{Failure, Outcome};
use crate::render::Out;
use crate::terminal::{self, Raw};

/// The largest piece of input that is sent at once, in bytes.
const CHUNK: usize = 32 << 10;

/// How many such pieces are read ahead.
const AHEAD: usize = 4;

/// Signals that end `hostctl`, the command on the host with it, and the numbers by which that is told.
const ENDING: [(SignalKind, u8); 3] =
    [(SignalKind::hangup(), 1), (SignalKind::interrupt(), 2), (SignalKind::terminate(), 15)];

type Socket = WebSocketStream<Connection>;

/// Runs what `start` says at `path` of the host; its exit code is the outcome.
pub(crate) async fn run(host: &Host, path: &str, start: Start, out: &mut Out) -> Outcome {
    let mut socket = open(host, path).await?;
    // Only now: what was refused is told on a terminal as it was.
    let _raw = (start.terminal.is_some() && start.input).then(Raw::enter).transpose()?;
    let (has_terminal, wants_input) = (start.terminal.is_some(), start.input);
    say(&mut socket, &ToCommand::Start(Box::new(start))).await?;
    let mut input = wants_input.then(read_input);
    let caught = |kind| signal(kind).map_err(|e| Failure::failed("wait for signals").because(e));
    let mut resized = caught(SignalKind::window_change())?;
    let mut ending: Vec<(Signal, u8)> = Vec::new();
    for (kind, number) in ENDING {
        ending.push((caught(kind)?, number));
    }
    loop {
        tokio::select! {
            message = socket.next() => {
                if let Some(code) = heard(message, out)? {
                    return Ok(code);
                }
            }
            bytes = piece(&mut input), if input.is_some() => match bytes {
                Some(bytes) => send(&mut socket, Message::Binary(Bytes::from(bytes))).await?,
                None => {
                    input = None;
                    say(&mut socket, &ToCommand::EndOfInput).await?;
                }
            },
            _ = resized.recv(), if has_terminal => {
                say(&mut socket, &ToCommand::Resize(terminal::size())).await?;
            }
            number = any(&mut ending) => {
                // The host notices that nobody is there any more, and ends the command.
                return Ok(128 + number);
            }
        }
    }
}

async fn open(host: &Host, path: &str) -> Result<Socket, Failure> {
    let stream = host.connect().await?;
    let failed = |error: Error| Failure::failed(format!("talk with {}", host.address())).because(error);
    let request = format!("ws://{}{path}", host.authority()).into_client_request().map_err(failed)?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(4 * MAX_MESSAGE))
        .max_frame_size(Some(4 * MAX_MESSAGE));
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        // The host says why in its answer, as for every request.
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            Err(match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => problem.into(),
                Err(_) if answer.status() == 403 => {
                    Failure::refused("role.insufficient", "the host refused it")
                        .advice("this certificate's role is not enough for it")
                }
                Err(_) => Failure::failed(format!("talk with {}", host.address()))
                    .because(format!("it answered with HTTP status {}", answer.status()))
                    .advice("hostctl and the host should be of about the same version"),
            })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Passes on what the host says; the exit code where that is the end.
fn heard(message: Option<Result<Message, Error>>, out: &mut Out) -> Result<Option<u8>, Failure> {
    let lost = || Failure::failed("the end of the command is not known");
    let message = message.ok_or_else(|| lost().because("the host ended the connection"))?;
    match message.map_err(|error| lost().because(error))? {
        Message::Binary(bytes) => {
            if let Some((stream, bytes)) = bytes.split_first() {
                wrote(*stream, bytes, out)?;
            }
            Ok(None)
        }
        Message::Text(said) => match serde_json::from_str(&said).map_err(|error| lost().because(error))? {
            FromCommand::Exit { code } => {
                if out.json() {
                    out.item(&ExecOutput::Exit { code }, |_| String::new())?;
                }
                // As a shell would see it: the low byte.
                Ok(Some(code.to_le_bytes()[0]))
            }
            FromCommand::Problem { problem } => Err(problem.into()),
        },
        Message::Close(_) => Err(lost().because("the host ended the connection")),
        _ => Ok(None),
    }
}

fn wrote(stream: u8, bytes: &[u8], out: &mut Out) -> Result<(), Failure> {
    if out.json() {
        let data = BASE64_STANDARD.encode(bytes);
        let output = if stream == STDERR { ExecOutput::Stderr { data } } else { ExecOutput::Stdout { data } };
        return out.item(&output, |_| String::new());
    }
    match stream {
        STDOUT => out.write(bytes),
        // There is nobody left to tell where standard error is closed.
        STDERR => {
            let _ = std::io::stderr().lock().write_all(bytes);
            Ok(())
        }
        // A newer host may tell of more.
        _ => Ok(()),
    }
}

async fn say(socket: &mut Socket, said: &ToCommand) -> Result<(), Failure> {
    let text = serde_json::to_string(said).expect("text and numbers always become JSON");
    send(socket, Message::text(text)).await
}

async fn send(socket: &mut Socket, message: Message) -> Result<(), Failure> {
    match socket.send(message).await {
        // The command has ended; what it said last is still to be read.
        Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_)) | Ok(()) => Ok(()),
        Err(error) => Err(Failure::failed("talk with the command").because(error)),
    }
}

/// Reads standard input in a thread of its own, which ends with the program: no other way gives up a read.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(read @ 1..) if sender.blocking_send(buffer[..read].to_vec()).is_ok() => {}
                _ => return,
            }
        }
    });
    receiver
}

async fn piece(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    input.as_mut()?.recv().await
}

/// The number of the first of these signals that comes.
async fn any(signals: &mut [(Signal, u8)]) -> u8 {
    let waiting = signals.iter_mut().map(|(signal, number)| {
        Box::pin(async move {
            signal.recv().await;
            *number
        })
    });
    futures_util::future::select_all(waiting).await.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;

    #[test]
    fn what_the_host_says_last_is_the_exit_code_or_the_problem() {
        let mut out = Out::new(false);
        let text = |text: &str| Some(Ok(Message::text(text)));
        assert_eq!(heard(text(r#"{"kind":"exit","code":137}"#), &mut out).expect("an exit"), Some(137));
        let problem =
            r#"{"kind":"problem","problem":{"kind":"not-found","message":"container x is not there"}}"#;
        let failure = heard(text(problem), &mut out).expect_err("a problem");
        assert_eq!(failure.code(), Code::NotFound);
        for end in [None, Some(Ok(Message::Close(None))), text("{"), text(r#"{"kind":"other"}"#)] {
            let failure = heard(end, &mut out).expect_err("no end that is known");
            assert_eq!(failure.code(), Code::Failed);
        }
        assert_eq!(heard(Some(Ok(Message::binary(vec![9, 1, 2]))), &mut out).expect("passed over"), None);
        assert_eq!(heard(Some(Ok(Message::Ping(Bytes::new()))), &mut out).expect("passed over"), None);
    }
}
