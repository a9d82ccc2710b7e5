//! Calendar expressions (systemd.time(7), "Calendar Events").

use crate::calendar::Calendar;
use crate::document::Wrong;
use crate::fault::quoted;
use crate::language::{Reader, spec};
use crate::model::When;

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
    let calendar = Calendar::parse(text).ok_or_else(wrong)?;
    calendar.zone().map(super::host::read_time_zone).transpose()?;
    Ok(text.to_owned())
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
