//! When something that a calendar says is due.

use bennu_manifests::Calendar;
use bennu_manifests::model::Manifest;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The time zone of calendar expressions that name none.
pub(crate) fn zone(manifest: &Manifest) -> &str {
    manifest.os.as_ref().map_or("UTC", |os| &os.time_zone)
}

/// The first moment after `last` that a calendar expression names, in the time zone `otherwise` where it names none; `None` where there
/// is none, or no such zone on this host.
pub(crate) fn next_time(expression: &str, otherwise: &str, last: Timestamp) -> Option<Timestamp> {
    let calendar = Calendar::parse(expression)?;
    let zone = TimeZone::get(calendar.zone().unwrap_or(otherwise)).ok()?;
    let next = calendar.next(last.to_zoned(zone.clone()).datetime())?;
    // A time that the clock leaves out in spring is the one behind the gap; of two in autumn it is the first.
    Some(next.to_zoned(zone).ok()?.timestamp())
}
