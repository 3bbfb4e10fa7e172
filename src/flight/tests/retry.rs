//! Upstreams that break off, refuse, or send something else: readers see a pause, or the right failure.

use super::*;

const LEN: u64 = 5 * MIB as u64;

fn resumes(world: &World) -> String {
    let text = world.metrics.render();
    let line = text.lines().find(|line| line.starts_with("layby_resumes"));
    line.unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_breaks_every_connection_still_delivers_and_sends_nothing_twice() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.cuts.store(MIB, Ordering::SeqCst);
    assert_eq!(world.pull(&origin).await.unwrap(), world.bytes);
    let starts: Vec<_> = origin
        .asked()
        .into_iter()
        .flatten()
        .map(|r| r.start)
        .collect();
    assert_eq!(starts, [1, 2, 3, 4].map(|mib| mib * MIB as u64));
    assert_eq!(
        (origin.sent(), origin.twice.load(Ordering::SeqCst)),
        (LEN, 0)
    );
    assert!(resumes(&world).ends_with(" 4"), "{}", resumes(&world));
    world.landed().await;
    assert!(world.is_stored());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_gone_in_mid_fetch_is_given_up_after_ten_tries_and_what_came_stays() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.fails(Fault::Cut(MIB));
    for _ in 0..20 {
        origin.fails(Fault::Refuse("unavailable"));
    }
    let began = Instant::now();
    let failure = world.pull(&origin).await.unwrap_err();
    assert!(matches!(failure, Failure::Source(why) if why.reason() == "unavailable"));
    assert_eq!(origin.asked().len(), 11);
    assert!(began.elapsed() > Duration::from_secs(10));
    world.landed().await;
    assert_eq!(world.blobs.left(&world.stage()).await, MIB as u64);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_comes_back_is_gone_on_from() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.fails(Fault::Cut(MIB));
    for _ in 0..8 {
        origin.fails(Fault::Refuse("unavailable"));
    }
    assert_eq!(world.pull(&origin).await.unwrap(), world.bytes);
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expired_signature_costs_one_more_request() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.fails(Fault::Cut(MIB));
    origin.fails(Fault::Refuse("denied"));
    assert_eq!(world.pull(&origin).await.unwrap(), world.bytes);
    assert_eq!(origin.asked().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_asks_for_a_wait_gets_it() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.fails(Fault::Cut(MIB));
    origin.fails(Fault::Refuse("rate_limited"));
    let began = Instant::now();
    assert_eq!(world.pull(&origin).await.unwrap(), world.bytes);
    assert!(began.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn before_the_status_line_a_passing_failure_is_tried_twice_more_and_a_final_one_is_told_at_once()
 {
    for (why, times) in [
        ("unavailable", 3),
        ("not_found", 1),
        ("denied", 1),
        ("rate_limited", 1),
    ] {
        let world = world();
        let origin = world.origin();
        for _ in 0..5 {
            origin.fails(Fault::Refuse(why));
        }
        let failure = world.pull(&origin).await.unwrap_err();
        assert!(matches!(failure, Failure::Source(error) if error.reason() == why));
        assert_eq!(origin.asked().len(), times, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_shorter_than_asked_for_is_gone_on_from() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.fails(Fault::Cut(MIB));
    origin.fails(Fault::End(MIB));
    assert_eq!(world.pull(&origin).await.unwrap(), world.bytes);
    assert_eq!(origin.twice.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_without_ranges_sends_what_is_there_again_and_it_is_passed_over() {
    let world = world_of(5 * MIB);
    let origin = world.origin();
    origin.takes_ranges.store(false, Ordering::SeqCst);
    origin.fails(Fault::Cut(MIB));
    origin.fails(Fault::Cut(2 * MIB));
    assert_eq!(world.pull(&origin).await.unwrap(), world.bytes);
    assert_eq!(origin.asked().last(), Some(&None));
    assert_eq!(origin.twice.load(Ordering::SeqCst), 3 * MIB as u64);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_tells_another_size_is_out_and_another_goes_on() {
    let world = world_of(5 * MIB);
    let (liar, honest) = (world.origin(), Origin::new("b", &world.bytes));
    liar.fails(Fault::Cut(MIB));
    liar.fails(Fault::Size(7));
    let first = world.board(&world.wants(&liar, Wanted::Whole)).await;
    let proven = Wish {
        proven: true,
        ..world.wants(&honest, Wanted::Whole)
    };
    let _second = world.board(&proven).await;
    honest.fails(Fault::Cut(MIB));
    assert_eq!(read_all(first.reader(None)).await.unwrap(), world.bytes);

    let world = world_of(5 * MIB);
    let liar = world.origin();
    liar.fails(Fault::Cut(MIB));
    liar.fails(Fault::Size(7));
    let failure = world.pull(&liar).await.unwrap_err();
    assert!(matches!(failure, Failure::Corrupt(_)), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_source_has_its_time_from_when_it_is_asked_first() {
    let world = world();
    *world.blobs.resume_takes.lock() = Duration::from_secs(15);
    let (a, b) = (Scripted::new("a"), Scripted::new("b"));
    a.heads.forget_permits(1000);
    a.refuses("unavailable");
    b.refuses("unavailable");
    b.sends_all(&world.bytes);
    let _first = world.board(&world.wish(&a)).await;
    let second = Wish {
        proven: true,
        ..world.wish(&b)
    };
    let second = world.board(&second).await;
    while a.times_asked() == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    a.heads.add_permits(2);
    size(&second).await;
    let given = Duration::from_secs(20);
    assert_eq!(a.patience.lock()[0], given);
    let patience = b.patience.lock().clone();
    assert_eq!(patience[0], given);
    // Its next try shares that.
    assert!(patience[1] < given, "{patience:?}");
}
