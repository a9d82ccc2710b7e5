//! Interfaces, made and removed by messages to the kernel (rtnetlink(7)).
//!
//! The pair that leads from a bridge into a container is made by one message: one end is on the bridge, the other one in the
//! container's namespace, under the name that it is to have.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use bennu_manifests::model::NetworkKind;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, IpVlanMode, LinkMessage, MacVlanMode};
use rtnetlink::{
    Handle, LinkBridge, LinkIpVlan, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVlan,
    RouteMessageBuilder,
};

use super::network::{Bridge, Interface, On};

/// Why an interface was not made or removed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
#[non_exhaustive]
pub struct LinkError {
    /// What was being done.
    what: String,
    /// What the kernel said, or what is not there.
    source: io::Error,
}

fn failed<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> LinkError {
    let what = what.into();
    move |source| LinkError { what, source: source.into() }
}

fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    let failed = failed(what);
    move |error| {
        failed(match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        })
    }
}

/// A way to the network of the calling thread; what it needs to go on runs beside the caller.
fn connect() -> Result<Handle, LinkError> {
    let (connection, handle, _unsolicited) =
        rtnetlink::new_connection().map_err(failed("reach the kernel's network"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// The number of an interface in the calling thread's network.
fn index(name: &str) -> Result<u32, LinkError> {
    if_nametoindex(name).map_err(failed(format!("find the interface {name}")))
}

/// Makes the bridge of a network, unless it is there. It is up when it is whole, and one that is not is made whole.
///
/// # Errors
/// Where the kernel does not make it. It can be repeated.
pub(super) async fn make_bridge(bridge: &Bridge) -> Result<(), LinkError> {
    let name = bridge.name.as_str();
    if is_up(name) {
        return Ok(());
    }
    let links = connect()?;
    if !exists(name) {
        let made = links.link().add(bridge_message(bridge)).execute().await;
        made.map_err(refused(format!("make the bridge {name}")))?;
    }
    // What comes in by one way may have its answer leave by another one (Linux, `ip-sysctl`, "rp_filter"); it has an address of its link,
    // whatever others on the host have; nobody else has the host's addresses here, and nobody tells the host of routers.
    for (family, setting, value) in [
        ("ipv4", "rp_filter", "2"),
        ("ipv6", "addr_gen_mode", "0"),
        ("ipv6", "accept_dad", "0"),
        ("ipv6", "accept_ra", "0"),
    ] {
        set(family, name, setting, value)?;
    }
    let index = index(name)?;
    add_addresses(&links, index, name, &bridge.addresses).await?;
    // Said once it is there, it stays; else it would follow what is on it.
    let up = match bridge.mtu.or_else(default_mtu) {
        Some(mtu) => LinkUnspec::new_with_index(index).mtu(mtu).up(),
        None => LinkUnspec::new_with_index(index).up(),
    };
    links.link().set(up.build()).execute().await.map_err(refused(format!("set the bridge {name} up")))
}

/// What makes a bridge, which is not up then.
fn bridge_message(bridge: &Bridge) -> LinkMessage {
    LinkMessageBuilder::<LinkBridge>::new(&bridge.name).address(bridge.mac.to_vec()).build()
}

/// Makes the interface of a VLAN on another interface, unless it is there.
///
/// # Errors
/// Where there is no such other interface, or the kernel does not make it.
pub(super) async fn make_vlan(name: &str, parent: &str, vlan: u16) -> Result<(), LinkError> {
    if exists(name) {
        return Ok(());
    }
    let links = connect()?;
    let made = links.link().add(LinkVlan::new(name, index(parent)?, vlan).build()).execute().await;
    made.map_err(refused(format!("make the interface {name}")))?;
    match links.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await {
        // It comes up with the other one.
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENETDOWN => Ok(()),
        other => other.map_err(refused(format!("set the interface {name} up"))),
    }
}

/// Removes an interface of the host; one that is not there is no error.
///
/// # Errors
/// Where the kernel does not remove it.
pub(super) async fn delete(name: &str) -> Result<(), LinkError> {
    let Ok(index) = if_nametoindex(name) else { return Ok(()) };
    match connect()?.link().del(index).execute().await {
        // It went by itself meanwhile: the other end did, with its namespace.
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -nix::libc::ENODEV => Ok(()),
        other => other.map_err(refused(format!("remove the interface {name}"))),
    }
}

/// Whether the host has this interface.
pub(super) fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Whether an interface of the host is there and up.
fn is_up(name: &str) -> bool {
    let flags = std::fs::read_to_string(Path::new("/sys/class/net").join(name).join("flags"));
    flags.is_ok_and(|flags| says_up(&flags))
}

/// What an interface's flags say (netdevice(7), `IFF_UP`; Linux, `Documentation/ABI/testing/sysfs-class-net`).
fn says_up(flags: &str) -> bool {
    let flags = flags.trim().strip_prefix("0x").and_then(|flags| u32::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 != 0)
}

/// Makes interfaces in a namespace where there are none yet but the loopback one, which is set up as well. Their bridges are there.
///
/// # Errors
/// Where the kernel does not make one. What was made goes with the namespace.
pub(super) async fn make(interfaces: Vec<Interface>, namespace: PathBuf) -> Result<(), LinkError> {
    apart(move || async move {
        let namespace = open(&namespace)?;
        // This way to the host's network stays one when the thread has left it.
        let host = connect()?;
        let messages = interfaces
            .iter()
            .map(|interface| message(interface, &namespace))
            .collect::<Result<Vec<_>, _>>()?;
        enter(&namespace)?;
        let inside = connect()?;
        let lo = inside.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await;
        lo.map_err(refused("set the loopback interface up"))?;
        for (interface, message) in interfaces.iter().zip(messages) {
            let made = host.link().add(message).execute().await;
            made.map_err(refused(format!("make the interface {} on {}", interface.name, interface.on)))?;
            configure(&inside, interface).await?;
        }
        Ok(())
    })
    .await
}

/// Removes interfaces: those on bridges by the host's end. Those beside the host have no other end; where they are is not always there any more.
///
/// # Errors
/// Where the kernel does not remove one.
pub(super) async fn remove(interfaces: Vec<Interface>, namespace: PathBuf) -> Result<(), LinkError> {
    for interface in &interfaces {
        if let On::Bridge { end, .. } = &interface.on {
            delete(end).await?;
        }
    }
    let beside = interfaces.into_iter().filter(|interface| matches!(interface.on, On::Beside { .. }));
    let beside: Vec<Interface> = beside.collect();
    if beside.is_empty() || !super::namespaces::is_kept(&namespace) {
        return Ok(());
    }
    apart(move || async move {
        enter(&open(&namespace)?)?;
        for interface in &beside {
            delete(&interface.name).await?;
        }
        Ok(())
    })
    .await
}

/// Does something on a thread of its own, which may go to another namespace: it ends with it and never comes back. It has its own event
/// loop, so that it goes on while the daemon does something else.
async fn apart<F>(work: impl FnOnce() -> F + Send + 'static) -> Result<(), LinkError>
where
    F: Future<Output = Result<(), LinkError>>,
{
    let (tell, told) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("links".to_owned()).spawn(move || {
        let events = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let done = events.map_err(failed("make an event loop")).and_then(|events| events.block_on(work()));
        // Whoever asked may be gone.
        let _ = tell.send(done);
    });
    thread.map_err(failed("begin a thread"))?;
    told.await.expect("the thread answers as its last act, and a panic of it ends the daemon")
}

fn open(namespace: &Path) -> Result<File, LinkError> {
    File::open(namespace).map_err(failed("open the network namespace"))
}

fn enter(namespace: &File) -> Result<(), LinkError> {
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(failed("enter the network namespace"))
}

/// What makes an interface, sent from the host; it is not up then. One beside the host has another name still, since the kernel wants the
/// name to be free on the host as well.
fn message(interface: &Interface, namespace: &File) -> Result<LinkMessage, LinkError> {
    let namespace = namespace.as_raw_fd();
    Ok(match &interface.on {
        On::Bridge { bridge, end } => {
            let mut inner = LinkUnspec::new_with_name(&interface.name).setns_by_fd(namespace);
            let mut outer = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
                .name(end)
                .controller(index(&bridge.name)?)
                .up();
            if let Some(mtu) = mtu_of(&bridge.name) {
                (inner, outer) = (inner.mtu(mtu), outer.mtu(mtu));
            }
            if let Some(mac) = interface.mac {
                inner = inner.address(mac.to_vec());
            }
            outer.set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build()))).build()
        }
        On::Beside { parent, kind: NetworkKind::Ipvlan, passing } => {
            // It has the hardware address of its parent.
            beside(LinkIpVlan::new(passing, index(parent)?, IpVlanMode::L2), interface, namespace)
        }
        On::Beside { parent, passing, .. } => {
            let link = LinkMacVlan::new(passing, index(parent)?, MacVlanMode::Bridge);
            let link = match interface.mac {
                Some(mac) => link.address(mac.to_vec()),
                None => link,
            };
            beside(link, interface, namespace)
        }
    })
}

fn beside<T>(link: LinkMessageBuilder<T>, interface: &Interface, namespace: i32) -> LinkMessage {
    let link = link.setns_by_fd(namespace);
    match interface.mtu {
        Some(mtu) => link.mtu(mtu).build(),
        None => link.build(),
    }
}

/// Gives an interface in the calling thread's network its addresses and its way out.
async fn configure(inside: &Handle, interface: &Interface) -> Result<(), LinkError> {
    let name = interface.name.as_str();
    let (was, on_bridge) = match &interface.on {
        On::Bridge { .. } => (name, true),
        On::Beside { passing, .. } => (passing.as_str(), false),
    };
    // Whoever knew its addresses with another one of hardware is told; what comes in by one network may have its answer leave by another one;
    // nobody but the plan gives it addresses. On a bridge nobody else has them, so nobody has to be asked first.
    set("ipv4", was, "arp_notify", "1")?;
    set("ipv4", was, "rp_filter", "2")?;
    set("ipv6", was, "autoconf", "0")?;
    if on_bridge {
        set("ipv6", was, "accept_dad", "0")?;
    }
    let index = index(was)?;
    // Before it is up, which is when it tells of them.
    add_addresses(inside, index, name, &interface.addresses).await?;
    let up = inside.link().set(LinkUnspec::new_with_index(index).name(name).up().build()).execute().await;
    up.map_err(refused(format!("set the interface {name} up")))?;
    for router in &interface.routers {
        let message = match router {
            IpAddr::V4(router) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .gateway(*router)
                .output_interface(index)
                .priority(interface.metric)
                .build(),
            IpAddr::V6(router) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .gateway(*router)
                .output_interface(index)
                .priority(interface.metric)
                .build(),
        };
        let added = inside.route().add(message).execute().await;
        added.map_err(refused(format!("have the way out of {name} lead by {router}")))?;
    }
    Ok(())
}

async fn add_addresses(
    links: &Handle,
    index: u32,
    name: &str,
    addresses: &[(IpAddr, u8)],
) -> Result<(), LinkError> {
    for (address, prefix) in addresses {
        let added = links.address().add(index, *address, *prefix).replace().execute().await;
        added.map_err(refused(format!("give {name} the address {address}/{prefix}")))?;
    }
    Ok(())
}

/// Sets what the kernel does with an interface of the calling thread's network. A kernel without IPv6 has nothing to set for it.
fn set(family: &str, name: &str, setting: &str, value: &str) -> Result<(), LinkError> {
    let path = format!("/proc/sys/net/{family}/conf/{name}/{setting}");
    match std::fs::write(&path, value) {
        Err(error) if family == "ipv6" && error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed(format!("set {path}"))),
    }
}

/// The interface of the host's own way out.
fn default_interface() -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/net").join(name)).unwrap_or_default();
    default_of(&read("route"), &read("ipv6_route"))
}

/// The interface of the first way out in the kernel's tables of routes (proc_pid_net(5), `route`; Linux, `net/ipv6/route.c`).
fn default_of(v4: &str, v6: &str) -> Option<String> {
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let of_v4 = v4.lines().map(fields).find(|route| {
        route.get(1).is_some_and(|to| to == "00000000") && route.get(7).is_some_and(|mask| mask == "00000000")
    });
    let of_v6 = || {
        v6.lines().map(fields).find(|route| {
            route.get(1).is_some_and(|prefix| prefix == "00") && route.last().is_some_and(|name| name != "lo")
        })
    };
    of_v4.and_then(|route| route.into_iter().next()).or_else(|| of_v6()?.pop())
}

/// The largest packet that the host's own way out takes. Less than that, and there could be no IPv6 (RFC 8200, section 5).
fn default_mtu() -> Option<u32> {
    Some(mtu_of(&default_interface()?)?.max(1280))
}

fn mtu_of(interface: &str) -> Option<u32> {
    let path = Path::new("/sys/class/net").join(interface).join("mtu");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkFlags;

    use super::*;

    #[test]
    fn an_interface_is_up_where_its_flags_say_so() {
        for (flags, up) in
            [("0x1003\n", true), ("0x1002\n", false), ("0x1\n", true), ("1003", false), ("", false)]
        {
            assert_eq!(says_up(flags), up, "{flags:?}");
        }
    }

    #[test]
    fn a_bridge_is_made_before_it_is_up() {
        let bridge = Bridge { name: "bn-1".into(), mac: [2, 0, 0, 0, 0, 1], addresses: vec![], mtu: None };
        assert!(!bridge_message(&bridge).header.flags.contains(LinkFlags::Up));
    }

    #[test]
    fn the_way_out_is_found_in_the_kernels_tables() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth1\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                  eth0\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let none = "00000000000000000000000000000000";
        let v6 = format!(
            "fd000000000000000000000000000000 40 {none} 00 {none} 00000100 00000001 00000000 00000001 eth2\n\
             {none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\n\
             {none} 00 {none} 00 fd000000000000000000000000000001 00000064 00000002 00000000 00000003     eth2\n"
        );
        assert_eq!(default_of(v4, &v6).as_deref(), Some("eth0"));
        assert_eq!(default_of("", &v6).as_deref(), Some("eth2"));
        assert_eq!(default_of("Iface\tDestination\n", ""), None);
    }
}
