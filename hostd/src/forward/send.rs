//! Sending a batch: a connection that is kept for as long as it works.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use bennu_api::LogLine;
use bennu_manifests::model::ForwardKind;
use futures_util::StreamExt as _;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::Target;
use super::{json, syslog};

/// How long a receiver has to take a connection, TLS with it.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it has to take a batch.
const SEND: Duration = Duration::from_secs(30);

/// The most that is read of an answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// The longest pause that a receiver may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Why a batch was not delivered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The receiver is not there, or went away.
    #[error("send to {place}")]
    Away { place: String, source: io::Error },
    /// It does not take it now.
    #[error("{place} answered with HTTP status {status}")]
    Later {
        place: String,
        status: StatusCode,
        /// When to ask again, where it said so.
        after: Option<Duration>,
    },
    /// It will not take this batch, however often it comes.
    #[error("{place} refused lines with HTTP status {status}: {said}")]
    Refused { place: String, status: StatusCode, said: String },
}

/// A way to a receiver.
#[derive(Debug)]
pub(super) struct Sender {
    target: Target,
    /// What the host is called in what is sent.
    host: String,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Stream(Stream),
    Http(SendRequest<Body>),
}

/// A connection with or without TLS.
trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + std::fmt::Debug> Duplex for T {}

type Stream = Box<dyn Duplex>;

impl Sender {
    /// For the lines of the host that is called `host`. Nothing is connected yet.
    pub(super) fn new(target: Target, host: String) -> Self {
        Self { target, host, connection: None }
    }

    /// Sends lines, oldest first. Returns how many of them the receiver says that it did not keep.
    ///
    /// # Errors
    /// Where it did not take them. Some of them may have arrived even so.
    pub(super) async fn send(&mut self, lines: &[&LogLine]) -> Result<u64, SendError> {
        // What is given up half-way is not used again.
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_good() => connection,
            _ => self.connect().await?,
        };
        let lines = lines.iter().copied();
        let sent = match &mut connection {
            Connection::Stream(stream) => {
                let bytes: Vec<u8> = lines.flat_map(|line| syslog::framed(line, &self.host)).collect();
                self.write(stream, &bytes).await
            }
            Connection::Http(requests) => {
                let (body, kind) = match self.target.kind {
                    ForwardKind::Otlp => (json::otlp(lines, &self.host), "application/json"),
                    _ => (json::lines(lines, &self.host), "application/x-ndjson"),
                };
                self.post(requests, body, kind).await
            }
        };
        // One that was answered can be used again, whatever the answer was.
        if !matches!(sent, Err(SendError::Away { .. })) {
            self.connection = Some(connection);
        }
        sent
    }

    async fn connect(&self) -> Result<Connection, SendError> {
        let Target { host, port, tls, kind, .. } = &self.target;
        let connect = async {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let stream: Stream = match tls {
                Some((config, name)) => {
                    Box::new(TlsConnector::from(config.clone()).connect(name.clone(), stream).await?)
                }
                None => Box::new(stream),
            };
            if *kind == ForwardKind::Syslog {
                return Ok(Connection::Stream(stream));
            }
            let (requests, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
            // It ends with its requests, or when the receiver closes it.
            tokio::spawn(async move { drop(connection.await) });
            Ok(Connection::Http(requests))
        };
        let connected = tokio::time::timeout(CONNECT, connect).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|source| self.away(source))
    }

    /// There is no answer in syslog: that the kernel took the bytes is all that is known (RFC 6587, section 3.1). A
    /// receiver that has closed its side is noticed before they are written.
    async fn write(&self, stream: &mut Stream, bytes: &[u8]) -> Result<u64, SendError> {
        let write = async {
            if is_closed(stream).await {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        let written = tokio::time::timeout(SEND, write).await;
        written
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| self.away(source))?;
        Ok(0)
    }

    async fn post(
        &self,
        requests: &mut SendRequest<Body>,
        body: Vec<u8>,
        kind: &'static str,
    ) -> Result<u64, SendError> {
        let request = Request::post(&self.target.path)
            .header(header::HOST, self.authority())
            .header(header::CONTENT_TYPE, kind)
            .header(header::USER_AGENT, concat!("hostd/", env!("CARGO_PKG_VERSION")))
            .body(Body::from(body))
            .map_err(|error| self.away(io::Error::other(error)))?;
        let ask = async {
            requests.ready().await.map_err(io::Error::other)?;
            let response = requests.send_request(request).await.map_err(io::Error::other)?;
            let (head, body) = response.into_parts();
            Ok::<_, io::Error>((head, bounded(body).await?))
        };
        let answered = tokio::time::timeout(SEND, ask).await;
        let (head, answer) = answered
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| self.away(source))?;
        let (place, status) = (self.place(), head.status);
        match status {
            _ if status.is_success() => {
                Ok(if self.target.kind == ForwardKind::Otlp { json::rejected(&answer) } else { 0 })
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(SendError::Later { place, status, after: pause(head.headers.get(header::RETRY_AFTER)) })
            }
            // What this receiver is, and who may write to it, can be put right without losing lines.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                Err(SendError::Later { place, status, after: None })
            }
            _ if status.is_client_error() => {
                let said = String::from_utf8_lossy(&answer).split_whitespace().collect::<Vec<_>>().join(" ");
                Err(SendError::Refused { place, status, said: said.chars().take(200).collect() })
            }
            _ => Err(SendError::Later { place, status, after: pause(head.headers.get(header::RETRY_AFTER)) }),
        }
    }

    fn authority(&self) -> String {
        let Target { host, port, .. } = &self.target;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    fn place(&self) -> String {
        self.authority()
    }

    fn away(&self, source: io::Error) -> SendError {
        SendError::Away { place: self.place(), source }
    }
}

impl Connection {
    fn is_good(&self) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Http(requests) => !requests.is_closed(),
        }
    }
}

/// Whether the other side has closed a stream on which it never says anything: what it says even so is passed over.
async fn is_closed(stream: &mut Stream) -> bool {
    let mut said = [0; 256];
    loop {
        tokio::select! {
            biased;
            read = stream.read(&mut said) => {
                if !matches!(read, Ok(1..)) {
                    return true;
                }
            }
            () = std::future::ready(()) => return false,
        }
    }
}

async fn bounded(body: hyper::body::Incoming) -> io::Result<Vec<u8>> {
    let mut stream = Body::new(body).into_data_stream();
    let mut answer = Vec::new();
    while let Some(chunk) = stream.next().await {
        answer.extend_from_slice(&chunk.map_err(io::Error::other)?);
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is too large"));
        }
    }
    Ok(answer)
}

/// A number of seconds (RFC 9110, section 10.2.3); a date is as good as none.
fn pause(header: Option<&axum::http::HeaderValue>) -> Option<Duration> {
    let seconds = header?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_may_ask_for_a_pause_but_not_for_ever() {
        let header = |text: &'static str| axum::http::HeaderValue::from_static(text);
        assert_eq!(pause(Some(&header("7"))), Some(Duration::from_secs(7)));
        assert_eq!(pause(Some(&header("99999999"))), Some(LONGEST_PAUSE));
        assert_eq!(pause(Some(&header("Wed, 21 Oct 2026 07:28:00 GMT"))), None);
        assert_eq!(pause(None), None);
    }
}
