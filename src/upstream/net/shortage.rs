//! Failures of this machine, which say nothing of whom it wanted to reach.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;

use crate::upstream::failure::Kind;

/// What this machine has too little of.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Shortage(String);

/// The error for something that this machine has too little of just now.
pub(super) fn shortage(message: impl Into<String>) -> io::Error {
    io::Error::other(Shortage(message.into()))
}

/// Whether `error` is one of [`shortage`], or says that files, memory or buffers are used up here.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Shortage>)
        || matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
        )
}

/// Whether connecting to `address` failed for want of something here. `EADDRNOTAVAIL` is a lack of ports with IPv4; with
/// IPv6 it mostly is the lack of an own address, and lasts.
pub(super) fn is_shortage_at(address: SocketAddr, error: &io::Error) -> bool {
    let no_port = Errno::from_io_error(error) == Some(Errno::ADDRNOTAVAIL);
    is_shortage(error) || (no_port && address.is_ipv4())
}

/// What it means for the other end that it could not be reached for `error`.
pub(super) fn kind_of(error: &io::Error) -> Kind {
    if is_shortage(error) {
        Kind::Hurried
    } else {
        Kind::Unreachable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_here_is_told_from_what_is_wrong_there() {
        let (v4, v6) = ("192.0.2.1:443", "[2001:db8::1]:443");
        for (errno, address, expected) in [
            (Errno::MFILE, v4, true),
            (Errno::NFILE, v6, true),
            (Errno::NOBUFS, v4, true),
            (Errno::NOMEM, v4, true),
            (Errno::ADDRNOTAVAIL, v4, true),
            (Errno::ADDRNOTAVAIL, v6, false),
            (Errno::CONNREFUSED, v4, false),
            (Errno::NETUNREACH, v6, false),
        ] {
            let error = io::Error::from(errno);
            let is_here = is_shortage_at(address.parse().unwrap(), &error);
            assert_eq!(is_here, expected, "{errno} {address}");
        }
    }
}
