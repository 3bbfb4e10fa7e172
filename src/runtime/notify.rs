//! Tells the service manager how the service is (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// For how long a manager whose queue is full is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service manager, or nobody where none asked to be told.
#[derive(Debug)]
pub struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// For the socket that this variable's value names: a path, or `@` and an abstract name.
    pub fn new(socket: Option<&OsStr>) -> io::Result<Self> {
        let Some(name) = socket.filter(|name| !name.is_empty()) else {
            return Ok(Self::nobody());
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A busy manager reads in a moment; one that does not read must not hold us up.
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Some((socket, address))))
    }

    /// Nobody, who is told nothing.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// Says that requests are served from now on.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send("READY=1", status)
    }

    /// Says that the service is about to end.
    pub fn stopping(&self, status: &str) -> io::Result<()> {
        self.send("STOPPING=1", status)
    }

    fn send(&self, state: &str, status: &str) -> io::Result<()> {
        let Some((socket, address)) = &self.0 else {
            return Ok(());
        };
        // A newline would begin the next assignment.
        let status = status.replace('\n', " ");
        let message = format!("{state}\nSTATUS={status}");
        socket.send_to_addr(message.as_bytes(), address)?;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_manager_is_told_what_happens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        notifier.ready("up\nREADY=0").unwrap();
        notifier.stopping("going").unwrap();
        assert_eq!(read(&manager), "READY=1\nSTATUS=up READY=0");
        assert_eq!(read(&manager), "STOPPING=1\nSTATUS=going");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_told_too() {
        let name = format!("layby-notify-{}", std::process::id());
        let address = abstract_address(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(Some(format!("@{name}").as_ref())).unwrap();
        notifier.ready("up").unwrap();
        assert_eq!(read(&manager), "READY=1\nSTATUS=up");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_manager_with_a_full_queue_is_waited_for_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _manager = UnixDatagram::bind(&path).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"x", &path).is_ok() {}
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        let begun = std::time::Instant::now();
        let error = notifier.ready("up").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(begun.elapsed() > PATIENCE * 9 / 10);
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        for name in [None, Some("")] {
            let notifier = Notifier::new(name.map(OsStr::new)).unwrap();
            notifier.ready("up").unwrap();
        }
        let gone = Notifier::new(Some(OsStr::new("/nowhere/notify"))).unwrap();
        assert!(gone.ready("up").is_err());
    }
}
