//! Upstreams that are dead, hang or limit us: who is asked then, and who is not.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::SystemTime;

use futures_util::future::join_all;
use tokio::time::advance;

use super::fakes::Fake;
use super::*;
use crate::config::CredentialSource;

const NAME: &str = "registry.example";
const HUB_LIMIT: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;

async fn pull(upstream: &Upstream) -> Result<(), Error> {
    let manifest = upstream.get_manifest(&repository(), &tag(), &call()).await;
    manifest.map(|_| ())
}

async fn look(upstream: &Upstream) -> Result<(), Error> {
    let head = upstream.head_manifest(&repository(), &tag(), &call()).await;
    head.map(|_| ())
}

/// How long a rate limit says to wait.
fn left(result: &Result<(), Error>) -> u64 {
    let Err(Error::RateLimited { retry_after, .. }) = result else {
        panic!("{result:?}");
    };
    retry_after.unwrap().as_secs()
}

/// An address that refuses connections.
async fn closed() -> std::net::SocketAddr {
    let fake = Fake::plain(|_| Answer::ok("")).await;
    let address = fake.address;
    drop(fake);
    tokio::task::yield_now().await;
    address
}

fn dead_world() -> World {
    let world = World::new(&["http://registry.example"]);
    world.network.black_hole(NAME, "203.0.113.10");
    world
}

#[tokio::test(start_paused = true)]
async fn a_dead_upstream_fails_at_once_and_then_one_request_sees_whether_it_is_back() {
    let world = World::new(&["http://registry.example"]);
    world.network.host(NAME, "203.0.113.10", closed().await);
    let upstream = world.upstream();
    for _ in 0..20 {
        assert_eq!(fetch(&upstream).await.unwrap_err().reason(), "unavailable");
    }
    assert_eq!(world.network.opened().len(), 3);
    let error = pull(&upstream).await.unwrap_err().to_string();
    assert!(error.contains("is not tried for 1 s"), "{error}");

    advance(Duration::from_secs(1)).await;
    let results = join_all((0..10).map(|_| fetch(&upstream))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(world.network.opened().len(), 4);

    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    world.network.host(NAME, "203.0.113.10", registry.address);
    advance(Duration::from_secs(2)).await;
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_no_connection_is_given_up_sooner_and_sooner() {
    let world = dead_world();
    let upstream = world.upstream();
    for _ in 0..3 {
        let began = Instant::now();
        assert!(fetch(&upstream).await.is_err());
        assert_eq!(began.elapsed().as_secs(), 5);
    }
    let began = Instant::now();
    let error = fetch(&upstream).await.unwrap_err();
    assert!(error.to_string().contains("did not take a connection"));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_resolves_to_nothing_is_dead_too() {
    let world = World::new(&["http://registry.example"]);
    let upstream = world.upstream();
    for _ in 0..3 {
        let error = fetch(&upstream).await.unwrap_err().to_string();
        assert!(!error.contains("is not tried"), "{error}");
    }
    let error = fetch(&upstream).await.unwrap_err().to_string();
    assert!(
        error.contains("is not tried") && error.contains("no address"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_first_url_costs_nothing_once_it_is_known_and_is_used_again_when_it_is_back() {
    let second = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let world = World::new(&["http://registry.example", &second.url()]);
    world.network.black_hole(NAME, "203.0.113.10");
    let upstream = world.upstream();
    for time in 0..10 {
        let began = Instant::now();
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
        let expected = if time < 3 { 5 } else { 0 };
        assert_eq!(began.elapsed().as_secs(), expected);
    }
    let first = Fake::plain(|_| Answer::ok(CONTENT)).await;
    world.network.host(NAME, "203.0.113.10", first.address);
    advance(Duration::from_secs(1)).await;
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    assert_eq!((first.seen().len(), second.seen().len()), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_nothing_is_dead_after_some_requests() {
    let registry = Fake::plain(|_| Answer::never()).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let began = Instant::now();
    let results = join_all((0..5).map(|_| fetch(&upstream))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(began.elapsed().as_secs(), 20);
    let error = fetch(&upstream).await.unwrap_err().to_string();
    assert!(error.contains("answers nothing"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 20);
    assert_eq!(registry.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn deadlines_too_short_for_an_answer_say_nothing_of_the_upstream() {
    let registry = Fake::plain(|_| Answer::never()).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let (repository, digest) = (repository(), digest());
    for time in 1..10 {
        let soon = Call {
            deadline: Instant::now() + Duration::from_millis(300),
            via: None,
        };
        let late = upstream.get_blob(&repository, &digest, None, &soon).await;
        assert!(late.is_err());
        assert_eq!(registry.seen().len(), time);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_count_as_nothing() {
    let world = dead_world();
    let upstream = world.upstream();
    for time in 1..10 {
        let left = tokio::time::timeout(Duration::from_secs(4), fetch(&upstream)).await;
        assert!(left.is_err());
        assert_eq!(world.network.opened().len(), time);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_upstream_is_not_dead() {
    for status in [500, 503] {
        let registry = Fake::plain(move |_| Answer::new(status, "")).await;
        let upstream = World::new(&[&registry.url()]).upstream();
        for time in 1..20 {
            assert!(fetch(&upstream).await.is_err());
            assert_eq!(registry.seen().len(), time);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dead_storage_fails_at_once_and_leaves_the_registry_alive() {
    let registry = Fake::plain(|seen| {
        if seen.path().contains("manifests") {
            index(seen)
        } else {
            Answer::redirect(307, "http://storage.example/blob")
        }
    })
    .await;
    let world = World::new(&[&registry.url()]);
    world
        .network
        .host("storage.example", "203.0.113.20", closed().await);
    let upstream = world.upstream();
    for _ in 0..10 {
        assert!(fetch(&upstream).await.is_err());
        assert_eq!(pull(&upstream).await, Ok(()));
    }
    let dialled = world.network.opened();
    let storage = dialled
        .iter()
        .filter(|to| to.ip().to_string() == "203.0.113.20");
    assert_eq!(storage.count(), 3);
}

/// A registry whose manifests are answered with this status, and with `limit` where it is 429.
async fn limiting(status: Arc<AtomicU16>, limit: Answer) -> Fake {
    Fake::plain(move |seen| {
        let is_manifest = seen.path().contains("manifests");
        match (
            is_manifest,
            seen.method.as_str(),
            status.load(Ordering::SeqCst),
        ) {
            (true, "GET", 429) => limit.clone(),
            (true, ..) => index(seen)
                .with("ratelimit-limit", "100;w=21600")
                .with("ratelimit-remaining", "76;w=21600"),
            _ => Answer::ok(CONTENT),
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_pull_limit_holds_manifests_while_heads_and_blobs_flow() {
    let status = Arc::new(AtomicU16::new(429));
    let limit = Answer::new(429, HUB_LIMIT).with("retry-after", "60");
    let registry = limiting(Arc::clone(&status), limit).await;
    let world = World::new(&[&registry.url()]);
    let upstream = world.upstream();
    assert_eq!(left(&pull(&upstream).await), 60);
    advance(Duration::from_secs(20)).await;
    assert_eq!(left(&pull(&upstream).await), 40);
    assert_eq!(registry.seen().len(), 1);
    assert_eq!(look(&upstream).await, Ok(()));
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    let held = r#"layby_upstream_held{upstream="registry.example",reason="pull_limit"} 1"#;
    assert!(world.metrics.render().contains(held));

    advance(Duration::from_secs(40)).await;
    assert_eq!(left(&pull(&upstream).await), 60, "the probe is refused");
    status.store(200, Ordering::SeqCst);
    assert_eq!(left(&pull(&upstream).await), 60);
    advance(Duration::from_secs(60)).await;
    assert_eq!(pull(&upstream).await, Ok(()));
    assert_eq!(pull(&upstream).await, Ok(()));
    assert!(!world.metrics.render().contains(held));
}

#[tokio::test(start_paused = true)]
async fn another_credential_is_not_held_by_the_pull_limit_of_the_last() {
    let status = Arc::new(AtomicU16::new(429));
    let limit = Answer::new(429, HUB_LIMIT).with("retry-after", "60");
    let registry = limiting(Arc::clone(&status), limit).await;
    let mut world = World::new(&[&registry.url()]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first").unwrap();
    world.upstream.urls[0].credentials = Some(CredentialSource::PasswordFile {
        username: "jane".to_owned(),
        path: file.path().to_owned(),
    });
    let upstream = world.upstream();
    assert_eq!(left(&pull(&upstream).await), 60);
    assert_eq!(left(&pull(&upstream).await), 60);
    assert_eq!(registry.seen().len(), 1);
    std::fs::write(file.path(), "another").unwrap();
    advance(Duration::from_secs(2)).await;
    status.store(200, Ordering::SeqCst);
    assert_eq!(pull(&upstream).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn any_other_limit_holds_the_whole_upstream() {
    for limit in [
        Answer::new(429, "Too Many Requests (HAP429)"),
        Answer::new(
            429,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        ),
        Answer::new(
            403,
            r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        ),
    ] {
        let status = Arc::new(AtomicU16::new(429));
        let limit = limit.with("retry-after", "30");
        let registry = limiting(Arc::clone(&status), limit).await;
        let upstream = World::new(&[&registry.url()]).upstream();
        assert_eq!(left(&pull(&upstream).await), 30);
        status.store(200, Ordering::SeqCst);
        advance(Duration::from_secs(10)).await;
        assert_eq!(left(&pull(&upstream).await), 20);
        assert_eq!(left(&look(&upstream).await), 20);
        assert_eq!(left(&fetch(&upstream).await.map(|_| ())), 20);
        assert_eq!((registry.seen().len(), registry.connections()), (1, 1));
        advance(Duration::from_secs(20)).await;
        assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
        assert_eq!(pull(&upstream).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_manifest_refused_without_words_holds_manifests_and_not_blobs() {
    let registry = Fake::plain(|seen| {
        if seen.path().contains("manifests") {
            Answer::new(429, "").with("retry-after", "30")
        } else {
            Answer::ok(CONTENT)
        }
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for _ in 0..3 {
        assert_eq!(left(&look(&upstream).await), 30);
        assert_eq!(left(&pull(&upstream).await), 30);
    }
    assert_eq!(registry.seen().len(), 1);
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
}

#[tokio::test(start_paused = true)]
async fn retry_after_may_be_a_date_and_is_believed_for_five_minutes() {
    let in_two_minutes = SystemTime::now() + Duration::from_secs(120);
    for (asked, range) in [
        (httpdate::fmt_http_date(in_two_minutes), 110..=120),
        ("86400".to_owned(), 300..=300),
    ] {
        let limit = Answer::new(429, "").with("retry-after", asked);
        let registry = Fake::plain(move |_| limit.clone()).await;
        let upstream = World::new(&[&registry.url()]).upstream();
        let left = left(&pull(&upstream).await);
        assert!(range.contains(&left), "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn storage_that_limits_us_is_held_alone() {
    let storage = Fake::plain(|_| Answer::new(429, "").with("retry-after", "30")).await;
    let target = storage.url();
    let registry = Fake::plain(move |seen| {
        if seen.path().contains("manifests") {
            index(seen)
        } else {
            Answer::redirect(307, format!("{target}/blob"))
        }
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for _ in 0..3 {
        assert_eq!(left(&fetch(&upstream).await.map(|_| ())), 30);
        assert_eq!(pull(&upstream).await, Ok(()));
    }
    assert_eq!(storage.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_service_that_limits_us_is_not_asked_for_other_repositories() {
    let service = Fake::plain(|_| Answer::new(429, "").with("retry-after", "30")).await;
    let realm = format!(r#"Bearer realm="{}/token""#, service.url());
    let registry =
        Fake::plain(move |_| Answer::new(401, "").with("www-authenticate", realm.clone())).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    for name in ["a", "b", "c"] {
        let repository = name.parse().unwrap();
        let manifest = upstream.get_manifest(&repository, &tag(), &call()).await;
        assert_eq!(left(&manifest.map(|_| ())), 30);
    }
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn what_docker_hub_says_of_our_pulls_is_kept_as_metrics() {
    let registry = limiting(Arc::new(AtomicU16::new(200)), Answer::ok("")).await;
    let world = World::new(&[&registry.url()]);
    look(&world.upstream()).await.unwrap();
    let text = world.metrics.render();
    for line in [
        r#"layby_upstream_ratelimit_limit{upstream="registry.example"} 100"#,
        r#"layby_upstream_ratelimit_remaining{upstream="registry.example"} 76"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}
