//! Readers of parts, and several steps at once.

use super::*;

const LEN: u64 = 16 * MIB as u64;

fn mib(count: u64) -> u64 {
    count * MIB as u64
}

/// A client that asks for `range` of the blob. Its bytes, up to `most`.
async fn read_part(world: &World, origin: &Arc<Origin>, range: Range<u64>, most: u64) -> Vec<u8> {
    let wish = world.wants(origin, Wanted::PartsFrom(range.clone()));
    let (handle, head) = loop {
        match world.open(&wish).await {
            Opened::Flight { handle, .. } => {
                let head = handle.head(deadline()).await;
                // A flight that was just given up.
                if !matches!(head, Err(Refusal::Failed(Failure::Aborted))) {
                    break (handle, head.unwrap());
                }
            }
            Opened::Stored(blob) => return stored(blob.as_ref(), range, most).await,
            other => panic!("{other:?}"),
        }
    };
    if let Head::Stored(blob) = head {
        return stored(blob.as_ref(), range, most).await;
    }
    let mut reader = handle.reader(Some(range));
    let mut all = Vec::new();
    while (all.len() as u64) < most
        && let Some(chunk) = reader.next().await
    {
        let Chunk::Bytes(bytes) = chunk.unwrap() else {
            panic!("a stage in memory")
        };
        all.extend_from_slice(&bytes);
    }
    all
}

async fn stored(blob: &dyn Blob, range: Range<u64>, most: u64) -> Vec<u8> {
    let range = range.start..range.end.min(range.start + most);
    let Chunk::Bytes(bytes) = blob.read(range).await.unwrap() else {
        panic!("a blob in memory")
    };
    bytes.to_vec()
}

#[tokio::test]
async fn a_part_whose_place_is_not_known_needs_the_size_first() {
    let world = world();
    let origin = world.origin();
    let opened = world.open(&world.wants(&origin, Wanted::Parts)).await;
    assert!(matches!(opened, Opened::NeedsSize), "{opened:?}");
    origin.holds(1);
    let _first = world.board(&world.wants(&origin, Wanted::Whole)).await;
    world.board(&world.wants(&origin, Wanted::Parts)).await;
}

#[tokio::test]
async fn a_part_of_a_cold_blob_costs_that_part() {
    let world = world_of(16 * MIB);
    let origin = world.origin();
    let range = LEN - 65_536..LEN;
    let part = read_part(&world, &origin, range.clone(), u64::MAX).await;
    assert!(part == world.part(range.clone()));
    world.landed().await;
    assert_eq!(origin.asked(), [Some(range)]);
    assert_eq!(world.blobs.left(&world.stage()).await, 65_536);
    // The next part finds what is there.
    let range = LEN - 131_072..LEN;
    let part = read_part(&world, &origin, range.clone(), u64::MAX).await;
    assert!(part == world.part(range));
    assert_eq!(origin.sent(), 131_072);
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_reader_far_ahead_does_not_wait_for_the_frontier() {
    let world = world_of(16 * MIB);
    let source = Scripted::new("a");
    let front = source.sends(0, Some(LEN));
    let end = source.sends(mib(15), Some(LEN));
    front.send(Ok(world.bytes.slice(..5000))).await.unwrap();
    end.send(Ok(world.bytes.slice(15 * MIB..))).await.unwrap();
    drop(end);
    let handle = world.board(&world.wish(&source)).await;
    size(&handle).await;
    let part = read_all(handle.reader(Some(mib(15)..LEN))).await.unwrap();
    assert!(part == world.part(mib(15)..LEN));
    assert_eq!(*source.asked.lock(), [None, Some(mib(15)..LEN)]);
    // The fetch from the front ends where that begins.
    front.send(Ok(world.bytes.slice(5000..))).await.unwrap();
    assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
    world.landed().await;
    assert!(world.is_stored());
}

#[tokio::test]
async fn without_ranges_a_reader_far_ahead_waits_for_the_frontier() {
    let world = world_of(16 * MIB);
    let source = Scripted::new("a");
    let front = source.sends(0, Some(LEN));
    let ignored = source.sends(0, Some(LEN));
    front.send(Ok(world.bytes.slice(..5000))).await.unwrap();
    let handle = world.board(&world.wish(&source)).await;
    size(&handle).await;
    let reader = handle.reader(Some(mib(15)..LEN));
    ignored.closed().await;
    front.send(Ok(world.bytes.slice(5000..))).await.unwrap();
    drop(front);
    assert!(read_all(reader).await.unwrap() == world.part(mib(15)..LEN));
    assert_eq!(source.times_asked(), 2);
}

#[tokio::test]
async fn a_fetch_that_reaches_a_claim_waits_for_its_answer_and_goes_on_if_ranges_are_ignored() {
    let world = world_of(16 * MIB);
    let source = Scripted::new("a");
    let front = source.sends(0, Some(LEN));
    let _ignored = source.sends(0, Some(LEN));
    source.heads.forget_permits(999);
    let handle = world.board(&world.wish(&source)).await;
    front.send(Ok(world.bytes.slice(..5000))).await.unwrap();
    size(&handle).await;
    let reader = handle.reader(Some(mib(15)..LEN));
    while source.times_asked() < 2 {
        tokio::task::yield_now().await;
    }
    let mut whole = handle.reader(None);
    front.send(Ok(world.bytes.slice(5000..))).await.unwrap();
    drop(front);
    let mut got = 0;
    while got < mib(15) {
        got += whole.next().await.unwrap().unwrap().len();
    }
    source.heads.add_permits(1);
    assert!(read_all(reader).await.unwrap() == world.part(mib(15)..LEN));
    assert_eq!(source.times_asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_readers_of_parts_in_any_order_some_leaving_early_cost_every_byte_once() {
    let world = Arc::new(world_of(32 * MIB));
    let origin = world.origin();
    let mut starts: Vec<u64> = (0..32).collect();
    fastrand::shuffle(&mut starts);
    let mut clients = tokio::task::JoinSet::new();
    for start in starts {
        let (world, origin) = (Arc::clone(&world), Arc::clone(&origin));
        clients.spawn(async move {
            // Every fourth has an open end, and leaves after a while.
            let end = if start % 4 == 0 {
                mib(32)
            } else {
                mib(start + 1)
            };
            let most = if start % 4 == 0 { mib(1) / 2 } else { u64::MAX };
            let range = mib(start)..end;
            let part = read_part(&world, &origin, range.clone(), most).await;
            assert!(part == world.part(range.start..range.start + part.len() as u64));
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    if !world.is_stored() {
        let handle = world.board(&world.wants(&origin, Wanted::Whole)).await;
        if let Head::Fetching(_) = handle.head(deadline()).await.unwrap() {
            assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
        }
    }
    world.landed().await;
    assert!(world.is_stored());
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
    assert_eq!(origin.sent(), mib(32));
}

#[tokio::test]
async fn with_parallel_steps_the_second_is_under_way_before_the_first_has_ended() {
    let world = world_of(32 * MIB);
    let origin = world.origin();
    origin.parallel.store(4, Ordering::SeqCst);
    origin.holds(1);
    let handle = world.board(&world.wants(&origin, Wanted::Whole)).await;
    size(&handle).await;
    while origin.asked().len() < 4 {
        tokio::task::yield_now().await;
    }
    let mut asked: Vec<_> = origin.asked().into_iter().flatten().collect();
    asked.sort_by_key(|range| range.start);
    let steps: Vec<_> = (0..4)
        .map(|step| mib(8 * step)..mib(8 * step + 8))
        .collect();
    assert_eq!(asked, steps);
    origin.releases();
    assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
    world.landed().await;
    assert!(world.is_stored());
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_next_step_in_order_is_asked_for_while_the_last_one_is_still_under_way() {
    let world = world_of(32 * MIB);
    let origin = world.origin();
    origin.fails(Fault::Cut(MIB));
    let handle = world.board(&world.wants(&origin, Wanted::Whole)).await;
    // So much that the second step is 1 MiB from its end.
    origin.holds(16 + 7 * 16);
    while origin.asked().len() < 3 {
        tokio::task::yield_now().await;
    }
    let steps = [None, Some(mib(1)..mib(9)), Some(mib(9)..mib(17))];
    assert_eq!(origin.asked(), steps);
    origin.releases();
    assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn with_parallel_steps_a_source_that_ignores_ranges_sends_every_byte_once() {
    let world = world_of(32 * MIB);
    let origin = world.origin();
    origin.parallel.store(4, Ordering::SeqCst);
    origin.takes_ranges.store(false, Ordering::SeqCst);
    assert!(world.pull(&origin).await.unwrap() == world.bytes);
    assert_eq!(origin.asked(), [Some(0..mib(8))]);
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_blob_of_nothing_is_not_asked_for_in_parallel() {
    let world = world_of(0);
    let origin = world.origin();
    origin.parallel.store(4, Ordering::SeqCst);
    assert!(world.pull(&origin).await.unwrap().is_empty());
    assert_eq!(origin.asked(), [None]);
}

#[tokio::test]
async fn a_part_is_broken_off_when_the_digest_does_not_match() {
    let world = world_of(16 * MIB);
    let source = Scripted::new("a");
    let front = source.sends(0, Some(LEN));
    let handle = world.board(&world.wish(&source)).await;
    front.send(Ok(vec![7; 1000].into())).await.unwrap();
    size(&handle).await;
    let mut reader = handle.reader(Some(0..2000));
    assert!(matches!(reader.next().await, Some(Ok(_))));
    front
        .send(Ok(vec![7; 16 * MIB - 1000].into()))
        .await
        .unwrap();
    drop(front);
    while world.is_fetched() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        reader.next().await,
        Some(Err(Failure::Corrupt(_)))
    ));
}
