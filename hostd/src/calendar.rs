//! When something that a calendar says is due.

use bennu_manifests::Calendar;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The first moment after `last` that a calendar expression names, in UTC where it names no time zone; `None` where there
/// is none, or no such zone on this host.
pub(crate) fn next_time(expression: &str, last: Timestamp) -> Option<Timestamp> {
    let calendar = Calendar::parse(expression)?;
    let zone = calendar.zone().map_or(Some(TimeZone::UTC), |zone| TimeZone::get(zone).ok())?;
    let next = calendar.next(last.to_zoned(zone.clone()).datetime())?;
    // A time that the clock leaves out in spring is the one behind the gap; of two in autumn it is the first.
    Some(next.to_zoned(zone).ok()?.timestamp())
}
