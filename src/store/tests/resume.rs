//! Partials: kept, gone on with, thrown away. What a power loss does to them is in `tests/model/`.

use super::*;

const MIB: u64 = 1 << 20;

fn read(stage: &StagedBlob, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    stage.read_at(range.start, &mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn what_was_written_is_there_for_the_next_fetch_in_this_life_and_the_next() {
    let mut fixture = Fixture::new().await;
    let len = 3 * MIB + 17;
    let key = stage_key(b"a");
    assert!(fixture.resume(b"a").await.is_none());
    let stage = fixture.store.stage(&key, Some(len)).await.unwrap();
    assert!(stage.present().is_empty());
    // Two islands, in turns, in odd pieces.
    let pieces = [
        0..70_000,
        2 * MIB..2 * MIB + 5,
        70_000..300_001,
        2 * MIB + 5..len,
    ];
    for piece in pieces {
        stage.write_at(piece.start, &content(piece)).unwrap();
    }
    stage.keep();
    assert!(stage.write_at(300_001, &[0]).is_err());
    for _ in 0..2 {
        let stage = fixture.resume(b"a").await.unwrap();
        assert_eq!(stage.len(), Some(len));
        assert_eq!(stage.present(), [0..300_001, 2 * MIB..len]);
        assert_eq!(read(&stage, 1000..300_001), content(1000..300_001));
        drop(stage);
        fixture = fixture.restart().await;
    }
    let stage = fixture.resume(b"a").await.unwrap();
    stage.write_at(300_001, &content(300_001..2 * MIB)).unwrap();
    let digest = Digest::sha256(&content(0..len));
    fixture.store.commit(&stage, len, &digest).await.unwrap();
    assert_eq!(fixture.read(&digest).unwrap(), content(0..len));
    assert!(fixture.resume(b"a").await.is_none());
    drop(stage);
    fixture.stop().await;
    assert_eq!(fixture.partial_files(), 0);
}

#[tokio::test]
async fn a_kill_takes_no_more_than_a_mebibyte_of_each_fetch() {
    let fixture = Fixture::new().await;
    let len = 8 * MIB;
    let stage = fixture.store.stage(&stage_key(b"a"), Some(len)).await;
    let stage = stage.unwrap();
    let mut written = 0;
    for (start, end) in [(0, 3 * MIB), (5 * MIB, 7 * MIB + 1000)] {
        for at in (start..end).step_by(16_384) {
            let piece = at..end.min(at + 16_384);
            written += piece.end - piece.start;
            stage.write_at(at, &content(piece)).unwrap();
        }
    }
    // What a killed process leaves: the files as they are now.
    let (layout, key) = (&fixture.store.layout, stage_key(b"a"));
    let (path, log) = (layout.stage(&key), layout.stage_log(&key));
    let (bytes, records) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    stage.discard();
    drop(stage);
    let mut fixture = fixture;
    fixture.stop().await;
    fs::write(&path, bytes).unwrap();
    fs::write(&log, records).unwrap();
    let fixture = fixture.restart().await;
    let stage = fixture.resume(b"a").await.unwrap();
    let present = stage.present().iter();
    let kept: u64 = present.map(|range| range.end - range.start).sum();
    assert!(written - kept <= MIB, "{kept} of {written}");
    for range in stage.present() {
        assert_eq!(read(&stage, range.clone()), content(range.clone()));
    }
}

#[tokio::test]
async fn a_blob_has_no_log_before_its_first_blocks_and_from_then_on_one_for_all_of_it() {
    let fixture = Fixture::new().await;
    let stage = fixture.store.stage(&stage_key(b"a"), Some(3 * MIB)).await;
    let stage = stage.unwrap();
    let half = MIB / 2;
    stage.write_at(0, &content(0..half - 1)).unwrap();
    assert_eq!(fixture.partial_files(), 1);
    stage.write_at(half - 1, &content(half - 1..half)).unwrap();
    assert_eq!(fixture.partial_files(), 2);
    stage.write_at(half, &content(half..2 * MIB)).unwrap();
    drop(stage);
    fixture.settled(b"a").await;
    let present = fixture.resume(b"a").await.unwrap().present().to_vec();
    assert_eq!(present, only(0..2 * MIB));
}

#[tokio::test]
async fn what_is_discarded_small_or_of_no_known_length_is_not_kept() {
    let mut fixture = Fixture::new().await;
    for (name, len, is_discarded) in [
        (b"a", Some(2 * MIB), true),
        (b"b", Some(MIB - 1), false),
        (b"c", None, false),
    ] {
        let stage = fixture.store.stage(&stage_key(name), len).await.unwrap();
        stage.write_at(0, &content(0..MIB - 1)).unwrap();
        if is_discarded {
            stage.discard();
            // Only the first call counts.
            stage.keep();
        }
        drop(stage);
        assert!(fixture.resume(name).await.is_none(), "{len:?}");
    }
    let stage = fixture.store.stage(&stage_key(b"d"), Some(MIB)).await;
    drop(stage.unwrap());
    assert!(fixture.resume(b"d").await.is_none(), "nothing was written");
    fixture.stop().await;
    assert_eq!(fixture.partial_files(), 0);
}

#[tokio::test]
async fn a_new_stage_throws_away_what_lay_there_and_old_readers_keep_theirs() {
    let fixture = Fixture::new().await;
    let key = stage_key(b"a");
    let old = fixture.store.stage(&key, Some(2 * MIB)).await.unwrap();
    old.write_at(0, &content(0..MIB)).unwrap();
    old.keep();
    let new = fixture.store.stage(&key, Some(2 * MIB)).await.unwrap();
    assert!(new.present().is_empty());
    new.write_at(0, &[7; 100]).unwrap();
    assert!(old.write_at(0, &[7; 100]).is_err());
    assert_eq!(read(&old, 0..MIB), content(0..MIB));
    new.discard();
    assert!(fixture.resume(b"a").await.is_none());
    assert_eq!(read(&new, 0..100), [7; 100]);
}

#[tokio::test(start_paused = true)]
async fn nobody_else_has_a_stage_until_it_is_closed_and_its_last_write_is_over() {
    let fixture = Fixture::new().await;
    let key = stage_key(b"a");
    let stage = fixture.store.stage(&key, Some(2 * MIB)).await.unwrap();
    stage.write_at(0, &content(0..MIB)).unwrap();
    let mut next = Box::pin(fixture.store.resume(&key));
    assert!(futures_util::poll!(&mut next).is_pending());
    // As in the middle of a write.
    let busy = stage.stage().begin_commit().unwrap();
    assert!(stage.write_at(MIB, &[0]).is_err());
    stage.keep();
    fixture.leave(b"b", MIB).await;
    assert!(futures_util::poll!(&mut next).is_pending());
    drop(busy);
    let next = tokio::time::timeout(Duration::from_mins(1), next).await;
    let next = next.expect("it is free").unwrap().unwrap();
    assert_eq!(next.present(), only(0..MIB));
}

#[tokio::test]
async fn a_commit_that_fails_leaves_the_stage_as_it_was() {
    let fixture = Fixture::new().await;
    let stage = fixture.store.stage(&stage_key(b"a"), Some(MIB)).await;
    let stage = stage.unwrap();
    stage.write_at(0, &content(0..MIB - 1)).unwrap();
    let digest = Digest::sha256(&content(0..MIB));
    assert!(fixture.store.commit(&stage, MIB, &digest).await.is_err());
    stage.write_at(MIB - 1, &content(MIB - 1..MIB)).unwrap();
    fixture.store.commit(&stage, MIB, &digest).await.unwrap();
    assert_eq!(fixture.read(&digest).unwrap(), content(0..MIB));
}

#[tokio::test]
async fn writes_beyond_the_announced_length_are_refused() {
    let fixture = Fixture::new().await;
    let stage = fixture.stage(Some(10)).await.unwrap();
    for offset in [10, 9, u64::MAX] {
        let error = stage.write_at(offset, &[0; 2]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{offset}");
    }
}

#[tokio::test]
async fn a_partial_that_nobody_has_gone_on_with_for_a_day_is_removed_at_start() {
    let fixture = Fixture::new().await;
    fixture.leave(b"a", MIB).await;
    fixture.clock.advance(Duration::from_hours(23));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.partial_files(), 2);
    fixture.clock.advance(Duration::from_hours(1));
    let fixture = fixture.restart().await;
    assert_eq!(fixture.partial_files(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_partial_that_nobody_has_gone_on_with_for_a_day_is_removed_without_a_restart() {
    let fixture = Fixture::new().await;
    fixture.leave(b"a", MIB).await;
    fixture.clock.advance(Duration::from_hours(23));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.partial_files(), 2);
    fixture.leave(b"b", MIB).await;
    let held = fixture.resume(b"b").await.unwrap();
    fixture.clock.advance(Duration::from_hours(25));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(fixture.resume(b"a").await.is_none());
    assert_eq!(fixture.partial_files(), 2, "one is in use");
    drop(held);
}

#[tokio::test]
async fn a_file_that_is_not_what_its_log_says_is_not_gone_on_with() {
    let spoilers: [fn(&Path, &Path); 5] = [
        |path, _| fs::remove_file(path).unwrap(),
        |_, log| fs::write(log, b"").unwrap(),
        |path, _| fs::write(path, vec![0; 2 << 20]).unwrap(),
        |path, _| {
            fs::remove_file(path).unwrap();
            symlink("/etc/hostname", path).unwrap();
        },
        |path, _| fs::write(path, b"").unwrap(),
    ];
    let fixture = Fixture::new().await;
    for (number, spoil) in spoilers.into_iter().enumerate() {
        fixture.leave(b"a", MIB).await;
        let (layout, key) = (&fixture.store.layout, stage_key(b"a"));
        spoil(&layout.stage(&key), &layout.stage_log(&key));
        assert!(fixture.resume(b"a").await.is_none(), "{number}");
        assert_eq!(fixture.partial_files(), 0, "{number}");
    }
    // A shorter file: what is there is there.
    fixture.leave(b"a", MIB).await;
    let path = fixture.store.layout.stage(&stage_key(b"a"));
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(600_000).unwrap();
    let stage = fixture.resume(b"a").await.unwrap();
    assert_eq!(stage.present(), only(0..524_288));
}

#[tokio::test]
async fn offline_no_partial_is_removed_for_its_age() {
    let mut fixture = Fixture::new().await;
    fixture.leave(b"a", MIB).await;
    // Only once it is stopped, since this store is not offline and would remove it.
    fixture.stop().await;
    fixture.clock.advance(Duration::from_hours(48));
    let options = StoreOptions {
        offline: true,
        ..options_in(fixture.dir.path(), None)
    };
    fixture.tasks = Tasks::new();
    let (clock, metrics) = (&fixture.clock, &fixture.metrics);
    let store = open_with(options, clock, metrics, &fixture.tasks).await;
    fixture.store = store.unwrap();
    let kept = fixture.resume(b"a").await.unwrap();
    assert_eq!(kept.present(), only(0..MIB - 1));
}
