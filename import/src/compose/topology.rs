//! `networks`, and all that a service says about how it is reached.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::service::Later;
use crate::convert;
use crate::draft::Table;
use crate::note::quoted;
use crate::tree::{Field, Map, Unsupported};
use crate::world::{Sort, World};

/// The networks of the file.
pub(super) fn networks(all: &BTreeMap<String, Field<'_>>, world: &mut World<'_>) {
    for (old, field) in all {
        let name = world.name(Sort::Network, old, &field.site);
        let mut table = Table::default();
        if let Some(mut map) = field.map() {
            one(&mut map, &mut table, world);
            map.end(&UNSUPPORTED);
        }
        // The network that all are in who name none needs no table, unless there is something to say about it.
        if name != "default" || !table.entries.is_empty() {
            world.draft.networks.insert(name, table);
        }
    }
}

fn one(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    if let Some(field) = map.get("driver") {
        match field.text() {
            None | Some("bridge") => {}
            Some(kind @ ("macvlan" | "ipvlan" | "host" | "none")) => table.set("kind", kind),
            Some("overlay") => {
                let hint = "hosts are each for themselves: publish ports where others are to reach them";
                field.changed("it is a bridge of one host", hint);
            }
            Some(other) => field.changed(format!("there is no driver {}, it is a bridge", quoted(other)), ""),
        }
    }
    let options = map.get("driver_opts").and_then(|field| field.map()).map(Map::entries).unwrap_or_default();
    for (key, field) in options {
        let Some(text) = field.text() else { continue };
        match key {
            "parent" => match text.split_once('.') {
                Some((parent, vlan)) if vlan.parse::<u16>().is_ok() => {
                    table.set("parent", parent);
                    table.set("vlan", i64::from(vlan.parse::<u16>().unwrap_or_default()));
                }
                _ => table.set("parent", text),
            },
            "com.docker.network.driver.mtu" | "mtu" => {
                let mtu = text.parse::<u16>().map(i64::from).map_err(|_| "a number is expected".to_owned());
                world.set(table, "mtu", &field.site, mtu);
            }
            "com.docker.network.bridge.enable_icc" if text == "false" => table.set("isolated", true),
            _ => field.lost("the option is not known here", ""),
        }
    }
    if let Some(mut ipam) = map.get("ipam").and_then(|field| field.map()) {
        if let Some(field) = ipam.get("driver")
            && let Some(driver) = field.text()
            && driver != "default"
        {
            field.lost(format!("there is no driver {}", quoted(driver)), "");
        }
        for field in ipam.get("config").map(|field| field.list()).unwrap_or_default() {
            let Some(mut map) = field.map() else { continue };
            if let Some(field) = map.get("subnet")
                && let Some(text) = field.text()
            {
                let key = if text.contains(':') { "subnet6" } else { "subnet" };
                if table.has(key) {
                    field.lost("there is one subnet of each sort", "make it another network");
                } else {
                    table.set(key, text);
                }
            }
            if let Some(field) = map.get("gateway")
                && let Some(text) = field.text()
            {
                match text.parse::<IpAddr>() {
                    Ok(IpAddr::V4(_)) if !table.has("gateway") => table.set("gateway", text),
                    _ => field.lost("there is one gateway, an IPv4 address", ""),
                }
            }
            let free = "the host chooses among all addresses";
            map.end(&[("ip_range", free, "write `addresses`"), ("aux_addresses", free, "write `addresses`")]);
        }
        ipam.end(&[("options", "there are no options", "")]);
    }
    if map.get("internal").and_then(|field| field.flag()) == Some(true) {
        table.set("internal", true);
    }
    if let Some(field) = map.get("external") {
        external(&field, "it is made by the host now, for the containers of this manifest");
    }
    if let Some(field) = map.get("name") {
        field.advice("a network has the name of its table", "");
    }
    if let Some(field) = map.get("attachable") {
        field.advice("nothing that is not in the manifest is on the host, so nothing attaches", "");
    }
    if let Some(field) = map.get("enable_ipv6")
        && field.flag() == Some(true)
        && !table.has("subnet6")
    {
        field.lost("without a subnet there is no IPv6", "write `subnet6 = \"fd00::/64\"`");
    }
    if let Some(field) = map.get("enable_ipv4")
        && field.flag() == Some(false)
    {
        field.lost("IPv4 is always there", "");
    }
}

/// `external`, alone or with a name in it.
pub(super) fn external(field: &Field<'_>, message: &str) {
    if field.is_map() || field.flag() == Some(true) {
        field.changed(message, "");
    }
}

const UNSUPPORTED: [Unsupported; 1] = [("labels", "networks have no labels", "")];

/// How a service is reached, and whom it finds.
pub(super) fn join(
    map: &mut Map<'_>,
    table: &mut Table,
    world: &mut World<'_>,
    later: &mut Later,
    name: &str,
    declared: &BTreeMap<String, ()>,
) {
    if let Some(field) = map.get("network_mode")
        && let Some(mode) = field.text()
        && !world.network_mode(table, &field.site, mode)
    {
        let hint = "containers share no network namespace: join both to a network";
        field.lost(format!("there is no mode {}", quoted(mode)), hint);
    }
    // Files of Fig and of Compose 1 say `net`.
    if let Some(field) = map.get("net")
        && let Some(mode) = field.text()
        && !world.network_mode(table, &field.site, mode)
    {
        field.lost(format!("there is no mode {}", quoted(mode)), "join both to a network");
    }
    if let Some(field) = map.get("networks") {
        let all: Vec<(String, Field<'_>)> = if field.is_map() {
            let entries = field.map().map(Map::entries).unwrap_or_default();
            entries.into_iter().map(|(old, field)| (old.to_owned(), field)).collect()
        } else {
            field.list().into_iter().filter_map(|field| Some((field.text()?.to_owned(), field))).collect()
        };
        for (old, field) in all {
            if old != "default" && !declared.contains_key(&old) {
                world.notes.changed(
                    &field.site,
                    format!("the network {} was not declared, it is now", quoted(&old)),
                    "",
                );
            }
            let network = world.network(&old, &field.site);
            table.push("networks", network.as_str());
            if field.is_map() {
                member(&field, &network, table, world, later, name);
            }
        }
    }
    for field in map.get("ports").map(|field| field.list()).unwrap_or_default() {
        if field.is_map() {
            long_port(&field, table, world);
        } else if let Some(text) = field.text() {
            world.port(table, &field.site, text);
        }
    }
    for (key, to) in [("dns", "servers"), ("dns_search", "search"), ("dns_opt", "options")] {
        for field in map.get(key).map(|field| field.one_or_list()).unwrap_or_default() {
            if let Some(text) = field.text() {
                table.push_inner("dns", to, text);
            }
        }
    }
    if let Some(field) = map.get("extra_hosts") {
        let all = if field.is_map() {
            field
                .map()
                .map(Map::entries)
                .unwrap_or_default()
                .into_iter()
                .flat_map(|(name, field)| {
                    let addresses = field.one_or_list();
                    addresses
                        .into_iter()
                        .map(move |field| (name.to_owned(), field.text().map(str::to_owned), field))
                })
                .collect()
        } else {
            field.pairs(&['=', ':'])
        };
        for (name, address, field) in all {
            world.extra_host(table, &field.site, &name, address.as_deref().unwrap_or_default());
        }
    }
}

/// What a service says about its place in one network.
fn member(
    field: &Field<'_>,
    network: &str,
    table: &mut Table,
    world: &World<'_>,
    later: &mut Later,
    name: &str,
) {
    let Some(mut map) = field.map() else { return };
    for field in map.get("aliases").map(|field| field.list()).unwrap_or_default() {
        if let Some(alias) = field.text()
            && alias != name
        {
            later.aliases.push((name.to_owned(), alias.to_owned(), field.site.clone()));
        }
    }
    for key in ["ipv4_address", "ipv6_address"] {
        let Some(field) = map.get(key) else { continue };
        let Some(text) = field.text() else { continue };
        if text.parse::<IpAddr>().is_err() {
            field.lost(format!("{} is no address", quoted(text)), "");
        } else if table.inner("addresses", network).is_some() {
            field.lost("there is one fixed address in each network", "");
        } else {
            table.put("addresses", network, text);
        }
    }
    if let Some(field) = map.get("mac_address")
        && let Some(text) = field.text()
    {
        if table.has("mac-address") {
            field.lost("there is one hardware address for each container", "");
        } else {
            table.set("mac-address", text);
        }
    }
    let order = "the first network of the list leads outside";
    map.end(&[
        ("priority", order, "sort `networks`"),
        ("gw_priority", order, "sort `networks`"),
        ("link_local_ips", "there is one fixed address in each network", ""),
        ("driver_opts", "there are no options", ""),
        ("interface_name", "interfaces are named by the host", ""),
    ]);
    world.notes.advice(&field.site, "its aliases are found in all of its networks", "");
}

fn long_port(field: &Field<'_>, table: &mut Table, world: &World<'_>) {
    let Some(mut map) = field.map() else { return };
    let mut word = |key| map.get(key).and_then(|field| field.text()).unwrap_or_default();
    let (target, published) = (word("target"), word("published"));
    let (address, protocol) = (word("host_ip"), word("protocol"));
    match convert::published(address, published, target, protocol) {
        Some(Ok(port)) => world.published(table, &field.site, port),
        Some(Err(why)) => world.notes.lost(&field.site, why, ""),
        None => world.notes.lost(&field.site, "numbers of ports, and an address, are expected", ""),
    }
    for key in ["name", "app_protocol", "mode"] {
        if let Some(field) = map.get(key) {
            field.advice("it makes no difference here", "");
        }
    }
    map.end(&[]);
}
