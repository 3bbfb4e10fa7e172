//! Exchanges that fail, and those who wait for one.

use super::*;

#[tokio::test(start_paused = true)]
async fn failures_of_the_token_service_are_told_apart_and_counted() {
    for (status, body, reason) in [
        (429, "", "rate_limited"),
        (503, "", "unavailable"),
        (200, "<html>", "invalid"),
    ] {
        let bench = Bench::anonymous();
        bench.script.answer(status, &[("retry-after", "3")], body);
        let error = bench.after(&unauthorized(BEARER), "a/b").await.unwrap_err();
        assert_eq!(error.reason(), reason);
        let metrics = bench.metrics.render();
        assert!(
            metrics.contains(&format!(r#"outcome="{reason}"}} 1"#)),
            "{metrics}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_service_that_limits_us_is_left_alone_for_as_long_as_it_asks() {
    let bench = Bench::anonymous();
    bench.script.answer(429, &[("retry-after", "30")], "");
    for _ in 0..3 {
        assert!(bench.after(&unauthorized(BEARER), "a/b").await.is_err());
        advance(9).await;
    }
    assert_eq!(bench.script.count(), 1);
    advance(4).await;
    bench.script.give("t1", 300);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
}

#[tokio::test(start_paused = true)]
async fn many_requests_wait_for_one_exchange() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    bench.script.close_gate();
    let refusal = unauthorized(BEARER);
    let all = (0..20).map(|_| bench.after(&refusal, "a/b"));
    let all = futures_util::future::join_all(all);
    let open = async {
        tokio::task::yield_now().await;
        bench.script.gate.add_permits(1);
    };
    let (outcomes, ()) = tokio::join!(all, open);
    assert!(outcomes.iter().all(|outcome| *outcome == bearer("t1")));
    assert_eq!(bench.script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_failing_exchange_share_its_failure() {
    let bench = Bench::anonymous();
    bench.script.fail(Error::unavailable("no route"));
    let refusal = unauthorized(BEARER);
    let all = (0..20).map(|_| bench.after(&refusal, "a/b"));
    let outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(bench.script.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_leaves_during_the_exchange_strands_nobody() {
    let bench = Bench::anonymous();
    bench.script.give("lost", 300);
    bench.script.give("t2", 300);
    bench.script.close_gate();
    let refusal = unauthorized(BEARER);
    let mut first = Box::pin(bench.after(&refusal, "a/b"));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let mut second = Box::pin(bench.after(&refusal, "a/b"));
    assert!(futures_util::poll!(second.as_mut()).is_pending());
    assert_eq!(bench.script.count(), 1);
    drop(first);
    bench.script.gate.add_permits(1);
    assert_eq!(second.await, bearer("t2"));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_anothers_exchange_beyond_the_own_deadline() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 300);
    bench.script.close_gate();
    let refusal = unauthorized(BEARER);
    let mut first = Box::pin(bench.after(&refusal, "a/b"));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let begun = Instant::now();
    let outcome = bench.after(&refusal, "a/b").await;
    assert_eq!(outcome.unwrap_err().reason(), "unavailable");
    assert_eq!(begun.elapsed(), Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_lets_the_registry_be_asked_anew() {
    let bench = Bench::anonymous();
    bench.script.give("t1", 60);
    assert_eq!(
        bench.after(&unauthorized(BEARER), "a/b").await,
        bearer("t1")
    );
    advance(60).await;
    bench.script.answer(404, &[], "");
    assert_eq!(bench.at_once("a/b").await, Ok(None));
    assert_eq!(bench.at_once("a/b").await, Ok(None));
    assert_eq!(bench.script.count(), 2);
}
