//! Ranges of cold blobs, wherever they lie: each reader gets its bytes without waiting for those before them, and no byte
//! is asked for twice.

use std::ops::Range;

use tokio::task::JoinSet;

use crate::fake::{Content, Fake, Gate, Rule};
use crate::support::{
    KIB, Layby, MIB, Request, Setup, UPSTREAM, Wire, beside, blob_path, done, download, eventually,
    verify_committed,
};

const REPOSITORY: &str = "org/app";
/// What the buffers of a connection on loopback hold at most, on either side.
const IN_SOCKETS: u64 = 12 * MIB;

/// A registry with one blob whose first bytes come, and then nothing before the test opens the gate; whoever asks for
/// bytes behind it gets them.
async fn slow_registry(content: &Content, first: u64) -> (Fake, Gate) {
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, content);
    let gate = Gate::closed();
    fake.script(Rule::digest(content.digest()).wait_at(first, &gate));
    (fake, gate)
}

/// Pulls all of it; fails unless one right blob is kept, and the upstream was asked for every byte once in all this time.
async fn assert_complete_and_asked_once(fake: &Fake, layby: &Layby, content: &Content) {
    layby.blob(REPOSITORY, content).await.expect(content);
    layby.has_committed(REPOSITORY, [content]).await;
    assert_eq!(verify_committed(&layby.data()), 1);
    let (record, digest) = (fake.record(), content.digest());
    let mut asked: Vec<_> = record
        .of("GET", digest.as_str())
        .iter()
        .map(|seen| range_of(seen.header("range"), content.len()))
        .collect();
    // The first request of all may be for everything; it ends where others have begun, and what was on its way then is
    // lost with its connection.
    if asked[0] == (0..content.len()) {
        asked.remove(0);
    }
    // A byte is what it costs to ask whether a repository has the blob.
    asked.retain(|range| range.end - range.start > 1);
    asked.sort_by_key(|range| range.start);
    let is_once = asked.windows(2).all(|pair| pair[0].end <= pair[1].start);
    assert!(is_once, "{asked:?}");
    let lost = record.sent_twice(digest);
    assert!(lost <= IN_SOCKETS, "{lost} bytes twice: {asked:?}");
    assert_eq!(record.sent(digest), content.len() + lost);
}

/// What a `Range` that Layby sends asks for.
fn range_of(header: Option<&str>, len: u64) -> Range<u64> {
    let Some(spec) = header.and_then(|header| header.strip_prefix("bytes=")) else {
        return 0..len;
    };
    let (start, last) = spec.split_once('-').expect("a range");
    let start: u64 = start.parse().expect("a first byte");
    let end = last.parse().map_or(len, |last: u64| last + 1);
    start..end
}

/// Reads a range to its end, or only so much of it; fails where a byte is wrong.
async fn read(layby: std::net::SocketAddr, content: Content, start: u64, range: String, take: u64) {
    let mut wire = Wire::connect(layby).await;
    let request = Request::get(blob_path(REPOSITORY, &content)).range(&range);
    wire.send(&request).await;
    let head = wire.head().await;
    assert_eq!(head.status, 206, "{}", head.raw);
    let bytes = wire.exactly(take).await;
    assert!(bytes == content.read(start..start + take), "{range}");
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_clients_of_disjoint_ranges_in_any_order_get_one_blob_together() {
    const PART: u64 = 8 * MIB;
    let content = Content::random(360, 32 * PART);
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, &content);
    let layby = Layby::over(&fake).await;
    let mut order: Vec<u64> = (0..32).collect();
    fastrand::shuffle(&mut order);
    let mut clients = JoinSet::new();
    for part in order {
        let start = part * PART;
        let range = format!("{start}-{}", start + PART - 1);
        // Every fourth has enough before its end.
        let take = if part % 4 == 3 { PART / 2 } else { PART };
        clients.spawn(read(layby.address(), content.clone(), start, range, take));
    }
    clients.join_all().await;
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}

/// The first bytes stand for an upstream so slow that the last ones are far away.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_cold_gibibyte_is_there_long_before_the_rest() {
    const LEN: u64 = 1024 * MIB;
    let content = Content::random(361, LEN);
    let end = content.read(LEN - 64 * KIB..LEN);
    let suffix = Request::get(blob_path(REPOSITORY, &content)).range("-65536");
    for someone_wants_all in [false, true] {
        let (fake, gate) = slow_registry(&content, MIB).await;
        let layby = Layby::over(&fake).await;
        let mut wire = Wire::connect(layby.address()).await;
        if someone_wants_all {
            let all = Request::get(blob_path(REPOSITORY, &content));
            wire.send(&all).await;
            assert_eq!(wire.head().await.status, 200);
            assert!(wire.exactly(MIB).await == content.read(0..MIB));
            gate.reached().await;
        }
        let reply = suffix.send_to(layby.address()).await.expect(206);
        assert!(reply.body == end);
        let sent = fake.record().sent(content.digest());
        assert!(sent < 10 * MIB, "{sent} bytes");
        assert_eq!(fake.record().sent_twice(content.digest()), 0);
    }
}

/// What containerd 2.1 and later do: open-ended ranges at once, each closed after its chunk.
#[tokio::test(flavor = "multi_thread")]
async fn open_ended_ranges_that_are_closed_after_a_chunk_do_not_wait_for_each_other() {
    const CHUNK: u64 = 8 * MIB;
    let content = Content::random(362, 8 * CHUNK);
    let (fake, gate) = slow_registry(&content, 4 * MIB).await;
    let layby = Layby::over(&fake).await;
    let ask = |number: u64| {
        let start = number * CHUNK;
        let range = format!("{start}-");
        read(layby.address(), content.clone(), start, range, CHUNK)
    };
    let first = beside(ask(0));
    gate.reached().await;
    let mut others = JoinSet::new();
    for number in 1..8 {
        others.spawn(ask(number));
    }
    others.join_all().await;
    gate.open();
    done(first).await;
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}

/// What stargz and its kin do: the footer, then the table of contents before it, then files wherever they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_puller_reads_footer_table_and_files_without_waiting_for_the_rest() {
    const LEN: u64 = 48 * MIB + 333;
    let content = Content::random(363, LEN);
    let (fake, gate) = slow_registry(&content, 2 * MIB).await;
    let layby = Layby::over(&fake).await;
    let all = beside({
        let (address, path) = (layby.address(), blob_path(REPOSITORY, &content));
        async move { download(address, path).await }
    });
    gate.reached().await;
    let ask = |start: u64, range: String, take: u64| {
        read(layby.address(), content.clone(), start, range, take)
    };
    ask(LEN - 51, "-51".into(), 51).await;
    let table = LEN - 200 * KIB;
    ask(table, format!("{table}-{}", LEN - 52), 200 * KIB - 51).await;
    let mut files = JoinSet::new();
    for number in 0..24 {
        let start = 3 * MIB + number * 1_900_000;
        let range = format!("{start}-{}", start + 9_999);
        files.spawn(ask(start, range, 10_000));
    }
    files.join_all().await;
    gate.open();
    done(all).await.expect(&content);
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_of_a_cold_blob_come_in_one_answer_and_in_their_order() {
    const LEN: u64 = 64 * MIB;
    let content = Content::random(364, LEN);
    let (fake, gate) = slow_registry(&content, MIB).await;
    let layby = Layby::over(&fake).await;
    let ranges = [
        (LEN - 100, LEN),
        (5, 105),
        (32 * MIB, 32 * MIB + 70_000),
        (16 * MIB - 3, 16 * MIB + 3),
    ];
    let spec: Vec<_> = ranges
        .iter()
        .map(|(start, end)| format!("{start}-{}", end - 1))
        .collect();
    let request = Request::get(blob_path(REPOSITORY, &content)).range(&spec.join(","));
    let reply = request.send_to(layby.address()).await.expect(206);
    let parts = reply.parts();
    assert_eq!(parts.len(), ranges.len());
    for ((range, bytes), (start, end)) in parts.into_iter().zip(ranges) {
        assert_eq!(range, format!("bytes {start}-{}/{LEN}", end - 1));
        assert!(bytes == content.read(start..end), "{range}");
    }
    gate.open();
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}

/// What docker and podman do after a broken connection of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_broke_off_goes_on_from_where_it_was() {
    let content = Content::random(365, 16 * MIB);
    let (fake, gate) = slow_registry(&content, 9 * MIB).await;
    let layby = Layby::over(&fake).await;
    let mut wire = Wire::connect(layby.address()).await;
    wire.send(&Request::get(blob_path(REPOSITORY, &content)))
        .await;
    assert_eq!(wire.head().await.status, 200);
    wire.exactly(5 * MIB).await;
    drop(wire);
    let start = 5 * MIB;
    let rest = read(
        layby.address(),
        content.clone(),
        start,
        format!("{start}-"),
        11 * MIB,
    );
    let rest = beside(rest);
    gate.reached().await;
    gate.open();
    done(rest).await;
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_ignores_ranges_makes_far_readers_wait() {
    const LEN: u64 = 32 * MIB;
    let content = Content::random(366, LEN);
    let (fake, gate) = slow_registry(&content, 2 * MIB).await;
    fake.ignore_ranges();
    let layby = Layby::over(&fake).await;
    let ask = |start: u64, range: String, take: u64| {
        read(layby.address(), content.clone(), start, range, take)
    };
    let mut clients = JoinSet::new();
    clients.spawn(ask(LEN - 1000, "-1000".into(), 1000));
    clients.spawn(ask(20 * MIB, format!("{}-", 20 * MIB), 12 * MIB));
    clients.spawn(ask(0, "0-9999".into(), 10_000));
    gate.reached().await;
    gate.open();
    clients.join_all().await;
    layby.blob(REPOSITORY, &content).await.expect(&content);
    // That it ignores them is found out once, by an answer that is given up.
    let sent = fake.record().sent(content.digest());
    assert!(sent <= LEN + 8 * MIB, "{sent} bytes");
}

/// For upstreams that throttle each connection.
#[tokio::test(flavor = "multi_thread")]
async fn with_parallel_4_a_large_blob_comes_in_four_parts_at_once() {
    let content = Content::random(367, 64 * MIB);
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, &content);
    // No answer comes to its end before four are under way.
    let gate = Gate::closed();
    let every_step = (1..=64).map(|step| step * MIB - 1);
    let rule = Rule::digest(content.digest());
    fake.script(every_step.fold(rule, |rule, at| rule.wait_at(at, &gate)));
    let setup = Setup::over(&fake);
    let layby = setup.of(UPSTREAM, "parallel = 4").start().await;
    let path = blob_path(REPOSITORY, &content);
    let pull = beside(download(layby.address(), path));
    eventually("four parts", || async {
        (fake.record().gets(content.digest()) == 4).then_some(())
    })
    .await;
    gate.open();
    done(pull).await.expect(&content);
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}

/// What a reader of a part leaves is there for the next one, who has a fetch of its own.
#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_read_one_after_the_other_are_each_asked_for_once() {
    const LEN: u64 = 2_458_126;
    let content = Content::random(368, LEN);
    let fake = Fake::start().await;
    fake.put_blob(REPOSITORY, &content);
    let layby = Layby::over(&fake).await;
    for (start, end) in [
        (2_239_467, LEN),
        // It is there already.
        (2_300_000, 2_437_277),
        (24_552, 161_829),
        (1_000_000, 1_000_001),
        (0, 10),
        (44_985, 900_000),
    ] {
        let range = format!("{start}-{}", end - 1);
        read(layby.address(), content.clone(), start, range, end - start).await;
        eventually("the end of the fetch", || async {
            (layby.metric("flights", "").await < 0.5).then_some(())
        })
        .await;
    }
    assert_complete_and_asked_once(&fake, &layby, &content).await;
}
