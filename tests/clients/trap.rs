//! A proxy that lets nothing through and remembers who tried.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Clients that go past Layby, to a registry in the network, come here: Go's HTTP client asks the proxy of its environment
/// for everything that is not on loopback.
pub(crate) struct Trap {
    port: u16,
    caught: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trap {
    /// Listens until it is dropped.
    pub(crate) fn set() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let caught = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (list, over) = (Arc::clone(&caught), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if over.load(Ordering::Acquire) {
                    return;
                }
                list.lock().unwrap().push(first_line(stream));
            }
        });
        Self {
            port,
            caught,
            is_over,
            thread: Some(thread),
        }
    }

    /// Variables that make a client walk into the trap, and keep it from the machine's own settings and logins.
    pub(crate) fn environment(&self, home: &str) -> Vec<(String, String)> {
        let proxy = format!("http://127.0.0.1:{}", self.port);
        [
            ("HTTP_PROXY", proxy.as_str()),
            ("HTTPS_PROXY", &proxy),
            ("http_proxy", &proxy),
            ("https_proxy", &proxy),
            ("NO_PROXY", ""),
            ("no_proxy", ""),
            ("HOME", home),
            ("XDG_RUNTIME_DIR", home),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// First lines of requests that were on their way to somewhere else.
    pub(crate) fn caught(&self) -> Vec<String> {
        self.caught.lock().unwrap().clone()
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn first_line(stream: TcpStream) -> String {
    let mut line = String::new();
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let _ = BufReader::new(stream).read_line(&mut line);
    line.trim_end().to_owned()
}

#[test]
fn a_client_that_goes_to_the_network_is_caught() {
    if !super::host::has(&[]) {
        return;
    }
    let trap = Trap::set();
    let mut skopeo = super::host::command("skopeo");
    skopeo
        .envs(trap.environment("/nonexistent"))
        .args(["inspect", "docker://registry-1.docker.io/library/demo"]);
    assert!(!skopeo.output().unwrap().status.success());
    let caught = trap.caught();
    assert!(
        caught.contains(&"CONNECT registry-1.docker.io:443 HTTP/1.1".to_owned()),
        "{caught:?}"
    );
}
