//! The power goes at every single change that an operation makes to the disk.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use layby::oci::Digest;
use layby::store::{SetAside, Soundness};

use crate::forgetful::{Forgetful, Luck};
use crate::store::{Life, assert_all_but, run, stage_key, tag};

const LUCKS: [Luck; 8] = [
    Luck::Nothing,
    Luck::Names,
    Luck::Bytes,
    Luck::All,
    Luck::Seed(1),
    Luck::Seed(2),
    Luck::Seed(3),
    Luck::Seed(4),
];

/// Prepares a store, lets `operation` make 0, 1, 2, … changes until it succeeds, takes the power away, and has the
/// next life checked; the flag says whether the operation was acknowledged.
async fn at_every_change<P, O, C>(
    prepare: impl Fn(Arc<Life>) -> P,
    operation: impl Fn(Arc<Life>) -> O,
    check: impl Fn(Arc<Life>, bool) -> C,
) where
    P: Future<Output = ()>,
    O: Future<Output = std::io::Result<()>>,
    C: Future<Output = ()>,
{
    with_damage(None, prepare, operation, check).await;
}

/// The same, where one blob is damaged.
async fn with_damage<P, O, C>(
    damaged: Option<&Digest>,
    prepare: impl Fn(Arc<Life>) -> P,
    operation: impl Fn(Arc<Life>) -> O,
    check: impl Fn(Arc<Life>, bool) -> C,
) where
    P: Future<Output = ()>,
    O: Future<Output = std::io::Result<()>>,
    C: Future<Output = ()>,
{
    for luck in LUCKS {
        let mut acknowledged = false;
        let mut allowed = 0;
        while !acknowledged {
            let dir = tempfile::tempdir().unwrap();
            let life = Arc::new(Life::start(Forgetful::new(dir.path())).await.unwrap());
            prepare(Arc::clone(&life)).await;
            life.files.power_off_after(allowed);
            acknowledged = operation(Arc::clone(&life)).await.is_ok();
            let life = Arc::into_inner(life).unwrap();
            let files = life.power_loss(luck).await;

            let life = Arc::new(Life::start(files).await.unwrap());
            let context = format!("{luck:?}, power off after {allowed} changes");
            assert_all_but(&life.files.data_dir(), damaged);
            check(Arc::clone(&life), acknowledged).await;
            let leftovers = std::fs::read_dir(life.files.data_dir().join("partial"));
            assert_eq!(leftovers.unwrap().count(), 0, "{context}");
            allowed += 1;
            assert!(allowed < 100, "{context}: never acknowledged");
        }
        assert!(allowed > 4, "{luck:?}: the power never went in between");
    }
}

/// Fails when content is renamed into place before it is synced, when the directory is not synced, and when a new
/// directory's own entry is not.
#[test]
fn a_blob_is_whole_or_absent_wherever_the_power_goes_and_there_once_committed() {
    let content = b"some content of a blob";
    let digest = &Digest::sha256(content);
    run(at_every_change(
        |_| async {},
        |life| async move { life.commit(content).await },
        |life, acknowledged| async move {
            let found = life.read(digest);
            assert!(!acknowledged || found.is_some());
            assert!(found.is_none_or(|bytes| bytes == content));
        },
    ));
}

#[test]
fn committing_a_blob_again_never_harms_the_first_one() {
    let content = b"some content of a blob";
    run(at_every_change(
        |life| async move { life.commit(content).await.unwrap() },
        |life| async move { life.commit(content).await },
        |life, _| async move {
            assert_eq!(life.read(&Digest::sha256(content)).unwrap(), content);
        },
    ));
}

#[test]
fn a_first_record_is_whole_or_absent_wherever_the_power_goes_and_there_once_written() {
    run(at_every_change(
        |_| async {},
        |life| async move { life.store.put_ref(&tag("v1"), b"one".to_vec()).await },
        |life, acknowledged| async move {
            let found = life.store.get_ref(&tag("v1")).unwrap();
            assert!(!acknowledged || found.is_some());
            assert!(found.is_none_or(|bytes| bytes == b"one"));
        },
    ));
}

#[test]
fn a_replaced_record_is_the_old_or_the_new_one_wherever_the_power_goes() {
    run(at_every_change(
        |life| async move {
            life.store
                .put_ref(&tag("v1"), b"one".to_vec())
                .await
                .unwrap();
        },
        |life| async move {
            let new = b"two and more".to_vec();
            let key = tag("v1");
            let put = life.store.compare_and_put_ref(&key, Some(b"one"), new);
            assert!(put.await?);
            Ok(())
        },
        |life, acknowledged| async move {
            let found = life.store.get_ref(&tag("v1")).unwrap().unwrap();
            let is_new = found == b"two and more";
            assert!(is_new || (!acknowledged && found == b"one"), "{found:?}");
        },
    ));
}

#[test]
fn removing_one_record_never_harms_its_neighbour() {
    run(at_every_change(
        |life| async move {
            for name in ["v1", "v2"] {
                life.store
                    .put_ref(&tag(name), b"one".to_vec())
                    .await
                    .unwrap();
            }
        },
        |life| async move {
            life.store.remove_ref(&tag("v1")).await?;
            // Makes the removal go through several directories, and one of them come back.
            life.store.remove_ref(&tag("v2")).await?;
            life.store.put_ref(&tag("v2"), b"two".to_vec()).await
        },
        |life, acknowledged| async move {
            let found = |name| life.store.get_ref(&tag(name)).unwrap();
            assert!(found("v1").is_none_or(|bytes| !acknowledged && bytes == b"one"));
            let second = found("v2");
            assert!(!acknowledged || second.as_deref() == Some(b"two"));
            assert!(second.is_none_or(|bytes| bytes == b"one" || bytes == b"two"));
        },
    ));
}

/// Finds that a blob is damaged, and has it moved aside.
async fn set_aside(life: &Life, digest: &Digest) -> std::io::Result<()> {
    let checked = life.store.check_blob(digest, &mut |_| true)?;
    let Some(Soundness::Damaged { file, .. }) = checked else {
        panic!("{checked:?}");
    };
    let done = life.store.set_aside(digest, &file).await?;
    assert!(matches!(done, SetAside::Moved(_)), "{done:?}");
    assert_eq!(life.read(digest), None);
    Ok(())
}

/// Fails when its old name goes before its new one is durable, and when either is not synced.
#[test]
fn a_damaged_blob_is_at_its_place_or_aside_wherever_the_power_goes_and_aside_once_it_was_moved() {
    const WRONG: &[u8] = b"some content of a bl0b";
    let content = b"some content of a blob";
    let digest = &Digest::sha256(content);
    let path = |life: &Life, name: String| life.files.data_dir().join(name);
    let place = |life: &Life| {
        let shard = &digest.encoded()[..2];
        path(life, format!("blobs/sha256/{shard}/{}", digest.encoded()))
    };
    let aside = |life: &Life| path(life, format!("damaged/sha256-{}", digest.encoded()));
    run(with_damage(
        Some(digest),
        |life| async move {
            life.commit(content).await.unwrap();
            life.commit(b"its neighbour").await.unwrap();
            std::fs::write(place(&life), WRONG).unwrap();
        },
        |life| async move { set_aside(&life, digest).await },
        |life, acknowledged| async move {
            let at_place = std::fs::read(place(&life)).ok();
            let is_aside = std::fs::read(aside(&life)).ok();
            for bytes in [&at_place, &is_aside].into_iter().flatten() {
                assert_eq!(bytes, WRONG);
            }
            if acknowledged {
                assert_eq!((at_place, is_aside.is_some()), (None, true));
                assert_eq!(life.read(digest), None);
            } else if at_place.is_some() {
                set_aside(&life, digest).await.unwrap();
            } else {
                assert!(is_aside.is_some(), "it is nowhere");
            }
            assert_eq!(
                life.read(&Digest::sha256(b"its neighbour")).unwrap(),
                b"its neighbour"
            );
            life.commit(content).await.unwrap();
            assert_eq!(life.read(digest).unwrap(), content);
            assert_eq!(std::fs::read(aside(&life)).unwrap(), WRONG);
        },
    ));
}

#[test]
fn a_directory_that_an_earlier_life_made_but_never_synced_is_synced_before_it_is_relied_on() {
    run(async {
        let content = b"some content of a blob";
        let dir = tempfile::tempdir().unwrap();
        // A life that is killed right after it made the shard's directories.
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let stage = life.stage(content).await.unwrap();
        life.files.power_off_after(3);
        let digest = Digest::sha256(content);
        let len = u64::try_from(content.len()).unwrap();
        assert!(life.store.commit(&stage, len, &digest).await.is_err());
        drop(stage);
        let shard = format!("blobs/sha256/{}", &digest.encoded()[..2]);
        assert!(life.files.data_dir().join(shard).is_dir());
        // The next one finds them; the layer remembers that they are not on disk.
        let life = life.restart().await;
        life.commit(content).await.unwrap();
        let life = Life::start(life.power_loss(Luck::Nothing).await)
            .await
            .unwrap();
        assert_eq!(life.read(&digest).unwrap(), content);
    });
}

#[test]
fn a_failed_sync_fails_its_blob_alone_and_the_next_try_succeeds() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let contents: Vec<Vec<u8>> = (0..5_u8).map(|n| vec![n; 100]).collect();
        // The first occupies the committer, so that the others meet in one batch.
        life.commit(b"first").await.unwrap();
        life.files.fail_syncs(1);
        let commits = contents.iter().map(|content| life.commit(content));
        let results = futures_util::future::join_all(commits).await;
        let failed = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(failed, 1, "{results:?}");
        for (content, result) in contents.iter().zip(&results) {
            assert_eq!(
                life.read(&Digest::sha256(content)).is_some(),
                result.is_ok()
            );
            if result.is_err() {
                life.commit(content).await.unwrap();
            }
        }
        let files = life.power_loss(Luck::Nothing).await;
        let life = Life::start(files).await.unwrap();
        for content in &contents {
            assert_eq!(life.read(&Digest::sha256(content)).as_ref(), Some(content));
        }
    });
}

#[test]
fn records_written_together_share_the_sync_of_their_directory() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        life.store.put_ref(&tag("first"), vec![1]).await.unwrap();
        let before = life.files.changes();
        let keys: Vec<_> = (0..50).map(|n| tag(&format!("v{n}"))).collect();
        let puts = keys.iter().map(|key| life.store.put_ref(key, vec![1]));
        for put in futures_util::future::join_all(puts).await {
            put.unwrap();
        }
        // Each is created, written, synced and moved; the directory is synced once.
        assert_eq!(life.files.changes() - before, 50 * 4 + 1);
        life.power_loss(Luck::All).await;
    });
}

#[test]
fn a_stage_whose_sync_failed_once_is_never_committed() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let stage = life.stage(b"content").await.unwrap();
        let digest = Digest::sha256(b"content");
        life.files.fail_syncs(1);
        for _ in 0..2 {
            assert!(life.store.commit(&stage, 7, &digest).await.is_err());
        }
        assert_eq!(life.read(&digest), None);
        drop(stage);
        life.power_loss(Luck::All).await;
    });
}

/// Fails when the write-back syncs through the stage's own handle: the kernel tells each handle once of a loss.
#[test]
fn a_blob_whose_write_back_failed_behind_the_writers_back_is_not_committed() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let stage = life.store.stage(&stage_key(b"a"), None).await.unwrap();
        let chunk = vec![7_u8; 8 << 20];
        life.files.fail_syncs(1);
        let syncs = life.files.syncs();
        for n in 0..4 {
            stage.write_at(n * (8 << 20), &chunk).unwrap();
        }
        // The write-back runs while the test waits.
        while life.files.syncs() == syncs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(stage.write_at(32 << 20, &chunk).is_err(), "in vain");
        let digest = Digest::sha256(b"whatever");
        assert!(life.store.commit(&stage, 32 << 20, &digest).await.is_err());
        assert!(life.read(&digest).is_none());
        drop(stage);
        life.power_loss(Luck::All).await;
    });
}

#[test]
fn a_writer_faster_than_the_disk_waits_for_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let stage = life.store.stage(&stage_key(b"a"), None).await.unwrap();
        let chunk = vec![7_u8; 8 << 20];
        let syncs = life.files.syncs();
        // The background has no turn while this loop runs: a window waits for it, and what comes behind it is the writer's
        // to sync as soon as it is too much.
        for _ in 0..512 / 8 {
            assert_eq!(life.files.syncs(), syncs);
            stage.write_at(0, &chunk).unwrap();
        }
        assert_eq!(life.files.syncs(), syncs + 1);
        drop(stage);
        life.power_loss(Luck::All).await;
    });
}

/// Fails when what the last life left word of comes back, after a life that made it wrong.
#[test]
fn word_of_how_much_is_stored_does_not_outlive_the_next_start() {
    run(async {
        for luck in LUCKS {
            let dir = tempfile::tempdir().unwrap();
            let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
            life.store.scanned().await;
            life.commit(b"a blob").await.unwrap();
            let files = life.end().await;
            let totals = files.data_dir().join("totals.json");
            assert!(totals.try_exists().unwrap(), "{luck:?}");

            let life = Life::start(files).await.unwrap();
            life.commit(b"another blob").await.unwrap();
            let files = life.power_loss(luck).await;
            let totals = files.data_dir().join("totals.json");
            assert!(!totals.try_exists().unwrap(), "{luck:?}");
        }
    });
}
