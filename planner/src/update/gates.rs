//! Whether a host may change now: every gate has to say yes at once.

use std::time::Duration;

use bennu_manifests::Calendar;
use bennu_manifests::model::{Updates, Window};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// What the gates are asked about.
#[derive(Debug, Clone)]
pub struct GateFacts<'a> {
    /// What the manifest says about updates.
    pub updates: Option<&'a Updates>,
    /// Now.
    pub now: Timestamp,
    /// Whether a generation runs that would be interrupted. Where none does, only what is physically needed is asked for.
    pub runs: bool,
    /// Whether the machine has to start again.
    pub restarts: bool,
    /// Bytes that are free on the state partition.
    pub free_space: u64,
    /// What has to be written for the machine to start another OS, each where it has to be.
    pub boot_rooms: &'a [Room],
    /// Whether somebody said yes to this generation.
    pub approved: bool,
    /// Names of the files that say no.
    pub inhibitors: &'a [String],
    /// How often it was tried.
    pub attempts: u64,
    /// Not to be tried before.
    pub not_before: Option<Timestamp>,
    /// What the lock service has said.
    pub lock: &'a Lock,
    /// The rules of a time zone, by its name in the IANA database.
    pub zones: Zones,
}

/// Room for something that has to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Where, for a person.
    pub place: &'static str,
    /// Bytes that are needed.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
}

/// The rules of a time zone, by its name; `None` where there is none of that name.
pub type Zones = fn(&str) -> Option<TimeZone>;

/// What the service has said that lets hosts restart one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Lock {
    /// It was not asked: it is asked last, so that no host holds it while another gate says no.
    #[default]
    NotAsked,
    /// This host holds a slot.
    Held,
    /// It said no, or did not answer.
    Refused {
        /// What it said.
        why: String,
        /// Not to be asked again before this moment.
        again: Timestamp,
    },
}

/// How long a service that said no is left alone at least.
const LOCK_PAUSE: Duration = Duration::from_secs(180);
/// How much longer at most, so that hosts that were refused together do not come back together.
const LOCK_JITTER: Duration = Duration::from_secs(120);

/// When the lock service is asked again after it said no; `draw` is any number, another one each time and for each host.
pub fn ask_lock_again(now: Timestamp, draw: u32) -> Timestamp {
    let jitter = LOCK_JITTER.mul_f64(f64::from(draw) / f64::from(u32::MAX));
    now.checked_add(LOCK_PAUSE + jitter).unwrap_or(Timestamp::MAX)
}

/// One reason for which a host waits, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Which one.
    pub gate: GateKind,
    /// Whether it says yes.
    pub open: bool,
    /// Why, for a person.
    pub why: String,
    /// When it is asked again, where a moment is known: others are asked all the time.
    pub next: Option<Timestamp>,
}

/// The gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateKind {
    /// `windows`
    Window,
    /// `deny-windows`
    DenyWindow,
    /// `free-space`
    FreeSpace,
    /// Room for what another OS is started from.
    BootSpace,
    /// `approval`
    Approval,
    /// Files in the inhibitor directory of the host.
    Inhibitor,
    /// `attempts`
    Attempts,
    /// The pause after boots that came to nothing.
    Pause,
    /// `fleet-lock`
    FleetLock,
}

impl std::fmt::Display for GateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Window => "window",
            Self::DenyWindow => "deny-window",
            Self::FreeSpace => "free-space",
            Self::BootSpace => "boot-space",
            Self::Approval => "approval",
            Self::Inhibitor => "inhibitor",
            Self::Attempts => "attempts",
            Self::Pause => "pause",
            Self::FleetLock => "fleet-lock",
        })
    }
}

/// All gates that there are for this generation, each with its answer; those that nobody declared are left out.
pub fn gates(facts: &GateFacts<'_>) -> Vec<Gate> {
    let mut gates = Vec::new();
    if let Some(needed) = facts.updates.and_then(|u| u.free_space) {
        gates.push(free_space(facts.free_space, needed));
    }
    if !facts.boot_rooms.is_empty() {
        gates.push(boot_space(facts.boot_rooms));
    }
    if !facts.runs {
        return gates;
    }
    if let Some(updates) = facts.updates {
        if !updates.windows.is_empty() {
            gates.push(windows(&updates.windows, facts));
        }
        if !updates.deny_windows.is_empty() {
            gates.push(deny_windows(&updates.deny_windows, facts));
        }
        if updates.approval {
            gates.push(said(
                GateKind::Approval,
                facts.approved,
                "somebody said yes",
                "nobody ran `hostctl approve` yet",
            ));
        }
        let why = format!("tried {} of {} times", facts.attempts, updates.attempts);
        gates.push(Gate {
            gate: GateKind::Attempts,
            open: facts.attempts < updates.attempts,
            why,
            next: None,
        });
    }
    if !facts.inhibitors.is_empty() {
        let why = format!("held by {}", facts.inhibitors.join(", "));
        gates.push(Gate { gate: GateKind::Inhibitor, open: false, why, next: None });
    }
    if let Some(until) = facts.not_before {
        let open = until <= facts.now;
        let why =
            if open { "the pause is over" } else { "boots came to nothing; the next round has to wait" };
        let next = (!open).then_some(until);
        gates.push(Gate { gate: GateKind::Pause, open, why: why.to_owned(), next });
    }
    if facts.restarts && facts.updates.is_some_and(|updates| updates.fleet_lock.is_some()) {
        let (open, why, next) = match facts.lock {
            Lock::Held => (true, "this host holds a slot".to_owned(), None),
            Lock::NotAsked => (false, "asked when all other gates are open".to_owned(), None),
            Lock::Refused { why, again } => (false, why.clone(), Some(*again)),
        };
        gates.push(Gate { gate: GateKind::FleetLock, open, why, next });
    }
    gates
}

/// Whether it is the lock's turn: everything else is open, and the service has not said no a moment ago.
pub fn may_ask_for_lock(gates: &[Gate], now: Timestamp) -> bool {
    let lock = gates.iter().find(|gate| gate.gate == GateKind::FleetLock);
    lock.is_some_and(|lock| !lock.open && lock.next.is_none_or(|again| again <= now))
        && only_lock_is_closed(gates)
}

/// Whether nothing but the lock says no, if that does.
pub fn only_lock_is_closed(gates: &[Gate]) -> bool {
    gates.iter().all(|gate| gate.open || gate.gate == GateKind::FleetLock)
}

fn said(gate: GateKind, open: bool, yes: &str, no: &str) -> Gate {
    Gate { gate, open, why: if open { yes } else { no }.to_owned(), next: None }
}

fn free_space(free: u64, needed: u64) -> Gate {
    let why = format!("{free} bytes are free, {needed} are asked for");
    Gate { gate: GateKind::FreeSpace, open: free >= needed, why, next: None }
}

/// Asked before anything is written down of an attempt: one whose boot image does not fit would be no attempt.
fn boot_space(rooms: &[Room]) -> Gate {
    let full: Vec<String> = rooms
        .iter()
        .filter(|room| room.needed > room.free)
        .map(|Room { place, needed, free }| format!("{needed} bytes are needed on {place}, {free} are free"))
        .collect();
    match full.is_empty() {
        true => Gate {
            gate: GateKind::BootSpace,
            open: true,
            why: "what starts it has room".to_owned(),
            next: None,
        },
        false => Gate { gate: GateKind::BootSpace, open: false, why: full.join("; "), next: None },
    }
}

fn windows(windows: &[Window], facts: &GateFacts<'_>) -> Gate {
    let open = windows.iter().filter_map(|window| inside(window, facts)).max();
    match open {
        Some(end) => Gate { gate: GateKind::Window, open: true, why: format!("until {end}"), next: None },
        None => {
            let next = windows.iter().filter_map(|window| next_start(window, facts.now, facts.zones)).min();
            let why =
                next.map_or("none of them comes again".to_owned(), |next| format!("closed until {next}"));
            Gate { gate: GateKind::Window, open: false, why, next }
        }
    }
}

fn deny_windows(windows: &[Window], facts: &GateFacts<'_>) -> Gate {
    match windows.iter().filter_map(|window| inside(window, facts)).max() {
        Some(end) => Gate {
            gate: GateKind::DenyWindow,
            open: false,
            why: format!("denied until {end}"),
            next: Some(end),
        },
        None => {
            Gate { gate: GateKind::DenyWindow, open: true, why: "none of them is now".to_owned(), next: None }
        }
    }
}

/// When the window ends that is now; `None` where it is not now. Of repeated windows that overlap the latest one counts.
fn inside(window: &Window, facts: &GateFacts<'_>) -> Option<Timestamp> {
    let duration = Duration::from_millis(window.duration_ms);
    // The first start after `now - duration` has not ended yet; whether it has begun is to be seen.
    let mut begun = None;
    let mut from = facts.now - duration;
    // Bounded: a calendar may fire each second, but the end of the last one that has begun is at most `duration` away.
    for _ in 0..MAX_OVERLAPS {
        match next_start(window, from, facts.zones) {
            Some(start) if start <= facts.now => (begun, from) = (Some(start), start),
            _ => break,
        }
    }
    begun.map(|start| start + duration)
}

/// How many starts within one window are followed to find its end.
const MAX_OVERLAPS: usize = 1000;

/// The first start of a window after a moment, in its time zone.
fn next_start(window: &Window, after: Timestamp, zones: Zones) -> Option<Timestamp> {
    let calendar = Calendar::parse(&window.start)?;
    let zone = calendar.zone().unwrap_or(&window.time_zone);
    let zone = zones(zone)?;
    let local = calendar.next(zone.to_datetime(after))?;
    zone.to_timestamp(local).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updates(text: &str) -> Updates {
        let text = format!(
            "schema = 1\nname = \"t\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
             allow-empty = true\n[update]\n{text}\n"
        );
        let manifest = bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{text}"));
        manifest.update.expect("declared")
    }

    fn asked<'a>(updates: &'a Updates, now: &str) -> GateFacts<'a> {
        GateFacts {
            updates: Some(updates),
            now: now.parse().expect("a moment"),
            runs: true,
            restarts: true,
            free_space: 1 << 30,
            boot_rooms: &[],
            approved: false,
            inhibitors: &[],
            attempts: 0,
            not_before: None,
            lock: &Lock::NotAsked,
            zones: |name| {
                let hours = match name {
                    "UTC" => 0,
                    "Europe/Vienna" => 1,
                    _ => return None,
                };
                Some(TimeZone::fixed(jiff::tz::offset(hours)))
            },
        }
    }

    fn gate(facts: &GateFacts<'_>, kind: GateKind) -> Gate {
        let found = gates(facts).into_iter().find(|gate| gate.gate == kind);
        found.unwrap_or_else(|| panic!("there is no gate {kind}"))
    }

    #[test]
    fn a_window_is_open_from_its_start_for_its_duration_in_its_zone() {
        // 02:00 in Vienna is 01:00 UTC in winter.
        let updates = updates(
            "windows = [{ start = \"Sat *-*-* 02:00:00\", duration = \"3h\", time-zone = \"Europe/Vienna\" }]",
        );
        for (now, open) in [
            ("2026-01-03T00:59:59Z", false),
            ("2026-01-03T01:00:00Z", true),
            ("2026-01-03T03:59:59Z", true),
            ("2026-01-03T04:00:00Z", false),
            ("2026-01-04T02:00:00Z", false),
        ] {
            assert_eq!(gate(&asked(&updates, now), GateKind::Window).open, open, "{now}");
        }
        let closed = gate(&asked(&updates, "2026-01-03T04:00:00Z"), GateKind::Window);
        assert_eq!(closed.next, Some("2026-01-10T01:00:00Z".parse().expect("a moment")));
    }

    #[test]
    fn what_is_denied_is_denied_inside_of_a_window() {
        let updates = updates(
            "windows = [{ start = \"*-*-* 00:00:00\", duration = \"24h\" }]\n\
             deny-windows = [{ start = \"*-12-24 00:00:00\", duration = \"72h\" }]",
        );
        let facts = asked(&updates, "2026-12-25T12:00:00Z");
        assert!(gate(&facts, GateKind::Window).open);
        let denied = gate(&facts, GateKind::DenyWindow);
        assert!(!denied.open);
        assert_eq!(denied.next, Some("2026-12-27T00:00:00Z".parse().expect("a moment")));
        assert!(gate(&asked(&updates, "2026-12-27T00:00:00Z"), GateKind::DenyWindow).open);
    }

    #[test]
    fn windows_that_overlap_end_with_the_last_of_them() {
        let updates = updates("windows = [{ start = \"*-*-* *:00:00\", duration = \"90m\" }]");
        let now = "2026-01-03T01:20:00Z";
        let open = gate(&asked(&updates, now), GateKind::Window);
        assert!(open.open && open.why.contains("2026-01-03T02:30:00Z"), "{open:?}");
    }

    #[test]
    fn room_approval_attempts_inhibitors_and_pauses_say_no() {
        let updates = updates("free-space = \"2GiB\"\napproval = true\nattempts = 2");
        let mut facts = asked(&updates, "2026-01-03T01:20:00Z");
        assert!(!gate(&facts, GateKind::FreeSpace).open);
        assert!(!gate(&facts, GateKind::Approval).open);
        assert!(gate(&facts, GateKind::Attempts).open);
        let held = ["backup".to_owned()];
        let later = "2026-01-03T01:30:00Z".parse().expect("a moment");
        (facts.free_space, facts.approved, facts.attempts) = (2 << 30, true, 2);
        (facts.inhibitors, facts.not_before) = (&held, Some(later));
        assert!(gate(&facts, GateKind::FreeSpace).open);
        assert!(gate(&facts, GateKind::Approval).open);
        assert!(!gate(&facts, GateKind::Attempts).open);
        assert!(gate(&facts, GateKind::Inhibitor).why.contains("backup"));
        assert_eq!(gate(&facts, GateKind::Pause).next, Some(later));
    }

    #[test]
    fn what_another_os_is_started_from_has_to_fit_wherever_it_is_written() {
        let updates = updates("fleet-lock = { url = \"https://lock.example/\" }");
        let mut facts = asked(&updates, "2026-01-03T01:20:00Z");
        let fits = Room { place: "the boot partition", needed: 10, free: 10 };
        let rooms = [fits, Room { place: "the other one", needed: 11, free: 10 }];
        facts.boot_rooms = &rooms;
        let told = gate(&facts, GateKind::BootSpace);
        assert_eq!(
            (told.open, told.why.as_str()),
            (false, "11 bytes are needed on the other one, 10 are free")
        );
        assert!(!may_ask_for_lock(&gates(&facts), facts.now), "no slot is held for what does not fit");
        facts.runs = false;
        assert!(!gate(&facts, GateKind::BootSpace).open, "nor does it fit where nothing runs yet");
        facts.boot_rooms = &rooms[..1];
        assert!(gate(&facts, GateKind::BootSpace).open);
    }

    #[test]
    fn the_lock_is_asked_for_last_and_only_where_the_machine_restarts() {
        let updates = updates("approval = true\nfleet-lock = { url = \"https://lock.example/\" }");
        let mut facts = asked(&updates, "2026-01-03T01:20:00Z");
        assert!(!may_ask_for_lock(&gates(&facts), facts.now), "nobody has approved");
        facts.approved = true;
        assert!(may_ask_for_lock(&gates(&facts), facts.now));
        facts.lock = &Lock::Held;
        assert!(gates(&facts).iter().all(|gate| gate.open));
        facts.restarts = false;
        assert!(!may_ask_for_lock(&gates(&facts), facts.now));
    }

    #[test]
    fn a_lock_that_was_refused_is_asked_for_again_minutes_later_and_why_says_when() {
        let updates = updates("fleet-lock = { url = \"https://lock.example/\" }");
        let mut facts = asked(&updates, "2026-01-03T01:20:00Z");
        let after = |draw| ask_lock_again(facts.now, draw).duration_since(facts.now).as_secs();
        assert_eq!([0, u32::MAX / 2, u32::MAX].map(after), [180, 239, 300]);
        let again = ask_lock_again(facts.now, 0);
        let refused = Lock::Refused { why: "all slots are taken".to_owned(), again };
        facts.lock = &refused;
        let told = gate(&facts, GateKind::FleetLock);
        assert_eq!((told.open, told.next, told.why.as_str()), (false, Some(again), "all slots are taken"));
        assert!(!may_ask_for_lock(&gates(&facts), facts.now));
        assert!(may_ask_for_lock(&gates(&facts), again));
    }

    #[test]
    fn a_host_that_runs_nothing_yet_waits_for_room_alone() {
        let updates = updates(
            "approval = true\nfree-space = \"1MiB\"\nwindows = [{ start = \"Sat *-*-* 02:00:00\", duration = \"3h\" }]",
        );
        let facts = GateFacts { runs: false, ..asked(&updates, "2026-01-05T01:20:00Z") };
        let kinds: Vec<_> = gates(&facts).iter().map(|gate| gate.gate).collect();
        assert_eq!(kinds, [GateKind::FreeSpace]);
    }
}
