//! A server that says what a test wants it to say: HTTP/1.1 over TCP, TLS or a Unix socket, one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// As `GET /v1/status`.
    pub(crate) line: String,
    /// The value of `Authorization`, or nothing.
    pub(crate) authorization: String,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// What is answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self { status, media_type: "application/json".to_owned(), body: body.to_string().into_bytes() }
    }

    /// One value a line.
    pub(crate) fn lines(values: &[serde_json::Value]) -> Self {
        let body: String = values.iter().map(|value| format!("{value}\n")).collect();
        Self { status: 200, media_type: "application/x-ndjson".to_owned(), body: body.into_bytes() }
    }
}

/// The answers, and all that was asked.
pub(crate) struct Script {
    answer: Box<dyn Fn(&Asked) -> Answer + Send + Sync>,
    asked: Mutex<Vec<Asked>>,
}

impl Script {
    pub(crate) fn new(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), asked: Mutex::default() })
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panics while it holds it").clone()
    }

    /// Answers one request; a client that goes away is its own business.
    fn serve(&self, stream: impl Read + Write) {
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).is_err() || line.is_empty() {
                return;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a client sends a number");
            }
            head.push(line);
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let mut words = head[0].split_whitespace();
        let line = format!("{} {}", words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let shown = head.iter().filter_map(|line| line.split_once(": "));
        let shown = shown.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let authorization = shown.map(|(_, value)| value.trim().to_owned()).collect();
        let asked = Asked { line, authorization, body };
        let answer = (self.answer)(&asked);
        self.asked.lock().expect("no test panics while it holds it").push(asked);
        // A server has to say how one may be let in (RFC 9110, section 15.5.2).
        let challenge = if answer.status == 401 { "www-authenticate: Basic realm=\"x\"\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} X\r\n{challenge}content-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.status,
            answer.media_type,
            answer.body.len()
        );
        let stream = stream.get_mut();
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&answer.body));
        let _ = stream.flush();
    }

    /// Serves on a Unix socket for as long as the test lasts.
    pub(crate) fn on_socket(self: &Arc<Self>, path: &Path) {
        let listener = UnixListener::bind(path).expect("the socket is free");
        let script = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                script.serve(stream);
            }
        });
    }

    /// Serves HTTP on a free port of loopback.
    pub(crate) fn on_loopback(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let script = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                script.serve(stream);
            }
        });
        address
    }

    /// Serves HTTP under TLS on a free port of loopback.
    pub(crate) fn on_loopback_with(self: &Arc<Self>, tls: rustls::ServerConfig) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (script, tls) = (self.clone(), Arc::new(tls));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let session = rustls::ServerConnection::new(tls.clone()).expect("the configuration is sound");
                let mut stream = rustls::StreamOwned::new(session, stream);
                // As a server does: a client that is refused is told why, and then left.
                while stream.conn.is_handshaking() {
                    if stream.conn.complete_io(&mut stream.sock).is_err() {
                        let _ = stream.conn.complete_io(&mut stream.sock);
                        break;
                    }
                }
                if !stream.conn.is_handshaking() {
                    script.serve(&mut stream);
                    stream.conn.send_close_notify();
                    let _ = stream.conn.complete_io(&mut stream.sock);
                }
            }
        });
        address
    }
}
