//! What appears in a container's file system, and who owns it.

use crate::document::{Item, Wrong, read_name};
use crate::fault::quoted;
use crate::language::{Form, Reader, Table, each, needed, optional, otherwise, spec, sub_table, table};
use crate::model::{Bind, Device, FileMount, Name, Tmpfs, VolumeMount};
use crate::text::first_unsafe_in_script;
use crate::units::{MIB, TIB, read_path, read_size, read_target};
use crate::values::{MAX_ENTRIES, MAX_SPEC, name};

/// The size of a tmpfs that names none.
const DEFAULT_TMPFS: u64 = 64 * MIB;
/// The longest encrypted file with its armour, in bytes.
const MAX_AGE: usize = 128 * 1024;

/// A path in a container.
pub(crate) fn path() -> impl Reader<Out = String> {
    spec("a path", "absolute, without `.`, `..` and double slashes", "^/", MAX_SPEC, read_path)
}

/// A place where something is mounted.
fn target() -> impl Reader<Out = String> {
    spec(
        "a place",
        "absolute, normalised, not `/`, and not below `/proc` or `/sys`",
        "^/.",
        MAX_SPEC,
        read_target,
    )
}

/// `SOURCE:/TARGET[:ro|:rw]`: the source, the target, and whether it is read-only.
fn read_mount(text: &str, wrong: impl Fn() -> Wrong) -> Result<(&str, String, bool), Wrong> {
    let mut parts = text.split(':');
    let (Some(source), Some(target), mode, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let read_only = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return Err(wrong()),
    };
    Ok((source, read_target(target)?, read_only))
}

/// A volume and where it appears.
pub(crate) fn volume_mount() -> impl Reader<Out = VolumeMount> {
    const FORM: &str =
        "write `VOLUME:/TARGET`, and `:ro` behind it to mount it read-only, as `data:/var/lib/x:ro`";
    let pattern = "^[a-z][a-z0-9-]*:/[^:]+(:ro|:rw)?$";
    spec("a mount of a volume", "`VOLUME:/TARGET[:ro]`", pattern, MAX_SPEC, |text| {
        if text.starts_with(['/', '.', '~']) {
            let source = text.split(':').next().unwrap_or(text);
            let message = format!("{} is a path of the host, and no volume", quoted(source));
            return Err(Wrong::new(message).hint(
                "declare a `[volume.NAME]` and mount it by its name; paths of the host go into `binds`",
            ));
        }
        let wrong = || Wrong::new(format!("{} is no mount of a volume", quoted(text))).hint(FORM);
        let (volume, target, read_only) = read_mount(text, wrong)?;
        Ok(VolumeMount { volume: read_name(volume)?, target, read_only })
    })
}

/// A path of the host and where it appears.
pub(crate) fn bind() -> impl Reader<Out = Bind> {
    let pattern = "^/[^:]*:/[^:]+(:ro|:rw)?$";
    spec("a path of the host", "`/HOST:/TARGET[:ro]`", pattern, MAX_SPEC, |text| {
        let wrong = || {
            Wrong::new(format!("{} binds no path of the host", quoted(text)))
                .hint("write `/HOST:/TARGET[:ro]`")
        };
        let (source, target, read_only) = read_mount(text, wrong)?;
        Ok(Bind { source: read_path(source)?, target, read_only })
    })
}

/// A memory-backed place.
pub(crate) fn tmpfs() -> impl Reader<Out = Tmpfs> {
    let syntax = "`/TARGET[:SIZE]`, the size from 4KiB to 1TiB";
    spec("a memory-backed place", syntax, "^/[^:]+(:[0-9]+(B|KiB|MiB|GiB|TiB))?$", MAX_SPEC, |text| {
        let (target, size) = match text.split_once(':') {
            Some((target, size)) => (target, read_size(size)?),
            None => (text, DEFAULT_TMPFS),
        };
        if !(4096..=TIB).contains(&size) {
            return Err(Wrong::new("the size of a tmpfs is from 4KiB to 1TiB"));
        }
        Ok(Tmpfs { target: read_target(target)?, size })
    })
}

/// A device of the host.
pub(crate) fn device() -> impl Reader<Out = Device> {
    const FORM: &str = "write `/dev/X`, `/dev/X:/dev/Y` or `/dev/X:/dev/Y:rwm`";
    let pattern = "^/dev/[^:]+(:/dev/[^:]+)?(:r?w?m?)?$";
    spec("a device", "`/dev/X[:/dev/Y][:rwm]`", pattern, MAX_SPEC, |text| {
        let wrong = || Wrong::new(format!("{} is no device", quoted(text))).hint(FORM);
        let mut parts: Vec<&str> = text.split(':').collect();
        let is_access = |word: &&str| matches!(*word, "r" | "w" | "m" | "rw" | "rm" | "wm" | "rwm");
        let access = parts.pop_if(|word| is_access(&&**word)).unwrap_or("rw");
        let (source, target) = match parts[..] {
            [source] => (source, source),
            [source, target] => (source, target),
            _ => return Err(wrong()),
        };
        if [source, target].iter().any(|path| !path.starts_with("/dev/")) {
            return Err(wrong());
        }
        Ok(Device { source: read_path(source)?, target: read_path(target)?, access: access.to_owned() })
    })
}

/// `UID:GID`.
pub(crate) fn owner() -> impl Reader<Out = String> {
    spec("an owner", "`UID:GID`, numbers", "^[0-9]+:[0-9]+$", 32, |text| {
        // 2^32 - 1 means "no change" to the kernel (chown(2)).
        let id = |text: &str| {
            text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|id| id != u32::MAX)
        };
        match text.split_once(':') {
            Some((user, group)) if id(user) && id(group) => Ok(text.to_owned()),
            _ => {
                Err(Wrong::new(format!("{} is no owner", quoted(text))).hint("write `UID:GID`, as `999:999`"))
            }
        }
    })
}

/// Permissions in octal.
pub(crate) fn mode() -> impl Reader<Out = String> {
    spec("permissions", "three or four octal digits", "^[0-7]?[0-7]{3}$", 4, |text| {
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        if octal && (3..=4).contains(&text.len()) {
            return Ok(format!("{text:0>4}"));
        }
        Err(Wrong::new(format!("{} is no mode", quoted(text))).hint("write octal digits, as `0644`"))
    })
}

/// A file that age has encrypted, in its armour (age-encryption.org/v1, "ASCII armor").
pub(crate) fn age_armour() -> impl Reader<Out = String> {
    struct Armour;
    impl Reader for Armour {
        type Out = String;

        fn form(&self) -> Form {
            let syntax = "what `age --encrypt --armor` or `hostctl secret encrypt` writes";
            Form::Text(super::form("an encrypted file", syntax, "", MAX_AGE))
        }

        fn read(&self, item: &Item<'_>) -> Option<String> {
            let text = item.checked_text(MAX_AGE, first_unsafe_in_script)?.value;
            let inner = text.trim().strip_prefix("-----BEGIN AGE ENCRYPTED FILE-----\n");
            let inner = inner.and_then(|inner| inner.strip_suffix("\n-----END AGE ENCRYPTED FILE-----"));
            let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n');
            if inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(base64)) {
                return Some(text.to_owned());
            }
            let message = format!("{} is no encrypted file in the armour of age", quoted(&item.path));
            let hint =
                "`hostctl secret encrypt` writes it; a secret is never written here as it is".to_owned();
            item.fault(message, hint);
            None
        }
    }
    Armour
}

/// A recipient of age (age-encryption.org/v1, "The X25519 recipient type").
pub(crate) fn age_recipient() -> impl Reader<Out = String> {
    spec(
        "a recipient",
        "`age1…`, as `hostctl status` shows it for a host",
        "^age1[02-9ac-hj-np-z]{58}$",
        128,
        |text| {
            let bech32 =
                |b: u8| b.is_ascii_digit() && b != b'1' || b.is_ascii_lowercase() && !b"bio".contains(&b);
            match text.strip_prefix("age1") {
                Some(rest) if rest.len() == 58 && rest.bytes().all(bech32) => Ok(text.to_owned()),
                _ => Err(Wrong::new(format!("{} is no recipient of age", quoted(text)))
                    .hint("it is the `age1…` line that `hostctl status` shows for a host")),
            }
        },
    )
}

table! {
    /// A secret and where it appears.
    pub(crate) struct SecretMount {
        /// Its name.
        pub(crate) secret: Name = "secret", needed(name()), "\"db-password\"";
        /// Where it appears. Left out, it is `/run/secrets/NAME`.
        pub(crate) target: Option<String> = "target", optional(target()), "\"/etc/app/password\"";
        /// Its permissions, in octal.
        pub(crate) mode: String = "mode", otherwise(mode(), "0400".to_owned(), "\"0400\""), "\"0440\"";
        /// Who owns it in the container, `UID:GID`. Left out, it is the user that the container runs as.
        pub(crate) owner: Option<String> = "owner", optional(owner()), "\"0:0\"";
    }
}

table! {
    /// A config and where it appears.
    pub(crate) struct ConfigMount {
        /// Its name.
        pub(crate) config: Name = "config", needed(name()), "\"app-conf\"";
        /// Where it appears.
        pub(crate) target: String = "target", needed(target()), "\"/etc/app.conf\"";
        /// Its permissions, in octal.
        pub(crate) mode: String = "mode", otherwise(mode(), "0444".to_owned(), "\"0444\""), "\"0644\"";
        /// Who owns it in the container, `UID:GID`. Left out, it is the user that the container runs as.
        pub(crate) owner: Option<String> = "owner", optional(owner()), "\"0:0\"";
    }
}

impl From<SecretMount> for FileMount {
    fn from(mount: SecretMount) -> Self {
        let target = mount.target.unwrap_or_else(|| format!("/run/secrets/{}", mount.secret));
        Self { source: mount.secret, target, mode: mount.mode, owner: mount.owner }
    }
}

impl From<ConfigMount> for FileMount {
    fn from(mount: ConfigMount) -> Self {
        Self { source: mount.config, target: mount.target, mode: mount.mode, owner: mount.owner }
    }
}

/// A string that is short for a table, or the table.
struct FileMounts<T, F> {
    title: &'static str,
    short: F,
    marker: std::marker::PhantomData<T>,
}

impl<T: Table + Into<FileMount>, F: Reader<Out = FileMount>> Reader for FileMounts<T, F> {
    type Out = FileMount;

    fn form(&self) -> Form {
        Form::Either(vec![self.short.form(), Form::Table(T::info(self.title))])
    }

    fn read(&self, item: &Item<'_>) -> Option<FileMount> {
        if item.is_text() {
            self.short.read(item)
        } else {
            sub_table::<T>(self.title).read(item).map(Into::into)
        }
    }
}

/// Secrets in a container.
pub(crate) fn secret_mounts() -> impl Reader<Out = Vec<FileMount>> {
    let short = spec("a secret", "`NAME` or `NAME:/TARGET`", "", MAX_SPEC, |text| {
        let (name, target) = text.split_once(':').map_or((text, None), |(name, target)| (name, Some(target)));
        let target = target.map(read_target).transpose()?;
        let mount = SecretMount { secret: read_name(name)?, target, mode: "0400".to_owned(), owner: None };
        Ok(mount.into())
    });
    let marker = std::marker::PhantomData::<SecretMount>;
    each(FileMounts { title: "container.NAME.secrets[]", short, marker }, MAX_ENTRIES)
}

/// Configs in a container.
pub(crate) fn config_mounts() -> impl Reader<Out = Vec<FileMount>> {
    let short = spec("a config", "`NAME:/TARGET`", "^[a-z][a-z0-9-]*:/", MAX_SPEC, |text| {
        let wrong =
            || Wrong::new(format!("{} is no mount of a config", quoted(text))).hint("write `NAME:/TARGET`");
        let (name, target) = text.split_once(':').ok_or_else(wrong)?;
        let (config, target) = (read_name(name)?, read_target(target)?);
        Ok(ConfigMount { config, target, mode: "0444".to_owned(), owner: None }.into())
    });
    let marker = std::marker::PhantomData::<ConfigMount>;
    each(FileMounts { title: "container.NAME.configs[]", short, marker }, MAX_ENTRIES)
}
