//! Layers that do not come in one go.

mod common;

use std::time::Duration;

use bennu_image_store::registry::document::Platform;
use bennu_image_store::registry::{Client, ClientOptions, MAX_TRIES};
use bennu_image_store::{Image, PullError, Store};
use common::Tar;
use common::registry::{Answer, Manner, Parts, Seen, Server, noise};

/// More than one try has to bring to count as progress.
const PIECE: usize = 100_000;

/// An image with one layer of about a megabyte.
fn parts() -> Parts {
    Parts::new("amd64", &[Tar::new().file("file", noise(1_000_000)).end()])
}

/// A registry that answers like this where its one layer is asked for.
fn server(parts: &Parts, answer: impl Fn(&Seen, Answer) -> Answer + Send + Sync + 'static) -> Server {
    let parts = parts.clone();
    Server::start(move |seen| {
        let honest = parts.answer(&seen.path);
        if parts.is_layer(&seen.path) { answer(seen, honest) } else { honest }
    })
}

async fn pull(server: &Server, parts: &Parts) -> Result<Image, PullError> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let mut options = ClientOptions::default();
    options.first_pause = Duration::from_millis(1);
    options.patience.silence = Duration::from_millis(500);
    let client = Client::new(options).expect("a client");
    let image = server.image(parts.digest());
    let pulled = store.pull(&client, &image, &Platform::linux("amd64"), &()).await;
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).expect("listed").count(), 0);
    if pulled.is_err() {
        assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).expect("listed").count(), 0);
    }
    pulled
}

/// Where each request for the layer began; 0 without a range.
fn begun(server: &Server, parts: &Parts) -> Vec<usize> {
    let asked = server.seen().into_iter().filter(|seen| parts.is_layer(&seen.path));
    asked.map(|seen| seen.range().map_or(0, |(first, _)| first)).collect()
}

#[tokio::test]
async fn a_layer_that_breaks_off_goes_on_where_it_stopped_however_often() {
    let parts = parts();
    let server = server(&parts, |seen, honest| honest.part(seen).cut(PIECE));
    pull(&server, &parts).await.expect("in the end it is whole");
    let begun = begun(&server, &parts);
    let wanted: Vec<_> = (0..begun.len()).map(|i| i * PIECE).collect();
    assert_eq!(begun, wanted);
    assert!(begun.len() > MAX_TRIES as usize * 2, "{}", begun.len());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_asked_for_the_rest() {
    let parts = parts();
    let server = server(&parts, |seen, honest| match seen.earlier {
        0 => honest.sent(Manner::SilentAfter(PIECE)),
        _ => honest.part(seen),
    });
    pull(&server, &parts).await.expect("whole");
    assert_eq!(begun(&server, &parts), [0, PIECE]);
}

#[tokio::test]
async fn a_server_that_gives_the_whole_again_or_no_parts_or_other_parts_is_understood() {
    let parts = parts();
    type Rest = fn(&Seen, Answer) -> Answer;
    let rests: [(&str, Rest); 6] = [
        ("the whole", |_, honest| honest),
        ("416", |seen, honest| match seen.range() {
            Some(_) => Answer::status(416),
            None => honest,
        }),
        ("another part", |seen, honest| match seen.range() {
            Some(_) => Answer { status: 206, ..honest }.header("Content-Range", "bytes 0-999999/1000000"),
            None => honest,
        }),
        ("a shorter part", |seen, honest| match seen.range() {
            Some((first, _)) => Answer { status: 206, ..honest }
                .header("Content-Range", format!("bytes {first}-{first}/1000000")),
            None => honest,
        }),
        ("a part that is not said to be one", |seen, honest| match seen.range() {
            Some(_) => Answer { status: 206, ..honest },
            None => honest,
        }),
        ("several parts", |seen, honest| match seen.range() {
            Some(_) => Answer { status: 206, ..honest }.header("Content-Type", "multipart/byteranges"),
            None => honest,
        }),
    ];
    for (name, rest) in rests {
        let server = server(&parts, move |seen, honest| match seen.earlier {
            0 => honest.cut(PIECE),
            _ => rest(seen, honest),
        });
        pull(&server, &parts).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
}

#[tokio::test]
async fn t12_a_rest_that_is_another_one_is_refused() {
    let parts = parts();
    let server = server(&parts, |seen, honest| match seen.range() {
        None => honest.cut(PIECE),
        Some(_) => {
            let mut rest = honest.part(seen);
            rest.body[1000] ^= 1;
            rest
        }
    });
    let error = pull(&server, &parts).await.expect_err("spoiled");
    assert!(error.is_refusal(), "{error:?}");
}

#[tokio::test]
async fn a_layer_of_which_hardly_anything_comes_each_time_is_given_up() {
    let parts = parts();
    let server = server(&parts, |seen, honest| honest.part(seen).cut(10));
    let error = pull(&server, &parts).await.expect_err("it would take for ever");
    assert!(error.is_retryable(), "{error:?}");
    assert_eq!(begun(&server, &parts), [0, 10, 20, 30, 40]);
}

#[tokio::test]
async fn a_connection_that_fails_after_the_last_byte_does_no_harm() {
    let parts = parts();
    let server = server(&parts, |_, honest| {
        // Chunks without the last one, which says that there are no more.
        let mut body = format!("{:x}\r\n", honest.body.len()).into_bytes();
        body.extend_from_slice(&honest.body);
        body.extend_from_slice(b"\r\n");
        Answer { body, ..honest }.header("Transfer-Encoding", "chunked")
    });
    pull(&server, &parts).await.expect("all bytes came");
    assert_eq!(begun(&server, &parts), [0]);
}
