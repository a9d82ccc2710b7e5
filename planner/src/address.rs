//! Which subnet a network gets, and which address a container gets on it.
//!
//! What has an address keeps it: only what is new is given one that nothing else has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bennu_manifests::model::{Manifest, Name, Network, NetworkKind, Subnet, Subnet6};

use crate::seen::{Instance, Seen, SeenNetwork};

/// Where subnets for networks that name none are taken from: 256 of them, 10.90.0.0/24 to 10.90.255.0/24, within the
/// private range of RFC 1918, section 3.
const POOL: [u8; 2] = [10, 90];

/// What each network that a container joins is to be; those without addresses of their own are not set up.
pub(crate) fn networks(manifest: &Manifest, seen: &Seen) -> BTreeMap<Name, SeenNetwork> {
    let joined: BTreeSet<&Name> = manifest.programs().flat_map(|(_, program)| &program.networks).collect();
    let has_addresses = |network: &Network| !matches!(network.kind, NetworkKind::Host | NetworkKind::None);
    let declared = || manifest.networks.iter().filter(|(name, n)| joined.contains(name) && has_addresses(n));
    let mut taken: Vec<Subnet> = declared().filter_map(|(_, n)| n.subnet).collect();
    let mut wanted = BTreeMap::new();
    for (name, network) in declared() {
        let kept = seen.networks.get(name).map(|s| s.subnet).filter(|subnet| !overlaps_any(&taken, *subnet));
        if let Some(subnet) = network.subnet.or(kept) {
            if network.subnet.is_none() {
                taken.push(subnet);
            }
            wanted.insert(name.clone(), SeenNetwork::of(network, subnet));
        }
    }
    for (name, network) in declared() {
        if wanted.contains_key(name) {
            continue;
        }
        let subnet = (0..=255)
            .map(|third| Subnet { address: Ipv4Addr::new(POOL[0], POOL[1], third, 0), prefix: 24 })
            .find(|subnet| !overlaps_any(&taken, *subnet))
            .expect("a manifest declares fewer networks than the pool has subnets");
        taken.push(subnet);
        wanted.insert(name.clone(), SeenNetwork::of(network, subnet));
    }
    wanted
}

fn overlaps_any(taken: &[Subnet], subnet: Subnet) -> bool {
    taken.iter().any(|other| {
        let prefix = other.prefix.min(subnet.prefix);
        let shift = 32 - u32::from(prefix);
        u32::from(other.address) >> shift == u32::from(subnet.address) >> shift
    })
}

/// How many addresses of an IPv6 subnet are tried at most; a manifest has fewer containers.
const TRIED: u128 = 1 << 16;

/// Addresses in use, network by network.
#[derive(Debug, Default)]
pub(crate) struct Addresses(BTreeMap<Name, BTreeSet<IpAddr>>);

impl Addresses {
    /// The addresses of instances that stay.
    pub(crate) fn of<'a>(seen: &Seen, stay: impl Iterator<Item = &'a Instance>) -> Self {
        let mut used = Self::default();
        for instance in stay {
            let seen = &seen.instances[instance];
            let v4 = seen.addresses.iter().map(|(network, address)| (network, IpAddr::V4(*address)));
            let v6 = seen.addresses6.iter().map(|(network, address)| (network, IpAddr::V6(*address)));
            for (network, address) in v4.chain(v6) {
                used.take_fixed(network, address);
            }
        }
        used
    }

    /// The lowest free address of a network for a new instance; `None` where the subnet is full.
    pub(crate) fn take(&mut self, network: &Name, spec: &SeenNetwork) -> Option<Ipv4Addr> {
        let (base, router) = (u32::from(spec.subnet.address), spec.router());
        let size = 1u32 << (32 - u32::from(spec.subnet.prefix));
        // The first address is the network's, the last its broadcast address.
        let all = (1..size - 1).map(|n| Ipv4Addr::from(base + n)).filter(|address| *address != router);
        self.first_free(network, all)
    }

    /// The lowest free IPv6 address of a subnet for a new instance; `None` where it is full.
    pub(crate) fn take6(&mut self, network: &Name, spec: &SeenNetwork, subnet: Subnet6) -> Option<Ipv6Addr> {
        let (base, router) = (subnet.address.to_bits(), spec.router6());
        let size = 1u128 << (128 - u32::from(subnet.prefix));
        // The first address is that of all routers (RFC 4291, section 2.6.1).
        let all = (1..size.min(TRIED)).map(|n| Ipv6Addr::from_bits(base + n));
        self.first_free(network, all.filter(|address| Some(*address) != router))
    }

    fn first_free<A: Copy + Into<IpAddr>>(
        &mut self,
        network: &Name,
        mut all: impl Iterator<Item = A>,
    ) -> Option<A> {
        let used = self.0.entry(network.clone()).or_default();
        all.find(|address| used.insert((*address).into()))
    }

    /// Takes a certain address; `false` where something has it.
    pub(crate) fn take_fixed(&mut self, network: &Name, address: IpAddr) -> bool {
        self.0.entry(network.clone()).or_default().insert(address)
    }
}
