//! Proofs of what is gone: removed as they were seen, or not at all.

use super::*;

/// The proof that a repository has it.
fn proof(text: &[u8]) -> RefKey {
    key("library/app", RefKind::Blob(Digest::sha256(text)))
}

async fn proven(text: &[u8]) -> (Fixture, RefKey, RefLook) {
    let fixture = Fixture::new().await;
    let key = proof(text);
    fixture.store.put_ref(&key, vec![]).await.unwrap();
    let look = fixture.store.look_at_orphan(&key).unwrap().unwrap();
    (fixture, key, look)
}

#[tokio::test]
async fn a_proof_that_is_as_it_was_seen_goes_once() {
    let (fixture, key, look) = proven(b"gone").await;
    assert!(fixture.store.remove_orphan(&key, look, None).await.unwrap());
    assert_eq!(fixture.store.get_ref(&key).unwrap(), None);
    assert!(!fixture.store.remove_orphan(&key, look, None).await.unwrap());
    assert_eq!(fixture.store.look_at_orphan(&key).unwrap(), None);
}

#[tokio::test]
async fn a_proof_that_was_written_again_stays() {
    let (fixture, key, look) = proven(b"gone").await;
    fixture.store.put_ref(&key, vec![]).await.unwrap();
    assert!(!fixture.store.remove_orphan(&key, look, None).await.unwrap());
    // Also where the time says nothing: it may have been set, or be too coarse.
    let path = fixture.store.layout.record(&key);
    Disk.set_modified(&path, look.written).unwrap();
    assert!(!fixture.store.remove_orphan(&key, look, None).await.unwrap());
    assert!(fixture.store.get_ref(&key).unwrap().is_some());
    let again = fixture.store.look_at_orphan(&key).unwrap().unwrap();
    assert_eq!(again.written, look.written);
    // And where it is the same file with another time.
    let later = look.written + Duration::from_secs(1);
    Disk.set_modified(&path, later).unwrap();
    assert!(
        !fixture
            .store
            .remove_orphan(&key, again, None)
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn a_proof_whose_content_came_meanwhile_stays() {
    let (fixture, key, look) = proven(b"came").await;
    let digest = fixture.commit(b"came").await.unwrap();
    assert!(!fixture.store.remove_orphan(&key, look, None).await.unwrap());
    assert_eq!(fixture.store.look_at_orphan(&key).unwrap(), None);
    assert!(fixture.store.remove_blob(&digest).await.unwrap());
    assert!(fixture.store.remove_orphan(&key, look, None).await.unwrap());
}

#[tokio::test]
async fn a_proof_whose_content_is_being_fetched_stays_until_that_is_given_up() {
    let (fixture, key, look) = proven(b"coming").await;
    let (store, fetched) = (&fixture.store, stage_key(b"coming"));
    let stage = store.stage(&fetched, None).await.unwrap();
    let remove = || store.remove_orphan(&key, look, Some(fetched));
    assert!(!remove().await.unwrap());
    let other = Some(stage_key(b"another"));
    stage.discard();
    drop(stage);
    // Waits until nobody holds it.
    assert!(store.resume(&fetched).await.unwrap().is_none());
    let held = store.stage(&fetched, None).await.unwrap();
    assert!(store.remove_orphan(&key, look, other).await.unwrap());
    drop(held);
}

#[tokio::test]
async fn content_that_cannot_be_reached_is_not_gone() {
    let (fixture, key, look) = proven(b"away").await;
    let digest = fixture.commit(b"away").await.unwrap();
    let path = fixture.path(&digest);
    let shard = path.parent().unwrap();
    let away = fixture.dir.path().join("away");
    // Memory knows of it.
    fs::rename(shard, &away).unwrap();
    assert_eq!(fixture.store.look_at_orphan(&key).unwrap(), None);
    assert!(!fixture.store.remove_orphan(&key, look, None).await.unwrap());
    // Only the disk could tell, and cannot.
    fs::write(shard, "a file in place of a directory").unwrap();
    let fixture = fixture.restart().await;
    fixture.store.scanned().await;
    fixture.store.look_at_orphan(&key).unwrap_err();
    fixture
        .store
        .remove_orphan(&key, look, None)
        .await
        .unwrap_err();
    assert!(fixture.store.get_ref(&key).unwrap().is_some());
    fs::remove_file(shard).unwrap();
    fs::rename(&away, shard).unwrap();
    assert_eq!(fixture.store.look_at_orphan(&key).unwrap(), None);
    assert!(!fixture.store.remove_orphan(&key, look, None).await.unwrap());
}

#[tokio::test]
async fn a_record_that_is_no_proof_is_none_of_what_is_gone() {
    let (fixture, _, look) = proven(b"gone").await;
    let tag = tag("library/app", "v1");
    fixture.store.put_ref(&tag, b"{}".to_vec()).await.unwrap();
    assert_eq!(fixture.store.look_at_orphan(&tag).unwrap(), None);
    assert!(!fixture.store.remove_orphan(&tag, look, None).await.unwrap());
    assert!(fixture.store.get_ref(&tag).unwrap().is_some());
}
