use super::wire::Reply;
use super::{Site, digest_of};
use crate::oci::range;
use crate::proxy::BlobUse;

fn content() -> Vec<u8> {
    (0..=255).cycle().take(2048).collect()
}

/// The 2048 bytes from a file, asked for with these headers.
async fn ask(headers: &[&str]) -> Reply {
    let site = Site::start();
    let digest = site.fake.file_blob(&content());
    let path = format!("/v2/org/app/blobs/{digest}");
    site.ask("GET", &path, headers).await
}

#[tokio::test]
async fn one_range_is_a_206_of_exactly_it() {
    for (range, bytes, content_range) in [
        ("bytes=500-1499", 500..1500, "bytes 500-1499/2048"),
        ("bytes=500-", 500..2048, "bytes 500-2047/2048"),
        ("bytes=-500", 1548..2048, "bytes 1548-2047/2048"),
        ("bytes=2000-5000", 2000..2048, "bytes 2000-2047/2048"),
        ("bytes=0-", 0..2048, "bytes 0-2047/2048"),
        ("bytes=-9000", 0..2048, "bytes 0-2047/2048"),
        ("bytes=0-0,9000-", 0..1, "bytes 0-0/2048"),
    ] {
        let reply = ask(&[&format!("Range: {range}")]).await;
        assert_eq!(reply.status, 206, "{range}");
        assert_eq!(reply.body, content()[bytes.clone()], "{range}");
        assert_eq!(reply.header("content-range"), Some(content_range));
        assert_eq!(
            reply.header("content-length"),
            Some(&*bytes.len().to_string())
        );
        assert_eq!(
            reply.header("content-type"),
            Some("application/octet-stream")
        );
        assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        assert!(reply.header("docker-content-digest").is_some());
    }
}

#[tokio::test]
async fn a_range_behind_the_end_is_416_with_the_size() {
    for range in ["bytes=5000-10000", "bytes=2048-", "bytes=500-0", "bytes=-0"] {
        let reply = ask(&[&format!("Range: {range}")]).await;
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("content-range"), Some("bytes */2048"));
        assert_eq!(reply.error().0, "RANGE_INVALID");
    }
}

#[tokio::test]
async fn any_range_of_an_empty_blob_is_416() {
    let site = Site::start();
    let digest = site.fake.blob(&b""[..]);
    let path = format!("/v2/org/app/blobs/{digest}");
    let reply = site.ask("GET", &path, &["Range: bytes=0-"]).await;
    assert_eq!(
        (reply.status, reply.header("content-range")),
        (416, Some("bytes */0"))
    );
}

#[tokio::test]
async fn a_header_that_is_no_range_of_bytes_is_ignored() {
    for range in ["lines=1-2", "bytes=", "bytes=a-b", "nonsense"] {
        let reply = ask(&[&format!("Range: {range}")]).await;
        assert_eq!((reply.status, reply.body.len()), (200, 2048), "{range}");
    }
    let reply = ask(&["Range: bytes=0-1", "Range: bytes=2-3"]).await;
    assert_eq!(reply.status, 200, "two lines");
}

#[tokio::test]
async fn several_ranges_are_one_part_each_in_order() {
    let reply = ask(&["Range: bytes=100-199, 0-9, 5-14, -1"]).await;
    assert_eq!(reply.status, 206);
    assert_eq!(reply.header("content-range"), None);
    assert!(reply.whole, "content-length is not the body's");
    let content_type = reply.header("content-type").unwrap();
    let boundary = content_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let mut expected = Vec::new();
    for (n, range) in [100..200, 0..10, 5..15, 2047..2048].into_iter().enumerate() {
        let head = format!(
            "{}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/2048\r\n\r\n",
            if n == 0 { "" } else { "\r\n" },
            range.start,
            range.end - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content()[range]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn more_ranges_than_are_served_are_400() {
    let many = vec!["0-0"; 2000].join(",");
    let reply = ask(&[&format!("Range: bytes={many}")]).await;
    assert_eq!((reply.status, &*reply.error().0), (400, "RANGE_INVALID"));
}

#[tokio::test]
async fn a_range_applies_only_under_the_same_content() {
    let etag = format!("If-Range: \"{}\"", digest_of(&content()));
    let reply = ask(&["Range: bytes=0-9", &etag]).await;
    assert_eq!((reply.status, reply.body.len()), (206, 10));
    for other in [
        "If-Range: \"sha256:other\"",
        "If-Range: Wed, 21 Oct 2015 07:28:00 GMT",
    ] {
        let reply = ask(&["Range: bytes=0-9", other]).await;
        assert_eq!((reply.status, reply.body.len()), (200, 2048), "{other}");
    }
}

#[tokio::test]
async fn a_ranged_reader_is_announced_as_such() {
    let site = Site::start();
    let digest = site.fake.blob(content());
    let path = format!("/v2/org/app/blobs/{digest}");
    site.ask("GET", &path, &["Range: bytes=7-"]).await;
    site.ask("GET", &path, &["Range: lines=7-"]).await;
    let ranged = BlobUse::Ranged(range::parse(Some(b"bytes=7-")));
    assert_eq!(*site.fake.usages.lock(), [ranged, BlobUse::Full]);
}

#[tokio::test]
async fn a_range_of_what_has_no_length_yet_is_answered_with_all() {
    let site = Site::start();
    let digest = digest_of(b"hello");
    let sender = site.fake.live_blob(&digest, None);
    sender.send(Ok("hello".into())).await.unwrap();
    drop(sender);
    let path = format!("/v2/org/app/blobs/{digest}");
    let reply = site.ask("GET", &path, &["Range: bytes=1-"]).await;
    assert_eq!((reply.status, reply.text()), (200, "hello"));
}
