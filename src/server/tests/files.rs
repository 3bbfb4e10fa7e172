//! Blobs in files, which plain connections send without a copy: what arrives must not tell.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use super::{Site, digest_of};

const MIB: usize = 1024 * 1024;

/// Bytes of which none is zero, and no two neighbouring pages are the same.
fn content(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n + n / 4096) % 255 + 1).unwrap())
        .collect()
}

/// A blob of these bytes: its path and its file.
fn blob(site: &Site, bytes: &[u8]) -> (String, Arc<File>) {
    let file = site.fake.open_blob(bytes);
    (format!("/v2/org/app/blobs/{}", digest_of(bytes)), file)
}

#[tokio::test]
async fn parts_of_files_arrive_in_order_among_pipelined_answers() {
    let site = Site::start();
    let bytes = content(3 * MIB + 17);
    let (path, _) = blob(&site, &bytes);
    let small = content(5000);
    let (small_path, _) = blob(&site, &small);
    let mut wire = site.connect().await;
    wire.request("GET", &path, &[]).await;
    wire.request("GET", &path, &["Range: bytes=4095-1500000"])
        .await;
    wire.request("HEAD", &path, &[]).await;
    let ranges = "Range: bytes=0-9, 100000-2300000, 7-7, 3145700-";
    wire.request("GET", &path, &[ranges]).await;
    wire.request("GET", &small_path, &[]).await;
    wire.request("GET", "/v2/", &[]).await;

    assert!(wire.reply("GET").await.body == bytes, "the whole");
    let part = wire.reply("GET").await;
    assert!(part.body == bytes[4095..=1_500_000], "a range");
    let head = wire.reply("HEAD").await;
    let len = bytes.len().to_string();
    assert_eq!(head.header("content-length"), Some(&*len));
    let parts = wire.reply("GET").await;
    assert!(parts.whole);
    let mut rest = &parts.body[..];
    for range in [0..10, 100_000..2_300_001, 7..8, 3_145_700..bytes.len()] {
        let head = rest
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap();
        let announced = format!("bytes {}-{}/{len}", range.start, range.end - 1);
        let text = std::str::from_utf8(&rest[..head]).unwrap();
        assert!(text.ends_with(&announced), "{text}");
        rest = &rest[head + 4..];
        assert!(rest.starts_with(&bytes[range.clone()]), "{range:?}");
        rest = &rest[range.len()..];
    }
    assert!(rest.starts_with(b"\r\n--") && rest.ends_with(b"--\r\n"));
    assert_eq!(wire.reply("GET").await.body, small);
    assert_eq!(wire.reply("GET").await.status, 200);
}

#[tokio::test]
async fn a_file_cut_short_in_mid_body_breaks_the_connection_with_no_byte_made_up() {
    let site = Site::start();
    let bytes = content(48 * MIB);
    let (path, file) = blob(&site, &bytes);
    for _ in 0..2 {
        let mut wire = site.connect().await;
        wire.request("GET", &path, &[]).await;
        let mut reply = wire.head().await.unwrap();
        wire.exactly(MIB, &mut reply.body).await.unwrap();
        file.set_len(20 * MIB as u64).unwrap();
        assert_eq!(wire.exactly(47 * MIB, &mut reply.body).await, None);
        assert!(reply.body.len() < 48 * MIB);
        assert!(
            bytes.starts_with(&reply.body),
            "a byte that is not the blob's"
        );
    }
    assert_eq!(site.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_leaves_nothing_behind() {
    let site = Site::start();
    let (path, file) = blob(&site, &content(48 * MIB));
    let before = Arc::strong_count(&file);
    let mut wire = site.connect().await;
    wire.request("GET", &path, &[]).await;
    wire.head().await.unwrap();
    assert!(Arc::strong_count(&file) > before);
    drop(wire);
    while Arc::strong_count(&file) > before {
        tokio::task::yield_now().await;
    }
    assert!(site.server.shutdown(Duration::ZERO).await, "nothing to cut");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_of_a_file_is_cut() {
    let site = Site::start();
    let (path, _) = blob(&site, &content(48 * MIB));
    let mut wire = site.connect().await;
    wire.request("GET", &path, &[]).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let reply = wire.reply("GET").await;
    assert!(!reply.whole, "{} bytes", reply.body.len());
}

#[tokio::test]
async fn a_file_under_way_arrives_whole_within_the_grace() {
    let site = Site::start();
    let bytes = content(24 * MIB);
    let (path, _) = blob(&site, &bytes);
    let mut wire = site.connect().await;
    wire.request("GET", &path, &[]).await;
    let mut reply = wire.head().await.unwrap();
    let rest = async {
        wire.exactly(bytes.len(), &mut reply.body).await.unwrap();
        assert!(wire.is_closed().await);
    };
    let (clean, ()) = tokio::join!(site.server.shutdown(Duration::from_secs(30)), rest);
    assert!(clean);
    assert!(reply.body == bytes);
}
