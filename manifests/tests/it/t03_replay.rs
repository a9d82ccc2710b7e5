//! T3: what was replaced does not come back, whoever hands it in. T4: what has expired goes on running, and is said to be
//! stale. T5: a wrong clock revives nothing, and is no reason to be lost.

use bennu_manifests::{
    Floors, Freshness, HostFacts, MANIFEST_NAMESPACE, NotAccepted, Rule, Trust, Verified, verify,
};
use jiff::{SignedDuration, Timestamp};

use crate::samples::HEADER;
use crate::soft::{sign, trust};

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn one_key() -> Trust {
    trust(1, &[("deploy", &["ana"], 1)])
}

fn offer(text: &str, sig: &[u8], floors: &Floors, now: Timestamp) -> Result<Verified, Rule> {
    match verify(text.as_bytes(), sig, &one_key(), floors, &HostFacts::default(), now) {
        Ok(verified) => Ok(verified),
        Err(NotAccepted::Refused(refusal)) => Err(refusal.rule),
        Err(NotAccepted::Invalid(invalid)) => panic!("{invalid}"),
    }
}

/// As after a restart: written down, and read again.
fn restarted(floors: &Floors) -> Floors {
    let json = serde_json::to_string(floors).expect("plain data");
    serde_json::from_str(&json).expect("it was written so")
}

#[test]
fn t03_none_of_the_last_20_manifests_comes_back_after_a_restart() {
    let now = time("2026-04-01T00:00:00Z");
    let texts: Vec<String> =
        (1..=21).map(|serial| HEADER.replace("serial = 5", &format!("serial = {serial}"))).collect();
    let sigs: Vec<Vec<u8>> = texts.iter().map(|text| sign(&["ana"], MANIFEST_NAMESPACE, text)).collect();
    let mut floors = Floors::default();
    for (at, (text, sig)) in texts.iter().zip(&sigs).enumerate() {
        let verified = offer(text, sig, &floors, now).expect("each is newer than the one before");
        floors = restarted(&floors.after(&verified, now));
        for (old, old_sig) in texts.iter().zip(&sigs).take(at) {
            assert_eq!(offer(old, old_sig, &floors, now).err(), Some(Rule::SerialReplayed), "{old}");
        }
        let other = format!("{text}# and more\n");
        let other_sig = sign(&["ana"], MANIFEST_NAMESPACE, &other);
        assert_eq!(offer(&other, &other_sig, &floors, now).err(), Some(Rule::SerialConflict));
    }
    assert!(offer(&texts[20], &sigs[20], &floors, now).is_ok(), "the newest is no replay");
}

#[test]
fn t04_a_manifest_turns_stale_at_the_second_it_expires_and_stays_so() {
    let day = SignedDuration::from_hours(24);
    let second = SignedDuration::from_secs(1);
    let accepted = time("2026-04-01T00:00:00Z");
    let expires = accepted + day * 7;
    let floors = Floors { latest_time: accepted, ..Floors::default() };
    let (fresh, stale) = (Freshness::Fresh { until: expires }, Freshness::Stale { since: expires });
    for (when, expect) in [
        (accepted, fresh),
        (accepted + day, fresh),
        (accepted + day * 7 - second, fresh),
        (accepted + day * 7, stale),
        (accepted + day * 8, stale),
        (accepted + day * 30, stale),
        // A clock that fell behind what is known changes nothing.
        (time("1970-01-01T00:00:00Z"), fresh),
    ] {
        assert_eq!(Freshness::of(expires, &floors, when), expect, "at {when}");
    }
    let later = Floors { latest_time: expires, ..floors };
    assert_eq!(Freshness::of(expires, &later, accepted), stale, "the host knows better than its clock");
}

#[test]
fn t04_stale_begins_exactly_where_accepting_ends() {
    let floors = Floors::default();
    let text = HEADER;
    let sig = sign(&["ana"], MANIFEST_NAMESPACE, text);
    let expires = time("2026-06-01T12:00:00Z");
    for seconds in -2..=2 {
        let now = expires + SignedDuration::from_secs(seconds);
        let stale = Freshness::of(expires, &floors, now).is_stale();
        assert_eq!(
            offer(text, &sig, &floors, now).err(),
            stale.then_some(Rule::Expired),
            "{seconds} s after"
        );
    }
}

/// Numbers that are the same in each run (Marsaglia's xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const DAY: i64 = 86_400;
const YEAR: i64 = 365 * DAY;
/// 2025-01-01, when the programs of the host were built.
const BUILT: i64 = 1_735_689_600;

/// What a host should say, in seconds since 1970 and a few lines, written without looking at how it is done.
struct Model {
    floor: i64,
    serial: u64,
}

impl Model {
    fn offer(&mut self, clock: i64, serial: u64, signed_at: i64, expires: i64) -> Option<&'static str> {
        let now = if clock < self.floor { self.floor } else { clock };
        if serial < self.serial {
            return Some("serial.replayed");
        }
        if signed_at > now + 3 * YEAR {
            return Some("signed-at");
        }
        if expires <= now {
            return Some("expired");
        }
        self.serial = serial;
        self.floor = self.floor.max(signed_at);
        None
    }
}

#[test]
fn t05_200_walks_of_a_wrong_clock_end_as_the_model_says() {
    let at = |seconds: i64| Timestamp::from_second(seconds).expect("a time that can be told");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    // Signed once, each with its serial; serials and times have nothing to do with each other.
    let mut pool = Vec::new();
    for serial in 1..=60u64 {
        let signed_at = BUILT + i64::try_from(dice.below(15 * 365)).expect("small") * DAY;
        let expires = signed_at + i64::try_from(1 + dice.below(700)).expect("small") * DAY;
        let text = format!(
            "schema = 1\nname = \"demo\"\nserial = {serial}\nsigned-at = {}\nexpires = {}\n",
            at(signed_at),
            at(expires)
        );
        let sig = sign(&["ana"], MANIFEST_NAMESPACE, &text);
        pool.push((serial, signed_at, expires, text, sig));
    }
    let (mut told, mut accepted) = (std::collections::BTreeMap::new(), 0);
    for walk in 0..200 {
        let mut floors = Floors::default().built_at(at(BUILT));
        let mut model = Model { floor: BUILT, serial: 0 };
        let mut clock = BUILT;
        for step in 0..30 {
            clock = match dice.below(6) {
                0 => 0,
                1 => 70 * YEAR,
                2 => clock - 400 * DAY,
                3 => BUILT + i64::try_from(dice.below(15 * 365)).expect("small") * DAY,
                _ => clock + i64::try_from(dice.below(60)).expect("small") * DAY,
            }
            .clamp(0, 200 * YEAR);
            let pick = usize::try_from(dice.below(pool.len() as u64)).expect("small");
            let (serial, signed_at, expires, text, sig) = &pool[pick];
            let expect = model.offer(clock, *serial, *signed_at, *expires);
            let found = offer(text, sig, &floors, at(clock));
            let rule = found.as_ref().err().map(|rule| rule.code());
            assert_eq!(rule, expect, "walk {walk}, step {step}: serial {serial} at {}", at(clock));
            *told.entry(rule).or_insert(0) += 1;
            if let Ok(verified) = found {
                accepted += 1;
                floors = floors.after(&verified, verified.manifest().header.signed_at);
            }
            if dice.below(5) == 0 {
                floors = restarted(&floors);
            }
            assert_eq!(floors.latest_time, at(model.floor), "walk {walk}, step {step}");
        }
    }
    // Each outcome was met often enough to mean something.
    assert!(accepted > 200 && told.len() == 4 && told.values().all(|count| *count > 50), "{told:?}");
}

#[test]
fn t05_a_clock_that_ran_ahead_is_forgotten_when_it_is_set_right() {
    let sig = sign(&["ana"], MANIFEST_NAMESPACE, HEADER);
    let mut floors = Floors::default().built_at(time("2026-01-01T00:00:00Z"));
    assert_eq!(offer(HEADER, &sig, &floors, time("2040-01-01T00:00:00Z")).err(), Some(Rule::Expired));
    let verified =
        offer(HEADER, &sig, &floors, time("2026-04-01T00:00:00Z")).expect("the time is right again");
    floors = floors.after(&verified, verified.manifest().header.signed_at);
    // And the other way round: what was signed is a time that has passed, whatever the clock says.
    assert_eq!(floors.at_least(time("1970-01-01T00:00:00Z")), time("2026-03-01T12:00:00Z"));
    let old = HEADER.replace("signed-at = 2026-03", "signed-at = 2025-03").replace("2026-06", "2025-06");
    let old = old.replace("serial = 5", "serial = 6");
    let sig = sign(&["ana"], MANIFEST_NAMESPACE, &old);
    for clock in ["1970-01-01T00:00:00Z", "2025-04-01T00:00:00Z"] {
        assert_eq!(offer(&old, &sig, &floors, time(clock)).err(), Some(Rule::Expired), "{clock}");
    }
}
