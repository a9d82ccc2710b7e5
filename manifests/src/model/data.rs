//! Volumes, configs and secrets.

use serde::{Deserialize, Serialize};

use super::Name;
use crate::document::Wrong;
use crate::language::{
    Reader, Words, each, flag, integer, needed, optional, or_empty, otherwise, section_of, sub_table, table,
    text, word,
};
use crate::text::first_unsafe_in_script;
use crate::units::{MIB, TIB};
use crate::values::{age_armour, age_recipient, calendar, mode, owner, size};

/// The most bytes of a config.
const MAX_CONFIG: usize = 512 * 1024;

table! {
    /// A named place for data.
    pub struct Volume {
        /// How long what is written there lives.
        pub life: VolumeLife = "life", needed(word("life of a volume", VolumeLife::WORDS)), "\"keep\"";
        /// The most it may hold.
        pub size: Option<u64> = "size", optional(size("a size", MIB, 1024 * TIB)), "\"10GiB\"";
        /// Who owns its root, `UID:GID`, when it is made.
        pub owner: Option<String> = "owner", optional(owner()), "\"999:999\"";
        /// The permissions of its root, in octal, when it is made.
        pub mode: Option<String> = "mode", optional(mode()), "\"0750\"";
        /// Copies of its state that are made by themselves.
        pub snapshots: Option<Snapshots> = "snapshots", optional(sub_table::<Snapshots>("volume.NAME.snapshots")), "{ schedule = \"daily\", keep = 7 }";
        /// Whether changes to this entry need the threshold of the `os` role.
        pub protected: bool = "protected", otherwise(flag(), false, "false"), "true";
        /// Says that leaving this volume out of a later manifest, or this entry itself, may destroy its data.
        pub destroy: bool = "destroy", otherwise(flag(), false, "false"), "true";
    }
}

/// How long a volume lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeLife {
    /// Survives everything but its own removal.
    Keep,
    /// As `Keep`, and goes back with the generation.
    Snapshot,
    /// Fresh at every boot.
    Scratch,
}

impl VolumeLife {
    const WORDS: Words<Self> = &[
        ("keep", Self::Keep, "survives everything but its own removal"),
        ("snapshot", Self::Snapshot, "as `keep`, and returns to its former state with the generation before"),
        ("scratch", Self::Scratch, "is empty after each boot"),
    ];
}

table! {
    /// Copies of a volume's state that are made by themselves.
    pub struct Snapshots {
        /// When: a calendar expression (systemd.time(7)).
        pub schedule: String = "schedule", needed(calendar()), "\"daily\"";
        /// How many are kept; the oldest goes first.
        pub keep: u64 = "keep", needed(integer(1..=1000)), "7";
    }
}

table! {
    /// A file that is in the document itself.
    pub struct Config {
        /// What is in it.
        pub content: String = "content", needed(text("text", MAX_CONFIG).without(first_unsafe_in_script)), "\"listen = 80\\n\"";
    }
}

table! {
    /// A file that only the hosts it is for can read; `hostctl secret encrypt` writes it.
    pub struct Secret {
        /// The file, encrypted by age and in its armour.
        pub age: String = "age", needed(age_armour()), "\"-----BEGIN AGE ENCRYPTED FILE-----\\nYQ==\\n-----END AGE ENCRYPTED FILE-----\\n\"";
        /// The hosts it is for, as their recipients: the encrypted file itself does not tell.
        pub recipients: Vec<String> = "recipients", or_empty(each(age_recipient(), 64)), "[\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\"]";
    }
}

/// A config or a secret in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileMount {
    /// Its name.
    pub source: Name,
    /// Where it appears: absolute, normalised, not `/`.
    pub target: String,
    /// Its permissions, in octal.
    pub mode: String,
    /// Who owns it in the container, `UID:GID`; `None` is the user that the container runs as.
    pub owner: Option<String>,
}

pub(crate) fn volume_reader() -> impl Reader<Out = Volume> {
    section_of::<Volume>("volume.NAME", |volume| match volume {
        Volume { life: VolumeLife::Scratch, snapshots: Some(_), .. } => {
            Err(Wrong::new("a volume that is empty after each boot has nothing to take snapshots of"))
        }
        _ => Ok(()),
    })
}
