use super::wire::Reply;
use super::{Site, Wire};
use crate::proxy::CacheOutcome;

async fn ask(site: &Site, method: &str, path: &str) -> Reply {
    let address = site.server.admin_address().unwrap();
    Wire::connect(address)
        .await
        .exchange(method, path, &[])
        .await
}

#[tokio::test]
async fn readiness_follows_its_latches() {
    let site = Site::start();
    let latch = site.readiness.latch("store");
    let reply = ask(&site, "GET", "/readyz").await;
    assert_eq!((reply.status, reply.text()), (503, "not ready: store\n"));
    assert_eq!(ask(&site, "GET", "/healthz").await.status, 200);
    drop(latch);
    assert_eq!(ask(&site, "GET", "/readyz").await.status, 200);
}

#[tokio::test]
async fn requests_show_in_the_metrics() {
    let site = Site::start();
    site.fake.manifest("v1", b"{}", CacheOutcome::Hit);
    let blob = site.fake.blob(vec![0; 5000]);
    site.get("/v2/a/manifests/v1").await;
    site.get(&format!("/v2/a/blobs/{blob}")).await;
    site.get("/nowhere").await;
    let reply = ask(&site, "GET", "/metrics").await;
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    for line in [
        "layby_requests_total{route=\"manifest\",status=\"200\",cache=\"hit\"} 1\n",
        "layby_requests_total{route=\"blob\",status=\"200\",cache=\"hit\"} 1\n",
        "layby_requests_total{route=\"none\",status=\"404\",cache=\"none\"} 1\n",
        "layby_served_bytes_total{upstream=\"docker.io\",source=\"cache\"} 5002\n",
        "layby_time_to_first_byte_seconds_count{cache=\"hit\"} 2\n",
    ] {
        assert!(
            reply.text().contains(line),
            "{line} is missing in\n{}",
            reply.text()
        );
    }
    assert!(reply.text().ends_with("# EOF\n"));
    assert_eq!(site.metrics.render(), reply.text());
}

#[tokio::test]
async fn nothing_else_is_served_here() {
    let site = Site::start();
    assert_eq!(ask(&site, "GET", "/v2/").await.status, 404);
    let reply = ask(&site, "POST", "/metrics").await;
    assert_eq!(
        (reply.status, reply.header("allow")),
        (405, Some("GET, HEAD"))
    );
    let head = ask(&site, "HEAD", "/healthz").await;
    assert_eq!(head.header("content-length"), Some("3"));
}

#[tokio::test]
async fn the_clients_listener_serves_no_metrics() {
    let site = Site::start();
    for path in ["/metrics", "/readyz"] {
        assert_eq!(site.get(path).await.status, 404);
    }
}
