//! Who may use Layby at all: the `clients` key.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// The networks whose clients are served; none configured: all are.
#[derive(Debug, Clone)]
pub(super) struct Clients(Vec<IpNet>);

impl Clients {
    pub(super) fn new(networks: &[IpNet]) -> Self {
        Self(networks.iter().copied().map(canonical).collect())
    }

    /// Whether a client at `address` is served. An IPv4 address in IPv6 clothes, as a dual-stack listener shows it,
    /// counts as the IPv4 address.
    pub(super) fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether anyone is kept out.
    pub(super) fn is_restricted(&self) -> bool {
        !self.0.is_empty()
    }
}

/// `::ffff:10.0.0.0/104` means `10.0.0.0/8`.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return network;
    };
    let v4 = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(96));
    match v4.map(|(address, prefix)| Ipv4Net::new(address, prefix)) {
        Some(Ok(v4)) => IpNet::V4(v4),
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(networks: &[&str]) -> Clients {
        let networks: Vec<IpNet> = networks.iter().map(|n| n.parse().unwrap()).collect();
        Clients::new(&networks)
    }

    fn permitted(clients: &Clients, address: &str) -> bool {
        clients.permit(address.parse().unwrap())
    }

    #[test]
    fn without_networks_everyone_is_served() {
        assert!(permitted(&clients(&[]), "203.0.113.9"));
        assert!(permitted(&clients(&[]), "2001:db8::1"));
    }

    #[test]
    fn only_the_named_networks_are_served() {
        let clients = clients(&["10.1.0.0/16", "2001:db8::/32"]);
        assert!(permitted(&clients, "10.1.255.3"));
        assert!(permitted(&clients, "2001:db8:7::1"));
        assert!(!permitted(&clients, "10.2.0.1"));
        assert!(!permitted(&clients, "2001:db9::1"));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        assert!(permitted(&clients(&["10.0.0.0/8"]), "::ffff:10.0.0.1"));
        assert!(!permitted(&clients(&["10.0.0.0/8"]), "::ffff:11.0.0.1"));
        assert!(permitted(&clients(&["::ffff:10.0.0.0/104"]), "10.9.9.9"));
        assert!(!permitted(&clients(&["::/0"]), "10.9.9.9"));
    }
}
