//! Requests under way: how many, and who waits for whom.

use super::fakes::{Answer, Authority, Fake};
use super::*;
use crate::upstream::health::{Load, Turn};

/// All places for this load, until they are dropped.
async fn fill(upstream: &Upstream, load: Load) -> Vec<Turn> {
    let mut taken = Vec::new();
    for _ in 0..upstream.turns.free(load) {
        taken.push(upstream.turns.take(load, call().deadline).await.unwrap());
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_body_is_under_way_until_it_is_dropped_and_the_next_waits_no_longer_than_its_deadline() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let (repository, digest) = (repository(), digest());
    let all = upstream.turns.free(Load::Body);
    let under_way = upstream.get_blob(&repository, &digest, None, &call()).await;
    let under_way = under_way.unwrap();
    assert_eq!(upstream.turns.free(Load::Body), all - 1);
    let _others = fill(&upstream, Load::Body).await;
    let began = Instant::now();
    let late = upstream.get_blob(&repository, &digest, None, &call()).await;
    let Err(Error::Unavailable { message }) = late else {
        panic!("{late:?}");
    };
    assert!(message.contains("upstream registry.example"), "{message}");
    assert_eq!(began.elapsed(), Duration::from_secs(20));
    assert_eq!(registry.seen().len(), 1);
    drop(under_way);
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn bodies_without_end_do_not_starve_manifests_and_heads() {
    let registry = Fake::plain(|seen| {
        if seen.path().contains("manifests") {
            index(seen)
        } else {
            Answer::ok(CONTENT)
        }
    })
    .await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let _bodies = fill(&upstream, Load::Body).await;
    let (repository, digest) = (repository(), digest());
    let manifest = upstream.get_manifest(&repository, &tag(), &call()).await;
    assert!(manifest.is_ok(), "{manifest:?}");
    let head = upstream.head_blob(&repository, &digest, &call()).await;
    assert_eq!(head.unwrap().len, CONTENT.len() as u64);
}

#[tokio::test]
async fn small_requests_do_not_starve_bodies() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let _small = fill(&upstream, Load::Small).await;
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
}

#[tokio::test]
async fn bodies_at_the_pace_of_clients_and_bodies_that_are_stored_do_not_starve_each_other() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let (repository, digest) = (repository(), digest());
    let passing = fill(&upstream, Load::Passing).await;
    assert_eq!(fetch(&upstream).await.unwrap(), CONTENT);
    drop(passing);
    let _bodies = fill(&upstream, Load::Body).await;
    let passed = upstream
        .pass_blob(&repository, &digest, None, &call())
        .await;
    assert!(passed.is_ok(), "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_slows_down_to_a_client_gives_its_place_to_one_that_is_stored() {
    let registry = Fake::plain(|_| Answer::ok(CONTENT)).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let (repository, digest) = (repository(), digest());
    let free = [Load::Body, Load::Passing].map(|load| upstream.turns.free(load));
    let answer = upstream.get_blob(&repository, &digest, None, &call()).await;
    let mut body = answer.unwrap().body;
    assert!(body.pass());
    let now = [Load::Body, Load::Passing].map(|load| upstream.turns.free(load));
    assert_eq!(now, [free[0], free[1] - 1]);
    // It gets no place that others have, and waits for none.
    let answer = upstream.get_blob(&repository, &digest, None, &call()).await;
    let mut late = answer.unwrap().body;
    let others = fill(&upstream, Load::Passing).await;
    assert!(!late.pass());
    drop(late);
    assert_eq!(upstream.turns.free(Load::Body), free[0]);
    drop((body, others));
    assert_eq!(upstream.turns.free(Load::Passing), free[1]);
}

#[tokio::test]
async fn more_bodies_than_an_http2_connection_takes_get_another() {
    let authority = Authority::new();
    let config = authority.server("registry.example", &["h2"], None);
    let registry = Fake::tls(config, |seen| {
        if seen.path().contains("manifests") {
            index(seen)
        } else {
            Answer::ok("b").with("content-length", "2").then_hang()
        }
    })
    .await;
    let ca_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca_file.path(), &authority.pem).unwrap();
    let mut world = World::new(&["https://registry.example"]);
    let network = &world.network;
    network.host("registry.example", "203.0.113.10", registry.address);
    world.upstream.ca_file = Some(ca_file.path().to_owned());
    let upstream = world.upstream();
    let (repository, digest) = (repository(), digest());
    let mut bodies = Vec::new();
    for _ in 0..130 {
        let body = upstream.get_blob(&repository, &digest, None, &call()).await;
        bodies.push(body.unwrap());
    }
    let manifest = upstream.get_manifest(&repository, &tag(), &call()).await;
    assert!(manifest.is_ok(), "{manifest:?}");
    assert_eq!(registry.connections(), 3);
    drop(bodies);
    let manifest = upstream.get_manifest(&repository, &tag(), &call()).await;
    assert!(manifest.is_ok(), "{manifest:?}");
    assert_eq!(registry.connections(), 3);
}

#[tokio::test(start_paused = true)]
async fn no_more_lists_are_in_memory_at_once_than_fit() {
    let registry = Fake::plain(|_| Answer::ok("{}")).await;
    let upstream = World::new(&[&registry.url()]).upstream();
    let lists = fill(&upstream, Load::List).await;
    assert!(lists.len() * (16 << 20) <= 128 << 20);
    let (repository, query) = (repository(), crate::oci::TagsQuery::default());
    let late = upstream.tags(&repository, &query, &call()).await;
    assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
    drop(lists);
    assert!(upstream.tags(&repository, &query, &call()).await.is_ok());
}
