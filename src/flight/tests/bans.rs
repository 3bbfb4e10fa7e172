//! Sources whose bytes do not match.

use super::*;

/// The same blob with one wrong byte, where a reader of the whole has it before the digest is known.
fn wrong(world: &World) -> Bytes {
    let mut bytes = world.bytes.to_vec();
    bytes[1000] ^= 1;
    bytes.into()
}

fn proven(wish: Wish) -> Wish {
    Wish {
        proven: true,
        ..wish
    }
}

#[tokio::test(start_paused = true)]
async fn after_wrong_bytes_the_next_request_of_anybody_is_served_by_another_source() {
    for asks_again in ["a", "b"] {
        let world = world_of(2 * MIB);
        let (a, b) = (
            Origin::new("a", &wrong(&world)),
            Origin::new("b", &world.bytes),
        );
        a.holds(1);
        let first = world.board(&world.wants(&a, Wanted::Whole)).await;
        let second = proven(world.wants(&b, Wanted::Whole));
        let second = world.board(&second).await;
        let mut reader = first.reader(None);
        a.releases();
        // Whoever was given wrong bytes is broken off.
        let mut last = reader.next().await;
        assert!(matches!(last, Some(Ok(_))));
        while let Some(Ok(_)) = last {
            last = reader.next().await;
        }
        assert!(matches!(last, Some(Err(Failure::Corrupt(_)))));
        let failure = read_all(second.reader(None)).await.unwrap_err();
        assert!(matches!(failure, Failure::Corrupt(_)), "{failure}");
        world.landed().await;
        assert_eq!((a.asked().len(), b.asked().len()), (1, 0));

        let own = if asks_again == "a" { &a } else { &b };
        let mut wish = world.wants(own, Wanted::Whole);
        if asks_again == "a" {
            // It is another repository that answers now.
            let opened = world.open(&wish).await;
            assert!(matches!(opened, Opened::NeedsProof), "{opened:?}");
            wish = proven(wish);
        }
        let handle = world.board(&wish).await;
        size(&handle).await;
        assert!(read_all(handle.reader(None)).await.unwrap() == world.bytes);
        world.landed().await;
        assert!(world.is_stored());
        assert_eq!((a.asked().len(), b.asked().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn of_sources_whose_bytes_were_mixed_each_is_asked_alone_until_one_is_right() {
    let world = world_of(2 * MIB);
    let (a, b) = (
        Origin::new("a", &wrong(&world)),
        Origin::new("b", &world.bytes),
    );
    a.holds(0);
    a.fails(Fault::Cut(MIB));
    let first = world.board(&world.wants(&a, Wanted::Whole)).await;
    let second = proven(world.wants(&b, Wanted::Whole));
    let _second = world.board(&second).await;
    a.releases();
    assert!(read_all(first.reader(None)).await.is_err());
    world.landed().await;
    assert_eq!(b.asked(), [Some(MIB as u64..2 * MIB as u64)]);
    // Both are suspects: it begins with its own, and no other helps it.
    let wish = proven(world.wants(&a, Wanted::Whole));
    a.fails(Fault::Cut(MIB));
    let alone = world.board(&wish).await;
    size(&alone).await;
    assert!(read_all(alone.reader(None)).await.is_err());
    world.landed().await;
    assert_eq!(b.asked().len(), 1);
    // Now it is known whose were wrong.
    let again = world.board(&wish).await;
    size(&again).await;
    assert!(read_all(again.reader(None)).await.unwrap() == world.bytes);
    assert_eq!(b.asked().last(), Some(&None));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_fetch_left_is_not_mixed_with_the_bytes_of_the_one_source_that_is_trusted()
{
    let world = world_of(2 * MIB);
    let (a, b) = (
        Origin::new("a", &wrong(&world)),
        Origin::new("b", &world.bytes),
    );
    let banned = world.board(&world.wants(&a, Wanted::Whole)).await;
    assert!(read_all(banned.reader(None)).await.is_err());
    world.landed().await;
    // Nobody knows who sent it.
    let (len, half) = (2 * MIB as u64, MIB as u64);
    let left = Some(0..half);
    world.blobs.leave(world.stage(), &wrong(&world), len, left);
    assert!(world.pull(&b).await.unwrap() == world.bytes);
    assert_eq!(b.asked(), [None]);
}

#[tokio::test(start_paused = true)]
async fn a_banned_source_is_asked_where_there_is_no_other_and_by_all_once_its_ban_is_over() {
    let world = world_of(2 * MIB);
    let (a, b) = (Scripted::new("a"), Scripted::new("b"));
    a.sends_all(&wrong(&world));
    a.sends_all(&wrong(&world));
    let mut wish = world.wish(&a);
    for _ in 0..2 {
        let handle = world.board(&wish).await;
        assert!(read_all(handle.reader(None)).await.is_err());
        world.landed().await;
    }
    assert_eq!(a.times_asked(), 2);
    // One that comes later is asked first, and the banned one if that has nothing.
    b.refuses("not_found");
    a.sends_all(&world.bytes);
    wish.proven = true;
    let later = world.board(&proven(world.wish(&b))).await;
    let _banned = world.board(&wish).await;
    assert!(read_all(later.reader(None)).await.unwrap() == world.bytes);
    assert_eq!((a.times_asked(), b.times_asked()), (3, 1));
}

#[tokio::test]
async fn nobody_boards_a_flight_that_has_given_up_but_not_failed_yet() {
    let world = world();
    let (a, b) = (Scripted::new("a"), Scripted::new("b"));
    let sources = [&a, &b].map(|source| Arc::clone(source) as Arc<dyn Source>);
    let flight = Flight::new(
        world.key(),
        Bans::default().line_up(&world.key(), &sources[0]),
        First::Start,
        tokio_util::sync::CancellationToken::new(),
        Arc::clone(&world.flights.unattended),
    );
    let Plan::Ask(ask) = flight.with(State::plan) else {
        panic!("nobody is asked")
    };
    let error: FetchError = Arc::new(Failed("not_found"));
    flight.with(|state| state.step_failed(ask.step, error, Remedy::None, 0.0));
    assert_eq!(flight.with(State::plan), Plan::GiveUp);
    // Its source would not be asked, and it would be told of a failure of another's.
    assert_eq!(flight.board(&sources[1], true, true), Boarding::Closed);
}
