//! What happened.

use std::fmt;
use std::str::FromStr;

use bennu_manifests::model::{Digest, Name};
use bennu_planner::Step;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{JobRun, Rejection, Replaced, SnapshotName};

/// The place of an event in the order of events, as `BOOT:NUMBER`: the first eight digits of the boot's id, and a number
/// that grows by one with each event of that boot. `docs/events.md` says how to go on behind one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The boot; empty, where a client says a number alone, is the one that runs.
    pub boot: String,
    /// The number, from 1.
    pub number: u64,
}

/// How many characters of a boot's id stand in a cursor.
const BOOT: usize = 8;

impl Cursor {
    /// What a boot with this id is called in cursors.
    pub fn boot(id: &str) -> String {
        id.chars().filter(char::is_ascii_hexdigit).take(BOOT).collect()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.boot.as_str() {
            "" => write!(f, "{}", self.number),
            boot => write!(f, "{boot}:{}", self.number),
        }
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotACursor;

impl fmt::Display for NotACursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cursor is the `cursor` of an event, as 1f2e3d4c:17")
    }
}

impl std::error::Error for NotACursor {}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (boot, number) = text.split_once(':').unwrap_or(("", text));
        let named = text.contains(':');
        let sound = boot.len() == BOOT && boot.bytes().all(|b| b.is_ascii_hexdigit());
        if named != sound || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(NotACursor);
        }
        Ok(Self { boot: boot.to_owned(), number: number.parse().map_err(|_| NotACursor)? })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which events are asked for: `GET /v1/events?…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Those behind this one; where some of them are not kept any more, the first one says so. Left out: all that are kept.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub after: Option<Cursor>,
    /// None that is older.
    #[cfg_attr(test, schemars(with = "Option<crate::openapi::Moment>"))]
    pub since: Option<Timestamp>,
    /// Whether to go on with what happens.
    #[serde(default)]
    pub follow: bool,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// Its place in the order of events.
    #[cfg_attr(test, schemars(with = "String"))]
    pub cursor: Cursor,
    /// When it happened.
    #[cfg_attr(test, schemars(with = "crate::openapi::Moment"))]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// The kinds of events. `docs/events.md` lists them; their words are never used for something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Happening {
    /// Events before this one are not kept any more: too many happened since the cursor that was asked for, or the host was
    /// booted.
    Gap {
        /// How many; `None` where that is not known.
        missed: Option<u64>,
    },
    /// `hostd` started.
    Started {
        /// Its version.
        version: String,
    },
    /// A manifest was accepted as a generation.
    Accepted {
        /// The generation.
        generation: u64,
        /// The serial.
        serial: u64,
    },
    /// Another trust document is in force.
    TrustTaken {
        /// Its version.
        version: u64,
    },
    /// A manifest or a trust document was refused.
    Refused {
        /// The rule that refused it.
        rule: String,
        /// Why.
        reason: String,
    },
    /// An image is wholly in the store.
    Fetched {
        /// The image.
        image: String,
    },
    /// A step of a plan was carried out.
    Applied {
        /// The step.
        #[cfg_attr(test, schemars(with = "Box<serde_json::Value>"))]
        step: Box<Step>,
    },
    /// Something is not as it was left, and is put right.
    Drift {
        /// What, as a person reads it.
        what: String,
    },
    /// A blob was found to be not what its name says.
    BadBlob {
        /// Its fs-verity digest.
        #[cfg_attr(test, schemars(with = "String"))]
        blob: Digest,
        /// What is wrong with it, as a person reads it.
        damage: String,
        /// What was done about it, as a person reads it.
        outcome: String,
    },
    /// Every blob was read.
    Scrubbed {
        /// How many were bad.
        bad: u64,
    },
    /// A generation did not converge and is tried again.
    Failed {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// A snapshot of a volume was taken.
    SnapshotTaken {
        /// The volume.
        #[cfg_attr(test, schemars(with = "String"))]
        volume: Name,
        /// The snapshot.
        #[cfg_attr(test, schemars(with = "String"))]
        snapshot: SnapshotName,
    },
    /// A snapshot of a volume could not be taken or removed; it is tried again.
    SnapshotFailed {
        /// The volume.
        #[cfg_attr(test, schemars(with = "String"))]
        volume: Name,
        /// Why.
        reason: String,
    },
    /// A volume holds other data than before.
    VolumeReplaced {
        /// What was done.
        replaced: Replaced,
    },
    /// A generation is tried from now on.
    Tried {
        /// The generation.
        generation: u64,
        /// The root of the OS for which the machine starts again; `None` where it need not.
        #[cfg_attr(test, schemars(with = "Option<String>"))]
        os: Option<Digest>,
    },
    /// A generation is kept.
    Kept {
        /// The generation.
        generation: u64,
    },
    /// A generation is taken back, and the one before it is there again.
    TakenBack {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// The health of a container changed.
    Health {
        /// The instance.
        instance: String,
        /// What it is now.
        #[cfg_attr(test, schemars(with = "crate::openapi::Health"))]
        health: bennu_planner::Health,
        /// What the check that failed said; empty where it held.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// The kernel ended programs of a container because memory ran out.
    OomKill {
        /// The container.
        #[cfg_attr(test, schemars(with = "String"))]
        container: Name,
        /// The instance.
        instance: String,
        /// How many since the last event of this kind.
        killed: u64,
        /// The memory that it may use, in bytes; `None` is without limit, where the whole host ran out of it.
        limit: Option<u64>,
    },
    /// A new version of a container did not do its work, and is not tried again.
    Rejected {
        /// What is remembered of it.
        rejection: Box<Rejection>,
    },
    /// A job has ended.
    JobEnded {
        /// The job.
        #[cfg_attr(test, schemars(with = "String"))]
        job: Name,
        /// The run.
        run: JobRun,
    },
    /// A receiver of logs takes no lines, or takes them again.
    Forward {
        /// The receiver.
        #[cfg_attr(test, schemars(with = "String"))]
        name: Name,
        /// Why it takes none; `None` where it takes them.
        failure: Option<String>,
    },
    /// Somebody opened a shell of another image beside a container.
    DebugShell {
        /// The container.
        #[cfg_attr(test, schemars(with = "String"))]
        container: Name,
        /// The image.
        image: String,
        /// Who, as their certificate calls them: `root` on the host itself, empty where it says nothing.
        by: String,
    },
    /// Everything that the generation declares is there and running.
    Converged {
        /// The generation.
        generation: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written() {
        for (text, boot, number) in [("1f2e3d4c:17", "1f2e3d4c", 17), ("0", "", 0), ("5", "", 5)] {
            let cursor: Cursor = text.parse().expect(text);
            assert_eq!((cursor.boot.as_str(), cursor.number), (boot, number));
            assert_eq!(cursor.to_string(), text);
        }
        for bad in
            ["", ":", ":5", "1f2e3d4c:", "1f2e3d4:5", "1f2e3d4cc:5", "zzzzzzzz:5", "-1", "1:2", "+5", "5 "]
        {
            assert_eq!(bad.parse::<Cursor>(), Err(NotACursor), "{bad:?}");
        }
        assert_eq!(Cursor::boot("01234567-89ab-cdef-0123-456789abcdef"), "01234567");
    }
}
