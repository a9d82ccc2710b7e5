//! `healthcheck`.

use crate::convert;
use crate::draft::Table;
use crate::tree::Map;
use crate::world::World;

pub(super) fn read(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    let Some(field) = map.get("healthcheck") else { return };
    let Some(mut map) = field.map() else { return };
    let disabled = map.get("disable").and_then(|field| field.flag()) == Some(true);
    let mut exec = None;
    let mut none = disabled;
    if let Some(test) = map.get("test") {
        if test.is_list() {
            let texts: Vec<_> =
                test.list().iter().filter_map(|word| word.text().map(str::to_owned)).collect();
            match texts.split_first() {
                Some((first, [])) if first == "NONE" => none = true,
                Some((first, rest)) if first == "CMD" => exec = Some(rest.to_vec()),
                Some((first, [line])) if first == "CMD-SHELL" => exec = Some(shell(line)),
                _ => test.lost("it begins with none of `CMD`, `CMD-SHELL` and `NONE`", ""),
            }
        } else if let Some(line) = test.text() {
            exec = Some(shell(line));
        }
    }
    let mut inner = Table::default();
    for (key, to) in [("interval", "interval"), ("timeout", "timeout"), ("start_period", "start-period")] {
        if let Some(field) = map.get(key)
            && let Some(text) = field.text()
        {
            world.put(&mut inner, ("health", to), &field.site, convert::duration(text));
        }
    }
    if let Some(field) = map.get("retries")
        && let Some(text) = field.text()
    {
        let number = text.parse::<u16>().map(i64::from).map_err(|_| "a number is expected".to_owned());
        world.put(&mut inner, ("health", "retries"), &field.site, number);
    }
    map.end(&[("start_interval", "there is one interval", "write `interval`")]);
    match exec {
        // There is no check; how often it would be made means nothing then, to Compose either.
        _ if none => {}
        Some(exec) if !exec.is_empty() => {
            table.entries.append(&mut inner.entries);
            world.command(&mut inner, "exec", &field.site, exec);
            if let Some(exec) = inner.entries.remove("exec") {
                table.put("health", "exec", exec);
            }
            // Docker only writes it down when a container is not healthy; to start it again is the default here.
            table.put("health", "on-failure", "report");
        }
        _ => field.lost("the check of the image is not known here", "write its command as `test`"),
    }
}

/// A line for a shell.
pub(crate) fn shell(line: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
}
