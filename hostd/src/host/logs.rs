//! What containers and the daemon itself wrote, out of the journal.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use bennu_api::LogLine;
use bennu_manifests::model::Name;
use bennu_planner::Instance;
use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::command::{CommandError, run};
use super::unit::SLICE;

/// The most lines that are looked back.
const MAX_LINES: u32 = 100_000;

/// How long the journal has to look at a pattern.
const PATTERN: Duration = Duration::from_secs(10);

/// The longest entry that is told, in bytes of its JSON; longer ones are left out.
const MAX_ENTRY: u64 = 1 << 20;

/// What is wanted of the journal.
#[derive(Debug, Clone)]
pub struct LogsWanted {
    /// Whose lines.
    pub of: LogsOf,
    /// How many of the latest there are, at most 100000.
    pub lines: u32,
    /// Whether to go on with what is written from now on.
    pub follow: bool,
    /// Nothing that is older.
    pub since: Option<Timestamp>,
    /// Nothing that is newer.
    pub until: Option<Timestamp>,
    /// Nothing that this does not match: a Perl-compatible regular expression (pcre2pattern(3)).
    pub grep: Option<String>,
}

/// Whose lines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogsOf {
    /// Every container's.
    EveryContainer,
    /// One container's: all instances of this boot and of earlier ones that the journal still knows.
    Container(Name),
    /// The daemon's own.
    Hostd,
}

/// Where reading all that is written goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Behind the entry with this cursor, or the oldest one that is newer where that is not kept any more.
    Cursor(String),
    /// With the first entry that is not older.
    Moment(Timestamp),
}

/// A line and where it is in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The journal's cursor (systemd.journal-fields(7), `__CURSOR`).
    pub cursor: String,
    /// The line.
    pub line: LogLine,
}

/// The journal can't be read.
#[derive(Debug, thiserror::Error)]
#[error("run journalctl")]
pub struct LogsError(#[from] io::Error);

/// The lines, oldest first. When the stream is dropped, whoever reads the journal for it ends.
///
/// # Errors
/// Where `journalctl` can't be run.
pub(super) fn logs(
    wanted: &LogsWanted,
) -> Result<impl Stream<Item = LogLine> + Send + 'static + use<>, LogsError> {
    Ok(entries(arguments(wanted))?.map(|entry| entry.line))
}

/// All lines of containers and of the daemon from somewhere on, as they come.
///
/// # Errors
/// Where `journalctl` can't be run.
pub(super) fn follow(from: &From) -> Result<impl Stream<Item = Entry> + Send + 'static + use<>, LogsError> {
    let mut arguments = common();
    arguments.extend(["--follow".to_owned(), "--lines=all".to_owned()]);
    arguments.push(match from {
        From::Cursor(cursor) => format!("--after-cursor={cursor}"),
        From::Moment(moment) => since(*moment),
    });
    // Between groups of matches with a plus one of them is enough (journalctl(1)).
    arguments.extend(matches(&LogsOf::EveryContainer));
    arguments.push("+".to_owned());
    arguments.extend(matches(&LogsOf::Hostd));
    entries(arguments)
}

fn entries(arguments: Vec<String>) -> Result<impl Stream<Item = Entry> + Send + 'static + use<>, LogsError> {
    let mut child = Command::new("journalctl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take().ok_or(io::Error::from(io::ErrorKind::BrokenPipe))?;
    let reader = Reader { _child: child, output: BufReader::new(output) };
    Ok(stream::unfold(reader, |mut reader| async move {
        let entry = reader.next().await?;
        Some((entry, reader))
    }))
}

/// Whether a pattern is one that the journal understands: it is asked, and looks at no more than one line.
///
/// # Errors
/// Where it is none, with what `journalctl` says.
pub(super) async fn check_pattern(pattern: &str) -> Result<(), CommandError> {
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--lines=1", "--unit=hostd.service"]);
    command.arg(format!("--grep={pattern}"));
    match run(command, b"", PATTERN).await {
        // Nothing found is an exit code of its own, without a word.
        Err(CommandError::Failed { said, .. }) if said.trim().is_empty() => Ok(()),
        other => other.map(drop),
    }
}

fn common() -> Vec<String> {
    let fields = "MESSAGE,PRIORITY,_PID,BENNU_CONTAINER,BENNU_INSTANCE,BENNU_IMAGE";
    let mut arguments: Vec<String> =
        ["--output=json", "--all", "--quiet", "--no-pager"].map(str::to_owned).into();
    arguments.push(format!("--output-fields={fields}"));
    arguments
}

fn since(moment: Timestamp) -> String {
    format!("--since=@{}", moment.as_second())
}

fn arguments(wanted: &LogsWanted) -> Vec<String> {
    let mut arguments = common();
    arguments.push(format!("--lines={}", wanted.lines.min(MAX_LINES)));
    arguments.extend(wanted.since.map(since));
    // The journal takes whole seconds: what is newer than the second that is asked for begins with the next.
    arguments.extend(wanted.until.map(|until| format!("--until=@{}", until.as_second())));
    arguments.extend(wanted.grep.as_ref().map(|pattern| format!("--grep={pattern}")));
    if wanted.follow {
        arguments.push("--follow".to_owned());
    }
    arguments.extend(matches(&wanted.of));
    arguments
}

/// A match names one field and one value, and nothing in it is a pattern; all of them hold (journalctl(1)). What systemd
/// says of a unit has the unit's fields too, but did not come from its standard output.
fn matches(of: &LogsOf) -> [String; 2] {
    let whose = match of {
        LogsOf::EveryContainer => format!("_SYSTEMD_SLICE={SLICE}"),
        LogsOf::Container(name) => format!("BENNU_CONTAINER={name}"),
        LogsOf::Hostd => "_SYSTEMD_UNIT=hostd.service".to_owned(),
    };
    ["_TRANSPORT=stdout".to_owned(), whose]
}

struct Reader {
    /// Killed when the reader is dropped.
    _child: Child,
    output: BufReader<ChildStdout>,
}

impl Reader {
    async fn next(&mut self) -> Option<Entry> {
        loop {
            let mut entry = Vec::new();
            let read = (&mut self.output).take(MAX_ENTRY).read_until(b'\n', &mut entry).await.ok()?;
            if read == 0 {
                return None;
            }
            if entry.last() != Some(&b'\n') {
                self.skip_line().await?;
                continue;
            }
            if let Some(line) = serde_json::from_slice(&entry).ok().and_then(|entry| parse(&entry)) {
                return Some(line);
            }
        }
    }

    async fn skip_line(&mut self) -> Option<()> {
        loop {
            let buffer = self.output.fill_buf().await.ok().filter(|buffer| !buffer.is_empty())?;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.output.consume(used);
            if end.is_some() {
                return Some(());
            }
        }
    }
}

/// One entry of the journal's JSON format (systemd, `JOURNAL_EXPORT_FORMATS.md`, "Journal JSON Format"): a field is a
/// string, or an array of bytes where it is not UTF-8, or an array of such where it occurs more than once.
fn parse(entry: &Value) -> Option<Entry> {
    let micros = entry["__REALTIME_TIMESTAMP"].as_str()?.parse().ok()?;
    let number = |field: &Value| text(field)?.parse::<u32>().ok();
    let instance = text(&entry["BENNU_INSTANCE"]).unwrap_or_default();
    let message = text(&entry["MESSAGE"])?;
    let line = LogLine {
        time: Timestamp::from_microsecond(micros).ok()?,
        container: text(&entry["BENNU_CONTAINER"]).unwrap_or_default(),
        generation: instance.parse::<Instance>().ok().map(|instance| instance.generation),
        instance,
        priority: number(&entry["PRIORITY"]).and_then(|priority| u8::try_from(priority).ok()),
        image: text(&entry["BENNU_IMAGE"]),
        pid: number(&entry["_PID"]),
        fields: fields(&message),
        message,
    };
    Some(Entry { cursor: text(&entry["__CURSOR"]).unwrap_or_default(), line })
}

/// The fields of a line that is one JSON object.
fn fields(message: &str) -> Map<String, Value> {
    let message = message.trim();
    if !(message.starts_with('{') && message.ends_with('}')) {
        return Map::new();
    }
    serde_json::from_str(message).unwrap_or_default()
}

fn text(field: &Value) -> Option<String> {
    match field {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let byte = |item: &Value| item.as_u64().and_then(|byte| u8::try_from(byte).ok());
            match items.iter().map(byte).collect::<Option<Vec<u8>>>() {
                Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
                None => text(items.first()?),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_a_line() {
        let line = parse(&serde_json::json!({
            "__REALTIME_TIMESTAMP": "1700000000000001", "MESSAGE": "hello",
            "BENNU_CONTAINER": "web", "BENNU_INSTANCE": "web-1", "_BOOT_ID": "x", "PRIORITY": "3", "_PID": "77",
            "BENNU_IMAGE": "sha256:ab", "__CURSOR": "s=1;i=2",
        }));
        let Entry { cursor, line } = line.unwrap();
        assert_eq!(cursor, "s=1;i=2");
        assert_eq!((line.priority, line.pid, line.generation), (Some(3), Some(77), Some(1)));
        assert_eq!(line.image.as_deref(), Some("sha256:ab"));
        assert_eq!((line.container.as_str(), line.instance.as_str()), ("web", "web-1"));
        assert_eq!((line.message.as_str(), line.time.as_microsecond()), ("hello", 1_700_000_000_000_001));
    }

    #[test]
    fn bytes_that_are_no_text_and_fields_that_occur_twice_are_read() {
        let message = |message: Value| {
            parse(&serde_json::json!({"__REALTIME_TIMESTAMP": "1", "MESSAGE": message}))
                .map(|entry| entry.line.message)
        };
        assert_eq!(message(serde_json::json!([104, 105, 255])).unwrap(), "hi\u{fffd}");
        assert_eq!(message(serde_json::json!(["first", "second"])).unwrap(), "first");
        assert_eq!(message(serde_json::json!([[104, 105], [106]])).unwrap(), "hi");
        assert_eq!(message(Value::Null), None);
    }

    #[test]
    fn the_fields_of_a_line_of_json_are_kept_as_they_are() {
        let fields = |message: &str| {
            let entry = serde_json::json!({"__REALTIME_TIMESTAMP": "1", "MESSAGE": message});
            Value::Object(parse(&entry).unwrap().line.fields)
        };
        let line = r#"{"level":"warn","ms":1.5,"user":{"id":[1,null]},"message":"x"}"#;
        assert_eq!(fields(line), serde_json::from_str::<Value>(line).unwrap());
        for other in ["", "hello", "[1]", "{", "{not json}", "7", "\"{}\""] {
            assert_eq!(fields(other), serde_json::json!({}), "{other}");
        }
    }

    #[test]
    fn following_goes_on_behind_a_cursor_and_tells_of_nobody_but_containers_and_the_daemon() {
        let mut arguments = common();
        arguments.clear();
        arguments.extend(matches(&LogsOf::EveryContainer));
        assert_eq!(arguments, ["_TRANSPORT=stdout", "_SYSTEMD_SLICE=bennu.slice"]);
        assert_eq!(matches(&LogsOf::Hostd)[1], "_SYSTEMD_UNIT=hostd.service");
    }

    #[test]
    fn what_is_asked_of_the_journal_is_bounded() {
        let of = LogsOf::Container("web".parse().unwrap());
        let grep = Some("--rotate".to_owned());
        let wanted = LogsWanted { of, lines: u32::MAX, follow: true, since: None, until: None, grep };

        let arguments = arguments(&wanted);
        assert!(arguments.contains(&"--lines=100000".to_owned()), "{arguments:?}");
        assert!(
            arguments.contains(&"--grep=--rotate".to_owned()),
            "a pattern is never an option: {arguments:?}"
        );
        assert!(
            arguments.ends_with(&["--follow", "_TRANSPORT=stdout", "BENNU_CONTAINER=web"].map(str::to_owned)),
            "{arguments:?}"
        );
    }
}
