//! Which subnet a network gets, and which address a container gets on it.
//!
//! What has an address keeps it: only what is new is given one that nothing else has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bennu_manifests::model::{Manifest, Name, Network, NetworkKind, Subnet};

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

/// Addresses in use, network by network.
#[derive(Debug, Default)]
pub(crate) struct Addresses(BTreeMap<Name, BTreeSet<Ipv4Addr>>);

impl Addresses {
    /// The addresses of instances that stay.
    pub(crate) fn of<'a>(seen: &Seen, stay: impl Iterator<Item = &'a Instance>) -> Self {
        let mut used = Self::default();
        for instance in stay {
            for (network, address) in &seen.instances[instance].addresses {
                used.0.entry(network.clone()).or_default().insert(*address);
            }
        }
        used
    }

    /// The lowest free address of a network for a new instance; `None` where the subnet is full.
    pub(crate) fn take(&mut self, network: &Name, spec: &SeenNetwork) -> Option<Ipv4Addr> {
        let (used, subnet) = (self.0.entry(network.clone()).or_default(), spec.subnet);
        let base = u32::from(subnet.address);
        let size = 1u32 << (32 - u32::from(subnet.prefix));
        // The first address is the network's, the second its gateway's, the last its broadcast address.
        let free = (2..size - 1).map(|n| Ipv4Addr::from(base + n)).find(|address| !used.contains(address))?;
        used.insert(free);
        Some(free)
    }

    /// Takes a certain address; `false` where something has it.
    pub(crate) fn take_fixed(&mut self, network: &Name, address: Ipv4Addr) -> bool {
        self.0.entry(network.clone()).or_default().insert(address)
    }
}
