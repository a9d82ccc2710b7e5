use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bennu_manifests::model::ForwardKind;
use futures_util::stream;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::forward::target::Target;
use crate::forward::tests::line;

fn target(kind: ForwardKind, port: u16) -> Target {
    Target { kind, host: "127.0.0.1".into(), port, path: "/in".into(), tls: None }
}

fn work(dir: &tempfile::TempDir, kind: ForwardKind, port: u16, limit: usize) -> (Work, Told) {
    let told = Told::default();
    let sender = Sender::new(target(kind, port), "attic".into());
    let place = Place::open(dir.path().join("central.json"));
    (Work { sender, queue: Queue::new(limit), place, told: told.clone() }, told)
}

/// A journal of so many lines, which then says nothing more; a cursor is the number of a line.
fn journal(lines: usize) -> impl Fn(&LogsFrom) -> Result<Entries, LogsError> {
    move |from| {
        let begin = match from {
            LogsFrom::Cursor(cursor) => cursor.parse::<usize>().expect("a number") + 1,
            LogsFrom::Moment(_) => 0,
        };
        let entry =
            |number: usize| Entry { cursor: number.to_string(), line: line(&format!("line {number}.")) };
        Ok(stream::iter((begin..lines).map(entry)).chain(stream::pending()).boxed())
    }
}

/// The numbers of the lines in what a receiver got.
fn numbers(text: &[u8]) -> Vec<usize> {
    let text = String::from_utf8_lossy(text);
    text.split("line ").skip(1).filter_map(|rest| rest.split('.').next()?.parse().ok()).collect()
}

/// Reads until the last of so many lines is there.
async fn receive(stream: &mut TcpStream, lines: usize) -> Vec<u8> {
    let (mut got, last) = (Vec::new(), format!("line {}.", lines - 1));
    while !String::from_utf8_lossy(&got).contains(&last) {
        let mut buffer = [0; 8192];
        let read = stream.read(&mut buffer).await.expect("read");
        assert!(read > 0, "the sender went away: {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..read]);
    }
    got
}

#[tokio::test]
async fn every_line_arrives_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The queue is far smaller than what is written: a receiver that takes lines loses none of them.
    let (work, told) = work(&dir, ForwardKind::Syslog, listener.local_addr().unwrap().port(), 4096);
    let received = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        receive(&mut stream, 2000).await
    };
    let got = tokio::select! {
        got = received => got,
        () = deliver(work, journal(2000), |_| {}) => unreachable!(),
    };
    assert_eq!(numbers(&got), (0..2000).collect::<Vec<_>>());
    assert_eq!(lock(&told).dropped, 0);
}

#[tokio::test]
async fn lines_wait_for_a_receiver_that_is_away_and_the_oldest_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (work, told) = work(&dir, ForwardKind::Syslog, port, 10_000);
    let failures = AtomicUsize::new(0);
    let tell = |failure: Option<String>| {
        failures.fetch_add(usize::from(failure.is_some()), Ordering::SeqCst);
    };
    let received = async {
        while lock(&told).dropped == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        receive(&mut stream, 100).await
    };
    let got = tokio::select! {
        got = received => got,
        () = deliver(work, journal(100), tell) => unreachable!(),
    };
    let numbers = numbers(&got);
    let dropped = lock(&told).dropped as usize;
    assert_eq!(numbers, (dropped..100).collect::<Vec<_>>(), "the newest arrive, in order");
    assert!(failures.load(Ordering::SeqCst) > 0);
}

#[tokio::test]
async fn what_was_not_answered_is_sent_again_and_a_restart_goes_on_behind_what_was() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let app = |asked: Arc<AtomicUsize>, got: Arc<std::sync::Mutex<Vec<u8>>>| {
        let answer = move |body: axum::body::Bytes| async move {
            if asked.fetch_add(1, Ordering::SeqCst) == 0 {
                return axum::http::StatusCode::SERVICE_UNAVAILABLE;
            }
            got.lock().unwrap().extend_from_slice(&body);
            axum::http::StatusCode::OK
        };
        axum::Router::new().route("/in", axum::routing::post(answer))
    };
    let got = Arc::new(std::sync::Mutex::new(Vec::new()));
    tokio::spawn(axum::serve(listener, app(asked.clone(), got.clone())).into_future());
    for round in 1..=2 {
        let (work, told) = work(&dir, ForwardKind::Http, port, 1 << 20);
        let done = async {
            while lock(&told).sent < 700 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = done => {}
            () = deliver(work, journal(700 * round), |_| {}) => unreachable!(),
        }
        if round == 1 {
            // What the loop writes down every few seconds.
            let mut place = Place::open(dir.path().join("central.json"));
            place.delivered(&Entry { cursor: "699".into(), line: line("x") });
            place.save();
        }
    }
    assert_eq!(numbers(&got.lock().unwrap()), (0..1400).collect::<Vec<_>>());
    assert!(asked.load(Ordering::SeqCst) > 2, "the first request was refused for now");
}

#[tokio::test]
async fn a_batch_that_will_never_be_taken_does_not_hold_up_what_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |body: axum::body::Bytes| async move {
        let first = String::from_utf8_lossy(&body).contains("line 0.");
        if first { axum::http::StatusCode::BAD_REQUEST } else { axum::http::StatusCode::OK }
    };
    let app = axum::Router::new().route("/in", axum::routing::post(answer));
    tokio::spawn(axum::serve(listener, app).into_future());
    let (work, told) = work(&dir, ForwardKind::Otlp, port, 1 << 20);
    let done = async {
        // One look at a time: the lock is held until the end of the expression that took it.
        let counted = || {
            let told = lock(&told);
            told.sent + told.dropped
        };
        while counted() < 1200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = done => {}
        () = deliver(work, journal(1200), |_| {}) => unreachable!(),
    }
    let told = lock(&told).clone();
    assert!(told.dropped >= 1 && told.dropped <= BATCH_LINES as u64, "{told:?}");
    assert_eq!(told.sent + told.dropped, 1200);
}

#[tokio::test]
async fn a_journal_that_does_not_take_the_cursor_is_read_by_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let mut place = Place::open(dir.path().join("central.json"));
    place.delivered(&Entry { cursor: "gone".into(), line: line("x") });
    place.save();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (work, _) = work(&dir, ForwardKind::Syslog, listener.local_addr().unwrap().port(), 4096);
    let read = journal(3);
    let open = |from: &LogsFrom| match from {
        LogsFrom::Cursor(cursor) if cursor == "gone" => Ok(stream::empty().boxed()),
        from => read(from),
    };
    let received = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        receive(&mut stream, 3).await
    };
    let got = tokio::select! {
        got = received => got,
        () = deliver(work, open, |_| {}) => unreachable!(),
    };
    assert_eq!(numbers(&got), [0, 1, 2]);
}

#[test]
fn pauses_double_up_to_a_minute_and_are_spread() {
    for (failures, least, most) in
        [(0, 500, 1000), (1, 1000, 2000), (5, 16_000, 32_000), (u32::MAX, 30_000, 60_000)]
    {
        for random in [0, 999, u64::MAX] {
            let pause = pause(failures, random).as_millis();
            assert!((least..=most).contains(&pause), "{failures}: {pause}");
        }
    }
}
