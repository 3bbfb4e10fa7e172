use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::{Site, Wire, digest_of};

const GRACE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn fifty_responses_under_way_arrive_whole() {
    let site = Site::start();
    let mut clients = Vec::new();
    for n in 0..50_u8 {
        let digest = digest_of(&[n]);
        let sender = site.fake.live_blob(&digest, Some(2000));
        sender.send(Ok(vec![n; 1000].into())).await.unwrap();
        let mut wire = site.connect().await;
        wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
            .await;
        assert_eq!(wire.head().await.unwrap().status, 200);
        clients.push((n, sender, wire));
    }
    let mut idle = site.connect().await;
    idle.exchange("GET", "/v2/", &[]).await;
    let address = site.address();
    let readiness = site.readiness.clone();

    let rest = async {
        assert!(
            idle.is_closed().await,
            "an idle connection is closed at once"
        );
        assert!(
            TcpStream::connect(address).await.is_err(),
            "no new ones are taken"
        );
        assert!(!readiness.is_ready());
        join_all(clients.into_iter().map(|(n, sender, mut wire)| async move {
            sender.send(Ok(vec![n; 1000].into())).await.unwrap();
            let mut body = Vec::new();
            wire.exactly(2000, &mut body).await.expect("a whole body");
            assert_eq!(body, [n; 2000]);
            assert!(wire.is_closed().await);
        }))
        .await;
    };
    let (clean, ()) = tokio::join!(site.server.shutdown(GRACE), rest);
    assert!(clean);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_within_the_grace_is_cut() {
    let site = Site::start();
    let digest = digest_of(b"never");
    let sender = site.fake.live_blob(&digest, Some(2000));
    let mut wire = site.connect().await;
    wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
        .await;
    assert_eq!(wire.head().await.unwrap().status, 200);
    let started = tokio::time::Instant::now();
    assert!(!site.server.shutdown(GRACE).await);
    assert!(started.elapsed() >= GRACE);
    assert_eq!(wire.exactly(1, &mut Vec::new()).await, None);
    assert!(sender.is_closed(), "its reader is gone");
}

#[tokio::test]
async fn probes_see_the_drain_until_it_is_over() {
    let site = Site::start();
    let admin = site.server.admin_address().unwrap();
    let digest = digest_of(b"slow");
    let sender = site.fake.live_blob(&digest, Some(1));
    let mut wire = site.connect().await;
    wire.request("GET", &format!("/v2/a/blobs/{digest}"), &[])
        .await;
    wire.head().await.unwrap();
    let readiness = site.readiness.clone();
    let probe = async {
        while readiness.is_ready() {
            tokio::task::yield_now().await;
        }
        let reply = Wire::connect(admin)
            .await
            .exchange("GET", "/readyz", &[])
            .await;
        assert_eq!(reply.status, 503);
        assert!(reply.text().contains("shutting down"));
        sender.send(Ok("x".into())).await.unwrap();
    };
    let (clean, ()) = tokio::join!(site.server.shutdown(GRACE), probe);
    assert!(clean);
}
