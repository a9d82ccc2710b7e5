//! T12: what a registry may do to those who pull from it, a line each.
//!
//! Every registry here first asks for a password, and gets it. Whatever it does then, the pull ends, says what was wrong, leaves
//! nothing in the store, and nobody else has seen the password.

mod common;

use std::time::Duration;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, Credentials};
use bennu_image_store::{PullError, Store, sha256};
use bennu_manifests::model::Digest;
use common::Tar;
use common::registry::{Answer, GZIP, INDEX, MANIFEST, Manner, Parts, Seen, Server, descriptor, gzip};
use futures_util::stream::{self, StreamExt};

/// `ci:hunter2` as RFC 7617 writes it.
const BASIC: &str = "Basic Y2k6aHVudGVyMg==";
/// No pull takes longer, whatever its registry does.
const DEADLINE: Duration = Duration::from_secs(60);
const DROP: Duration = Duration::from_millis(20);

/// What a pull ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// It is hostile: nobody should try again.
    Refused,
    /// The registry does not want us, or says something that will not pass.
    Denied,
    NotFound,
    /// It may pass.
    Network,
    WrongPlatform,
}
use Ends::{Denied, Network, NotFound, Refused, WrongPlatform};

/// What the lines are about.
#[derive(Clone)]
struct Stage {
    parts: Parts,
    /// A server that the registry has no business to lead us to with a password.
    stranger: Server,
}

type Behaviour = Box<dyn Fn(&Seen, &Stage) -> Answer + Send + Sync>;

struct Line {
    name: &'static str,
    ends: Ends,
    /// Whether it is asked by somebody with little patience, for it would keep him waiting.
    slow: bool,
    /// What is asked for.
    digest: Digest,
    behaviour: Behaviour,
}

fn parts() -> Parts {
    Parts::new("amd64", &[Tar::new().file("file", vec![7; 50_000]).end()])
}

fn is_let_in(seen: &Seen) -> bool {
    seen.headers.get("authorization").is_some_and(|shown| shown == BASIC)
}

fn challenge(challenge: impl Into<String>) -> Answer {
    Answer::status(401).header("WWW-Authenticate", challenge)
}

/// The honest answer to who shows the password.
fn honest(seen: &Seen, stage: &Stage) -> Answer {
    if is_let_in(seen) { stage.parts.answer_to(seen) } else { challenge("Basic realm=\"x\"") }
}

/// A registry that behaves like this in everything.
fn always(
    name: &'static str,
    ends: Ends,
    behaviour: impl Fn(&Seen, &Stage) -> Answer + Send + Sync + 'static,
) -> Line {
    Line { name, ends, slow: false, digest: parts().digest(), behaviour: Box::new(behaviour) }
}

/// The same, asked by somebody with little patience.
fn slow(line: Line) -> Line {
    Line { slow: true, ..line }
}

/// One that is honest but for what it does with the answers that are to be spoiled.
fn spoiled(
    name: &'static str,
    ends: Ends,
    which: fn(&Seen, &Stage) -> bool,
    spoil: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> Line {
    always(name, ends, move |seen, stage| {
        let answer = honest(seen, stage);
        if is_let_in(seen) && which(seen, stage) { spoil(answer) } else { answer }
    })
}

fn manifest(
    name: &'static str,
    ends: Ends,
    spoil: impl Fn(Answer) -> Answer + Send + Sync + 'static,
) -> Line {
    spoiled(name, ends, |seen, _| seen.path.contains("/manifests/"), spoil)
}

fn config(name: &'static str, ends: Ends, spoil: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Line {
    let is_config =
        |seen: &Seen, stage: &Stage| seen.path.contains("/blobs/") && !stage.parts.is_layer(&seen.path);
    spoiled(name, ends, is_config, spoil)
}

fn layer(name: &'static str, ends: Ends, spoil: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Line {
    spoiled(name, ends, |seen, stage| stage.parts.is_layer(&seen.path), spoil)
}

/// One that serves this document under its own digest, and other things as they are.
fn document(name: &'static str, ends: Ends, media_type: &'static str, body: impl Into<Vec<u8>>) -> Line {
    let body = body.into();
    let digest = sha256::digest(&body);
    let path = digest.to_string();
    let line = always(name, ends, move |seen, stage| match seen.path.ends_with(&path) {
        true if is_let_in(seen) => Answer::ok(media_type, body.clone()),
        _ => honest(seen, stage),
    });
    Line { digest, ..line }
}

/// One that serves another image.
fn image(name: &'static str, ends: Ends, parts: Parts) -> Line {
    let digest = parts.digest();
    let line = always(
        name,
        ends,
        move |seen, stage| {
            if is_let_in(seen) { parts.answer_to(seen) } else { honest(seen, stage) }
        },
    );
    Line { digest, ..line }
}

/// One that leads those who were let in elsewhere.
fn redirect(name: &'static str, location: &'static str) -> Line {
    manifest(name, Refused, move |_| Answer::redirect(location))
}

/// One that asks for a token in this way.
fn realm(name: &'static str, ends: Ends, realm: &'static str) -> Line {
    always(name, ends, move |_, _| challenge(format!("Bearer realm=\"{realm}\",service=\"s\"")))
}

/// One whose own token server, at the same address, answers like this.
fn token(name: &'static str, ends: Ends, answer: impl Fn(&Stage) -> Answer + Send + Sync + 'static) -> Line {
    always(name, ends, move |seen, stage| match seen.path.starts_with("/token") {
        true => answer(stage),
        false => {
            let own = seen.headers.get("host").map(String::as_str).unwrap_or_default();
            challenge(format!("Bearer realm=\"http://{own}/token\""))
        }
    })
}

fn json(body: &'static str) -> impl Fn(&Stage) -> Answer {
    move |_| Answer::ok("application/json", body)
}

fn documents() -> Vec<Line> {
    let sound = String::from_utf8(parts().manifest).expect("text");
    let config = sha256::digest(&parts().config).to_string();
    let layer = descriptor(GZIP, &parts().layers[0]);
    let with_digest = |digest: &str| sound.replace(&config, digest);
    let listed = |media_type: &str, platform: &str| {
        let entry = descriptor(media_type, &parts().manifest);
        let entry = format!("{},\"platform\":{platform}}}", entry.trim_end_matches('}'));
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{entry}]}}"#)
    };
    const AMD64: &str = r#"{"architecture":"amd64","os":"linux"}"#;
    let many = |count: usize| format!("\"layers\":[{}]", vec![layer.as_str(); count].join(","));
    let layers = |with: &str| sound.replace(&format!("\"layers\":[{layer}]"), with);
    let urls = layer.replace("\"size\"", "\"urls\":[\"http://169.254.169.254/\"],\"size\"");
    let foreign = urls.replace(GZIP, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    let with_media_type = |media_type: &str| sound.replace(MANIFEST, media_type);
    let m = |name, body: String| document(name, Refused, MANIFEST, body);
    vec![
        m("manifests and layers", sound.replace("\"config\"", "\"manifests\":[],\"config\"")),
        document(
            "an index with layers",
            Refused,
            INDEX,
            listed(MANIFEST, AMD64).replace("\"manifests\"", "\"layers\":[],\"manifests\""),
        ),
        m("a digest that is a path", with_digest("sha256:../../../../etc/passwd")),
        m("a digest in upper case", with_digest(&config.to_uppercase())),
        m("a digest with upper case in it", with_digest(&config.replace(['a', 'b', 'c'], "A"))),
        m("a digest of sha512", with_digest(&format!("sha512:{}", "ab".repeat(64)))),
        m("a digest that is cut", with_digest(&config[..40])),
        m("a digest without its algorithm", with_digest(&config[7..])),
        m("a digest that is empty", with_digest("")),
        m("a size below zero", sound.replace("\"size\":", "\"size\":-")),
        m("a size that does not fit", sound.replace("\"size\":", "\"size\":99999999999999999999")),
        m("a size that is text", sound.replace("\"size\":", "\"size\":\"1\",\"x\":")),
        m("a schema of the future", sound.replace("\"schemaVersion\":2", "\"schemaVersion\":3")),
        m("no schema", sound.replace("\"schemaVersion\":2,", "")),
        document(
            "schema 1",
            Refused,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            r#"{"schemaVersion":1,"name":"a/b","tag":"1","architecture":"amd64","fsLayers":[],"history":[]}"#,
        ),
        m("the same key twice", sound.replace("\"layers\":", "\"layers\":[],\"layers\":")),
        m("no layers", layers("\"x\":1")),
        m("more layers than there may be", layers(&many(257))),
        m("another number of layers than the configuration says", layers(&many(2))),
        m("a layer that is to be fetched from elsewhere", layers(&format!("\"layers\":[{foreign}]"))),
        m("a layer of a strange type", sound.replace(GZIP, "application/zip")),
        m("a chart and not an image", sound.replace("image.config.v1", "helm.config.v1")),
        m("deep brackets", "[".repeat(100_000)),
        m("something behind the end", format!("{sound} {{}}")),
        m("nothing", String::new()),
        m("no JSON", "<html>please log in</html>".to_owned()),
        document("no UTF-8", Refused, MANIFEST, [sound.as_bytes(), b"\xff"].concat()),
        document("an index in an index", Refused, INDEX, listed(INDEX, AMD64)),
        document(
            "an index of what is not there",
            NotFound,
            INDEX,
            listed(MANIFEST, AMD64)
                .replace(&parts().digest().to_string(), &format!("sha256:{}", "ab".repeat(32))),
        ),
        document(
            "an index without our platform",
            WrongPlatform,
            INDEX,
            listed(MANIFEST, r#"{"architecture":"s390x","os":"linux"}"#),
        ),
        document(
            "a type that is another one than it is served as",
            Refused,
            MANIFEST,
            with_media_type("application/vnd.docker.distribution.manifest.v2+json"),
        ),
    ]
}

fn images() -> Vec<Line> {
    let tar = || Tar::new().file("file", "x").end();
    let with = |tar: Vec<u8>, layer: Vec<u8>| Parts::with_layers("amd64", &[tar], vec![layer], GZIP);
    let strange = |from: &str, to: &str| {
        let mut parts = Parts::new("amd64", &[tar()]);
        let text = String::from_utf8(parts.config.clone()).expect("text").replace(from, to);
        let manifest = String::from_utf8(parts.manifest.clone()).expect("text");
        let kind = "application/vnd.oci.image.config.v1+json";
        let manifest = manifest.replace(&descriptor(kind, &parts.config), &descriptor(kind, text.as_bytes()));
        (parts.config, parts.manifest) = (text.into_bytes(), manifest.into_bytes());
        parts
    };
    let hostile = Tar::new().file("../../etc/passwd", "x").end();
    vec![
        image("another architecture", WrongPlatform, Parts::new("arm64", &[tar()])),
        image("another system", WrongPlatform, strange("\"linux\"", "\"windows\"")),
        image("a configuration that is no JSON", Refused, strange("{", "")),
        image("a diff id that is a path", Refused, strange("\"sha256:", "\"sha256:../")),
        image("a layer of another image", Refused, with(tar(), gzip(&Tar::new().file("other", "x").end()))),
        image("a layer that leaves its tree", Refused, with(hostile.clone(), gzip(&hostile))),
        image("a layer that is no gzip", Refused, with(tar(), b"hello".to_vec())),
        image("a layer that is half a gzip", Refused, with(tar(), gzip(&tar())[..60].to_vec())),
        image("a layer that is empty", Refused, with(tar(), Vec::new())),
    ]
}

fn bodies() -> Vec<Line> {
    let flipped = |mut answer: Answer| {
        let middle = answer.body.len() / 2;
        answer.body[middle] ^= 1;
        answer
    };
    let longer = |mut answer: Answer| {
        answer.body.push(b' ');
        answer
    };
    let packed = |answer: Answer| {
        let body = gzip(&answer.body);
        Answer { body, ..answer }.header("Content-Encoding", "gzip")
    };
    let chunked = |text: &'static [u8]| {
        move |answer: Answer| Answer { body: text.into(), ..answer }.header("Transfer-Encoding", "chunked")
    };
    let length = |length: &'static str| move |answer: Answer| answer.header("Content-Length", length);
    let junk = |text: &'static str| move |_: Answer| Answer::raw(text);
    let all = |text: &'static str| move |_: &Seen, _: &Stage| Answer::raw(text);
    vec![
        manifest("a manifest with another digest", Refused, flipped),
        config("a configuration with another digest", Refused, flipped),
        layer("a layer with another digest", Refused, flipped),
        manifest("a manifest with a byte more", Refused, longer),
        config("a configuration with a byte more", Refused, longer),
        layer("a layer with a byte more", Refused, longer),
        manifest("a manifest as a page", Refused, |answer| Answer::ok("text/html", answer.body)),
        manifest("a manifest as an index", Refused, |answer| Answer::ok(INDEX, answer.body)),
        manifest("a manifest as nothing", Refused, |answer| Answer {
            body: answer.body,
            ..Answer::status(200)
        }),
        manifest("a manifest in gzip", Refused, packed),
        config("a configuration in gzip", Refused, packed),
        layer("a layer in gzip once more", Refused, packed),
        manifest("an endless manifest", Refused, Answer::endless),
        config("an endless configuration", Refused, Answer::endless),
        layer("an endless layer", Refused, Answer::endless),
        manifest("an endless header", Network, |answer| answer.sent(Manner::EndlessHeader)),
        layer("an endless header before a layer", Network, |answer| answer.sent(Manner::EndlessHeader)),
        manifest("half a manifest each time", Network, |answer| answer.cut(100)),
        config("half a configuration each time", Network, |answer| answer.cut(50)),
        layer("ten bytes of a layer each time", Network, |answer| answer.cut(10)),
        slow(manifest("a manifest by drops", Network, |answer| answer.sent(Manner::Drip(DROP)))),
        slow(layer("a layer by drops", Network, |answer| answer.sent(Manner::Drip(DROP)))),
        slow(manifest("silence", Network, |answer| answer.sent(Manner::Silent))),
        slow(layer("silence before a layer", Network, |answer| answer.sent(Manner::Silent))),
        slow(layer("silence in the middle of a layer", Network, |answer| {
            answer.sent(Manner::SilentAfter(50))
        })),
        layer("a length that is too small", Network, length("10")),
        layer("a length that is too large", Network, |answer| {
            answer.cut(50).header("Content-Length", "1000000")
        }),
        layer("a length below zero", Network, length("-1")),
        layer("a length that is no number", Network, length("many")),
        layer("two lengths", Network, |answer| {
            answer.header("Content-Length", "10").header("Content-Length", "20")
        }),
        layer("chunks that are none", Network, chunked(b"zz\r\nhello\r\n0\r\n\r\n")),
        layer("a chunk that is larger than anything", Network, chunked(b"ffffffffffffffffff\r\nhello")),
        layer("a chunk without its end", Network, chunked(b"5\r\n\x1f\x8b\x08")),
        manifest("no HTTP at all", Network, junk("220 ready\r\n")),
        manifest("HTTP 0.9", Network, junk("<html></html>")),
        manifest("a status that is no number", Network, junk("HTTP/1.1 OK OK\r\n\r\n")),
        manifest("a header that is none", Network, junk("HTTP/1.1 200 OK\r\n\0: x\r\n\r\n")),
        always("a hang-up at once", Network, all("")),
        always("only interim answers", Network, all("HTTP/1.1 100 Continue\r\n\r\n")),
    ]
}

fn statuses() -> Vec<Line> {
    let just = |status: u16| move |_: Answer| Answer::status(status);
    let wait = |status: u16, after: &'static str| {
        move |_: Answer| Answer::status(status).header("Retry-After", after)
    };
    vec![
        manifest("204", Denied, just(204)),
        layer("204 for a layer", Denied, just(204)),
        manifest("206 without a range", Denied, |answer| Answer { status: 206, ..answer }),
        layer("206 for a whole layer", Denied, |answer| {
            Answer { status: 206, ..answer }.header("Content-Range", "bytes 0-9/10")
        }),
        layer("416 for a whole layer", Denied, just(416)),
        manifest("304", Denied, just(304)),
        manifest("a redirect to nowhere", Denied, just(302)),
        manifest("418", Denied, just(418)),
        manifest("999", Denied, just(999)),
        manifest("403", Denied, just(403)),
        manifest("404", NotFound, just(404)),
        layer("410 for a layer", NotFound, just(410)),
        manifest("a storm of 408", Network, just(408)),
        manifest("a storm of 429", Network, wait(429, "0")),
        layer("a storm of 500", Network, just(500)),
        config("a storm of 502", Network, just(502)),
        layer("a storm of 503 and a year's wait", Network, wait(503, "31536000")),
        manifest("a wait without an end", Network, wait(429, "99999999999999999999999999")),
        manifest("a wait until the year 9999", Network, wait(503, "Fri, 31 Dec 9999 23:59:59 GMT")),
        manifest("a wait until yesterday", Network, wait(503, "Sun, 06 Nov 1994 08:49:37 GMT")),
        manifest("a wait below zero", Network, wait(503, "-5")),
        manifest("a wait that is no time", Network, wait(503, "soon")),
    ]
}

fn led_astray() -> Vec<Line> {
    let to_stranger = |stage: &Stage, seen: &Seen| Answer::redirect(stage.stranger.url(&seen.path));
    vec![
        redirect("a redirect in a circle", "/v2/a/b/manifests/again"),
        redirect("a redirect to plain HTTP", "http://192.0.2.1/x"),
        redirect("a redirect to a file", "file:///etc/passwd"),
        redirect("a redirect to FTP", "ftp://127.0.0.1/x"),
        redirect("a redirect to a script", "javascript:alert(1)"),
        redirect("a redirect to data", "data:application/json,{}"),
        redirect("a redirect with a password", "http://user:pw@127.0.0.1/x"),
        redirect("a redirect to the cloud", "http://169.254.169.254/latest/meta-data/"),
        redirect("a redirect to the cloud with TLS", "https://169.254.169.254/latest/meta-data/"),
        redirect("a redirect to the cloud as a number", "https://2852039166/"),
        redirect("a redirect to the cloud by IPv6", "https://[fd00:ec2::254]/"),
        redirect("a redirect to the cloud in IPv6", "https://[::ffff:a9fe:a9fe]/"),
        redirect("a redirect to the cloud by name", "https://metadata.google.internal/"),
        redirect("a redirect to the link", "https://[fe80::1]/"),
        redirect("a redirect to nowhere at all", "http://"),
        always("a 401 of who stands behind a redirect", Denied, move |seen, stage| {
            if is_let_in(seen) { to_stranger(stage, seen) } else { honest(seen, stage) }
        }),
        realm("a token server elsewhere", Refused, "https://tokens.invalid/token"),
        realm("a token server without TLS", Refused, "http://192.0.2.1/token"),
        realm("a token server in the cloud", Refused, "https://169.254.169.254/token"),
        realm("a token server with a password", Refused, "https://ci:x@127.0.0.1/token"),
        realm("a token server that is a file", Refused, "file:///etc/passwd"),
        realm("a token server that is a path", Refused, "/token"),
        realm("a token server without a name", Refused, ""),
        always("a password that is never enough", Denied, |_, _| challenge("Basic realm=\"x\"")),
        always("a 401 that asks for nothing", Denied, |_, _| Answer::status(401)),
        always("a challenge of another kind", Denied, |_, _| challenge("Negotiate")),
        always("a challenge without an end", Denied, |_, _| {
            challenge(format!("Basic x=\"{}\"", "x".repeat(5000)))
        }),
        token("an empty token", Denied, json(r#"{"token":""}"#)),
        token("a token that ends the header", Denied, json(r#"{"token":"a\r\nHost: b"}"#)),
        token("a token that is a number", Denied, json(r#"{"token":1}"#)),
        token("a token that is nothing", Denied, json(r#"{"token":null}"#)),
        token("tokens in a list", Denied, json(r#"["a"]"#)),
        token("no token", Denied, json("{}")),
        token("a token that is a page", Denied, |_| Answer::ok("text/html", "<html>")),
        token("a token of 20 KiB", Denied, |_| {
            Answer::ok("application/json", format!(r#"{{"token":"{}"}}"#, "a".repeat(20 << 10)))
        }),
        token("a token without an end", Denied, |_| Answer::ok("application/json", "").endless()),
        token("a token that is refused", Denied, |_| Answer::status(403)),
        token("a token that is not there", Denied, |_| Answer::status(204)),
        token("a token that no one takes", Denied, json(r#"{"token":"abc"}"#)),
        token("a token server in trouble", Network, |_| Answer::status(503)),
        slow(token("a token by drops", Network, |_| Answer::status(200).sent(Manner::Drip(DROP)))),
        token("a token elsewhere", Denied, |stage| Answer::redirect(stage.stranger.url("/token"))),
        token("a token in the cloud", Refused, |_| Answer::redirect("https://169.254.169.254/token")),
    ]
}

fn all() -> Vec<Line> {
    [documents(), images(), bodies(), statuses(), led_astray()].into_iter().flatten().collect()
}

/// A line with the registry that behaves like it says, and the stranger.
struct Staged {
    line: Line,
    server: Server,
    stranger: Server,
}

/// All of them are asked through one client, which knows the password of each, or through one with little patience.
struct Clients {
    patient: Client,
    hasty: Client,
}

fn staged(lines: Vec<Line>) -> (Vec<Staged>, Clients) {
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    options.patience.retry_after = Duration::from_millis(20);
    options.layers_at_once = 64;
    let password = Credentials::password("ci", "hunter2").expect("sound");
    let mut all = Vec::new();
    for mut line in lines {
        // The stranger asks for a password too, and would take it.
        let stranger = Server::start(|_| challenge("Basic realm=\"stranger\""));
        let stage = Stage { parts: parts(), stranger: stranger.clone() };
        let behaviour = std::mem::replace(&mut line.behaviour, Box::new(|_, _| Answer::status(500)));
        let server = Server::start(move |seen| behaviour(seen, &stage));
        options.credentials.insert(server.address.clone(), password.clone());
        all.push(Staged { line, server, stranger });
    }
    let patient = Client::new(options.clone()).expect("a client");
    options.patience.silence = Duration::from_millis(400);
    (all, Clients { patient, hasty: Client::new(options).expect("a client") })
}

/// What is wrong with how a pull from this registry went; nothing where it went as it should.
async fn faults(staged: Staged, clients: &Clients) -> Vec<String> {
    let Staged { line: Line { name, ends, slow, digest, .. }, server, stranger } = staged;
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let client = if slow { &clients.hasty } else { &clients.patient };
    let (image, platform) = (server.image(digest), Platform::linux("amd64"));
    let pull = store.pull(client, &image, &platform, &());
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("{name}: {text}"));
    match tokio::time::timeout(DEADLINE, pull).await {
        Err(_) => fault("it does not end".to_owned()),
        Ok(Ok(_)) => fault("it was taken".to_owned()),
        Ok(Err(error)) => {
            let ended = match &error {
                PullError::Refused { .. } => Some(Refused),
                PullError::Denied { .. } => Some(Denied),
                PullError::NotFound { .. } => Some(NotFound),
                PullError::Network { .. } => Some(Network),
                PullError::WrongPlatform { .. } => Some(WrongPlatform),
                _ => None,
            };
            if ended != Some(ends) {
                fault(format!("{ends:?} was expected and this came: {error:?}"));
            }
            if format!("{error:?} {error}").contains("hunter2") {
                fault("the password is in the error".to_owned());
            }
        }
    }
    for folder in ["blobs/sha256", "layers/sha256", "images/sha256", "tmp"] {
        if std::fs::read_dir(dir.path().join(folder)).expect("listed").next().is_some() {
            fault(format!("something is left in {folder}"));
        }
    }
    if stranger.saw("Y2k6aHVudGVyMg") || stranger.saw("hunter2") {
        fault("a stranger saw the password".to_owned());
    }
    faults
}

#[tokio::test]
async fn t12_hostile_registries_end_with_an_error_leave_nothing_and_learn_nothing() {
    let lines = all();
    let names: std::collections::BTreeSet<_> = lines.iter().map(|line| line.name).collect();
    assert_eq!(names.len(), lines.len(), "a name stands for two");
    assert!(lines.len() >= 60, "{}", lines.len());
    let (lines, clients) = staged(lines);
    let each = lines.into_iter().map(|line| faults(line, &clients));
    let faults: Vec<_> = stream::iter(each).buffer_unordered(16).collect().await;
    let faults: Vec<_> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[tokio::test]
async fn t12_no_registry_leads_to_the_cloud_where_plain_http_is_allowed_everywhere() {
    for location in ["http://169.254.169.254/", "http://[fe80::1]/", "http://100.100.100.200/"] {
        for answer in [
            (307, "Location", location.to_owned()),
            (401, "WWW-Authenticate", format!("Bearer realm=\"{location}\"")),
        ] {
            let server = Server::start(move |_| Answer::status(answer.0).header(answer.1, answer.2.clone()));
            let mut options = ClientOptions::default();
            options.plain_http_everywhere = true;
            let client = Client::new(options).expect("a client");
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(dir.path(), common::confined()).expect("a store");
            let (image, platform) = (server.image(parts().digest()), Platform::linux("amd64"));
            let error = store.pull(&client, &image, &platform, &()).await.expect_err(location);
            assert!(error.is_refusal(), "{location}: {error:?}");
        }
    }
}

/// Otherwise the table could pass because nothing ever comes.
#[tokio::test]
async fn an_honest_registry_of_that_kind_is_pulled_from() {
    let (mut lines, clients) = staged(vec![always("honest", Refused, honest)]);
    let faults = faults(lines.remove(0), &clients).await;
    assert!(faults.iter().any(|fault| fault == "honest: it was taken"), "{faults:?}");
}
