//! One HTTP request, for looking at what a container serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Error, tail};

const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// `GET path` from a port of the loopback address: status code and body.
///
/// # Errors
/// [`Error::Answer`] where nobody answers in time, or not in HTTP.
pub fn get(port: u16, path: &str) -> Result<(u16, String), Error> {
    let wrong = |text: String| Error::Answer { who: format!("http://127.0.0.1:{port}{path}"), text };
    let answer = ask(port, path).map_err(|error| wrong(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| wrong(tail(&answer, 500).to_owned()))?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.ok_or_else(|| wrong(head.to_owned()))?, body.to_owned()))
}

/// HTTP/1.0, so that the answer ends with the connection and is not sent in chunks (RFC 1945).
fn ask(port: u16, path: &str) -> std::io::Result<String> {
    let patience = crate::wait::patiently(PATIENCE);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
