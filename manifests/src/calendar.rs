//! Times that come again, as systemd writes them (systemd.time(7), "Calendar Events").

use jiff::ToSpan as _;
use jiff::civil::{Date, DateTime, date, time};

/// The words that stand for whole expressions, and for what.
const WORDS: [(&str, &str); 9] = [
    ("minutely", "*-*-* *:*:00"),
    ("hourly", "*-*-* *:00:00"),
    ("daily", "*-*-* 00:00:00"),
    ("weekly", "Mon *-*-* 00:00:00"),
    ("monthly", "*-*-01 00:00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00:00"),
    ("semiannually", "*-01,07-01 00:00:00"),
    ("yearly", "*-01-01 00:00:00"),
    ("annually", "*-01-01 00:00:00"),
];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// The years that systemd knows.
const YEARS: (u16, u16) = (1970, 2199);

/// Times that come again. They are those of a clock on the wall: which one is for the time zone to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// Bit 0 is Monday.
    weekdays: u8,
    years: Field,
    months: Field,
    days: Field,
    /// Whether days are counted from the end of the month: 1 is the last one.
    from_end: bool,
    hours: Field,
    minutes: Field,
    seconds: Field,
    zone: Option<String>,
}

/// The values that one number may have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    parts: Vec<Part>,
}

/// From `first` to `last` in steps.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    first: u16,
    last: u16,
    step: u16,
}

impl Calendar {
    /// Reads an expression; `None` where it is none. Whether the time zone that it names exists is not known here.
    pub fn parse(text: &str) -> Option<Self> {
        let text = WORDS.iter().find(|(word, _)| *word == text).map_or(text, |(_, meaning)| meaning);
        let mut words: Vec<&str> = text.split(' ').collect();
        let zone = words.pop_if(|word| is_zone(word)).map(str::to_owned);
        let weekdays = words.first().and_then(|word| weekdays(word));
        if weekdays.is_some() {
            words.remove(0);
        }
        let (on, at) = match words[..] {
            // A time zone alone is no time.
            [] if weekdays.is_some() => (None, None),
            [word] if word.contains(':') => (None, Some(word)),
            [word] => (Some(word), None),
            [on, at] => (Some(on), Some(at)),
            _ => return None,
        };
        let (years, months, days, from_end) = match on {
            Some(on) => read_date(on)?,
            None => (Field::all(YEARS), Field::all((1, 12)), Field::all((1, 31)), false),
        };
        let (hours, minutes, seconds) = match at {
            Some(at) => read_time(at)?,
            None => (Field::one(0), Field::one(0), Field::one(0)),
        };
        let weekdays = weekdays.unwrap_or(0x7f);
        Some(Self { weekdays, years, months, days, from_end, hours, minutes, seconds, zone })
    }

    /// The time zone that it names, as the IANA database calls it.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The first of its times that is later than `after`; `None` where there is none.
    pub fn next(&self, after: DateTime) -> Option<DateTime> {
        // Times are whole seconds: the first that can count is the one behind that of `after`.
        let begin = after.with().subsec_nanosecond(0).build().ok()?.checked_add(1.second()).ok()?;
        let mut day = begin.date();
        let mut earliest = (begin.hour() as u16, begin.minute() as u16, begin.second() as u16);
        let last = date(YEARS.1 as i16, 12, 31);
        while day <= last {
            if self.is_on(day)
                && let Some((hour, minute, second)) = self.time_from(earliest)
            {
                return Some(day.to_datetime(time(hour as i8, minute as i8, second as i8, 0)));
            }
            day = day.tomorrow().ok()?;
            earliest = (0, 0, 0);
        }
        None
    }

    fn is_on(&self, day: Date) -> bool {
        let weekday = 1u8 << (day.weekday().to_monday_zero_offset() as u8);
        let number = if self.from_end { day.days_in_month() - day.day() + 1 } else { day.day() };
        self.weekdays & weekday != 0
            && self.years.has(day.year() as u16)
            && self.months.has(day.month() as u16)
            && self.days.has(number as u16)
    }

    /// The first time of a day that is not before another one.
    fn time_from(&self, (hour, minute, second): (u16, u16, u16)) -> Option<(u16, u16, u16)> {
        let first = |field: &Field, from: u16, to: u16| (from..=to).find(|value| field.has(*value));
        for h in hour..24 {
            if !self.hours.has(h) {
                continue;
            }
            let from = if h == hour { minute } else { 0 };
            for m in from..60 {
                if !self.minutes.has(m) {
                    continue;
                }
                let from = if (h, m) == (hour, minute) { second } else { 0 };
                if let Some(s) = first(&self.seconds, from, 59) {
                    return Some((h, m, s));
                }
            }
        }
        None
    }
}

impl Field {
    fn all((first, last): (u16, u16)) -> Self {
        Self { parts: vec![Part { first, last, step: 1 }] }
    }

    fn one(value: u16) -> Self {
        Self::all((value, value))
    }

    fn has(&self, value: u16) -> bool {
        let within = |part: &Part| {
            (part.first..=part.last).contains(&value) && (value - part.first).is_multiple_of(part.step)
        };
        self.parts.iter().any(within)
    }

    /// `*`, numbers, ranges and steps, all from `low` to `high`.
    fn read(text: &str, (low, high): (u16, u16)) -> Option<Self> {
        let number = |text: &str| {
            let plain = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|number| plain && (low..=high).contains(number))
        };
        let part = |text: &str| {
            let (base, step) = match text.split_once('/') {
                Some((base, step)) => {
                    (base, Some(step.parse::<u16>().ok().filter(|step| (1..=high.max(1)).contains(step))?))
                }
                None => (text, None),
            };
            let (first, last) = match base.split_once("..") {
                Some((first, last)) => (number(first)?, number(last)?),
                None if base == "*" => (low, high),
                // A step without an end goes on to the last value that there is.
                None => (number(base)?, if step.is_some() { high } else { number(base)? }),
            };
            (first <= last).then_some(Part { first, last, step: step.unwrap_or(1) })
        };
        text.split(',').map(part).collect::<Option<_>>().map(|parts| Self { parts })
    }
}

/// Weekdays begin with a letter, too, and are no zones.
fn is_zone(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) && weekdays(word).is_none()
}

fn weekdays(word: &str) -> Option<u8> {
    let day = |day: &str| WEEKDAYS.iter().position(|known| *known == day);
    let part = |part: &str| match part.split_once("..") {
        Some((first, last)) => {
            let (first, last) = (day(first)?, day(last)?);
            (first <= last).then(|| (first..=last).fold(0, |mask, day| mask | 1 << day))
        }
        None => day(part).map(|day| 1 << day),
    };
    word.split(',').try_fold(0, |mask, text| part(text).map(|part: u8| mask | part))
}

fn read_date(word: &str) -> Option<(Field, Field, Field, bool)> {
    let from_end = word.contains('~');
    // `~` counts days from the end of the month, so it stands before the day.
    let plain = word.replacen('~', "-", 1);
    let fields: Vec<&str> = plain.split('-').collect();
    if from_end && word.rfind('-').is_some_and(|dash| dash > word.find('~').unwrap_or(0)) {
        return None;
    }
    let (year, month, day) = match fields[..] {
        [year, month, day] => (Field::read(year, YEARS)?, month, day),
        [month, day] => (Field::all(YEARS), month, day),
        _ => return None,
    };
    let mut days = Field::read(day, (1, 31))?;
    if from_end {
        // Steps lead towards the end of the month there: what is 7 days before it in steps of 1 is each of those days.
        for (part, text) in days.parts.iter_mut().zip(day.split(',')) {
            if text.contains('/') && !text.contains("..") && !text.starts_with('*') {
                (part.first, part.last) = ((part.first - 1) % part.step + 1, part.first);
            }
        }
    }
    Some((year, Field::read(month, (1, 12))?, days, from_end))
}

fn read_time(word: &str) -> Option<(Field, Field, Field)> {
    let fields: Vec<&str> = word.split(':').collect();
    let (hour, minute, second) = match fields[..] {
        [hour, minute] => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    Some((Field::read(hour, (0, 23))?, Field::read(minute, (0, 59))?, Field::read(second, (0, 59))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `systemd-analyze calendar --base-time='2026-02-27 12:34:56' --iterations=3` of systemd 252 prints with TZ=UTC.
    const GOLDEN: &[(&str, &[&str])] = &[
        ("minutely", &["2026-02-27T12:35:00", "2026-02-27T12:36:00", "2026-02-27T12:37:00"]),
        ("hourly", &["2026-02-27T13:00:00", "2026-02-27T14:00:00", "2026-02-27T15:00:00"]),
        ("daily", &["2026-02-28T00:00:00", "2026-03-01T00:00:00", "2026-03-02T00:00:00"]),
        ("weekly", &["2026-03-02T00:00:00", "2026-03-09T00:00:00", "2026-03-16T00:00:00"]),
        ("monthly", &["2026-03-01T00:00:00", "2026-04-01T00:00:00", "2026-05-01T00:00:00"]),
        ("quarterly", &["2026-04-01T00:00:00", "2026-07-01T00:00:00", "2026-10-01T00:00:00"]),
        ("semiannually", &["2026-07-01T00:00:00", "2027-01-01T00:00:00", "2027-07-01T00:00:00"]),
        ("yearly", &["2027-01-01T00:00:00", "2028-01-01T00:00:00", "2029-01-01T00:00:00"]),
        ("Mon *-*-* 03:00:00", &["2026-03-02T03:00:00", "2026-03-09T03:00:00", "2026-03-16T03:00:00"]),
        ("Mon..Fri 09:00", &["2026-03-02T09:00:00", "2026-03-03T09:00:00", "2026-03-04T09:00:00"]),
        ("Sat,Sun *-*-* 04:30", &["2026-02-28T04:30:00", "2026-03-01T04:30:00", "2026-03-07T04:30:00"]),
        ("*-*-01", &["2026-03-01T00:00:00", "2026-04-01T00:00:00", "2026-05-01T00:00:00"]),
        ("12-24", &["2026-12-24T00:00:00", "2027-12-24T00:00:00", "2028-12-24T00:00:00"]),
        ("2027-12-24 18:00:00", &["2027-12-24T18:00:00"]),
        ("*-*~03", &["2026-03-29T00:00:00", "2026-04-28T00:00:00", "2026-05-29T00:00:00"]),
        ("*-02~01", &["2026-02-28T00:00:00", "2027-02-28T00:00:00", "2028-02-29T00:00:00"]),
        ("Mon *-05~07/1", &["2026-05-25T00:00:00", "2027-05-31T00:00:00", "2028-05-29T00:00:00"]),
        ("*:0/15", &["2026-02-27T12:45:00", "2026-02-27T13:00:00", "2026-02-27T13:15:00"]),
        ("*:0/7:30", &["2026-02-27T12:35:30", "2026-02-27T12:42:30", "2026-02-27T12:49:30"]),
        ("*-*-* 00/5:10", &["2026-02-27T15:10:00", "2026-02-27T20:10:00", "2026-02-28T00:10:00"]),
        ("Fri", &["2026-03-06T00:00:00", "2026-03-13T00:00:00", "2026-03-20T00:00:00"]),
        ("2028-02-29", &["2028-02-29T00:00:00"]),
        ("*-02-29", &["2028-02-29T00:00:00", "2032-02-29T00:00:00", "2036-02-29T00:00:00"]),
        ("*-*-1..7/3 06:00", &["2026-03-01T06:00:00", "2026-03-04T06:00:00", "2026-03-07T06:00:00"]),
        ("*-*-10/10", &["2026-03-10T00:00:00", "2026-03-20T00:00:00", "2026-03-30T00:00:00"]),
        ("*-*-* *:*:20..40/10", &["2026-02-27T12:35:20", "2026-02-27T12:35:30", "2026-02-27T12:35:40"]),
        ("2026..2030/2-03-01", &["2026-03-01T00:00:00", "2028-03-01T00:00:00", "2030-03-01T00:00:00"]),
    ];

    #[test]
    fn the_next_times_are_those_of_systemd() {
        for (text, expected) in GOLDEN {
            let calendar = Calendar::parse(text).expect(text);
            let mut now = date(2026, 2, 27).at(12, 34, 56, 0);
            for expected in *expected {
                now = calendar.next(now).unwrap_or_else(|| panic!("{text} after {now}"));
                assert_eq!(now, expected.parse().expect("a time"), "{text}");
            }
        }
    }

    #[test]
    fn what_never_comes_has_no_next_time() {
        let now = date(2026, 1, 1).at(0, 0, 0, 0);
        for never in ["2025-01-01", "*-02-30", "Mon 2026-01-06"] {
            assert_eq!(Calendar::parse(never).expect("an expression").next(now), None, "{never}");
        }
    }

    #[test]
    fn the_next_time_is_always_later() {
        let now = date(2026, 3, 4).at(5, 6, 7, 900_000_000);
        let every_second = Calendar::parse("*-*-* *:*:*").expect("an expression");
        assert_eq!(every_second.next(now), Some(date(2026, 3, 4).at(5, 6, 8, 0)));
        assert_eq!(every_second.next(date(2026, 3, 4).at(5, 6, 7, 0)), Some(date(2026, 3, 4).at(5, 6, 8, 0)));
    }
}
