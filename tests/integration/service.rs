//! What a service manager is told: when requests are served, and when that ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn message(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = manager.recv(&mut buffer).expect("a message");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn the_manager_hears_of_the_start_when_requests_are_served_and_of_the_end_before_it() {
    let scratch = tempfile::tempdir().expect("a folder");
    let socket = scratch.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a time-out");
    let config = scratch.path().join("layby.toml");
    std::fs::write(
        &config,
        "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"none\"\n",
    )
    .expect("written");
    let mut layby = Command::new(env!("CARGO_BIN_EXE_layby"))
        .args(["serve", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(scratch.path().join("data"))
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("layby starts");
    let started = message(&manager);
    let status = started
        .strip_prefix("READY=1\nSTATUS=listening on ")
        .expect(&started);
    let mut stream = TcpStream::connect(status.trim()).expect("a listener");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n")
        .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    kill_process(Pid::from_child(&layby), Signal::TERM).expect("a signal");
    assert!(message(&manager).starts_with("STOPPING=1\nSTATUS="));
    assert!(layby.wait().expect("an end").success());
}
