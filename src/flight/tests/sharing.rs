//! One fetch, many readers.

use super::*;

#[tokio::test]
async fn twenty_clients_cost_one_fetch_and_each_gets_every_byte() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let wish = world.wish(&source);
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(world.board(&wish).await);
    }
    for part in 0..16 {
        sending
            .send(Ok(world
                .bytes
                .slice(part * MIB / 16..(part + 1) * MIB / 16)))
            .await
            .unwrap();
    }
    drop(sending);
    for handle in readers {
        assert_eq!(size(&handle).await, Some(MIB as u64));
        assert_eq!(read_all(handle.reader(None)).await.unwrap(), world.bytes);
    }
    world.landed().await;
    assert_eq!(source.times_asked(), 1);
    assert!(world.is_stored());
    assert_eq!(world.metrics.flight.collapsed.get(), 19);
    assert_eq!(world.metrics.flight.readers.get(), 0);
    assert_eq!(world.metrics.flight.flights.get(), 0);
    assert_eq!(source.delivered.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_reader_follows_the_fetch_byte_by_byte() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let handle = world.board(&world.wish(&source)).await;
    let mut reader = handle.reader(None);
    for part in 0..8 {
        let bytes = world.bytes.slice(part * 1000..(part + 1) * 1000);
        sending.send(Ok(bytes.clone())).await.unwrap();
        let Some(Ok(Chunk::Bytes(got))) = reader.next().await else {
            panic!("no bytes")
        };
        assert_eq!(got, bytes);
    }
}

#[tokio::test]
async fn a_blob_that_was_committed_between_two_looks_is_not_fetched_again() {
    let world = world();
    let source = Scripted::new("a");
    let late = (world.digest.clone(), world.bytes.clone());
    world.blobs.after_first_look.lock().insert(late.0, late.1);
    let handle = world.board(&world.wish(&source)).await;
    let head = handle.head(deadline()).await.unwrap();
    assert!(matches!(head, Head::Stored(blob) if blob.len() == MIB as u64));
    assert_eq!(source.times_asked(), 0);
}

#[tokio::test]
async fn a_flight_stays_in_the_table_until_its_commit_is_visible() {
    let world = world();
    let source = Scripted::new("a");
    source.sends_all(&world.bytes);
    let held = world.blobs.commits.acquire_many(1000).await.unwrap();
    let wish = world.wish(&source);
    let first = world.board(&wish).await;
    assert_eq!(read_all(first.reader(None)).await.unwrap(), world.bytes);
    // The bytes are out, the commit is not: whoever comes now joins.
    let second = world.board(&wish).await;
    assert_eq!(read_all(second.reader(None)).await.unwrap(), world.bytes);
    assert!(!world.is_stored());
    drop(held);
    world.landed().await;
    let proven = Wish {
        proven: true,
        ..wish
    };
    assert!(matches!(world.open(&proven).await, Opened::Stored(_)));
    assert_eq!(source.times_asked(), 1);
}

#[tokio::test]
async fn the_tail_is_held_back_until_the_digest_matches() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let handle = world.board(&world.wish(&source)).await;
    let mut bad = world.bytes.to_vec();
    bad[MIB - 1] ^= 1;
    sending.send(Ok(bad.into())).await.unwrap();
    drop(sending);
    let mut reader = handle.reader(None);
    let mut got = 0;
    let failure = loop {
        match reader.next().await.expect("a complete body was delivered") {
            Ok(chunk) => got += chunk.len(),
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, Failure::Corrupt(_)), "{failure}");
    assert!(got <= (MIB - 64 * 1024) as u64);
    world.landed().await;
    assert!(!world.is_stored());
    assert_eq!(source.delivered.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn after_a_corrupt_fetch_the_next_request_fetches_anew() {
    let world = world();
    let source = Scripted::new("a");
    source.sends_all(&Bytes::from(vec![0; MIB]));
    source.sends_all(&world.bytes);
    let wish = world.wish(&source);
    let first = world.board(&wish).await;
    assert!(read_all(first.reader(None)).await.is_err());
    let second = world.board(&wish).await;
    assert_eq!(read_all(second.reader(None)).await.unwrap(), world.bytes);
    assert_eq!(source.times_asked(), 2);
}

#[tokio::test]
async fn a_body_that_is_longer_than_announced_fails_and_is_not_stored() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64 - 1));
    sending.send(Ok(world.bytes.clone())).await.unwrap();
    drop(sending);
    let handle = world.board(&world.wish(&source)).await;
    let failure = read_all(handle.reader(None)).await.unwrap_err();
    assert!(matches!(failure, Failure::Corrupt(_)), "{failure}");
    world.landed().await;
    assert!(!world.is_stored());
}

#[tokio::test]
async fn a_body_that_is_shorter_than_announced_is_gone_on_from() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    sending
        .send(Ok(world.bytes.slice(..MIB - 1)))
        .await
        .unwrap();
    drop(sending);
    let rest = source.sends(MIB as u64 - 1, Some(MIB as u64));
    rest.send(Ok(world.bytes.slice(MIB - 1..))).await.unwrap();
    drop(rest);
    let handle = world.board(&world.wish(&source)).await;
    assert_eq!(read_all(handle.reader(None)).await.unwrap(), world.bytes);
    let last = Some(MIB as u64 - 1..MIB as u64);
    assert_eq!(*source.asked.lock(), [None, last]);
}

#[tokio::test]
async fn without_an_announced_length_the_whole_still_arrives() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, None);
    sending.send(Ok(world.bytes.clone())).await.unwrap();
    drop(sending);
    let handle = world.board(&world.wish(&source)).await;
    size(&handle).await;
    assert_eq!(read_all(handle.reader(None)).await.unwrap(), world.bytes);
    world.landed().await;
    assert!(world.is_stored());
}

#[tokio::test]
async fn a_blob_without_bytes_is_verified_before_its_head_is_known() {
    let world = world_of(0);
    let source = Scripted::new("a");
    source.sends_all(&Bytes::new());
    let handle = world.board(&world.wish(&source)).await;
    assert_eq!(size(&handle).await, Some(0));
    assert!(read_all(handle.reader(None)).await.unwrap().is_empty());

    let lying = self::world();
    source.sends_all(&Bytes::new());
    let handle = lying.board(&lying.wish(&source)).await;
    assert!(matches!(
        handle.head(deadline()).await,
        Err(Refusal::Failed(Failure::Corrupt(_)))
    ));
}

#[tokio::test]
async fn another_repository_has_to_prove_itself_before_it_joins_or_reads() {
    let world = world();
    let (a, b) = (Scripted::new("a"), Scripted::new("b"));
    a.sends_all(&world.bytes);
    let held = world.blobs.commits.acquire_many(1000).await.unwrap();
    let first = world.board(&world.wish(&a)).await;
    size(&first).await;
    assert!(matches!(
        world.open(&world.wish(&b)).await,
        Opened::NeedsProof
    ));
    let proven = Wish {
        proven: true,
        ..world.wish(&b)
    };
    let joined = world.board(&proven).await;
    assert_eq!(read_all(joined.reader(None)).await.unwrap(), world.bytes);
    drop(held);
    world.landed().await;
    assert!(matches!(
        world.open(&world.wish(&b)).await,
        Opened::NeedsProof
    ));
    assert_eq!(b.times_asked(), 0);
    assert_eq!(b.delivered.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_joiners_source_takes_over_where_the_first_broke_off() {
    let world = world();
    let (a, b) = (Scripted::new("a"), Scripted::new("b"));
    let from_a = a.sends(0, Some(MIB as u64));
    let handle = world.board(&world.wish(&a)).await;
    let _second = world
        .board(&Wish {
            proven: true,
            ..world.wish(&b)
        })
        .await;
    from_a.send(Ok(world.bytes.slice(..1000))).await.unwrap();
    from_a
        .send(Err(Arc::new(Failed("broke")) as FetchError))
        .await
        .unwrap();
    // This one ignores the range: what is there is skipped.
    b.sends_all(&world.bytes);
    assert_eq!(read_all(handle.reader(None)).await.unwrap(), world.bytes);
    assert_eq!(*b.asked.lock(), [Some(1000..MIB as u64)]);
}

#[tokio::test]
async fn a_repository_that_was_refused_gets_nothing_from_anothers_fetch() {
    let world = world();
    let (a, b) = (Scripted::new("a"), Scripted::new("b"));
    let first = world.board(&world.wish(&a)).await;
    let second = world
        .board(&Wish {
            proven: true,
            ..world.wish(&b)
        })
        .await;
    a.refuses("not_found");
    b.sends_all(&world.bytes);
    let refusal = first.head(deadline()).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Source(why) if why.reason() == "not_found"));
    assert_eq!(read_all(second.reader(None)).await.unwrap(), world.bytes);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_answers_newcomers_for_a_second() {
    let world = world();
    let source = Scripted::new("a");
    source.refuses("not_found");
    source.sends_all(&world.bytes);
    let wish = world.wish(&source);
    for _ in 0..2 {
        let handle = world.board(&wish).await;
        assert!(matches!(
            handle.head(deadline()).await,
            Err(Refusal::Source(_))
        ));
    }
    assert_eq!(source.times_asked(), 1);
    // Others were not refused.
    let other = Scripted::new("b");
    other.refuses("not_found");
    let handle = world.board(&world.wish(&other)).await;
    assert!(handle.head(deadline()).await.is_err());
    assert_eq!(other.times_asked(), 1);

    tokio::time::advance(Duration::from_millis(1100)).await;
    tokio::task::yield_now().await;
    let handle = world.board(&wish).await;
    assert_eq!(size(&handle).await, Some(MIB as u64));
    assert_eq!(source.times_asked(), 2);
}

#[tokio::test]
async fn a_panic_in_the_fetch_wakes_every_reader() {
    let world = world();
    let source = Scripted::new("a");
    source.panics();
    let handle = world.board(&world.wish(&source)).await;
    let refusal = handle.head(deadline()).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Failed(Failure::Aborted)));
    assert!(!world.is_fetched());
}

#[tokio::test]
async fn a_fetch_that_was_wanted_whole_goes_on_without_readers() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let handle = world.board(&world.wish(&source)).await;
    size(&handle).await;
    drop(handle);
    sending.send(Ok(world.bytes.clone())).await.unwrap();
    drop(sending);
    world.landed().await;
    assert!(world.is_stored());
    assert_eq!(world.flights.unattended.available_permits(), UNATTENDED);
}

#[tokio::test]
async fn a_fetch_of_which_parts_were_wanted_stops_without_readers() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let handle = world
        .board(&Wish {
            wanted: Wanted::PartsSomewhere,
            ..world.wish(&source)
        })
        .await;
    size(&handle).await;
    drop(handle);
    world.landed().await;
    assert!(sending.is_closed());
    assert!(!world.is_fetched());
}

#[tokio::test]
async fn fetches_without_readers_are_limited_in_number() {
    let world = world();
    let _all = world
        .flights
        .unattended
        .try_acquire_many(u32::try_from(UNATTENDED).unwrap());
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let handle = world.board(&world.wish(&source)).await;
    size(&handle).await;
    drop(handle);
    world.landed().await;
    assert!(sending.is_closed());
}

#[tokio::test]
async fn a_reader_of_a_part_gets_it_before_the_rest_has_come() {
    let world = world();
    let source = Scripted::new("a");
    let sending = source.sends(0, Some(MIB as u64));
    let handle = world
        .board(&Wish {
            wanted: Wanted::PartsSomewhere,
            ..world.wish(&source)
        })
        .await;
    sending.send(Ok(world.bytes.slice(..5000))).await.unwrap();
    size(&handle).await;
    let part = read_all(handle.reader(Some(1000..5000))).await.unwrap();
    assert_eq!(part, world.bytes.slice(1000..5000));
}
