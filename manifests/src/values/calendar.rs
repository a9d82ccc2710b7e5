//! Calendar expressions (systemd.time(7), "Calendar Events").

use crate::document::Wrong;
use crate::fault::quoted;
use crate::language::{Reader, spec};
use crate::model::When;

/// The words that stand for whole expressions.
const WORDS: [&str; 9] =
    ["minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "semiannually", "yearly", "annually"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// The longest expression, in bytes.
const MAX: usize = 128;
const SYNTAX: &str = "`daily` and its like, or `[WEEKDAYS] YEAR-MONTH-DAY [HOUR:MINUTE[:SECOND]] [TIME-ZONE]`, where \
                      each number may be `*`, a list `1,15`, a range `1..5` or a step `0/10`";
const HINT: &str = "write it as `daily`, `Mon *-*-* 03:00:00` or `Sat,Sun 04:30`";

/// Times that come again.
pub(crate) fn calendar() -> impl Reader<Out = String> {
    spec("a calendar expression", SYNTAX, "", MAX, read_calendar)
}

/// When a job runs.
pub(crate) fn when() -> impl Reader<Out = When> {
    spec("a time to run", format!("`once`, `boot`, {SYNTAX}"), "", MAX, When::read)
}

/// An expression, as it is.
pub(crate) fn read_calendar(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new(format!("{} is no calendar expression", quoted(text))).hint(HINT);
    let mut words: Vec<&str> = text.split(' ').collect();
    if let Some(zone) = words.last().filter(|word| words.len() > 1 && is_zone(word)) {
        super::host::read_time_zone(zone)?;
        words.pop();
    }
    let sound = match words[..] {
        [word] if WORDS.contains(&word) => true,
        [word] => is_date(word) || is_time(word) || is_weekdays(word),
        [first, second] => {
            (is_weekdays(first) && (is_date(second) || is_time(second)))
                || (is_date(first) && is_time(second))
        }
        [days, date, time] => is_weekdays(days) && is_date(date) && is_time(time),
        _ => false,
    };
    if sound { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Weekdays begin with a letter, too, and are no zones.
fn is_zone(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && !is_weekdays(word)
}

fn is_weekdays(word: &str) -> bool {
    let day = |day: &str| WEEKDAYS.contains(&day);
    let part = |part: &str| match part.split_once("..") {
        Some((first, last)) => day(first) && day(last),
        None => day(part),
    };
    word.split(',').all(part)
}

/// `*`, numbers, ranges and steps, all from `low` to `high`.
fn is_field(text: &str, low: u32, high: u32) -> bool {
    let number = |text: &str| {
        let plain = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|number| plain && (low..=high).contains(number))
    };
    let step = |text: &str| text.parse::<u32>().is_ok_and(|step| (1..=high.max(1)).contains(&step));
    let base = |text: &str| match text.split_once("..") {
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => text == "*" || number(text).is_some(),
    };
    let part = |part: &str| match part.split_once('/') {
        Some((start, by)) => base(start) && step(by),
        None => base(part),
    };
    text.split(',').all(part)
}

fn is_date(word: &str) -> bool {
    // `~` counts days from the end of the month.
    let word = word.replacen('~', "-", 1);
    let fields: Vec<&str> = word.split('-').collect();
    match fields[..] {
        [year, month, day] => is_field(year, 1970, 2200) && is_field(month, 1, 12) && is_field(day, 1, 31),
        [month, day] => is_field(month, 1, 12) && is_field(day, 1, 31),
        _ => false,
    }
}

fn is_time(word: &str) -> bool {
    let fields: Vec<&str> = word.split(':').collect();
    match fields[..] {
        [hour, minute] => is_field(hour, 0, 23) && is_field(minute, 0, 59),
        [hour, minute, second] => is_field(hour, 0, 23) && is_field(minute, 0, 59) && is_field(second, 0, 59),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_those_of_systemd() {
        for good in [
            "daily",
            "Mon *-*-* 03:00:00",
            "*-*-* 00/2:00",
            "Mon..Fri 09:00",
            "Sat,Sun *-*-* 04:30",
            "*-*-01",
            "2026-12-24 18:00:00",
            "12-24",
            "*-*~03",
            "*:0/15",
            "Mon *-05~07/1",
            "Fri",
            "*-*-* 02:00:00 Europe/Vienna",
            "03:00 UTC",
        ] {
            assert_eq!(read_calendar(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            " ",
            "dayly",
            "25:00",
            "10:60",
            "*-13-01",
            "*-*-32",
            "Mo 03:00",
            "5..1:00",
            "0/0:00",
            "*-*-* *-*-*",
            "03:00:00 03:00:00",
            "daily daily",
            "* * * * *",
            "03:00 Nowhere!",
            "Mon  03:00",
            "1-2-3-4",
        ] {
            assert!(read_calendar(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn jobs_also_run_once_and_at_boot() {
        assert_eq!(When::read("once"), Ok(When::Once));
        assert_eq!(When::read("boot"), Ok(When::Boot));
        assert_eq!(When::read("daily"), Ok(When::Calendar("daily".into())));
        assert!(When::read("sometimes").is_err());
    }
}
