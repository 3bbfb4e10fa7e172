mod again;
mod first;
mod newest;
mod rules;
mod slow_disk;
mod stale;

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::oci::{Digest, Reference};
use crate::proxy::testing::{
    MINUTE, SECOND, World, call, client, denied, digest, image, not_found, policy, rate_limited,
    turns, ubuntu, unavailable,
};
use crate::store::RefKindName;
use crate::upstream;

fn latest() -> Tag {
    "latest".parse().unwrap()
}

async fn pull(world: &World) -> Result<ManifestAnswer, Error> {
    world.tags.manifest(&ubuntu(), &latest(), &call()).await
}

/// Pulls, and says what came and how.
async fn pulled(world: &World) -> (Digest, CacheOutcome) {
    let answer = pull(world).await.unwrap();
    assert_eq!(Digest::sha256(&answer.bytes), answer.digest);
    (answer.digest, answer.outcome)
}

/// An instance that has pulled the image `a`, all of it on disk.
async fn warm(policy: &TagPolicy) -> World {
    let world = World::with(policy);
    world.registry.push(&ubuntu(), "latest", &image("a"));
    pull(&world).await.unwrap();
    world.settled().await;
    world.registry.asked();
    world.records.written();
    world
}

/// The same, with the tag past its time.
async fn old() -> World {
    let world = warm(&policy()).await;
    world.clock.advance(MINUTE);
    world
}

fn always_asked() -> TagPolicy {
    TagPolicy {
        ttl: Duration::ZERO,
        ..policy()
    }
}

fn record(world: &World) -> Option<TagRecord> {
    let key = ubuntu().key(RefKind::Tag(latest()));
    let record = world.records.stored(&key)?;
    Some(serde_json::from_str(&record).unwrap())
}

const HEAD: &str = "HEAD latest";
const GET: &str = "GET latest";

fn get(body: &str) -> String {
    format!("GET {}", digest(body))
}

fn by_digest(body: &str) -> Reference {
    Reference::Digest(digest(body))
}
