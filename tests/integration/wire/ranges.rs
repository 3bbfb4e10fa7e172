//! Parts of blobs, and questions whether content has changed.

use super::World;
use crate::fake::Content;
use crate::support::{Request, Wire};

// List, lines 7 and 8, and the conformance suite's cases on 2048 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn single_ranges_are_answered_as_the_conformance_suite_wants_cold_and_warm() {
    let cases = [
        ("500-1499", 500, 1500),
        ("500-", 500, 2048),
        ("-500", 1548, 2048),
        ("2000-5000", 2000, 2048),
        ("0-", 0, 2048),
        ("0-0", 0, 1),
        ("2047-2047", 2047, 2048),
        ("0-2047", 0, 2048),
        ("-5000", 0, 2048),
    ];
    let warm = World::warm().await;
    for (range, start, end) in cases {
        let cold = World::new().await;
        for world in [&cold, &warm] {
            let reply = world.range(range).await.expect(206);
            assert_eq!(reply.body, world.layer().read(start..end), "{range}");
            let expected = format!("bytes {start}-{}/2048", end - 1);
            assert_eq!(
                reply.header("content-range"),
                Some(expected.as_str()),
                "{range}"
            );
            assert_eq!(reply.head.length(), Some(end - start), "{range}");
            assert_eq!(
                reply.header("content-type"),
                Some("application/octet-stream")
            );
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
            let digest = world.layer().digest().as_str();
            assert_eq!(reply.header("docker-content-digest"), Some(digest));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_cannot_be_satisfied_are_416_with_the_length_cold_and_warm() {
    let warm = World::warm().await;
    for range in ["500-0", "5000-10000", "2048-", "-0"] {
        let cold = World::new().await;
        for world in [&cold, &warm] {
            let reply = world.range(range).await.expect(416);
            assert_eq!(
                reply.header("content-range"),
                Some("bytes */2048"),
                "{range}"
            );
            assert_eq!(reply.code(), "RANGE_INVALID", "{range}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_none_is_ignored() {
    let world = World::warm().await;
    for value in [
        "lines=1-2",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=1",
        "0-5",
    ] {
        let request = Request::get(world.layer_path()).header("Range", value);
        let reply = world.ask(request).await.expect(200);
        assert_eq!(reply.body, world.layer().all(), "{value}");
        assert_eq!(reply.header("content-range"), None, "{value}");
    }
    let head = Request::head(world.layer_path()).range("0-5");
    assert_eq!(world.ask(head).await.status(), 200);
}

// Fact 12: containers/image counts the parts.
#[tokio::test(flavor = "multi_thread")]
async fn several_ranges_get_one_part_each_in_order_and_never_joined_cold_and_warm() {
    let warm = World::warm().await;
    let cold = World::new().await;
    for world in [&cold, &warm] {
        let reply = world
            .range("0-9,10-19, 5-14,2000-3000,-3")
            .await
            .expect(206);
        assert!(reply.head.length().is_some());
        assert_eq!(reply.header("content-range"), None);
        let expected: Vec<_> = [(0, 10), (10, 20), (5, 15), (2000, 2048), (2045, 2048)]
            .map(|(start, end)| {
                let range = format!("bytes {start}-{}/2048", end - 1);
                (range, world.layer().read(start..end).to_vec())
            })
            .into();
        assert_eq!(reply.parts(), expected);
    }
    // Those that lie behind the end are left out; one that is left is no multipart.
    let reply = warm.range("0-3,5000-6000").await.expect(206);
    assert_eq!(reply.body, warm.layer().read(0..4));
    assert_eq!(warm.range("4000-,5000-6000").await.status(), 416);
}

// stargz, SOCI and containers/image fall back to fewer ranges on exactly this.
#[tokio::test(flavor = "multi_thread")]
async fn more_ranges_than_are_served_are_400() {
    let world = World::warm().await;
    let ranges: Vec<_> = (0..2000).map(|n| format!("{n}-{n}")).collect();
    let reply = world.range(&ranges.join(",")).await;
    assert_eq!(reply.status(), 400, "{}", reply.head.raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn if_range_takes_our_tag_and_nothing_else() {
    let world = World::warm().await;
    let tag = format!("\"{}\"", world.layer().digest());
    for (value, status) in [
        (tag.as_str(), 206),
        ("\"something-else\"", 200),
        (&format!("W/{tag}"), 200),
        ("Sat, 21 Nov 2026 00:00:00 GMT", 200),
    ] {
        let request = Request::get(world.layer_path())
            .range("1-2")
            .header("If-Range", value);
        assert_eq!(world.ask(request).await.status(), status, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_none_match_takes_quoted_and_bare_and_gives_304_without_a_body() {
    let world = World::warm().await;
    for path in world.content() {
        let digest = world.layby.get(&path).await;
        let digest = digest.header("docker-content-digest").expect("a digest");
        let none = format!("\"{}\"", Content::bytes("none").digest());
        for (value, status) in [
            (format!("\"{digest}\""), 304),
            (digest.to_owned(), 304),
            (format!("W/\"{digest}\""), 304),
            (format!("{none}, \"{digest}\""), 304),
            ("*".into(), 304),
            (none, 200),
        ] {
            for method in ["GET", "HEAD"] {
                let request = Request::new(method, &path).header("If-None-Match", &value);
                let reply = world.ask(request).await;
                assert_eq!(reply.status(), status, "{method} {path} {value}");
                let tag = format!("\"{digest}\"");
                assert_eq!(
                    reply.header("etag"),
                    Some(tag.as_str()),
                    "{method} {path} {value}"
                );
            }
        }
    }
    let mut wire = Wire::connect(world.layby.address()).await;
    let matching = Request::get(world.layer_path()).header("If-None-Match", "*");
    assert_eq!(wire.ask(&matching).await.status(), 304);
    assert_eq!(wire.ask(&Request::get("/v2/")).await.expect(200).body, "{}");
}
