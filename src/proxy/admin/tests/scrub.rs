use std::fs;

use tokio::time::Instant;

use super::*;
use crate::proxy::admin::scrub::Scrub;

/// Everything is read once in this time.
const INTERVAL: Duration = Duration::from_hours(1);

/// A directory with so many blobs.
async fn stocked(count: usize) -> (Shelf, Vec<Digest>) {
    let shelf = Shelf::new().await;
    let mut digests = Vec::new();
    for number in 0..count {
        let text = format!("blob {number}");
        shelf.blob(&alpine(), &text).await;
        digests.push(sha(&text));
    }
    digests.sort();
    (shelf, digests)
}

impl Shelf {
    fn scrub(&self) {
        Scrub::start(
            self.keeper.healer(),
            INTERVAL,
            self.clock.clone(),
            &self.tasks,
        );
    }

    fn scrubbed(&self) -> u64 {
        self.metrics.cache.scrub_blobs.get()
    }

    /// Waits for the end of a round.
    async fn round(&self) {
        let rounds = self.metrics.cache.scrub_rounds.get();
        while self.metrics.cache.scrub_rounds.get() == rounds {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_read_once_in_the_interval_no_sooner_and_no_later() {
    let (shelf, _) = stocked(20).await;
    let started = Instant::now();
    shelf.scrub();
    shelf.round().await;
    assert_eq!(shelf.scrubbed(), 20);
    let took = started.elapsed();
    assert!(took > INTERVAL / 20, "{took:?}");
    assert!(took < INTERVAL + Duration::from_mins(3), "{took:?}");
    shelf.round().await;
    assert_eq!(shelf.scrubbed(), 40);
    assert_eq!(shelf.metrics.cache.damaged.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_match_is_moved_aside_and_counted() {
    let (shelf, digests) = stocked(8).await;
    fs::write(shelf.path(&digests[2]), "Blob").unwrap();
    fs::write(shelf.path(&digests[5]), "").unwrap();
    shelf.scrub();
    shelf.round().await;
    assert_eq!(shelf.metrics.cache.damaged.get(), 2);
    for (number, digest) in digests.iter().enumerate() {
        assert_eq!(shelf.has(digest), number != 2 && number != 5);
    }
    let aside = fs::read_dir(shelf.dir.path().join("data/damaged")).unwrap();
    assert_eq!(aside.count(), 2);
    // What is gone is no damage the next time.
    shelf.round().await;
    assert_eq!(shelf.metrics.cache.damaged.get(), 2);
    assert_eq!(shelf.scrubbed(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_last_life_ended() {
    let (shelf, _) = stocked(30).await;
    shelf.scrub();
    while shelf.scrubbed() < 12 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    shelf.tasks.stop();
    assert!(shelf.tasks.drained(Duration::from_mins(1)).await);
    let read = shelf.scrubbed();
    assert!(read < 30);
    let shelf = shelf.reopened().await;
    shelf.scrub();
    shelf.round().await;
    assert_eq!(shelf.scrubbed(), 30 - read);
    shelf.round().await;
    assert_eq!(shelf.scrubbed(), 30 - read + 30);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_note_begins_the_round_anew() {
    let (shelf, _) = stocked(3).await;
    fs::write(shelf.dir.path().join("data/scrub.json"), "{").unwrap();
    shelf.scrub();
    shelf.round().await;
    assert_eq!(shelf.scrubbed(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_meanwhile_is_taken_as_it_is() {
    let (shelf, digests) = stocked(10).await;
    shelf.scrub();
    while shelf.scrubbed() < 3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for digest in &digests[5..] {
        assert!(shelf.store.remove_blob(digest).await.unwrap());
    }
    fs::remove_dir_all(shelf.path(&digests[4]).parent().unwrap()).unwrap();
    for number in 0..10 {
        shelf.blob(&alpine(), &format!("new {number}")).await;
    }
    shelf.round().await;
    assert_eq!(shelf.metrics.cache.damaged.get(), 0);
    let before = shelf.scrubbed();
    shelf.round().await;
    assert_eq!(shelf.scrubbed() - before, shelf.store.totals().blobs - 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_is_waited_for() {
    let (shelf, _) = stocked(0).await;
    shelf.scrub();
    shelf.round().await;
    shelf.blob(&alpine(), "late").await;
    shelf.round().await;
    shelf.round().await;
    assert!(shelf.scrubbed() >= 1);
}
