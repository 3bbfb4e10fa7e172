//! Connections: kept, broken, refused, through proxies; URLs in turn; time-outs.

use super::fakes::{Answer, Fake, FakeTunnel};
use super::*;

#[tokio::test]
async fn requests_say_who_asks_and_go_where_the_url_says() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let mut world = World::new(&[&format!("{}/project", registry.url())]);
    world.upstream.send_ns = true;
    let via = Some(http::HeaderValue::from_static("1.1 edge"));
    let call = Call { via, ..call() };
    world
        .upstream()
        .head_blob(&repository(), &digest(), &call)
        .await
        .unwrap();
    let seen = &registry.seen()[0];
    assert_eq!(
        seen.path(),
        format!("/v2/project/org/app/blobs/{}", digest())
    );
    assert_eq!(seen.uri.query(), Some("ns=registry.example"));
    assert_eq!(seen.header("via"), Some("1.1 edge, 1.1 layby-0123abcd"));
    let agent = seen.header("user-agent").unwrap();
    assert_eq!(agent, concat!("layby/", env!("CARGO_PKG_VERSION")));
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn a_request_that_passed_through_us_is_not_sent_again() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let via = Some(http::HeaderValue::from_static(
        "1.1 a, 1.1 layby-0123abcd, 1.1 b",
    ));
    let result = upstream
        .head_blob(&repository(), &digest(), &Call { via, ..call() })
        .await;
    assert_eq!(result, Err(Error::Loop));
    assert_eq!(registry.connections(), 0);
}

#[tokio::test]
async fn offline_opens_nothing() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let mut world = World::new(&[&registry.url()]);
    world.config.offline = true;
    assert_eq!(fetch(&world.upstream()).await, Err(Error::Offline));
    assert!(world.network.opened().is_empty());
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for _ in 0..5 {
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
        // Lets the connection's task notice that the body has ended.
        tokio::task::yield_now().await;
    }
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_one_try_on_a_fresh_one() {
    let registry = Fake::plain(|seen| {
        if seen.connection == 0 && seen.turn == 1 {
            Answer::no_answer()
        } else {
            Answer::ok(CONTENT)
        }
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    assert_eq!(registry.connections(), 2);
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test]
async fn after_a_time_out_no_kept_connection_is_used() {
    let registry = Fake::plain(|seen| match seen.turn {
        0 => Answer::ok(CONTENT),
        _ => Answer::never(),
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    // Two at once are two connections.
    let (repository, digest, long) = (repository(), digest(), call());
    let asked = [(); 2].map(|()| upstream.get_blob(&repository, &digest, None, &long));
    for mut answer in futures_util::future::try_join_all(asked).await.unwrap() {
        while let Some(bytes) = answer.body.next().await {
            bytes.unwrap();
        }
    }
    tokio::task::yield_now().await;
    assert_eq!(registry.connections(), 2);
    let soon = Call {
        deadline: Instant::now() + Duration::from_millis(200),
        via: None,
    };
    let late = upstream.get_blob(&repository, &digest, None, &soon).await;
    assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
    assert_eq!(registry.connections(), 2, "the late one was a kept one");
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    assert_eq!(registry.connections(), 3);
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_not_tried_again() {
    let registry = Fake::plain(|_| Answer::no_answer()).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let error = fetch(&upstream).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn a_body_left_unread_takes_its_connection_with_it() {
    let registry = Fake::plain(|_| Answer::ok(vec![7; 8 << 20])).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for _ in 0..2 {
        let mut answer = upstream
            .get_blob(&repository(), &digest(), None, &call())
            .await
            .unwrap();
        answer.body.next().await.unwrap().unwrap();
    }
    assert_eq!(registry.connections(), 2);
}

/// So many seconds in which nothing is asked for. The clock stands still only here, or it would jump while sockets are
/// waited for.
pub(super) async fn idle(seconds: u64) {
    tokio::time::pause();
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        // Enough turns for signs of life to be asked for and given.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::resume();
}

/// Waits until the registry has so many connections.
pub(super) async fn open(registry: &Fake, count: usize) {
    let wait = async {
        while registry.open() != count {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{} are open", registry.open());
}

#[tokio::test]
async fn an_idle_http1_connection_is_closed_too() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    open(&registry, 1).await;
    idle(61).await;
    open(&registry, 0).await;
}

#[tokio::test]
async fn a_registry_that_redirects_to_ever_new_hosts_holds_a_bounded_number_of_connections() {
    let storage = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let registry = Fake::plain(move |_| {
        let turn = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Answer::redirect(307, format!("http://storage{turn}.example/content"))
    })
    .await;
    let world = World::new(&[&registry.url()]);
    for turn in 0..100 {
        let (name, ip) = (
            format!("storage{turn}.example"),
            format!("203.0.113.{turn}"),
        );
        world.network.host(&name, &ip, storage.address);
    }
    let upstream = world.upstream();
    for _ in 0..100 {
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    }
    // The registry is one of the 64, as it was asked more lately than any that it sent us to.
    assert_eq!((registry.connections(), storage.connections()), (1, 100));
    open(&storage, 63).await;
}

#[tokio::test]
async fn the_next_url_is_asked_when_one_is_unreachable_or_broken() {
    let good = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let broken = Fake::plain(|_| Answer::new(503, "")).await;
    let closed = {
        let gone = Fake::plain(|_| Answer::ok("")).await;
        let url = gone.url();
        drop(gone);
        tokio::task::yield_now().await;
        url
    };
    let world = World::new(&[&closed, &broken.url(), &good.url()]);
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert_eq!(broken.seen().len(), 1);
}

#[tokio::test]
async fn a_url_that_answers_is_believed() {
    let second = Fake::plain(|_| Answer::ok(CONTENT)).await;
    for (status, reason) in [(404, "not_found"), (403, "denied"), (429, "rate_limited")] {
        let first = Fake::plain(move |_| Answer::new(status, "")).await;
        let world = World::new(&[&first.url(), &second.url()]);
        assert_eq!(fetch(&world.upstream()).await.unwrap_err().reason(), reason);
    }
    assert!(second.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_url_that_hangs_leaves_time_for_the_next() {
    let hanging = Fake::plain(|_| Answer::never()).await;
    let good = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let world = World::new(&[&hanging.url(), &good.url()]);
    let began = Instant::now();
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn no_answer_until_the_deadline_is_unavailable() {
    let registry = Fake::plain(|_| Answer::never()).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let began = Instant::now();
    let error = fetch(&upstream).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_takes_no_connection_is_given_up_after_connect_timeout() {
    let world = World::new(&["http://registry.example"]);
    world.network.black_hole("registry.example", "203.0.113.10");
    let began = Instant::now();
    let error = fetch(&world.upstream()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("5s"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_dead_address_does_not_hold_up_a_live_one() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let world = World::new(&["http://registry.example"]);
    world.network.black_hole("registry.example", "2001:db8::1");
    world
        .network
        .host("registry.example", "203.0.113.10", registry.address);
    let began = Instant::now();
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_name_without_addresses_is_unavailable() {
    let error = fetch(&World::new(&["http://nowhere.example"]).upstream())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(
        error.to_string().contains("http://nowhere.example"),
        "{error}"
    );
}

#[tokio::test]
async fn plain_http_goes_to_the_proxy_with_the_whole_url_and_its_login() {
    let proxy = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let mut world = World::new(&["http://registry.example:8080"]);
    let variable = format!("http://user:p%40ss@{}", proxy.address);
    world.environment = vec![("http_proxy", variable)];
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    let seen = &proxy.seen()[0];
    assert_eq!(
        seen.uri.to_string(),
        format!("http://registry.example:8080/v2/org/app/blobs/{}", digest())
    );
    assert_eq!(seen.header("host"), Some("registry.example:8080"));
    assert_eq!(
        seen.header("proxy-authorization"),
        Some("Basic dXNlcjpwQHNz")
    );
    assert_eq!(
        world.network.opened(),
        [proxy.address],
        "the name is the proxy's to resolve"
    );
}

#[tokio::test]
async fn the_configured_proxy_wins_over_the_environment() {
    let proxy = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let mut world = World::new(&["http://registry.example"]);
    world.environment = vec![("HTTP_PROXY", "http://elsewhere.example:1".to_owned())];
    world.upstream.proxy = ProxyChoice::Via(proxy.url().parse().unwrap());
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);

    let direct = Fake::plain(|_| Answer::ok(CONTENT)).await;
    world
        .network
        .host("registry.example", "203.0.113.10", direct.address);
    world.upstream.proxy = ProxyChoice::Direct;
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert_eq!((proxy.seen().len(), direct.seen().len()), (1, 1));
}

#[tokio::test]
async fn the_configured_proxy_is_for_everything_and_the_environments_not_for_this_machine() {
    let target = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let location = format!("{}/blob", target.url());
    let proxy = Fake::plain(move |seen| match seen.path() {
        "/blob" => Answer::ok(CONTENT),
        _ => Answer::redirect(307, location.clone()),
    })
    .await;
    let mut world = World::new(&["http://registry.example"]);
    world.upstream.allow_private = true;
    world.environment = vec![
        ("HTTP_PROXY", proxy.url()),
        ("NO_PROXY", "registry.example".to_owned()),
    ];
    world.upstream.proxy = ProxyChoice::Via(proxy.url().parse().unwrap());
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert_eq!((proxy.seen().len(), target.seen().len()), (2, 0));

    world.environment.pop();
    world.upstream.proxy = ProxyChoice::Environment;
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
    assert_eq!((proxy.seen().len(), target.seen().len()), (3, 1));
}

#[tokio::test]
async fn exempt_hosts_are_reached_without_the_proxy() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let mut world = World::new(&["http://registry.example"]);
    world
        .network
        .host("registry.example", "203.0.113.10", registry.address);
    world.environment = vec![
        ("HTTP_PROXY", "http://elsewhere.example:1".to_owned()),
        ("NO_PROXY", "example".to_owned()),
    ];
    assert_eq!(fetch(&world.upstream()).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn behind_a_proxy_written_addresses_are_still_checked() {
    for location in [
        "http://169.254.169.254/",
        "http://localhost:5050/",
        "http://[fd00::1]/",
    ] {
        let proxy = Fake::plain(move |_| Answer::redirect(307, location)).await;
        let mut world = World::new(&["http://registry.example"]);
        world.upstream.proxy = ProxyChoice::Via(proxy.url().parse().unwrap());
        let result = fetch(&world.upstream()).await;
        assert!(
            matches!(
                result,
                Err(Error::Refused {
                    key: "allow_private",
                    ..
                })
            ),
            "{result:?}"
        );
        assert_eq!(proxy.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_the_tunnel_is_named_with_its_reason() {
    for (answer, says) in [
        ("407 Proxy Authentication Required", "407"),
        ("403 Forbidden", "403"),
    ] {
        let tunnel = FakeTunnel::to(([127, 0, 0, 1], 1).into(), answer).await;
        let mut world = World::new(&["https://registry.example"]);
        let proxy = format!("http://user:s3cret@{}", tunnel.address);
        world.upstream.proxy = ProxyChoice::Via(proxy.parse().unwrap());
        let error = fetch(&world.upstream()).await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(says) && text.contains("proxy") && !text.contains("s3cret"),
            "{text}"
        );
    }
}
