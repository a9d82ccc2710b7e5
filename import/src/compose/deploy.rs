//! Limits of resources, and `deploy`.

use crate::convert;
use crate::draft::Table;
use crate::note::quoted;
use crate::tree::{Field, Map};
use crate::world::World;

/// The limits that stand in the service itself.
pub(super) fn limits(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    let mut memory = None;
    if let Some(field) = map.get("mem_limit")
        && let Some(text) = field.text()
    {
        memory = convert::bytes(text).ok();
        world.put(table, ("limits", "memory"), &field.site, convert::size(text));
    }
    if let Some(field) = map.get("mem_reservation")
        && let Some(text) = field.text()
    {
        world.put(table, ("limits", "memory-reservation"), &field.site, convert::size(text));
    }
    if let Some(field) = map.get("memswap_limit")
        && let Some(text) = field.text()
    {
        world.swap(table, &field.site, memory, text);
    }
    if let Some(field) = map.get("cpus")
        && let Some(text) = field.text()
    {
        // Nought stands for no limit.
        if text.parse::<f64>() != Ok(0.0) {
            world.put(table, ("limits", "cpu"), &field.site, convert::cpus(text));
        }
    }
    quota(map, table, world);
    if let Some(field) = map.get("cpu_shares")
        && let Some(text) = field.text()
        && let Some(weight) = world.taken(&field.site, convert::cpu_weight(text))
    {
        table.put("limits", "cpu-weight", weight);
        let message = format!("{text} shares (of 1024) are a weight of {weight} (of 100)");
        world.notes.advice(&field.site, message, "");
    }
    if let Some(field) = map.get("cpuset")
        && let Some(text) = field.text()
    {
        table.put("limits", "cpuset", text);
    }
    if let Some(field) = map.get("pids_limit") {
        pids(&field, table);
    }
    if let Some(field) = map.get("blkio_config") {
        let Some(mut map) = field.map() else { return };
        if let Some(field) = map.get("weight")
            && let Some(text) = field.text()
            && let Some(weight) = world.taken(&field.site, convert::io_weight(text))
        {
            table.put("limits", "io-weight", weight);
            world.notes.advice(&field.site, format!("{text} (of 500) is a weight of {weight} (of 100)"), "");
        }
        let message = "limits of single devices are not known";
        let hint = "write `limits.io-weight`";
        map.end(&[
            ("device_read_bps", message, hint),
            ("device_write_bps", message, hint),
            ("device_read_iops", message, hint),
            ("device_write_iops", message, hint),
            ("weight_device", message, hint),
        ]);
    }
}

/// `cpu_quota` of each `cpu_period`, in microseconds.
fn quota(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    let micros = |field: &Field<'_>| {
        let text = field.text()?;
        let plain = text.parse::<f64>().ok().filter(|value| value.is_finite());
        let value = plain.or_else(|| convert::milliseconds(text).ok().map(|value| value as f64 * 1000.0));
        if value.is_none() {
            field.lost("microseconds are expected", "");
        }
        value
    };
    let period = map.get("cpu_period").and_then(|field| micros(&field)).unwrap_or(100_000.0);
    if let Some(field) = map.get("cpu_quota")
        && let Some(quota) = micros(&field)
        && quota > 0.0
    {
        world.put(table, ("limits", "cpu"), &field.site, convert::cpus(&format!("{}", quota / period)));
    }
}

fn pids(field: &Field<'_>, table: &mut Table) {
    match field.text().map(str::parse::<i64>) {
        None | Some(Ok(-1 | 0)) => {}
        Some(Ok(number)) if number > 0 => table.put("limits", "pids", number),
        _ => field.lost("a number of processes is expected", ""),
    }
}

/// `deploy`, and `scale`.
pub(super) fn read(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    if let Some(field) = map.get("scale") {
        replicas(&field, table);
    }
    let Some(mut map) = map.get("deploy").and_then(|field| field.map()) else { return };
    if let Some(field) = map.get("replicas") {
        replicas(&field, table);
    }
    if let Some(field) = map.get("mode")
        && let Some(mode) = field.text()
        && !matches!(mode, "replicated" | "global")
    {
        let hint = "write `[job.NAME]` for what ends";
        field.lost(format!("there is no mode {}", quoted(mode)), hint);
    }
    if let Some(mut map) = map.get("resources").and_then(|field| field.map()) {
        resources(&mut map, table, world);
        map.end(&[]);
    }
    if let Some(mut map) = map.get("update_config").and_then(|field| field.map()) {
        if let Some(field) = map.get("order") {
            match field.text() {
                Some(order @ ("start-first" | "stop-first")) => table.put("update", "order", order),
                _ => field.lost("`start-first` or `stop-first` is expected", ""),
            }
        }
        let one = "containers are replaced one after the other";
        map.end(&[
            ("parallelism", one, ""),
            ("delay", one, ""),
            ("failure_action", "a bad new container is always taken back", ""),
            (
                "monitor",
                "a new container has to be healthy in time",
                "write `update = { deadline = \"5m\" }`",
            ),
            ("max_failure_ratio", "a bad new container is always taken back", ""),
        ]);
    }
    if let Some(mut map) = map.get("restart_policy").and_then(|field| field.map()) {
        if let Some(field) = map.get("condition")
            && let Some(text) = field.text()
        {
            world.restart(table, &field.site, text);
        }
        if let Some(field) = map.get("max_attempts")
            && let Some(text) = field.text()
        {
            let number = text.parse::<u32>().map(i64::from).map_err(|_| "a number is expected".to_owned());
            world.set(table, "restart-attempts", &field.site, number);
        }
        map.end(&[
            ("delay", "a container is started ever more slowly if it keeps dying", ""),
            ("window", "a container is started ever more slowly if it keeps dying", ""),
        ]);
    }
    if let Some(mut map) = map.get("placement").and_then(|field| field.map()) {
        for field in map.get("constraints").map(|field| field.list()).unwrap_or_default() {
            let Some(text) = field.text() else { continue };
            let label = text.split_once("==").map(|(key, value)| (key.trim(), value.trim()));
            match label.and_then(|(key, value)| Some((key.strip_prefix("node.labels.")?, value))) {
                Some((key, value)) => table.put("on", key, value),
                None => {
                    let hint = "give hosts labels and write `on = { LABEL = \"VALUE\" }`";
                    field.lost(format!("{} says nothing of a label", quoted(text)), hint);
                }
            }
        }
        let message = "there is no scheduler: each host runs what is for it";
        map.end(&[("preferences", message, ""), ("max_replicas_per_node", message, "")]);
    }
    map.end(&[
        ("endpoint_mode", "there is one address a container", ""),
        ("labels", "services have no labels of their own", "use the labels of the container"),
        ("rollback_config", "what was before comes back as it was", ""),
    ]);
}

fn replicas(field: &Field<'_>, table: &mut Table) {
    match field.text().map(str::parse::<u16>) {
        Some(Ok(1)) | None => {}
        Some(Ok(0)) => field.changed("none is to run: take the container out", ""),
        Some(Ok(number)) => table.set("replicas", i64::from(number)),
        Some(Err(_)) => field.lost("a number is expected", ""),
    }
}

fn resources(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    if let Some(mut map) = map.get("limits").and_then(|field| field.map()) {
        if let Some(field) = map.get("cpus")
            && let Some(text) = field.text()
        {
            world.put(table, ("limits", "cpu"), &field.site, convert::cpus(text));
        }
        if let Some(field) = map.get("memory")
            && let Some(text) = field.text()
        {
            world.put(table, ("limits", "memory"), &field.site, convert::size(text));
        }
        if let Some(field) = map.get("pids") {
            pids(&field, table);
        }
        map.end(&[]);
    }
    if let Some(mut map) = map.get("reservations").and_then(|field| field.map()) {
        if let Some(field) = map.get("memory")
            && let Some(text) = field.text()
        {
            world.put(table, ("limits", "memory-reservation"), &field.site, convert::size(text));
        }
        map.end(&[
            ("cpus", "CPUs are not set aside", "write `limits.cpu-weight`"),
            ("pids", "processes are not set aside", ""),
            ("devices", "devices are not looked for", "name them in `devices`, as `/dev/dri/renderD128`"),
            ("generic_resources", "resources of other sorts are not known", ""),
        ]);
    }
}
