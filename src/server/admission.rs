//! How many clients at once: in all, and from one address, so that none can take the places of all others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Limits;

/// Hands out a bounded number of [`Slot`]s: one for each connection, and one for each HTTP/2 request under way, which
/// holds a file like the request of a connection of its own.
#[derive(Debug)]
pub(super) struct Admission {
    capacity: Capacity,
    held: Mutex<Held>,
}

/// How many slots there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    /// In all.
    pub(super) total: usize,
    /// For one client.
    pub(super) per_client: usize,
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// All are taken.
    Total,
    /// The client has as many as one may have.
    Client,
}

/// The right to hold a socket and a file, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    client: IpAddr,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Only of clients that hold any.
    clients: HashMap<IpAddr, usize>,
}

impl Capacity {
    /// What the operator wants, as far as a process that may have `open_files` open can hold it. Says so where that is
    /// less, or little.
    pub(super) fn new(limits: &Limits, open_files: u64) -> Self {
        // A slot is a socket and a file; a quarter stays for upstreams and for what is written.
        let fit = usize::try_from(open_files / 8 * 3).unwrap_or(usize::MAX);
        let fit = fit.max(1);
        let wanted = limits.max_connections.map(as_usize);
        let total = wanted.unwrap_or(CONNECTIONS).min(fit);
        if wanted.is_some_and(|wanted| wanted > fit) {
            tracing::warn!(
                open_files,
                connections = total,
                "the limit of open files leaves no room for max_connections; raise it to 8/3 of that"
            );
        } else if wanted.is_none() && total < FEW_CONNECTIONS {
            tracing::warn!(
                open_files,
                connections = total,
                "the limit of open files leaves room for few connections; raise it"
            );
        }
        let per_client = limits
            .max_connections_per_client
            .map_or(total - total / 4, as_usize);
        Self {
            total,
            per_client: per_client.min(total),
        }
    }
}

impl Full {
    /// For logs and metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Client => "client",
        }
    }
}

impl Admission {
    pub(super) fn new(capacity: Capacity) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            held: Mutex::default(),
        })
    }

    /// A slot for a client at `address`, if there is one. Never waits.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Full> {
        let client = holder(address);
        let mut held = self.held.lock();
        if held.total >= self.capacity.total {
            return Err(Full::Total);
        }
        let count = held.clients.get(&client).copied().unwrap_or_default();
        if count >= self.capacity.per_client {
            return Err(Full::Client);
        }
        held.clients.insert(client, count + 1);
        held.total += 1;
        Ok(Slot {
            admission: Arc::clone(self),
            client,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.admission.held.lock();
        held.total = held.total.saturating_sub(1);
        if let Entry::Occupied(mut count) = held.clients.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who holds a slot: an IPv4 address however it is written, or all of a /64, which is what one IPv6 client has.
fn holder(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn as_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Where the operator does not say: as many as some hundred MiB hold, slow readers and all.
const CONNECTIONS: usize = 8192;
/// Below this, a fleet that pulls at once would notice.
const FEW_CONNECTIONS: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn admission(total: usize, per_client: usize) -> Arc<Admission> {
        Admission::new(Capacity { total, per_client })
    }

    fn admit(admission: &Arc<Admission>, address: &str) -> Result<Slot, Full> {
        admission.admit(address.parse().unwrap())
    }

    fn limits(total: Option<u32>, per_client: Option<u32>) -> Limits {
        Limits {
            connect_timeout: Duration::from_secs(1),
            header_timeout: Duration::from_secs(1),
            revalidate_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(1),
            shutdown_grace: Duration::from_secs(1),
            max_connections: total,
            max_connections_per_client: per_client,
        }
    }

    fn capacity(limits: &Limits, open_files: u64) -> (usize, usize) {
        let capacity = Capacity::new(limits, open_files);
        (capacity.total, capacity.per_client)
    }

    #[test]
    fn a_client_cannot_take_the_slots_of_others() {
        let admission = admission(3, 2);
        let _one = admit(&admission, "192.0.2.1").unwrap();
        let two = admit(&admission, "::ffff:192.0.2.1").unwrap();
        assert_eq!(admit(&admission, "192.0.2.1").unwrap_err(), Full::Client);
        let _other = admit(&admission, "192.0.2.2").unwrap();
        assert_eq!(admit(&admission, "192.0.2.3").unwrap_err(), Full::Total);
        drop(two);
        admit(&admission, "192.0.2.1").unwrap();
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        let admission = admission(10, 1);
        let _held = admit(&admission, "2001:db8:1:2::1").unwrap();
        assert_eq!(
            admit(&admission, "2001:db8:1:2:ffff::9").unwrap_err(),
            Full::Client
        );
        admit(&admission, "2001:db8:1:3::1").unwrap();
    }

    #[test]
    fn nothing_is_kept_of_clients_that_are_gone() {
        let admission = admission(10, 2);
        let slots = [1, 1, 2, 3].map(|n| admission.admit([192, 0, 2, n].into()).unwrap());
        drop(slots);
        let held = admission.held.lock();
        assert_eq!((held.total, held.clients.len()), (0, 0));
    }

    #[test]
    fn the_limit_of_open_files_bounds_what_is_wanted() {
        let open = limits(None, None);
        assert_eq!(capacity(&open, u64::MAX), (8192, 6144));
        assert_eq!(capacity(&open, 1024), (384, 288));
        assert_eq!(capacity(&open, 2), (1, 1));
        assert_eq!(capacity(&limits(Some(100_000), None), 8000), (3000, 2250));
        assert_eq!(capacity(&limits(Some(100), Some(7)), 8000), (100, 7));
        assert_eq!(capacity(&limits(Some(100), Some(200)), 8000), (100, 100));
    }
}
