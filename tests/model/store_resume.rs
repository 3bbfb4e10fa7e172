//! What a power loss, a failing disk and a full one leave of a fetch.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use layby::oci::Digest;
use layby::store::{RoomError, Space, StagedBlob};

use crate::forgetful::{Forgetful, Luck};
use crate::store::{Life, run, stage_key};

const MIB: u64 = 1 << 20;

/// A mebibyte of bytes of which none is zero.
fn mebibyte() -> Vec<u8> {
    (0..MIB)
        .map(|at| (at * 0x9e37_79b9).to_le_bytes()[3] | 1)
        .collect()
}

/// Writes these mebibytes of a blob.
fn write(stage: &StagedBlob, mebibytes: std::ops::Range<u64>) -> io::Result<()> {
    let bytes = mebibyte();
    mebibytes
        .into_iter()
        .try_for_each(|number| stage.write_at(number * MIB, &bytes))
}

/// Fails where a byte that is said to be present is not what was written. Returns their number.
fn check(stage: &StagedBlob) -> u64 {
    let mut count = 0;
    let expected = mebibyte();
    for range in stage.present() {
        for at in (range.start..range.end).step_by(4096) {
            let mut bytes = vec![0; usize::try_from(4096.min(range.end - at)).unwrap()];
            stage.read_at(at, &mut bytes).unwrap();
            let from = usize::try_from(at % MIB).unwrap();
            assert!(bytes == expected[from..from + bytes.len()], "at {at}");
        }
        count += range.end - range.start;
    }
    count
}

/// Lets the background work until this is so; time passes by itself.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never was");
}

#[test]
fn a_power_loss_takes_what_was_not_written_back_and_gives_nothing_wrong() {
    for luck in [
        Luck::Nothing,
        Luck::Names,
        Luck::Bytes,
        Luck::Seed(1),
        Luck::Seed(2),
    ] {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
            let stage = life.store.stage(&stage_key(b"a"), Some(50 * MIB)).await;
            let stage = stage.unwrap();
            let syncs = life.files.syncs();
            write(&stage, 0..40).unwrap();
            // The data, then its log.
            until(|| life.files.syncs() >= syncs + 2).await;
            let files = life.power_loss(luck).await;
            drop(stage);
            let life = Life::start(files).await.unwrap();
            let resumed = life.store.resume(&stage_key(b"a")).await.unwrap();
            let resumed = resumed.expect("what was written back");
            let count = check(&resumed);
            assert!(count >= 32 * MIB - MIB, "{luck:?}: {count}");
            // It goes on, through another loss.
            write(&resumed, 40..45).unwrap();
            let files = life.power_loss(Luck::Names).await;
            drop(resumed);
            let life = Life::start(files).await.unwrap();
            let resumed = life.store.resume(&stage_key(b"a")).await.unwrap();
            if let Some(resumed) = resumed {
                check(&resumed);
            }
            life.power_loss(Luck::All).await;
        });
    }
}

#[test]
fn a_kill_leaves_all_but_a_mebibyte() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let stage = life.store.stage(&stage_key(b"a"), Some(50 * MIB)).await;
        let stage = stage.unwrap();
        write(&stage, 0..7).unwrap();
        stage.write_at(7 * MIB, &mebibyte()[..500_000]).unwrap();
        let files = life.power_loss(Luck::All).await;
        drop(stage);
        let life = Life::start(files).await.unwrap();
        let resumed = life.store.resume(&stage_key(b"a")).await.unwrap().unwrap();
        assert!(check(&resumed) >= 7 * MIB + 500_000 - MIB);
        drop(resumed);
        life.power_loss(Luck::All).await;
    });
}

/// Fails when the log of bytes that the disk has lost stays.
#[test]
fn what_a_failed_write_back_may_have_lost_is_not_gone_on_with() {
    for is_killed in [false, true] {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
            let stage = life.store.stage(&stage_key(b"a"), Some(50 * MIB)).await;
            let stage = stage.unwrap();
            life.files.fail_syncs(1);
            let (syncs, changes) = (life.files.syncs(), life.files.changes());
            write(&stage, 0..32).unwrap();
            let written = life.files.changes() - changes;
            // The sync, and the end of the log.
            until(|| life.files.syncs() > syncs).await;
            until(|| life.files.changes() >= changes + written + 2).await;
            let life = if is_killed {
                let files = life.power_loss(Luck::All).await;
                drop(stage);
                Life::start(files).await.unwrap()
            } else {
                stage.keep();
                drop(stage);
                life
            };
            let resumed = life.store.resume(&stage_key(b"a")).await.unwrap();
            assert!(resumed.is_none(), "killed: {is_killed}");
            life.power_loss(Luck::All).await;
        });
    }
}

#[test]
fn a_disk_that_takes_no_bytes_refuses_the_stage_and_keeps_nothing_of_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        life.files.fill_after(Some(0));
        for len in [None, Some(100), Some(10 * MIB)] {
            let refused = life.store.stage(&stage_key(b"a"), len).await;
            assert!(matches!(refused, Err(RoomError::NoRoom { .. })), "{len:?}");
        }
        let left = std::fs::read_dir(life.files.data_dir().join("partial"));
        assert_eq!(left.unwrap().count(), 0);
        life.files.fill_after(None);
        life.store.stage(&stage_key(b"a"), Some(10)).await.unwrap();
        life.power_loss(Luck::All).await;
    });
}

#[test]
fn a_disk_that_fills_up_fails_the_write_and_keeps_what_there_was() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        life.commit(b"committed").await.unwrap();
        let key = stage_key(b"a");
        let stage = life.store.stage(&key, Some(10 * MIB)).await.unwrap();
        write(&stage, 0..3).unwrap();
        life.files.fill_after(Some(1_200_000));
        let full = write(&stage, 3..10).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        let mut bytes = vec![0; mebibyte().len()];
        stage.read_at(3 * MIB, &mut bytes).unwrap();
        assert!(bytes == mebibyte());
        stage.keep();
        assert!(life.read(&Digest::sha256(b"committed")).is_some());
        // There is no room for a new log either; the old one says enough.
        let resumed = life.store.resume(&key).await.unwrap().unwrap();
        assert!(check(&resumed) >= 3 * MIB);
        drop(resumed);
        life.files.fill_after(None);
        let resumed = life.store.resume(&key).await.unwrap().unwrap();
        write(&resumed, 3..10).unwrap();
        let digest = Digest::sha256(&mebibyte().repeat(10));
        life.store
            .commit(&resumed, 10 * MIB, &digest)
            .await
            .unwrap();
        life.power_loss(Luck::All).await;
    });
}

/// Fails when what lies under a name is removed before its successor is made.
#[test]
fn a_partial_outlives_a_new_start_that_the_disk_fails() {
    type Fault = Box<dyn Fn(&Forgetful)>;

    let no_bytes = |files: &Forgetful| files.fill_after(Some(0));
    // The file, the space for its first bytes, the end of what lies there.
    let fails_after = |changes| move |files: &Forgetful| files.power_off_after(changes);
    let faults: [Fault; 4] = [
        Box::new(no_bytes),
        Box::new(fails_after(0)),
        Box::new(fails_after(1)),
        Box::new(fails_after(2)),
    ];
    for (number, fault) in faults.iter().enumerate() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
            let key = stage_key(b"a");
            let stage = life.store.stage(&key, Some(10 * MIB)).await.unwrap();
            write(&stage, 0..3).unwrap();
            drop(stage);
            let life = life.restart().await;
            fault(&life.files);
            let refused = life.store.stage(&key, Some(20 * MIB)).await;
            assert!(refused.is_err(), "fault {number}");
            life.files.power_on();
            life.files.fill_after(None);
            let kept = life.store.resume(&key).await.unwrap();
            let kept = kept.unwrap_or_else(|| panic!("fault {number}: it is gone"));
            assert_eq!((kept.len(), check(&kept)), (Some(10 * MIB), 3 * MIB));
            drop(kept);
            let anew = life.store.stage(&key, Some(20 * MIB)).await.unwrap();
            assert!(anew.present().is_empty());
            write(&anew, 0..2).unwrap();
            drop(anew);
            let anew = life.store.resume(&key).await.unwrap().unwrap();
            assert_eq!((anew.len(), check(&anew)), (Some(20 * MIB), 2 * MIB));
            drop(anew);
            life.power_loss(Luck::All).await;
        });
    }
}

#[test]
fn space_that_returns_is_noticed_at_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let life = Life::start(Forgetful::new(dir.path())).await.unwrap();
        let stage = async |len| life.store.stage(&stage_key(b"a"), Some(len)).await;
        let space = |available| Space {
            total: 100 * MIB,
            available,
        };
        life.files.set_space(space(10 * MIB));
        assert!(stage(20 * MIB).await.is_err());
        life.files.set_space(space(30 * MIB));
        drop(stage(20 * MIB).await.unwrap());
        life.power_loss(Luck::All).await;
    });
}

/// Fails when the data directory, made by a life that ended before it synced it, is relied on as it is.
#[test]
fn a_data_directory_that_an_earlier_life_has_only_just_made_outlives_a_power_loss() {
    run(async {
        for allowed in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            let files: Arc<Forgetful> = Forgetful::new(dir.path());
            files.power_off_after(allowed);
            let first = Life::start(Arc::clone(&files)).await;
            files.power_on();
            drop(first);
            let life = Life::start(files).await.unwrap();
            life.commit(b"content").await.unwrap();
            let files = life.power_loss(Luck::Nothing).await;
            let life = Life::start(files).await.unwrap();
            let found = life.read(&Digest::sha256(b"content"));
            assert_eq!(found.as_deref(), Some(&b"content"[..]), "{allowed}");
            life.power_loss(Luck::All).await;
        }
    });
}
