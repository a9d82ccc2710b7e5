//! Talks to a host: HTTP/1.1 on its Unix socket, or under mutual TLS.
//!
//! `reqwest` is named here and nowhere else. Every answer is bounded in bytes, and in time where it does not follow
//! something that goes on.

use std::error::Error;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bennu_api::Problem;
use futures_util::{Stream, stream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::cli::Global;
use crate::exit::Failure;

/// Where a host's own socket is.
pub(crate) const SOCKET: &str = "/run/bennu/hostd.sock";

/// How long the host has to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the host has to answer, where the answer has an end.
const ANSWER: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// How much of a file is handed over at once, in bytes.
const PIECE: usize = 128 << 10;
/// The longest line of a stream, in bytes.
const MAX_LINE: usize = 1 << 20;

/// A host that can be asked.
#[derive(Debug)]
pub(crate) struct Host {
    http: reqwest::Client,
    base: String,
    address: String,
    way: Way,
}

/// How a connection is made that is no request of HTTP alone.
#[derive(Debug)]
enum Way {
    Socket(PathBuf),
    Tls { authority: String, config: Arc<ClientConfig> },
}

/// A connection to a host.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a host, whichever way.
pub(crate) type Connection = Box<dyn Duplex>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The host was not reached, or went away: it may be restarting.
    Lost(Failure),
    /// It, or TLS, said no.
    Refused(Failure),
}

impl From<NoAnswer> for Failure {
    fn from(no: NoAnswer) -> Self {
        match no {
            NoAnswer::Lost(failure) | NoAnswer::Refused(failure) => failure,
        }
    }
}

impl Host {
    /// Chooses the host and reads the keys for it. Nothing is sent yet.
    pub(crate) fn choose(global: &Global) -> Result<Self, Failure> {
        let address = match &global.host {
            Some(address) => address.clone(),
            None if Path::new(SOCKET).exists() => SOCKET.to_owned(),
            None => {
                let advice = "give --host https://HOST:PORT (or --host /path/of/a.sock), or set BENNU_HOST";
                return Err(Failure::invalid("no host is named, and none runs here").advice(advice));
            }
        };
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            // Hosts are reached directly: what the environment says about proxies is about the web.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base, way) = if let Some(authority) = address.strip_prefix("https://") {
            let authority = authority.trim_end_matches('/');
            if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
                return Err(Failure::invalid(format!("{address} is no address of a host"))
                    .advice("write it as https://HOST:PORT"));
            }
            let tls = tls(&identity_dir(global)?)?;
            let way = Way::Tls { authority: authority.to_owned(), config: Arc::new(tls.clone()) };
            (builder.tls_backend_preconfigured(tls).https_only(true), format!("https://{authority}"), way)
        } else if address.contains("://") {
            return Err(Failure::invalid(format!("{address} is no address of a host")).advice(
                "the API is https://HOST:PORT with certificates on both sides, or the path of a Unix socket",
            ));
        } else {
            // No TLS is spoken over the socket, but the client is made with it in every case.
            (
                builder.tls_backend_preconfigured(no_tls()).unix_socket(Path::new(&address)),
                "http://host".to_owned(),
                Way::Socket(PathBuf::from(&address)),
            )
        };
        let http = builder.build().map_err(|e| Failure::failed("set up the client").because(e))?;
        Ok(Self { http, base, address, way })
    }

    /// Where it is, as it was named.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it is called in requests.
    pub(crate) fn authority(&self) -> &str {
        match &self.way {
            Way::Socket(_) => "host",
            Way::Tls { authority, .. } => authority,
        }
    }

    /// Connects, for what is no request and an answer.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let address = &self.address;
        let connect = async {
            Ok::<Connection, Failure>(match &self.way {
                Way::Socket(path) => {
                    Box::new(UnixStream::connect(path).await.map_err(|e| not_reached(address, &e))?)
                }
                Way::Tls { authority, config } => {
                    let (host, port) = parts(authority);
                    let name = ServerName::try_from(host.to_owned()).map_err(|e| {
                        Failure::invalid(format!("{address} is no address of a host")).because(e)
                    })?;
                    let stream =
                        TcpStream::connect((host, port)).await.map_err(|e| not_reached(address, &e))?;
                    let connected = TlsConnector::from(config.clone()).connect(name, stream).await;
                    Box::new(connected.map_err(|e| match e.get_ref().and_then(|e| e.downcast_ref()) {
                        Some(tls) => tls_refused(address, tls),
                        None => not_reached(address, &e),
                    })?)
                }
            })
        };
        let late = |_| Err(Failure::failed(format!("no answer from {address}")).because("it took too long"));
        tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(late)
    }

    /// Asks for `path`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, NoAnswer> {
        let request = self.http.get(format!("{}{path}", self.base)).timeout(ANSWER);
        self.whole(request).await
    }

    /// Hands `body` to `path`.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, NoAnswer> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body).timeout(ANSWER);
        self.whole(request).await
    }

    /// Hands `body` to `path`, which may take as long as containers take to stop.
    pub(crate) async fn post_patiently<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, NoAnswer> {
        self.whole(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    /// Hands a file to `path`, or standard input where it is `-`, piece by piece.
    pub(crate) async fn post_file<T: DeserializeOwned>(&self, path: &str, file: &Path) -> Result<T, Failure> {
        let from: Box<dyn AsyncRead + Send + Unpin> = if file == Path::new("-") {
            Box::new(tokio::io::stdin())
        } else {
            let unreadable = |e| Failure::failed(format!("read {}", file.display())).because(e);
            Box::new(tokio::fs::File::open(file).await.map_err(unreadable)?)
        };
        let body = reqwest::Body::wrap_stream(pieces(from));
        Ok(self.whole(self.http.post(format!("{}{path}", self.base)).body(body)).await?)
    }

    /// Has something removed.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), NoAnswer> {
        self.send(self.http.delete(format!("{}{path}", self.base))).await.map(drop)
    }

    /// Asks for bytes that may be many.
    pub(crate) async fn get_bytes(&self, path: &str) -> Result<Bytes, NoAnswer> {
        let response = self.send(self.http.get(format!("{}{path}", self.base))).await?;
        Ok(Bytes { response, address: self.address.clone() })
    }

    /// Asks for a stream.
    pub(crate) async fn get_lines(&self, path: &str) -> Result<Lines, NoAnswer> {
        self.lines(self.http.get(format!("{}{path}", self.base))).await
    }

    /// Hands `body` to `path`, which answers with a stream.
    pub(crate) async fn post_lines(&self, path: &str, body: &impl Serialize) -> Result<Lines, NoAnswer> {
        self.lines(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    async fn whole<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T, NoAnswer> {
        let response = self.send(request).await?;
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|e| NoAnswer::Refused(self.strange().because(e)))
    }

    async fn lines(&self, request: reqwest::RequestBuilder) -> Result<Lines, NoAnswer> {
        let response = self.send(request).await?;
        Ok(Lines { response, buffer: Vec::new(), address: self.address.clone() })
    }

    /// Sends, and turns an answer that is not a success into its problem.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, NoAnswer> {
        let response = request.send().await.map_err(|e| no_answer(&self.address, e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response).await?;
        Err(NoAnswer::Refused(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.into(),
            Err(_) => self.strange().because(format!("it answered with HTTP status {status}")),
        }))
    }

    async fn body(&self, mut response: reqwest::Response) -> Result<Vec<u8>, NoAnswer> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| no_answer(&self.address, e))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(NoAnswer::Refused(
                    self.strange().because(format!("the answer is larger than {MAX_ANSWER} bytes")),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn strange(&self) -> Failure {
        Failure::failed(format!("{} does not speak the API of this hostctl", self.address))
            .advice("check the address, and that hostctl and the host are of about the same version")
    }
}

/// What is read, piece by piece; an error ends it.
fn pieces(
    from: impl AsyncRead + Send + Unpin + 'static,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    stream::try_unfold(from, |mut from| async move {
        let mut piece = vec![0; PIECE];
        let read = from.read(&mut piece).await?;
        piece.truncate(read);
        Ok((read > 0).then_some((piece, from)))
    })
}

/// A stream of bytes.
#[derive(Debug)]
pub(crate) struct Bytes {
    response: reqwest::Response,
    address: String,
}

impl Bytes {
    /// The next piece; `None` at the end, and an error where the host broke off.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let broken = |e| Failure::from(no_answer(&self.address, e));
        Ok(self.response.chunk().await.map_err(broken)?.map(Into::into))
    }
}

/// A stream of JSON values, one a line.
#[derive(Debug)]
pub(crate) struct Lines {
    response: reqwest::Response,
    buffer: Vec<u8>,
    address: String,
}

impl Lines {
    /// The next value; `None` at the end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let strange = |address: &str| Failure::failed(format!("read what {address} sends"));
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + at).collect();
                searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|e| strange(&self.address).because(e));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                return Err(strange(&self.address).because(format!("a line is longer than {MAX_LINE} bytes")));
            }
            match self.response.chunk().await.map_err(|e| Failure::from(no_answer(&self.address, e)))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => return Err(strange(&self.address).because("it ended in the middle of a line")),
            }
        }
    }
}

/// The folder of the operator's certificate and key.
fn identity_dir(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(dir) = &global.identity {
        return Ok(dir.clone());
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(std::env::home_dir()?.join(".config")));
    config.map(|dir| dir.join("bennu")).ok_or_else(|| {
        Failure::invalid("there is no home directory to find an identity in").advice("give --identity DIR")
    })
}

/// TLS that trusts the operators' authority alone, and shows the operator's certificate.
fn tls(dir: &Path) -> Result<ClientConfig, Failure> {
    let pem = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|e| {
            Failure::failed(format!("read {}", path.display())).because(e).advice(
                "give the folder of ca.crt, client.crt and client.key with --identity; \
                 `hostctl provision --dir DIR` made it as DIR/operator",
            )
        })
    };
    let unusable = |name: &str| Failure::failed(format!("{} cannot be used", dir.join(name).display()));
    let certificates = |name: &str| {
        let list = CertificateDer::pem_slice_iter(&pem(name)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| unusable(name).because(e))?;
        if list.is_empty() { Err(unusable(name).because("it holds no certificate")) } else { Ok(list) }
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca.crt")? {
        roots.add(authority).map_err(|e| unusable("ca.crt").because(e))?;
    }
    let chain = certificates("client.crt")?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem("client.key")?).map_err(|e| unusable("client.key").because(e))?;
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions of TLS");
    builder
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| unusable("client.crt with client.key").because(e))
}

/// TLS that trusts nobody, for a client that speaks none.
fn no_tls() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions of TLS")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// What went wrong on the way, in words that say what to do.
fn no_answer(address: &str, error: reqwest::Error) -> NoAnswer {
    let (mut tls, mut io) = (None, None);
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(at) = cause {
        let inner = at.downcast_ref::<std::io::Error>();
        if let Some(found) = inner {
            io = Some((found.kind(), found.to_string()));
        }
        // An I/O error hides what it was made from in a place of its own.
        let wrapped = inner.and_then(std::io::Error::get_ref).map(|e| e as &(dyn Error + 'static));
        for place in [Some(at), wrapped].into_iter().flatten() {
            if let Some(found) = place.downcast_ref::<rustls::Error>() {
                tls = Some(found.clone());
            }
        }
        cause = wrapped.or_else(|| at.source());
    }
    if let Some(tls) = tls {
        return NoAnswer::Refused(tls_refused(address, &tls));
    }
    let message = format!("no answer from {address}");
    if error.is_timeout() {
        return NoAnswer::Lost(
            Failure::failed(message)
                .because("it took too long")
                .advice("check that the address is right and the host is up"),
        );
    }
    let Some((kind, text)) = io else {
        // No request of ours is malformed: what is left is a connection that ended at the wrong place.
        return NoAnswer::Lost(Failure::failed(message).because(error.without_url()));
    };
    NoAnswer::Lost(advised(Failure::failed(message).because(text), kind))
}

fn not_reached(address: &str, error: &std::io::Error) -> Failure {
    advised(Failure::failed(format!("no answer from {address}")).because(error.to_string()), error.kind())
}

fn advised(failure: Failure, kind: ErrorKind) -> Failure {
    match kind {
        ErrorKind::ConnectionRefused => {
            failure.advice("nothing listens there: check the address, and that the host is up and hostd runs")
        }
        ErrorKind::NotFound => failure.advice("there is no such socket: is hostd running on this machine?"),
        ErrorKind::PermissionDenied => failure.advice("the socket is for root: use sudo"),
        _ => failure,
    }
}

/// The port of HTTPS where none is said.
const HTTPS: u16 = 443;

/// Host and port of an authority; an IPv6 address stands in brackets there (RFC 3986, section 3.2.2).
fn parts(authority: &str) -> (&str, u16) {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(HTTPS)),
        _ => (authority, HTTPS),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn tls_refused(address: &str, error: &rustls::Error) -> Failure {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    let (message, advice) = match error {
        Tls::AlertReceived(
            Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure,
        ) => (
            format!("{address} does not let this client certificate in"),
            "give the identity that the host was provisioned with: --identity DIR/operator",
        ),
        Tls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => (
            format!("the certificate of {address} was not made by this identity's authority"),
            "another host answers there, or it was provisioned with another identity: see --identity",
        ),
        Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => (
            format!("the certificate of {address} is for other names"),
            "use an address that `hostctl provision --address` was given",
        ),
        Tls::InvalidCertificate(
            Bad::Expired | Bad::ExpiredContext { .. } | Bad::NotValidYet | Bad::NotValidYetContext { .. },
        ) => (
            format!("the certificate of {address} is not valid at this time"),
            "check this machine's clock; if it is right, provision the host anew",
        ),
        _ => (format!("no TLS connection with {address}"), "is it the API of a host that listens there?"),
    };
    Failure::failed(message).because(error.clone()).advice(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for (authority, expected) in [
            ("attic.example:7443", ("attic.example", 7443)),
            ("attic.example", ("attic.example", 443)),
            ("192.0.2.1:1", ("192.0.2.1", 1)),
            ("[2001:db8::1]:7443", ("2001:db8::1", 7443)),
            ("[2001:db8::1]", ("2001:db8::1", 443)),
        ] {
            assert_eq!(parts(authority), expected, "{authority}");
        }
    }
}
