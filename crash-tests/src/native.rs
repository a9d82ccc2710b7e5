//! Two versions of a native image, the second with a patch from the first, and a registry of this process that serves them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bennu_image_store::archive::Form;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions};
use bennu_image_store::{Store, sha256};
use bennu_manifests::model::{Digest, ImageRef};

use crate::scenario::{Failure, Sample};

/// What a pull of the second version is to get along with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Nobody lists the patch.
    Parts,
    /// The patch is listed.
    Patch,
}

/// Bytes of the file of which a version is made: enough for a patch to be looked for.
const FILE: usize = 256 << 10;

/// The two versions.
pub static VERSIONS: LazyLock<[Sample; 2]> = LazyLock::new(|| make().expect("two small images are made"));

fn make() -> Result<[Sample; 2], Failure> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(&folder.path().join("store"), bennu_image_store::Confinement::None)?;
    let [one, two] = [0, 1].map(|version| Sample::of_file(&content(version)));
    let (earlier, later) = (one.pull(&store)?.digest, two.pull(&store)?.digest);
    let export = |image: &Digest, name: &str, from: &[Digest]| -> Result<Sample, Failure> {
        let target = folder.path().join(name);
        let exported = store.export_native(image, &target, Form::Directory, name, 1, from)?;
        let mut documents = Vec::new();
        for entry in std::fs::read_dir(target.join("blobs/sha256"))? {
            let bytes = std::fs::read(entry?.path())?;
            documents.push((sha256::digest(&bytes), bytes));
        }
        Ok(Sample::of_documents(documents, exported.digest))
    };
    Ok([export(&earlier, "one", &[])?, export(&later, "two", &[earlier])?])
}

/// Noise, of which the second version has a byte in each block of the first half changed: that many frames would be fetched.
fn content(version: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(FILE).collect();
    bytes[..FILE / 2].iter_mut().step_by(4096).for_each(|byte| *byte ^= version);
    bytes
}

/// Pulls a version from a registry on loopback, which answers to requests for parts.
///
/// # Errors
/// Those of the pull; also where the second version came in another way than it should.
pub fn pull(store: &Store, version: usize, by: By) -> Result<(), Failure> {
    let sample = &VERSIONS[version];
    let server = Server::start(sample.clone(), by)?;
    let image = ImageRef {
        registry: server.address.clone(),
        repository: "sample".to_owned(),
        tag: None,
        digest: sample.digest(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::new(ClientOptions::default())?;
    runtime.block_on(store.pull(&client, &image, &Platform::linux("amd64"), &()))?;
    let asked = server.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let patch = sample.patch().map(|patch| patch.to_string());
    let patched = patch.is_some_and(|patch| asked.iter().any(|(path, _)| path.ends_with(&patch)));
    let parts = asked.iter().any(|(_, range)| *range);
    match (version, by) {
        (1, By::Patch) if !patched => Err("the patch was not asked for".into()),
        (1, By::Parts) if patched || !parts => Err("no parts were asked for".into()),
        _ => Ok(()),
    }
}

/// A registry that has one image.
struct Server {
    address: String,
    /// Paths, and whether a part was asked for.
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

impl Server {
    fn start(sample: Sample, by: By) -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = Self { address: listener.local_addr()?.to_string(), asked: Arc::default() };
        let (sample, asked) = (Arc::new(sample), server.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (sample, asked) = (sample.clone(), asked.clone());
                // A client that hangs up has what it wanted.
                std::thread::spawn(move || answer(stream, &sample, by, &asked));
            }
        });
        Ok(server)
    }
}

/// Answers one request.
fn answer(mut stream: TcpStream, sample: &Sample, by: By, asked: &Mutex<Vec<(String, bool)>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?.take(64 << 10));
    let mut lines = std::iter::from_fn(|| {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 2).map(|_| line.trim_end().to_owned())
    });
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let range = lines.filter_map(|line| {
        let (name, value) = line.split_once(": bytes=")?;
        let (first, last) = value.split_once('-').filter(|_| name.eq_ignore_ascii_case("range"))?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    let range = range.last();
    asked.lock().unwrap_or_else(PoisonError::into_inner).push((path.clone(), range.is_some()));
    let found = match path.contains("/referrers/") {
        true => sample.referrers().filter(|_| by == By::Patch),
        false => path.rsplit('/').next()?.parse::<Digest>().ok().and_then(|digest| sample.bytes(&digest)),
    };
    let (status, bytes, place) = match (found, range) {
        (None, _) => ("404 Not Found", Vec::new(), None),
        (Some(bytes), None) => ("200 OK", bytes, None),
        (Some(bytes), Some((first, last))) => {
            let place = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
            ("206 Partial Content", bytes.get(first..=last)?.to_vec(), Some(place))
        }
    };
    let kind = if path.contains("/manifests/") { Sample::MANIFEST } else { "application/octet-stream" };
    let head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {kind}\r\n{}Content-Length: {}\r\n\r\n",
        place.unwrap_or_default(),
        bytes.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes)).ok()
}
