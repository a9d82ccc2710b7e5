//! What Compose files, units and command lines say about one container in the same words: ports, mounts, variables,
//! limits. Each function takes the words as they are written, and carries them over or says why not.

use crate::convert::{self, Said};
use crate::draft::{Table, Value};
use crate::note::{Site, quoted};
use crate::words;
use crate::world::{MAX_CONFIG, Sort, World, is_alias, is_label, sound_name};

/// What to say of something that needs the keys of the `os` role.
pub(crate) const OS_ROLE: &str = "the manifest needs the signatures of the `os` role for it";

impl World<'_> {
    /// The value, or a note that it is left behind.
    pub(crate) fn taken<T>(&self, site: &Site, said: Said<T>) -> Option<T> {
        said.map_err(|why| self.notes.lost(site, why, "")).ok()
    }

    /// A key with a value that has to be read first.
    pub(crate) fn set(&self, table: &mut Table, key: &str, site: &Site, said: Said<impl Into<Value>>) {
        if let Some(value) = self.taken(site, said) {
            table.set(key, value);
        }
    }

    /// As [`Self::set`], within a table: `limits.memory`.
    pub(crate) fn put(
        &self,
        table: &mut Table,
        key: (&str, &str),
        site: &Site,
        said: Said<impl Into<Value>>,
    ) {
        if let Some(value) = self.taken(site, said) {
            table.put(key.0, key.1, value);
        }
    }

    pub(crate) fn image(&self, table: &mut Table, site: &Site, text: &str) {
        self.set(table, "image", site, convert::image(text));
    }

    /// `entrypoint` or `command`, from words.
    pub(crate) fn command(&self, table: &mut Table, key: &str, site: &Site, words: Vec<String>) {
        if words.is_empty() {
            let hint = "write the whole command line as `entrypoint`";
            self.notes.lost(site, "what the image says cannot be replaced by nothing", hint);
            return;
        }
        if let Some(bad) = words.iter().find_map(|word| unsafe_in_script(word)) {
            self.notes.lost(site, format!("a word contains the character {bad}"), "");
            return;
        }
        table.set(key, words);
    }

    /// As [`Self::command`], from a line that a shell would split.
    pub(crate) fn command_line(&self, table: &mut Table, key: &str, site: &Site, line: &str) {
        match words::split(line) {
            Ok(words) => {
                if let Some(operator) = words::needs_shell(&words) {
                    let message =
                        format!("{} is a word of the command here, no shell looks at it", quoted(operator));
                    self.notes.advice(
                        site,
                        message,
                        "write `[\"sh\", \"-c\", \"…\"]` where a shell is meant",
                    );
                }
                self.command(table, key, site, words);
            }
            Err(error) => self.notes.lost(site, format!("it cannot be split into words: {error}"), ""),
        }
    }

    pub(crate) fn environment(&self, table: &mut Table, site: &Site, key: &str, value: &str) {
        let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let further = |b: u8| first(b) || b.is_ascii_digit() || b == b'.' || b == b'-';
        if !key.bytes().next().is_some_and(first) || !key.bytes().all(further) {
            self.notes.lost(site, format!("{} is no name of a variable", quoted(key)), "");
            return;
        }
        if let Some(bad) = unsafe_in_line(value) {
            let hint = "put it into a `[config.NAME]` and mount it as a file";
            self.notes.lost(site, format!("the value of `{key}` contains the character {bad}"), hint);
            return;
        }
        let upper = key.to_ascii_uppercase();
        let secret = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY"];
        let is_file = upper.ends_with("_FILE") || upper.ends_with("_PATH");
        if !value.is_empty() && !is_file && secret.iter().any(|word| upper.contains(word)) {
            let hint =
                format!("make it a `[secret.NAME]` and write `environment-secrets = {{ {key} = \"NAME\" }}`");
            self.notes.advice(
                site,
                format!("`{key}` looks like a secret, and everybody can read the manifest"),
                hint,
            );
        }
        table.put("environment", key, value);
    }

    pub(crate) fn label(&self, table: &mut Table, site: &Site, key: &str, value: &str) {
        match unsafe_in_line(key).or_else(|| unsafe_in_line(value)) {
            Some(bad) => self.notes.lost(site, format!("the label contains the character {bad}"), ""),
            None if !is_label_key(key) || value.len() > 256 => {
                let message = format!("{} is no label of at most 256 bytes", quoted(key));
                self.notes.lost(site, message, "a label is made of `a-z`, `0-9`, `-`, `_`, `.` and `/`");
            }
            None => table.put("labels", key, value),
        }
    }

    /// A published port in the short form.
    pub(crate) fn port(&self, table: &mut Table, site: &Site, text: &str) {
        if let Some(published) = self.taken(site, convert::port(text)) {
            self.published(table, site, published);
        }
    }

    pub(crate) fn published(&self, table: &mut Table, site: &Site, published: convert::Published) {
        if published.any {
            let message = format!("no port of the host was named; it is published as `{}`", published.port);
            self.notes.changed(site, message, "leave it out if only other containers reach it");
        }
        table.push("ports", published.port);
    }

    /// Takes a path in the container for one mount; `None`, and a note, where it cannot be had.
    pub(crate) fn target(&self, table: &mut Table, site: &Site, text: &str) -> Option<String> {
        let path = self.taken(site, convert::path(text))?;
        let within =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if path == "/" || within("/proc") || within("/sys") || path == "/dev" || path.contains(':') {
            self.notes.lost(site, format!("nothing can be mounted at {}", quoted(&path)), "");
            return None;
        }
        if !table.targets.insert(path.clone()) {
            self.notes.lost(site, format!("something else is mounted at {} already", quoted(&path)), "");
            return None;
        }
        Some(path)
    }

    /// A mount in the short form, `[SOURCE:]TARGET[:OPTIONS]`. `owner` names the container in the input, for volumes
    /// that have no name of their own; `folder` is where relative sources begin.
    pub(crate) fn mount(&mut self, table: &mut Table, site: &Site, text: &str, owner: &str, folder: &str) {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => ("", target, ""),
            [source, target] if target.starts_with('/') => (source, target, ""),
            [target, options] if target.starts_with('/') => ("", target, options),
            [source, target, options] => (source, target, options),
            _ => {
                let message = format!("{} is no mount of the form `SOURCE:TARGET`", quoted(text));
                self.notes.lost(site, message, "");
                return;
            }
        };
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" | "readonly" => read_only = true,
                "rw" => {}
                // These say how SELinux labels, Docker Desktop caches or a new volume is filled; none of it is here.
                "z" | "Z" | "cached" | "delegated" | "consistent" | "nocopy" | "copy" => {
                    self.notes.advice(site, format!("the option {} means nothing here", quoted(option)), "");
                }
                _ => self.notes.lost(site, format!("there is no option {} of a mount", quoted(option)), ""),
            }
        }
        self.mount_of(table, site, (source, target, read_only), owner, folder);
    }

    /// A mount from its parts.
    pub(crate) fn mount_of(
        &mut self,
        table: &mut Table,
        site: &Site,
        (source, target, read_only): (&str, &str, bool),
        owner: &str,
        folder: &str,
    ) {
        let suffix = if read_only { ":ro" } else { "" };
        if source.is_empty() {
            let Some(target) = self.target(table, site, target) else { return };
            let volume = self.volume(&sound_name(&format!("{owner}{}", target.replace('/', "-"))), site);
            let hint = "write `life = \"scratch\"` if it need not outlive a boot";
            self.notes.changed(
                site,
                format!("the volume has no name: it is `{volume}` now, and is kept"),
                hint,
            );
            table.push("volumes", format!("{volume}:{target}{suffix}"));
        } else if source.starts_with('/') {
            self.bind(table, site, source, target, suffix);
        } else if source.starts_with(['.', '~']) || source.contains('/') {
            self.beside(table, site, (source, target, suffix), owner, folder);
        } else {
            let Some(target) = self.target(table, site, target) else { return };
            let volume = self.volume(source, site);
            table.push("volumes", format!("{volume}:{target}{suffix}"));
        }
    }

    /// A path of the host in the container.
    fn bind(&self, table: &mut Table, site: &Site, source: &str, target: &str, suffix: &str) {
        match source {
            "/var/run/docker.sock" | "/run/docker.sock" | "/run/podman/podman.sock" => {
                let hint =
                    "there is no container engine to talk to on the host: see `hostctl status`, or its API";
                self.notes.lost(site, format!("{} is not there", quoted(source)), hint);
                return;
            }
            "/etc/localtime" | "/etc/timezone" => {
                let hint = "write `time-zone = \"Europe/Vienna\"`, say";
                self.notes.lost(site, "the host's time zone is UTC", hint);
                return;
            }
            _ => {}
        }
        let Some(source) = self.taken(site, convert::path(source)).filter(|path| !path.contains(':')) else {
            return;
        };
        let Some(target) = self.target(table, site, target) else { return };
        self.notes.advice(
            site,
            format!("a path of the host: {OS_ROLE}"),
            "a volume is better: it is declared and kept",
        );
        table.push("binds", format!("{source}:{target}{suffix}"));
    }

    /// A file or folder that lies beside the input: a host has no such thing. A small text becomes a config, all else
    /// a volume that is empty at first.
    fn beside(
        &mut self,
        table: &mut Table,
        site: &Site,
        (source, target, suffix): (&str, &str, &str),
        owner: &str,
        folder: &str,
    ) {
        let file = join(folder, source);
        let Some(target) = self.target(table, site, target) else { return };
        let stem = source.trim_matches(['.', '/', '~']).replace('/', "-");
        let stem = if stem.is_empty() { "files" } else { &stem };
        let name = sound_name(&format!("{owner}-{stem}"));
        let content = self.files.read(&file).ok().flatten();
        if let Some(content) =
            content.filter(|text| text.len() <= MAX_CONFIG && unsafe_in_script(text).is_none())
        {
            let config = self.config(&name, &content, site);
            let message =
                format!("the file {} is in the manifest now, as `[config.{config}]`", quoted(source));
            self.notes.changed(site, message, "it is read-only in the container");
            table.push("configs", format!("{config}:{target}"));
        } else {
            let volume = self.volume(&name, site);
            let message = format!(
                "{} is not on the host: it is the volume `{volume}` now, empty at first",
                quoted(source)
            );
            self.notes.changed(
                site,
                message,
                "files that do not change belong into the image or a `[config.NAME]`",
            );
            table.push("volumes", format!("{volume}:{target}{suffix}"));
        }
    }

    /// A tmpfs: `/run`, `/run:size=64m,mode=755`.
    pub(crate) fn tmpfs(&self, table: &mut Table, site: &Site, text: &str) {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let mut size = None;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", value)) => size = self.taken(site, convert::size(value)),
                // Every tmpfs is mounted like this.
                None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec" | "exec" | "relatime") => {}
                _ => self.notes.lost(site, format!("there is no option {} of a tmpfs", quoted(option)), ""),
            }
        }
        self.tmpfs_of(table, site, path, size);
    }

    pub(crate) fn tmpfs_of(&self, table: &mut Table, site: &Site, path: &str, size: Option<String>) {
        let Some(path) = self.target(table, site, path) else { return };
        table.push("tmpfs", size.map_or(path.clone(), |size| format!("{path}:{size}")));
    }

    /// A device: `/dev/a[:/dev/b[:rwm]]`.
    pub(crate) fn device(&self, table: &mut Table, site: &Site, text: &str) {
        if !text.starts_with("/dev/") {
            let hint = "name the device nodes, as `/dev/ttyUSB0`";
            self.notes.lost(site, format!("{} is no device node", quoted(text)), hint);
            return;
        }
        self.notes.advice(site, format!("a device of the host: {OS_ROLE}"), "");
        table.push("devices", text);
    }

    /// A resource limit: `1024`, `1024:2048`.
    pub(crate) fn ulimit(&self, table: &mut Table, site: &Site, name: &str, text: &str) {
        let number = |text: &str| text.trim().parse::<i64>().ok().filter(|value| *value >= 0);
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        match (number(soft), number(hard)) {
            (Some(soft), Some(hard)) if soft == hard => table.put("ulimits", name, soft),
            (Some(soft), Some(hard)) if soft < hard => {
                let pair = [("soft".to_owned(), soft.into()), ("hard".to_owned(), hard.into())];
                table.put("ulimits", name, Value::Map(pair.into()));
            }
            _ => {
                let message = format!("{} is no limit from 0 up, soft before hard", quoted(text));
                self.notes.lost(site, message, "write the numbers that are needed");
            }
        }
    }

    /// An address for a name: `db.example:10.0.0.9`, `db=host-gateway`.
    pub(crate) fn extra_host(&self, table: &mut Table, site: &Site, name: &str, address: &str) {
        let address = address.trim().trim_start_matches('[').trim_end_matches(']');
        if address == "host-gateway" || address.parse::<std::net::IpAddr>().is_ok() {
            table.put("extra-hosts", name.trim(), address);
        } else {
            self.notes.lost(site, format!("{} is no address", quoted(address)), "");
        }
    }

    /// `docker`'s restart policies.
    pub(crate) fn restart(&self, table: &mut Table, site: &Site, text: &str) {
        let (policy, attempts) = text.split_once(':').unwrap_or((text, ""));
        match policy {
            "no" | "none" | "false" => table.set("restart", "no"),
            "always" | "any" => table.set("restart", "always"),
            "unless-stopped" => {
                table.set("restart", "always");
                self.notes.advice(site, "nothing is stopped by hand here, so it is `always`", "");
            }
            "on-failure" => {
                table.set("restart", "on-failure");
                if !attempts.is_empty() {
                    let number = attempts.parse::<u32>().map(i64::from);
                    let number = number.map_err(|_| "a number of attempts is expected".to_owned());
                    self.set(table, "restart-attempts", site, number);
                }
            }
            _ => self.notes.lost(site, format!("{} is no restart policy", quoted(text)), ""),
        }
    }

    /// `NAME=VALUE` of security_opt.
    pub(crate) fn security_opt(&self, table: &mut Table, site: &Site, text: &str) {
        let (key, value) = text.split_once([':', '=']).unwrap_or((text, "true"));
        match (key, value) {
            ("no-new-privileges", "true") => table.set("no-new-privileges", true),
            ("no-new-privileges", "false") => table.set("no-new-privileges", false),
            ("seccomp", "unconfined") => {
                table.set("seccomp", "unconfined");
                self.notes.advice(site, format!("no filter of system calls: {OS_ROLE}"), "");
            }
            ("seccomp", _) => {
                let hint = "the default filter is in effect; `seccomp = \"unconfined\"` takes it away";
                self.notes.lost(site, "there are no filters of one's own", hint);
            }
            ("label" | "apparmor", _) => self.notes.lost(site, "hosts have neither SELinux nor AppArmor", ""),
            _ => self.notes.lost(site, format!("there is no option {}", quoted(text)), ""),
        }
    }

    pub(crate) fn capability(&self, table: &mut Table, key: &str, site: &Site, text: &str) {
        let name = convert::capability(text);
        if name == "ALL" && key == "add-capabilities" {
            let hint = "name those that are needed, or write `privileged = true` (`os` role)";
            self.notes.lost(site, "not all capabilities at once", hint);
        } else if name == "ALL" {
            for name in bennu_manifests::DEFAULT_CAPABILITIES {
                table.push(key, name);
            }
        } else {
            table.push(key, name);
        }
    }

    pub(crate) fn privileged(&self, table: &mut Table, site: &Site, on: bool) {
        if on {
            table.set("privileged", true);
            self.notes.advice(
                site,
                format!("all power over the host: {OS_ROLE}"),
                "name the capabilities and devices that are needed instead",
            );
        }
    }

    pub(crate) fn user(&self, table: &mut Table, site: &Site, text: &str) {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        let part = |part: &str| (1..=32).contains(&part.len()) && part.bytes().all(word);
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        if part(user) && group.is_none_or(part) {
            table.set("user", text);
        } else {
            self.notes.lost(site, format!("{} is no user", quoted(text)), "write `USER` or `USER:GROUP`");
        }
    }

    pub(crate) fn stop_timeout(&self, table: &mut Table, site: &Site, text: &str) {
        self.set(table, "stop-timeout", site, convert::duration(text));
    }

    /// Memory and swap together, as Docker counts them, less the memory.
    pub(crate) fn swap(&self, table: &mut Table, site: &Site, memory: Option<u64>, text: &str) {
        if text.trim() == "-1" {
            self.notes.advice(site, "without a limit of swap, there is none: this is the default", "");
            return;
        }
        let Some(both) = self.taken(site, convert::bytes(text)) else { return };
        match memory.and_then(|memory| both.checked_sub(memory)) {
            Some(swap) => table.put("limits", "swap", convert::size_of(swap)),
            None => self.notes.lost(site, "it is memory and swap together, and less than the memory", ""),
        }
    }

    /// Waits for another container.
    pub(crate) fn depends_on(&self, table: &mut Table, name: &str, when: &str) {
        let known = table.inner("depends-on", name).is_some();
        // A mere order does not weaken a condition that is there.
        if !(known && when == "started") {
            table.put("depends-on", name, when);
        }
    }

    pub(crate) fn hostname(&self, table: &mut Table, site: &Site, text: &str) {
        let lower = text.to_ascii_lowercase();
        if lower.len() <= 253 && lower.split('.').all(is_label) {
            table.set("hostname", lower);
        } else {
            self.notes.lost(site, format!("{} is no host name", quoted(text)), "");
        }
    }

    /// Another name for a container.
    pub(crate) fn alias(&self, table: &mut Table, site: &Site, alias: &str) {
        let lower = alias.to_ascii_lowercase();
        if is_alias(&lower) {
            table.push("aliases", lower);
        } else {
            self.notes.lost(site, format!("{} is no name that can be looked up", quoted(alias)), "");
        }
    }

    /// `host`, `none`, `bridge` and the like as the network of a container; `false` where it is none of these.
    pub(crate) fn network_mode(&mut self, table: &mut Table, site: &Site, mode: &str) -> bool {
        match mode {
            "host" | "none" => {
                let name = self.network(mode, site);
                self.draft.networks.entry(name.clone()).or_default().set("kind", mode);
                table.push("networks", name);
                if mode == "host" {
                    self.notes.advice(site, format!("the network of the host: {OS_ROLE}"), "");
                }
                true
            }
            "bridge" | "default" => true,
            _ => false,
        }
    }

    /// `host` for one of the namespaces.
    pub(crate) fn namespace(&self, table: &mut Table, key: &str, site: &Site, text: &str) {
        match text {
            "host" => {
                table.set(key, "host");
                self.notes.advice(site, format!("the host's own: {OS_ROLE}"), "");
            }
            "private" | "shareable" | "none" | "" | "auto" | "nomap" => {}
            _ => self.notes.lost(site, "containers share nothing but networks and volumes", ""),
        }
    }
}

/// Mounts a secret or config at `path`; in the short form where nothing else is said.
pub(crate) fn grant_of(
    table: &mut Table,
    sort: Sort,
    name: String,
    path: String,
    mode: Option<String>,
    owner: Option<String>,
) {
    let (key, what) = if sort == Sort::Secret { ("secrets", "secret") } else { ("configs", "config") };
    if mode.is_none() && owner.is_none() {
        let usual = sort == Sort::Secret && path == format!("/run/secrets/{name}");
        table.push(key, if usual { name } else { format!("{name}:{path}") });
        return;
    }
    let all = [(what, Some(name)), ("target", Some(path)), ("mode", mode), ("owner", owner)];
    let pairs = all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?))));
    table.push(key, Value::Map(pairs.collect()));
}

/// `path` as seen from the folder of the file that names it.
pub(crate) fn join(folder: &str, path: &str) -> String {
    if folder.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") }
}

fn is_label_key(key: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.' | b'/');
    (1..=256).contains(&key.len()) && key.bytes().all(word)
}

fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first character that a manifest does not take in a line of text.
pub(crate) fn unsafe_in_line(text: &str) -> Option<String> {
    let bad = text.chars().find(|c| c.is_control() || is_deceptive(*c));
    bad.map(|c| c.escape_unicode().to_string())
}

/// As [`unsafe_in_line`], for texts of several lines.
pub(crate) fn unsafe_in_script(text: &str) -> Option<String> {
    let bad = text.chars().find(|c| !matches!(c, '\n' | '\t') && (c.is_control() || is_deceptive(*c)));
    bad.map(|c| c.escape_unicode().to_string())
}
