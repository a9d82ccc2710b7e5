//! Sockets and addresses beyond the container.

#![expect(unsafe_code, reason = "sockets of families that no library has")]

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::libc;

use crate::Check;

pub(crate) const CHECKS: &[Check] = &[
    ("R01", "send packets of its own making", || socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("R02", "hear and send frames of others on its network", || {
        socket(libc::AF_PACKET, libc::SOCK_RAW, 0x0300)
    }),
    ("R03", "reach the hypervisor", || socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    ("R04", "watch what the kernel audits", || {
        // AUDIT_READLOG is group 1 of NETLINK_AUDIT, which needs a right.
        bound(libc::NETLINK_AUDIT, 1)
    }),
    ("R05", "change its interfaces", interface_down),
    ("R06", "reach sockets of the host that have no path (CVE-2020-15257)", || {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        sockets.lines().any(|line| line.contains(" @"))
    }),
    ("R07", "ask the cloud for its secrets", || connects("169.254.169.254:80")),
    ("R08", "reach the host's name server on its loopback address", || connects("127.0.0.53:53")),
    ("R09", "reach the daemon on the host's loopback address", || connects("127.0.0.1:7443")),
    ("R10", "see the host's interfaces", || {
        let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
        table.lines().any(|line| line.trim_start().starts_with("bn-"))
    }),
    ("R11", "change the host's network settings", || {
        ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/rp_filter"]
            .iter()
            .any(|path| fs::OpenOptions::new().write(true).open(path).is_ok())
    }),
];

fn socket(family: i32, kind: i32, protocol: i32) -> bool {
    // SAFETY: numbers go in and a number comes out.
    let made = unsafe { libc::socket(family, kind, protocol) };
    if made >= 0 {
        // SAFETY: it was made above and nobody else has it.
        unsafe { libc::close(made) };
    }
    made >= 0
}

/// A netlink socket that joins a group.
fn bound(protocol: i32, groups: u32) -> bool {
    // SAFETY: the address is one of netlink, zero but for its family and groups, and lives until the call returns.
    unsafe {
        let made = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol);
        let mut address: libc::sockaddr_nl = std::mem::zeroed();
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        let length = size_of::<libc::sockaddr_nl>() as u32;
        let bound = made >= 0 && libc::bind(made, (&raw const address).cast(), length) == 0;
        if made >= 0 {
            libc::close(made);
        }
        bound
    }
}

/// Sets the flags of the loopback interface to what they are.
fn interface_down() -> bool {
    // SAFETY: the request is that of SIOCGIFFLAGS and SIOCSIFFLAGS (netdevice(7)), and lives until the calls return.
    unsafe {
        let made = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        let set = made >= 0
            && libc::ioctl(made, libc::SIOCGIFFLAGS, &raw mut request) == 0
            && libc::ioctl(made, libc::SIOCSIFFLAGS, &raw mut request) == 0;
        if made >= 0 {
            libc::close(made);
        }
        set
    }
}

fn connects(address: &str) -> bool {
    let address: SocketAddr = address.parse().expect("an address");
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
}
