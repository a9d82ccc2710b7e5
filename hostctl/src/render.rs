//! What people see: tables, sizes, ages. What programs see: the same structs as JSON.

use std::io::{self, IsTerminal, Write};

use bennu_manifests::model::Name;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::exit::Failure;

/// Standard output, in the form that was asked for.
///
/// A reader that closes the pipe (`hostctl logs -f | head`) is not an error: what follows is dropped, and streams
/// look at [`Out::closed`] to end.
#[derive(Debug)]
pub(crate) struct Out {
    json: bool,
    closed: bool,
}

impl Out {
    /// Standard output, as text or JSON.
    pub(crate) fn new(json: bool) -> Self {
        Self { json, closed: false }
    }

    /// Whether JSON was asked for.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether the reader went away.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// One result: `value` as JSON, or its text.
    pub(crate) fn result<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let mut json = serde_json::to_string_pretty(value)
                .map_err(|e| Failure::failed("write the result as JSON").because(e))?;
            json.push('\n');
            self.write(json.as_bytes())
        } else {
            self.write(text(value).as_bytes())
        }
    }

    /// One value of a stream: a line of JSON, or its text.
    pub(crate) fn item<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let mut json = serde_json::to_string(value)
                .map_err(|e| Failure::failed("write a line as JSON").because(e))?;
            json.push('\n');
            self.write(json.as_bytes())
        } else {
            self.write(text(value).as_bytes())
        }
    }

    /// Bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.closed {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other.map_err(|e| Failure::failed("write to standard output").because(e)),
        }
    }
}

/// Names in one cell.
pub(crate) fn names(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(",")
}

/// A line of progress on standard error; lost where nobody listens.
pub(crate) fn progress(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether progress is seen by a person.
pub(crate) fn interactive() -> bool {
    io::stderr().is_terminal()
}

/// Columns that are as wide as their widest cell, two spaces apart; nothing stands at the end of a line that a
/// double click on the last word would take along.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; one that begins with `>` is aligned to the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let row = headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![row], right }
    }

    /// Adds a row with as many cells as there are headings. An empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.right.len(), "a row has a cell for each heading");
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { printable(&cell) };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The text, or `none` where there are no rows.
    pub(crate) fn text(&self, none: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{none}\n");
        }
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&self.right) {
                let space = " ".repeat(width - cell.chars().count());
                let (before, after) = if *right { (space.as_str(), "") } else { ("", space.as_str()) };
                line.push_str(&[before, cell, after, "  "].concat());
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Lines of a word and what it means, the meanings below each other; a further line of a meaning is indented.
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(word, _)| word.chars().count()).max().unwrap_or(0);
    let line = |(word, meaning): &(&str, String)| {
        let indent = format!("\n{}", " ".repeat(width + 2));
        let meaning = printable(meaning);
        format!("{word:<width$}  {}\n", meaning.trim_end().replace('\n', &indent))
    };
    facts.iter().map(line).collect()
}

/// Without anything that moves a terminal's cursor or turns its text around; line breaks and tabs stay.
pub(crate) fn printable(text: &str) -> String {
    let harmless = |c: char| match c {
        '\n' | '\t' => c,
        // Bidirectional controls and marks (Unicode Standard Annex 9, section 2).
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(harmless).collect()
}

/// A number of bytes, as `31 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "at most three digits are shown")]
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 and more would be shown with four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 9.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// How long ago, as `3m`; a moment that is still to come counts as now.
pub(crate) fn age(since: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(since))
}

/// A duration in its largest unit that makes sense to people.
pub(crate) fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment, to the second, in UTC.
pub(crate) fn moment(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
    zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `1 container`, `2 containers`.
pub(crate) fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits() {
        let shown = [0, 1023, 1024, 10_240, 1_047_552, 32_505_856, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1.0 MiB", "31 MiB", "5.0 GiB", "16384 PiB"]
        );
    }

    #[test]
    fn columns_align_and_lines_end_without_spaces() {
        let mut table = Table::new(&["NAME", ">SIZE", "IMAGE"]);
        assert_eq!(table.text("no images"), "no images\n");
        table.row(["web".into(), "31 MiB".into(), String::new()]);
        table.row(["database".into(), "9 B".into(), "a\u{1b}".into()]);
        assert_eq!(
            table.text("no images"),
            "NAME        SIZE  IMAGE\nweb       31 MiB  -\ndatabase     9 B  a\u{fffd}\n"
        );
    }

    #[test]
    fn durations_are_shown_in_one_unit() {
        let shown = [-5, 0, 119, 120, 7199, 7200, 172_799, 172_800];
        let shown = shown.map(|seconds| span(SignedDuration::from_secs(seconds)));
        assert_eq!(shown, ["0s", "0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
