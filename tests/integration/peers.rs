//! Clients that hold on to what they have, say nothing, or say nonsense: nobody else notices.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::{Content, Fake};
use crate::support::{
    Image, KIB, MIB, Program, Request, Setup, Wire, blob_path, download, eventually, get, soon,
};

const REPOSITORY: &str = "org/app";
/// Bytes of the layer: more than any buffers between here and the program hold.
const LAYER: u64 = 24 * MIB;

/// Layby as a program, with an image that it has on disk.
struct World {
    program: Program,
    image: Image,
    _fake: Fake,
    _scratch: TempDir,
}

/// What the program holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    tasks: i64,
    connections: i64,
}

impl World {
    async fn warm(change: impl FnOnce(Setup) -> Setup) -> Self {
        raise_open_files();
        let fake = Fake::start().await;
        let image = Image::new(50, &[LAYER]);
        image.push(&fake, REPOSITORY, "latest");
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let setup = change(Setup::over(&fake));
        let program = Program::start(&setup, scratch.path()).await;
        let world = Self {
            program,
            image,
            _fake: fake,
            _scratch: scratch,
        };
        world.pulls().await;
        world
    }

    fn address(&self) -> SocketAddr {
        self.program.address()
    }

    fn layer(&self) -> &Content {
        &self.image.layers[0]
    }

    fn layer_path(&self) -> String {
        blob_path(REPOSITORY, self.layer())
    }

    /// Fails unless the image can be pulled.
    async fn pulls(&self) {
        let manifest = format!("/v2/{REPOSITORY}/manifests/latest");
        let manifest = get(self.address(), manifest).await.expect(200);
        assert_eq!(manifest.body, self.image.manifest.all());
        for blob in self.image.blobs() {
            let path = blob_path(REPOSITORY, blob);
            download(self.address(), path).await.expect(blob);
        }
    }

    /// What the program holds when it has nothing to do.
    async fn holdings(&self) -> Holdings {
        Holdings {
            tasks: self.program.gauge("tasks").await,
            connections: self.program.gauge("connections").await,
            descriptors: self.program.descriptors(),
        }
    }

    /// Waits until no client is connected and what was begun is done, and tells what the program then holds: the same
    /// twice in a row, since what ends behind an answer takes a moment.
    async fn at_rest(&self) -> Holdings {
        let last = std::cell::Cell::new(None);
        eventually("rest", || async {
            let now = self.holdings().await;
            let before = last.replace(Some(now));
            (now.connections == 0 && before == Some(now)).then_some(now)
        })
        .await
    }

    /// Fails unless the program comes to hold no more than before.
    async fn releases_all_but(&self, before: Holdings) {
        eventually(&format!("the release of all but {before:?}"), || async {
            let now = self.holdings().await;
            let released = now.connections == 0
                && now.tasks <= before.tasks
                && now.descriptors <= before.descriptors;
            released.then_some(())
        })
        .await;
    }

    async fn until_connected(&self, connections: i64) {
        eventually("the connections", || async {
            (self.program.gauge("connections").await == connections).then_some(())
        })
        .await;
    }
}

/// The tests' own sockets.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("more open files");
}

/// The loopback addresses that clients come from, in turn.
fn client(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 2).to_bits() + number % 8)
}

/// Asks for a layer, reads its first bytes, and then no more.
async fn slow_reader(world: &World, number: u32) -> Wire {
    let mut wire = Wire::connect_narrow_from(client(number), world.address()).await;
    wire.send(&Request::get(world.layer_path())).await;
    assert_eq!(wire.head().await.status, 200);
    wire.exactly(KIB).await;
    wire
}

/// Begins a request and does not end it.
async fn slow_sender(world: &World, number: u32) -> Wire {
    let mut wire = Wire::connect_from(client(number), world.address()).await;
    let begun = format!("GET /v2/ HTTP/1.1\r\nAuthorization: {}", "x".repeat(16_000));
    wire.send_raw(begun.as_bytes()).await;
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_clients_that_do_nothing_harm_nobody_and_leave_nothing_behind() {
    const IDLE: u32 = 2000;
    const SLOW_READERS: u32 = 200;
    const SLOW_SENDERS: u32 = 50;
    let world = World::warm(|setup| setup).await;
    let before = world.at_rest().await;

    let mut clients = Vec::new();
    for number in 0..IDLE {
        clients.push(Wire::connect_from(client(number), world.address()).await);
    }
    for number in 0..SLOW_READERS {
        clients.push(slow_reader(&world, number).await);
    }
    for number in 0..SLOW_SENDERS {
        clients.push(slow_sender(&world, number).await);
    }
    world
        .until_connected(i64::from(IDLE + SLOW_READERS + SLOW_SENDERS))
        .await;
    world.pulls().await;
    let peak = world.program.peak_memory();
    assert!(peak < 200 * MIB, "{} MiB", peak / MIB);

    drop(clients);
    world.releases_all_but(before).await;
    world.pulls().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_are_cut_and_hold_nothing_any_more() {
    let world = World::warm(|setup| setup.set("limits", r#"stall_timeout = "2s""#)).await;
    let before = world.at_rest().await;
    let mut clients = Vec::new();
    for number in 0..20 {
        clients.push(slow_reader(&world, number).await);
    }
    world.until_connected(20).await;
    // The clients are still there; nothing of them is.
    world.releases_all_but(before).await;
    for mut wire in clients {
        let mut got = 0;
        while let Some(bytes) = wire.some(u64::MAX).await {
            got += bytes.len() as u64;
        }
        assert!(got < LAYER, "no whole body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_harms_no_client_that_is_served() {
    let world = World::warm(|setup| setup).await;
    let before = world.at_rest().await;
    let mut reader = slow_reader(&world, 0).await;
    let long = "x".repeat(200_000);
    for nonsense in [
        "\0\0\0\0\0\0\0\0\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{7f}",
        "GET /v2/\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "PUT /v2/a/manifests/b HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n{}",
        "GET /v2/%ff%00/manifests/%0d%0a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /v2/ HTTP/1.1\r\nHost: a\r\nRange: bytes=18446744073709551615-,-0\r\nConnection: close\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &format!("GET /{long} HTTP/1.1\r\n\r\n"),
        &format!("GET / HTTP/1.1\r\n{long}: {long}\r\n\r\n"),
    ] {
        for _ in 0..5 {
            ends(world.address(), nonsense).await;
        }
    }
    world.pulls().await;
    let rest = reader.exactly(LAYER - KIB).await;
    assert!(rest == world.layer().read(KIB..LAYER));
    drop(reader);
    world.releases_all_but(before).await;
}

/// Sends what is no request, and waits for the end.
async fn ends(address: SocketAddr, nonsense: &str) {
    let mut tcp = TcpStream::connect(address).await.expect("connects");
    // The end may come before all is sent.
    let _ = tcp.write_all(nonsense.as_bytes()).await;
    let _ = tcp.shutdown().await;
    let mut answer = Vec::new();
    let _ = soon("the end", tcp.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    let said = answer.is_empty() || answer.starts_with("HTTP/1.1 ");
    assert!(said && !answer.contains(" 500 "), "{nonsense:?}: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_over_its_limit_is_refused_while_others_pull() {
    let world = World::warm(|setup| setup.set("limits", "max_connections_per_client = 20")).await;
    let greedy = client(0);
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(Wire::connect_from(greedy, world.address()).await);
    }
    world.until_connected(20).await;
    for _ in 0..50 {
        let mut wire = Wire::connect_from(greedy, world.address()).await;
        let reply = wire.ask(&Request::get("/v2/")).await.expect(503);
        assert_eq!(reply.header("retry-after"), Some("5"));
        assert_eq!(reply.code(), "UNAVAILABLE");
    }
    world.pulls().await;
    let lines = world.program.log();
    let told = lines
        .iter()
        .filter(|line| line.contains("refused connections"));
    assert_eq!(told.count(), 1, "{lines:#?}");
    drop(held);
    world.until_connected(0).await;
    let mut wire = Wire::connect_from(greedy, world.address()).await;
    wire.ask(&Request::get("/v2/")).await.expect(200);
}
