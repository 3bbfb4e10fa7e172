//! Connections of HTTP/2: shared, wide and narrow, kept and closed.

use super::connections::{idle, open};
use super::fakes::{Answer, Authority, Fake};
use super::*;
use crate::upstream::BlobAnswer;

/// A registry that speaks HTTP/2 and whose blobs are this long, asked once already; with the file that vouches for it.
async fn http2_registry(len: usize) -> (Fake, Arc<Upstream>, tempfile::NamedTempFile) {
    let (registry, world, ca_file) = http2_world(len).await;
    let upstream = world.upstream();
    assert_eq!(fetch(&upstream).await.unwrap().len(), len);
    (registry, upstream, ca_file)
}

/// The same, before anybody asked it.
async fn http2_world(len: usize) -> (Fake, World, tempfile::NamedTempFile) {
    let authority = Authority::new();
    let config = authority.server("registry.example", &["h2"], None);
    let registry = Fake::tls(config, move |_| Answer::ok(vec![7; len])).await;
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), &authority.pem).unwrap();
    let mut world = World::new(&["https://registry.example"]);
    world
        .network
        .host("registry.example", ADDRESS, registry.address);
    world.upstream.ca_file = Some(ca_file.path().to_owned());
    (registry, world, ca_file)
}

const ADDRESS: &str = "203.0.113.10";

/// So many answers whose bodies nobody reads.
async fn unread(upstream: &Upstream, count: usize) -> Vec<BlobAnswer> {
    let (repository, digest, call) = (repository(), digest(), call());
    let asked = (0..count).map(|_| upstream.get_blob(&repository, &digest, None, &call));
    futures_util::future::try_join_all(asked).await.unwrap()
}

#[tokio::test]
async fn bodies_left_unread_on_an_http2_connection_hold_up_no_other() {
    let (registry, upstream, _ca_file) = http2_registry(6 << 20).await;
    let _unread = unread(&upstream, 12).await;
    let read = tokio::time::timeout(Duration::from_secs(20), fetch(&upstream)).await;
    assert_eq!(read.expect("it is not held up").unwrap().len(), 6 << 20);
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn of_many_bodies_left_unread_only_some_have_a_wide_window_and_the_rest_share_a_connection() {
    let (registry, upstream, _ca_file) = http2_registry(1 << 20).await;
    let mut unread = unread(&upstream, 40).await;
    assert_eq!(fetch(&upstream).await.unwrap().len(), 1 << 20);
    // The wide ones are with us whole before anybody reads, the others wait at the registry.
    while registry.sent_whole() < 2 + 16 {
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.sent_whole(), 2 + 16);
    assert_eq!(registry.connections(), 2);
    let mut last = unread.pop().unwrap();
    while let Some(bytes) = last.body.next().await {
        bytes.unwrap();
    }
    assert_eq!(registry.sent_whole(), 3 + 16);
}

#[tokio::test]
async fn a_body_at_the_pace_of_a_client_neither_takes_a_wide_window_nor_keeps_one() {
    let (registry, upstream, _ca_file) = http2_registry(6 << 20).await;
    let (repository, digest, call) = (repository(), digest(), call());
    let stored = upstream.get_blob(&repository, &digest, None, &call).await;
    assert!(!stored.unwrap().body.pass());
    assert_eq!(registry.connections(), 1);
    let passing = upstream.pass_blob(&repository, &digest, None, &call).await;
    assert!(passing.unwrap().body.pass());
    assert_eq!(registry.connections(), 2, "the second has narrow windows");
}

#[tokio::test]
async fn an_http2_connection_is_closed_when_it_was_idle_for_long_and_kept_while_it_is_used() {
    let (registry, upstream, _ca_file) = http2_registry(6 << 20).await;
    for _ in 0..5 {
        idle(40).await;
        assert_eq!(fetch(&upstream).await.unwrap().len(), 6 << 20);
    }
    let unread = unread(&upstream, 1).await;
    idle(100).await;
    assert_eq!((registry.connections(), registry.open()), (1, 1));
    drop(unread);
    idle(61).await;
    open(&registry, 0).await;
    assert_eq!(fetch(&upstream).await.unwrap().len(), 6 << 20);
    assert_eq!(registry.connections(), 2);
}

/// As servers and the networks between do not keep one for longer.
#[tokio::test]
async fn an_http2_connection_that_was_idle_for_long_is_not_used_again() {
    let (registry, upstream, _ca_file) = http2_registry(1 << 10).await;
    idle(50).await;
    fetch(&upstream).await.unwrap();
    assert_eq!(registry.connections(), 2);
}

#[tokio::test]
async fn requests_at_once_share_one_connection_also_after_none_was_kept() {
    let (registry, upstream, _ca_file) = http2_registry(1 << 10).await;
    idle(61).await;
    open(&registry, 0).await;
    assert_eq!(unread(&upstream, 10).await.len(), 10);
    assert_eq!(registry.connections(), 2);
}

/// Else each of them would wait for the one before to fail.
#[tokio::test]
async fn a_registry_that_takes_no_connection_any_more_is_waited_for_by_all_at_once() {
    let (registry, world, _ca_file) = http2_world(1 << 10).await;
    let upstream = world.upstream();
    fetch(&upstream).await.unwrap();
    idle(61).await;
    open(&registry, 0).await;
    world.network.black_hole("registry.example", ADDRESS);
    tokio::time::pause();
    let began = Instant::now();
    let asked = futures_util::future::join_all((0..10).map(|_| fetch(&upstream)));
    assert!(asked.await.iter().all(Result::is_err));
    assert_eq!(began.elapsed().as_secs(), 10);
}
