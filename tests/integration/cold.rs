//! Cold blobs: asked for once, sent as they come, whoever reads them and however.

use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{
    End, KIB, Layby, MIB, Program, Request, Setup, Wire, blob_path, download, large,
};

const REPOSITORY: &str = "org/app";
const CLIENTS: usize = 20;
/// What a reader is held back from until the digest is known to match.
const TAIL: u64 = 64 * KIB;

/// A registry with one blob in [`REPOSITORY`].
async fn registry_with(content: &Content) -> Fake {
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, content);
    fake
}

fn assert_fetched_once(fake: &Fake, content: &Content) {
    let record = fake.record();
    assert_eq!(record.gets(content.digest()), 1, "{:#?}", record.all());
    assert_eq!(record.sent_twice(content.digest()), 0);
}

/// Has 20 clients ask at once for a blob whose second half waits until all have their first bytes; the first `gone`
/// of them vanish then. Fails unless the rest get it whole.
async fn herd(address: std::net::SocketAddr, fake: &Fake, content: &Content, gone: usize) {
    let gate = Gate::closed();
    fake.script(Rule::digest(content.digest()).wait_at(content.len() / 2, &gate));
    let met = Arc::new(Barrier::new(CLIENTS + 1));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (met, content) = (Arc::clone(&met), content.clone());
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await;
            wire.send(&Request::get(blob_path(REPOSITORY, &content)))
                .await;
            let head = wire.head().await;
            assert_eq!(head.status, 200, "{}", head.raw);
            let first = wire.exactly(100 * KIB).await;
            assert_eq!(first, content.read(0..100 * KIB));
            met.wait().await;
            if number < gone {
                return;
            }
            let rest = wire.hash_rest_after(head, &first).await;
            rest.expect(&content);
        });
    }
    met.wait().await;
    gate.open();
    while let Some(client) = clients.join_next().await {
        client.expect("a client that was served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_clients_of_one_cold_blob_cost_one_get_and_no_byte_twice() {
    let content = Content::random(1, large());
    let fake = registry_with(&content).await;
    let layby = Layby::over(&fake).await;
    herd(layby.address(), &fake, &content, 0).await;
    assert_fetched_once(&fake, &content);
    assert!(layby.metric("collapsed_total", "").await >= 19.0);
    layby.blob(REPOSITORY, &content).await.expect(&content);
    assert_fetched_once(&fake, &content);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_twenty_clients_that_vanish_change_nothing_for_the_rest() {
    let content = Content::random(2, large());
    let fake = registry_with(&content).await;
    let layby = Layby::over(&fake).await;
    herd(layby.address(), &fake, &content, CLIENTS / 2).await;
    assert_fetched_once(&fake, &content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herd_leaves_the_programs_peak_memory_under_100_mib() {
    let content = Content::random(3, large());
    let fake = registry_with(&content).await;
    let scratch = tempfile::tempdir().unwrap();
    let program = Program::start(&Setup::over(&fake), scratch.path()).await;
    herd(program.address(), &fake, &content, 0).await;
    assert_fetched_once(&fake, &content);
    let peak = program.peak_memory();
    assert!(peak < 100 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hardly_reads_delays_nobody() {
    let content = Content::random(4, large());
    let fake = registry_with(&content).await;
    let layby = Layby::over(&fake).await;

    let mut slow = Wire::connect_narrow(layby.address()).await;
    slow.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head = slow.head().await;
    let first = slow.exactly(64 * KIB).await;
    // From here on it reads nothing until everyone else is served.
    let mut others = JoinSet::new();
    for _ in 0..4 {
        others.spawn(download(layby.address(), blob_path(REPOSITORY, &content)));
    }
    while let Some(other) = others.join_next().await {
        other.unwrap().expect(&content);
    }
    layby.has_committed(REPOSITORY, [&content]).await;
    assert_fetched_once(&fake, &content);

    let rest = slow.rest(head).await;
    assert_eq!(rest.end, End::Complete);
    assert!([first, rest.body].concat() == content.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_follows_a_slow_upstream_from_the_first_bytes_to_the_tail() {
    let content = Content::random(5, 4 * MIB);
    let fake = registry_with(&content).await;
    // Before each of these bytes the upstream waits for the test.
    let stops = [MIB, 2 * MIB, 3 * MIB + 5, 4 * MIB - 1];
    let gates = stops.map(|at| (at, Gate::closed()));
    let rule = Rule::digest(content.digest());
    fake.script(
        gates
            .iter()
            .fold(rule, |rule, (at, gate)| rule.wait_at(*at, gate)),
    );
    let layby = Layby::over(&fake).await;

    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    let head = wire.head().await;
    assert_eq!(head.length(), Some(4 * MIB));
    assert_eq!(head.get("cache-status"), Some("layby; fwd=miss; stored"));
    let mut got = Vec::new();
    for (at, gate) in &gates {
        let available = (*at).min(content.len() - TAIL);
        got.extend(wire.exactly(available - got.len() as u64).await);
        gate.reached().await;
        assert_eq!(fake.record().sent(content.digest()), *at);
        if *at == 4 * MIB - 1 {
            // The tail waits for the last byte, and so for the digest.
            layby.get("/v2/").await.expect(200);
            assert!(!wire.has_more_now());
            assert_eq!(layby.committed(), []);
        }
        gate.open();
    }
    let rest = wire.rest(head).await;
    assert_eq!(rest.end, End::Complete);
    got.extend(&rest.body);
    assert!(got == content.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_cold_blob_is_sent_as_soon_as_it_is_there() {
    let content = Content::random(6, 2 * MIB);
    let fake = registry_with(&content).await;
    let gate = Gate::closed();
    fake.script(Rule::digest(content.digest()).wait_at(2 * MIB - 1, &gate));
    let layby = Layby::over(&fake).await;
    let path = blob_path(REPOSITORY, &content);

    // All of it, written as a range, is held like a whole.
    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(&path).range("0-")).await;
    let head = wire.head().await;
    assert_eq!(head.status, 206);
    let first = wire.exactly(2 * MIB - TAIL).await;
    // Parts before the tail and in it are not held back, since their clients must verify.
    for (range, start, end) in [
        ("1000-2999", 1000, 3000),
        ("2000000-2097000", 2_000_000, 2_097_001),
    ] {
        let request = Request::get(&path).range(range);
        let part = request.send_to(layby.address()).await.expect(206);
        assert_eq!(part.body, content.read(start..end));
        let expected = format!("bytes {range}/{}", content.len());
        assert_eq!(part.header("content-range"), Some(expected.as_str()));
    }
    assert!(!wire.has_more_now());
    gate.open();
    let rest = wire.rest(head).await;
    assert!([first, rest.body].concat() == content.all());
    assert_fetched_once(&fake, &content);
}

/// What containerd 2.1 and later do: open-ended ranges at once, each closed after a chunk.
#[tokio::test(flavor = "multi_thread")]
async fn open_ended_ranges_that_are_closed_early_cost_one_fetch() {
    let content = Content::random(7, 16 * MIB);
    let fake = registry_with(&content).await;
    let layby = Layby::over(&fake).await;
    let address = layby.address();
    let mut clients = JoinSet::new();
    for chunk in 0..8 {
        let content = content.clone();
        clients.spawn(async move {
            let start = chunk * 2 * MIB;
            let mut wire = Wire::connect(address).await;
            let request = Request::get(blob_path(REPOSITORY, &content));
            wire.send(&request.range(&format!("{start}-"))).await;
            let head = wire.head().await;
            assert_eq!(head.status, 206, "{}", head.raw);
            let bytes = wire.exactly(2 * MIB).await;
            assert!(
                bytes == content.read(start..start + 2 * MIB),
                "chunk {chunk}"
            );
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a client that was served");
    }
    assert_eq!(fake.record().sent_twice(content.digest()), 0);
    layby.blob(REPOSITORY, &content).await.expect(&content);
    assert_eq!(fake.record().sent_twice(content.digest()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_runs_on_when_its_only_client_leaves() {
    let content = Content::random(8, 4 * MIB);
    let fake = registry_with(&content).await;
    let gate = Gate::closed();
    fake.script(Rule::digest(content.digest()).wait_at(MIB, &gate));
    let layby = Layby::over(&fake).await;

    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    wire.head().await;
    wire.exactly(64 * KIB).await;
    gate.reached().await;
    drop(wire);
    gate.open();
    layby.blob(REPOSITORY, &content).await.expect(&content);
    assert_fetched_once(&fake, &content);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_announces_no_length_is_followed_to_its_end() {
    for rule in [
        Rule::path("/blobs/").chunked(),
        Rule::path("/blobs/").without("content-length"),
    ] {
        let content = Content::random(9, 3 * MIB + 17);
        let fake = registry_with(&content).await;
        fake.script(rule);
        fake.script(
            Rule::path("/blobs/")
                .method("HEAD")
                .without("content-length"),
        );
        let layby = Layby::over(&fake).await;
        layby.blob(REPOSITORY, &content).await.expect(&content);
        let warm = layby.blob(REPOSITORY, &content).await;
        warm.expect(&content);
        assert_eq!(warm.head.length(), Some(content.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_no_bytes_and_of_sha512_are_served_and_kept() {
    let fake = Fake::start().await;
    let layby = Layby::over(&fake).await;
    for content in [Content::bytes(""), Content::bytes_sha512(vec![7; 100_000])] {
        fake.put_blob(REPOSITORY, &content);
        for _ in 0..2 {
            let reply = layby
                .get(&blob_path(REPOSITORY, &content))
                .await
                .expect(200);
            assert_eq!(reply.body, content.all());
            assert_eq!(reply.head.length(), Some(content.len()));
        }
        assert_fetched_once(&fake, &content);
        layby.has_committed(REPOSITORY, [&content]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_algorithm_that_cannot_be_checked_is_passed_through_and_not_kept() {
    let digest = "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let content = Content::bytes("whatever").under(digest.parse().unwrap());
    let fake = registry_with(&content).await;
    let layby = Layby::over(&fake).await;
    for gets in 1..=2 {
        let reply = layby
            .get(&blob_path(REPOSITORY, &content))
            .await
            .expect(200);
        assert_eq!(reply.body, "whatever");
        assert_eq!(fake.record().gets(content.digest()), gets);
    }
    assert_eq!(layby.committed(), []);
    assert!(layby.metric("bypass_total", "unverifiable").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_over_the_limit_is_passed_through_and_not_kept() {
    let content = Content::random(10, 3 * MIB);
    let fake = registry_with(&content).await;
    let layby = Setup::over(&fake)
        .set("cache", r#"max_blob_size = "2MiB""#)
        .start()
        .await;
    for _ in 0..2 {
        layby.blob(REPOSITORY, &content).await.expect(&content);
    }
    assert_eq!(layby.committed(), []);
    assert_eq!(fake.record().gets(content.digest()), 2);
    assert!(layby.metric("bypass_total", "too_large").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_cold_blob_fetches_none_of_it() {
    let content = Content::random(11, 3 * MIB);
    let fake = registry_with(&content).await;
    let layby = Layby::over(&fake).await;
    let head = layby
        .head(&blob_path(REPOSITORY, &content))
        .await
        .expect(200);
    assert_eq!(head.head.length(), Some(content.len()));
    assert_eq!(fake.record().gets(content.digest()), 0);
}

/// Some registries refuse `HEAD`s of blobs, others leave out the length.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_the_upstream_cannot_answer_costs_one_byte() {
    for rule in [
        Rule::path("/blobs/")
            .method("HEAD")
            .error(405, "UNSUPPORTED"),
        Rule::path("/blobs/")
            .method("HEAD")
            .without("content-length"),
    ] {
        let content = Content::random(12, 3 * MIB);
        let fake = registry_with(&content).await;
        fake.script(rule);
        let layby = Layby::over(&fake).await;
        let head = layby
            .head(&blob_path(REPOSITORY, &content))
            .await
            .expect(200);
        assert_eq!(head.head.length(), Some(content.len()));
        assert!(fake.record().sent(content.digest()) <= 1);
    }
}
