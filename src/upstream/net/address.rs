//! Which addresses an upstream may send us to.
//!
//! Realms and redirects come from the network, so they could point into the operator's own. A foreign host may be at
//! an inner address only where the upstream is at one as near, or where `allow_private` says so. The rule looks at the
//! address that is connected to, never at the name alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU8, Ordering};

use super::Origin;

/// How near an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reach {
    /// Anywhere on the Internet.
    Public = 0,
    /// The operator's networks: RFC 1918, carrier-grade NAT, unique local, benchmarking.
    Site = 1,
    /// This link, where clouds keep their metadata services; and what is no host at all.
    Link = 2,
    /// This machine.
    Loopback = 3,
}

impl Reach {
    /// The reach of `ip`, where an IPv6 address that carries an IPv4 one counts as that.
    pub(super) fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => carried_v4(ip).map_or_else(|| Self::of_v6(ip), Self::of_v4),
        }
    }

    /// The reach that a host claims by how it is written; `None` for a name that must be resolved.
    pub(super) fn as_written(origin: &Origin) -> Option<Self> {
        match (origin.literal_ip(), origin.name()) {
            (Some(ip), _) => Some(Self::of(ip)),
            (None, Some(name)) if name == "localhost" || name.ends_with(".localhost") => {
                Some(Self::Loopback)
            }
            _ => None,
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [0 | 127, ..] => Self::Loopback,
            [169, 254, ..] | [224..=255, ..] => Self::Link,
            [10, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [100, 64..=127, ..]
            | [192, 0, 0, _]
            | [198, 18..=19, ..] => Self::Site,
            _ => Self::Public,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Self::Loopback,
            [0xfe80..=0xfebf | 0xff00..=0xffff, ..] => Self::Link,
            [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Self::Site,
            _ => Self::Public,
        }
    }

    /// Whether an upstream at `self` may send us to `target`. What is on this machine may name the operator's
    /// networks; nobody may name something nearer than itself.
    fn may_name(self, target: Self) -> bool {
        target == Self::Public || self == target || (self == Self::Loopback && target == Self::Site)
    }
}

/// The IPv4 address within a mapped, compatible, NAT64 or 6to4 address.
fn carried_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(from(high, low))
        }
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

/// The rule of one upstream URL; remembers where the upstream itself was found.
#[derive(Debug)]
pub(super) struct AddressRule {
    allow_private: bool,
    home: AtomicU8,
}

impl AddressRule {
    /// The rule for an upstream at `home`, taken for public until a connection tells.
    pub(super) fn new(home: &Origin, allow_private: bool) -> Self {
        let reach = Reach::as_written(home).unwrap_or(Reach::Public);
        Self {
            allow_private,
            home: AtomicU8::new(reach as u8),
        }
    }

    /// Notes the address that the upstream itself was reached at.
    pub(super) fn found_home_at(&self, ip: IpAddr) {
        self.home.store(Reach::of(ip) as u8, Ordering::Relaxed);
    }

    /// Whether a foreign host may be at an address of this reach.
    pub(super) fn permits(&self, target: Reach) -> bool {
        let home = match self.home.load(Ordering::Relaxed) {
            1 => Reach::Site,
            2 => Reach::Link,
            3 => Reach::Loopback,
            _ => Reach::Public,
        };
        self.allow_private || home.may_name(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(text: &str) -> Reach {
        Reach::of(text.parse().unwrap())
    }

    #[test]
    fn inner_addresses_are_known_in_all_their_disguises() {
        for (text, expected) in [
            ("8.8.8.8", Reach::Public),
            ("172.32.0.1", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("::ffff:8.8.8.8", Reach::Public),
            ("10.1.2.3", Reach::Site),
            ("172.31.255.255", Reach::Site),
            ("192.168.0.1", Reach::Site),
            ("100.100.100.200", Reach::Site),
            ("198.18.0.1", Reach::Site),
            ("fd00:ec2::254", Reach::Site),
            ("::ffff:10.0.0.1", Reach::Site),
            ("64:ff9b::a00:1", Reach::Site),
            ("2002:a00:1::", Reach::Site),
            ("169.254.169.254", Reach::Link),
            ("::ffff:169.254.169.254", Reach::Link),
            ("fe80::1", Reach::Link),
            ("255.255.255.255", Reach::Link),
            ("224.0.0.1", Reach::Link),
            ("127.8.8.8", Reach::Loopback),
            ("0.0.0.0", Reach::Loopback),
            ("0.1.2.3", Reach::Loopback),
            ("::", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::127.0.0.1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
        ] {
            assert_eq!(reach(text), expected, "{text}");
        }
    }

    fn rule(home: &str, allow_private: bool) -> AddressRule {
        AddressRule::new(&Origin::of(&home.parse().unwrap()).unwrap(), allow_private)
    }

    #[test]
    fn a_public_upstream_names_only_public_hosts() {
        let rule = rule("https://registry.example", false);
        assert!(rule.permits(Reach::Public));
        for inner in [Reach::Site, Reach::Link, Reach::Loopback] {
            assert!(!rule.permits(inner));
        }
    }

    #[test]
    fn an_inner_upstream_names_nothing_nearer_than_itself() {
        let site = rule("https://registry.example", false);
        site.found_home_at("10.0.0.1".parse().unwrap());
        assert!(site.permits(Reach::Site) && site.permits(Reach::Public));
        assert!(!site.permits(Reach::Link) && !site.permits(Reach::Loopback));

        let loopback = rule("http://localhost:5000", false);
        assert!(loopback.permits(Reach::Loopback) && loopback.permits(Reach::Site));
        assert!(!loopback.permits(Reach::Link));
    }

    #[test]
    fn the_operator_may_allow_everything() {
        let rule = rule("https://registry.example", true);
        for inner in [Reach::Site, Reach::Link, Reach::Loopback] {
            assert!(rule.permits(inner));
        }
    }
}
