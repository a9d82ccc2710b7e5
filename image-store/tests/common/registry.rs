//! A registry that does what a test tells it, honest or not.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bennu_image_store::sha256;
use bennu_manifests::model::{Digest, ImageRef};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    /// The body, at most 64 KiB with the headers.
    pub(crate) body: String,
    /// How often this path was asked for before.
    pub(crate) earlier: usize,
}

/// What to answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) manner: Manner,
}

/// How it is sent.
pub(crate) enum Manner {
    Honest,
    /// Hang up after this many bytes of the body.
    Cut(usize),
    /// Go on with the body for ever.
    Endless,
    /// Go on with the headers for ever.
    EndlessHeader,
    /// These bytes in place of the answer, and hang up.
    Raw(Vec<u8>),
    /// So many bytes of the body, and then nothing until the client hangs up.
    SilentAfter(usize),
    /// Nothing at all until the client hangs up.
    Silent,
    /// A byte at a time, for ever, with this pause after each.
    Drip(Duration),
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), manner: Manner::Honest }
    }

    pub(crate) fn ok(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::status(200) }.header("Content-Type", media_type)
    }

    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::status(0).sent(Manner::Raw(bytes.into()))
    }

    pub(crate) fn redirect(to: impl Into<String>) -> Self {
        Self::status(307).header("Location", to)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn sent(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    pub(crate) fn cut(self, at: usize) -> Self {
        self.sent(Manner::Cut(at))
    }

    pub(crate) fn endless(self) -> Self {
        self.sent(Manner::Endless)
    }

    /// The part of it that was asked for, where one was.
    pub(crate) fn part(self, seen: &Seen) -> Self {
        let Some((first, last)) = seen.range().filter(|_| self.status == 200) else { return self };
        let total = self.body.len();
        let Some(part) = self.body.get(first..=last) else {
            return Self::status(416).header("Content-Range", format!("bytes */{total}"));
        };
        let header = format!("bytes {first}-{last}/{total}");
        Self { status: 206, body: part.to_vec(), ..self }.header("Content-Range", header)
    }
}

impl Seen {
    /// The first and the last byte that are asked for, where not all are.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

/// A server on loopback; it lives as long as the test's process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_with(Some, answer)
    }

    /// A server that speaks TLS.
    pub(crate) fn start_tls(
        config: Arc<rustls::ServerConfig>,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let accept = move |stream| {
            let connection = rustls::ServerConnection::new(config.clone()).ok()?;
            Some(rustls::StreamOwned::new(connection, stream))
        };
        Self::start_with(accept, answer)
    }

    fn start_with<S: Read + Write>(
        accept: impl Fn(TcpStream) -> Option<S> + Send + Sync + 'static,
        answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = Self { address, seen: Arc::default() };
        let (seen, both) = (server.seen.clone(), Arc::new((accept, answer)));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, both) = (seen.clone(), both.clone());
                // A client that hangs up is nothing that a test looks at here.
                std::thread::spawn(move || serve((both.0)(stream)?, &seen, &both.1));
            }
        });
        server
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic while held").clone()
    }

    /// Whether anybody sent this text here, wherever in a request.
    pub(crate) fn saw(&self, text: &str) -> bool {
        self.seen().iter().any(|seen| {
            let headers = seen.headers.values().any(|value| value.contains(text));
            headers || seen.path.contains(text) || seen.body.contains(text)
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn image(&self, digest: Digest) -> ImageRef {
        ImageRef { registry: self.address.clone(), repository: "a/b".to_owned(), tag: None, digest }
    }
}

fn serve(stream: impl Read + Write, seen: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.take(64 << 10));
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    (&mut reader).take(length).read_to_string(&mut body).ok()?;
    let request = {
        let mut seen = seen.lock().ok()?;
        let earlier = seen.iter().filter(|s| s.path == path).count();
        let request = Seen { path, headers, body, earlier };
        seen.push(request.clone());
        request
    };
    let answer = answer(&request);
    send(answer, reader.get_mut().get_mut())?;
    Some(())
}

fn send(answer: Answer, stream: &mut (impl Read + Write)) -> Option<()> {
    if let Manner::Raw(bytes) = &answer.manner {
        stream.write_all(bytes).ok()?;
        return stream.flush().ok();
    }
    if let Manner::Silent = answer.manner {
        return until_hung_up(stream);
    }
    write!(stream, "HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status).ok()?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n").ok()?;
    }
    let stated =
        answer.headers.iter().any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name));
    match &answer.manner {
        Manner::EndlessHeader => while stream.write_all(b"X: endless\r\n").is_ok() {},
        Manner::Endless | Manner::Drip(_) => {}
        _ if stated => {}
        _ => write!(stream, "Content-Length: {}\r\n", answer.body.len()).ok()?,
    }
    stream.write_all(b"\r\n").ok()?;
    let body = &answer.body;
    let sent = match &answer.manner {
        Manner::Cut(at) | Manner::SilentAfter(at) => *at,
        Manner::Drip(_) => 0,
        _ => body.len(),
    };
    stream.write_all(&body[..sent.min(body.len())]).ok()?;
    stream.flush().ok()?;
    match answer.manner {
        // Until the client hangs up.
        Manner::Endless => while stream.write_all(&[b' '; 4096]).is_ok() {},
        Manner::SilentAfter(_) => until_hung_up(stream)?,
        Manner::Drip(pause) => {
            let mut bytes = body.iter().cycle();
            while stream.write_all(&[*bytes.next().unwrap_or(&b' ')]).is_ok() {
                std::thread::sleep(pause);
            }
        }
        _ => {}
    }
    Some(())
}

fn until_hung_up(stream: &mut impl Read) -> Option<()> {
    io::copy(stream, &mut io::sink()).ok().map(drop)
}

/// An image in parts, to be served as it is or spoiled.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    /// Compressed.
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Parts {
    /// A sound image for `architecture` with these tars as layers, compressed with gzip.
    pub(crate) fn new(architecture: &str, tars: &[Vec<u8>]) -> Self {
        let layers: Vec<_> = tars.iter().map(|tar| gzip(tar)).collect();
        Self::with_layers(architecture, tars, layers, GZIP)
    }

    pub(crate) fn with_layers(
        architecture: &str,
        tars: &[Vec<u8>],
        layers: Vec<Vec<u8>>,
        media_type: &str,
    ) -> Self {
        let diff_ids: Vec<_> = tars.iter().map(|tar| format!("\"{}\"", sha256::digest(tar))).collect();
        let config = format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Cmd":["run"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diff_ids.join(",")
        )
        .into_bytes();
        let listed: Vec<_> = layers.iter().map(|layer| descriptor(media_type, layer)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{},"layers":[{}]}}"#,
            descriptor("application/vnd.oci.image.config.v1+json", &config),
            listed.join(",")
        )
        .into_bytes();
        Self { config, manifest, layers }
    }

    pub(crate) fn digest(&self) -> Digest {
        sha256::digest(&self.manifest)
    }

    /// The honest answer.
    pub(crate) fn answer(&self, path: &str) -> Answer {
        let digest = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/manifests/") && digest == self.digest().to_string() {
            return Answer::ok(MANIFEST, self.manifest.clone());
        }
        let blobs = self.layers.iter().chain([&self.config]);
        let found = blobs.into_iter().find(|blob| sha256::digest(blob).to_string() == digest);
        found.map_or_else(|| Answer::status(404), |blob| Answer::ok("application/octet-stream", blob.clone()))
    }

    /// The honest answer of a server that knows ranges.
    pub(crate) fn answer_to(&self, seen: &Seen) -> Answer {
        self.answer(&seen.path).part(seen)
    }

    pub(crate) fn is_layer(&self, path: &str) -> bool {
        self.layers.iter().any(|layer| path.ends_with(&sha256::digest(layer).to_string()))
    }

    pub(crate) fn serve(self) -> Server {
        Server::start(move |seen| self.answer(&seen.path))
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, sha256::digest(bytes), bytes.len())
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory can be written");
    encoder.finish().expect("memory can be written")
}
