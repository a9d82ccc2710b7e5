//! Asking a container whether it does its work: by a program in it, a page of it, or a port of it.
//!
//! Ports and pages are asked from within the container's own network, so it makes no difference which networks it is on and
//! what may be reached from the host.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Uri, header};
use bennu_api::ExecOutput;
use bennu_manifests::model::Probe;
use bennu_planner::Instance;
use futures_util::{StreamExt as _, pin_mut};
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::Host;
use super::record::{self, Record};

/// The longest piece of what a program says that is told, in bytes.
const MAX_SAID: usize = 256;

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Probing<'a> {
    /// How it is asked.
    pub probe: Probe<'a>,
    /// How long the answer may take.
    pub timeout: Duration,
}

impl Host {
    /// The number of the first process of an instance, as it was when it was started last.
    pub fn process(&self, instance: &Instance) -> Option<u32> {
        let text = std::fs::read_to_string(self.paths.instance(instance).join("pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Asks an instance.
    ///
    /// # Errors
    /// Says in words for people why the answer is no.
    pub async fn probe(&self, instance: &Instance, probing: Probing<'_>) -> Result<(), String> {
        let ask = async {
            match probing.probe {
                Probe::Exec(command) => self.ask_program(instance, command).await,
                Probe::Tcp(port) => self.reach(instance, port, probing.timeout).await.map(drop),
                Probe::Http(url) => self.ask_page(instance, url, probing.timeout).await,
            }
        };
        let late = |_| Err(format!("no answer within {} ms", probing.timeout.as_millis()));
        tokio::time::timeout(probing.timeout, ask).await.unwrap_or_else(late)
    }

    async fn ask_program(&self, instance: &Instance, command: &[String]) -> Result<(), String> {
        let output = self.exec(instance, command).await.map_err(|error| crate::core::chain(&error))?;
        pin_mut!(output);
        let mut said = String::new();
        while let Some(piece) = output.next().await {
            match piece {
                ExecOutput::Exit { code: 0 } => return Ok(()),
                ExecOutput::Exit { code } => {
                    let said = said.trim();
                    return Err(if said.is_empty() {
                        format!("code {code}")
                    } else {
                        format!("code {code}: {said}")
                    });
                }
                ExecOutput::Stdout { data } | ExecOutput::Stderr { data } => {
                    use base64::Engine as _;
                    let bytes = base64::prelude::BASE64_STANDARD.decode(data).unwrap_or_default();
                    let left = MAX_SAID.saturating_sub(said.len()).min(bytes.len());
                    said.push_str(&String::from_utf8_lossy(&bytes[..left]));
                }
            }
        }
        Err("the program was ended".to_owned())
    }

    async fn ask_page(&self, instance: &Instance, url: &str, timeout: Duration) -> Result<(), String> {
        // The host part may be left out, which no URI allows.
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let full = if rest.starts_with(':') { format!("{scheme}://localhost{rest}") } else { url.to_owned() };
        let uri: Uri = full.parse().map_err(|error| format!("{url}: {error}"))?;
        let port = uri.port_u16().unwrap_or(80);
        let stream = self.reach(instance, port, timeout).await?;
        get(stream, &uri).await.map_err(|error| format!("GET {url}: {error}"))
    }

    /// Connects to a port of an instance.
    async fn reach(
        &self,
        instance: &Instance,
        port: u16,
        timeout: Duration,
    ) -> Result<tokio::net::TcpStream, String> {
        let dir = self.paths.instance(instance);
        let record = record::read::<Record>(&dir.join("record.json")).ok().flatten();
        let own = record.and_then(|record| record.networks.first().map(|membership| membership.address));
        let address = SocketAddr::new(IpAddr::V4(own.unwrap_or(Ipv4Addr::LOCALHOST)), port);
        let failed = |error: io::Error| format!("port {port}: {error}");
        let stream = connect_in(dir.join("ns/net"), address, timeout).await.map_err(failed)?;
        tokio::net::TcpStream::from_std(stream).map_err(failed)
    }
}

/// Asks for a page over a connection; an answer from 200 to 399 is good.
async fn get(stream: tokio::net::TcpStream, uri: &Uri) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("localhost", |authority| authority.as_str());
    let request = Request::get(path).header(header::HOST, host).header(header::CONNECTION, "close");
    let request = request.body(Body::empty()).map_err(|e| failed(&e))?;
    // Only the status counts, so the rest of the answer is left where it is. A server that closes the connection behind its
    // answer ends both at once: then the answer is there already.
    let answer = sender.send_request(request);
    pin_mut!(answer, connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ended = &mut connection => answer.await,
    };
    let status = answer.map_err(|e| failed(&e))?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(status.to_string()) }
}

/// Connects from within a network namespace. A thread of its own enters it and ends there: the daemon's own threads stay
/// where they are, and the socket belongs to the namespace in which it was made (network_namespaces(7)).
async fn connect_in(namespace: PathBuf, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("probe".to_owned()).stack_size(64 << 10).spawn(move || {
        let connected = enter(&namespace).and_then(|()| {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        // Nobody may wait any more.
        drop(sender.send(connected));
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the thread that connects ended")))
}

/// An instance with the host's own network has no namespace to enter.
fn enter(namespace: &std::path::Path) -> io::Result<()> {
    match File::open(namespace) {
        Ok(file) => Ok(setns(file, CloneFlags::CLONE_NEWNET)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Asks a server that gives this answer at once and closes the connection.
    async fn asked(answer: &'static str) -> Result<(), String> {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let stream = connect_in("/nowhere".into(), address, Duration::from_secs(10)).await.unwrap();
        let uri = "http://localhost/well".parse().unwrap();
        let answered = get(tokio::net::TcpStream::from_std(stream).unwrap(), &uri).await;
        serving.join().unwrap();
        answered
    }

    #[tokio::test]
    async fn an_answer_counts_also_where_the_connection_ends_with_it() {
        for _ in 0..50 {
            assert_eq!(
                asked("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await,
                Ok(())
            );
        }
        assert_eq!(asked("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n").await, Ok(()));
        let broken = asked("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(broken, Err("503 Service Unavailable".to_owned()));
        assert!(asked("").await.is_err() && asked("SSH-2.0-x\r\n").await.is_err());
    }
}
