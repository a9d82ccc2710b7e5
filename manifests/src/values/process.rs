//! What runs, as whom, and with what environment.

use std::collections::BTreeMap;

use crate::document::{Item, Wrong};
use crate::fault::quoted;
use crate::language::{Form, Reader, TextForm, map, needed, spec, sub_table, table, text};
use crate::model::{Digest, ImageRef, Ulimit};
use crate::nearest::did_you_mean;
use crate::reference::{MAX_REFERENCE, NotAReference};
use crate::values::{MAX_ENTRIES, MAX_SPEC, MAX_WORD, MAX_WORDS};

/// An image, pinned by digest.
pub(crate) fn image() -> impl Reader<Out = ImageRef> {
    struct Image;
    impl Reader for Image {
        type Out = ImageRef;

        fn form(&self) -> Form {
            let pattern = "^[^/@]+/[^@]+@sha256:[0-9a-f]{64}$";
            Form::Text(super::form("an image", "`HOST[:PORT]/NAME[:TAG]@sha256:DIGEST`", pattern, MAX_SPEC))
        }

        fn read(&self, item: &Item<'_>) -> Option<ImageRef> {
            let read = |text: &str| text.parse().map_err(|error| reference_fault(text, &error));
            item.read(MAX_SPEC, read).map(|image| image.value)
        }

        fn stand_in(&self) -> Option<ImageRef> {
            // An image that is not pinned yet is no reason to leave the rest of its container unread.
            let text = format!("localhost/unread@{}", Digest::from_bytes([0; 32]));
            Some(text.parse().expect("a reference"))
        }
    }
    Image
}

/// What is wrong with a reference, and what to do about it.
pub(crate) fn reference_fault(text: &str, error: &NotAReference) -> Wrong {
    let wrong = Wrong::new(format!("{}: {error}", quoted(text)));
    match error {
        NotAReference::Unpinned => {
            wrong.hint("run `hostctl pin FILE` to write the digest that the tag has now")
        }
        NotAReference::NoRegistry if text.len() < MAX_REFERENCE && !text.contains('/') => {
            wrong.hint(format!("name the registry, as `docker.io/library/{}`", crate::text::shown(text)))
        }
        NotAReference::NoRegistry => wrong.hint("name the registry first, as `docker.io/`"),
        _ => wrong.hint("the form is `HOST[:PORT]/NAME[:TAG]@sha256:…`"),
    }
}

/// Names of variables as keys of a table (POSIX.1-2017, base definitions, 8.1; and `.` and `-`, which programs use too).
pub(crate) fn variable_key() -> TextForm {
    super::form("the name of a variable", "", "^[A-Za-z_][A-Za-z0-9_.-]*$", 256)
}

/// The name of a variable.
pub(crate) fn read_variable(text: &str) -> Result<String, Wrong> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let further = |b: u8| first(b) || b.is_ascii_digit() || b == b'.' || b == b'-';
    let sound = (1..=256).contains(&text.len()) && first(text.as_bytes()[0]) && text.bytes().all(further);
    let wrong = || Wrong::new(format!("{} is no name of an environment variable", quoted(text)));
    if sound { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Variables by name.
pub(crate) fn environment() -> impl Reader<Out = BTreeMap<String, String>> {
    map(variable_key(), read_variable, text("a value", MAX_WORD), MAX_WORDS)
}

/// Whether `text` is a user or group, by name or number.
fn is_account(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.';
    let name = (1..=32).contains(&text.len()) && text.bytes().all(word) && !text.starts_with(['-', '.']);
    // 2^32 - 1 means "no change" to the kernel (chown(2)), so it is no user.
    let number = text.bytes().all(|b| b.is_ascii_digit());
    name && (!number || text.parse::<u32>().is_ok_and(|id| id != u32::MAX))
}

/// `USER[:GROUP]`.
pub(crate) fn user() -> impl Reader<Out = String> {
    let syntax = "`USER` or `USER:GROUP`, as names or numbers";
    spec("a user", syntax, "^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$", MAX_SPEC, |text| {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        if is_account(user) && group.is_none_or(is_account) {
            return Ok(text.to_owned());
        }
        Err(Wrong::new(format!("{} is no user", quoted(text)))
            .hint("write `USER` or `USER:GROUP`, as names or numbers"))
    })
}

/// A group.
pub(crate) fn group() -> impl Reader<Out = String> {
    spec("a group", "a name or a number", "^[A-Za-z0-9_][A-Za-z0-9_.-]*$", MAX_SPEC, |text| {
        let wrong = || Wrong::new(format!("{} is no group", quoted(text))).hint("write a name or a number");
        if is_account(text) { Ok(text.to_owned()) } else { Err(wrong()) }
    })
}

/// What a container waits for.
pub(crate) fn dependencies() -> impl Reader<Out = Vec<crate::model::Dependency>> {
    crate::model::Dependencies
}

/// The limits of getrlimit(2), as Docker and podman call them.
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn read_ulimit_name(text: &str) -> Result<String, Wrong> {
    if ULIMITS.contains(&text) {
        return Ok(text.to_owned());
    }
    let hint = did_you_mean(text, ULIMITS).unwrap_or_else(|| format!("one of {}", ULIMITS.join(", ")));
    Err(Wrong::new(format!("{} is no limit of processes", quoted(text))).hint(hint))
}

table! {
    /// A limit of processes that they may raise themselves, up to a bound.
    pub(crate) struct UlimitPair {
        /// What is enforced.
        pub(crate) soft: u64 = "soft", needed(crate::language::integer(0..=i64::MAX as u64)), "1024";
        /// What a program may raise it to.
        pub(crate) hard: u64 = "hard", needed(crate::language::integer(0..=i64::MAX as u64)), "65536";
    }
}

/// Limits of processes by name.
pub(crate) fn ulimits() -> impl Reader<Out = BTreeMap<String, Ulimit>> {
    struct One;
    impl Reader for One {
        type Out = Ulimit;

        fn form(&self) -> Form {
            let pair = sub_table::<UlimitPair>("container.NAME.ulimits.LIMIT").form();
            Form::Either(vec![Form::Integer { min: 0, max: i64::MAX }, pair])
        }

        fn read(&self, item: &Item<'_>) -> Option<Ulimit> {
            if !item.is_table() {
                let both = item.integer(0..=i64::MAX as u64)?;
                return Some(Ulimit { soft: both, hard: both });
            }
            let pair: UlimitPair = sub_table("container.NAME.ulimits.LIMIT").read(item)?;
            if pair.soft > pair.hard {
                item.fault(format!("{}: `soft` is above `hard`", quoted(&item.path)), None);
                return None;
            }
            Some(Ulimit { soft: pair.soft, hard: pair.hard })
        }
    }
    let key = super::form(
        "the name of a limit",
        "as getrlimit(2) calls it, in lower case and without `RLIMIT_`",
        "",
        16,
    );
    map(key, read_ulimit_name, One, MAX_ENTRIES)
}
