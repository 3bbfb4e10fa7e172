use tokio::time::advance;

use super::*;
use crate::upstream::health::breaker::{MOST_SILENT, MOST_UNREACHABLE};

fn origin(text: &str) -> Origin {
    Origin::of(&text.parse().unwrap()).unwrap()
}

fn home() -> Origin {
    origin("https://registry.example")
}

fn origins() -> (Origins, Arc<Metrics>) {
    let metrics = Arc::<Metrics>::default();
    let name = "registry.example".parse().unwrap();
    let origins = Origins::new(&name, vec![home()], Clock::system(), Arc::clone(&metrics));
    (origins, metrics)
}

fn shown(metrics: &Metrics, reason: &str) -> bool {
    let line = format!(r#"layby_upstream_held{{upstream="registry.example",reason="{reason}"}} 1"#);
    metrics.render().contains(&line)
}

fn fail(origins: &Origins, origin: &Origin, kind: Kind, times: u32) {
    for _ in 0..times {
        let pass = origins.admit(origin).unwrap();
        pass.failed(&Failure::unavailable(kind, "it refuses connections"));
    }
}

fn kill(origins: &Origins, origin: &Origin) {
    fail(origins, origin, Kind::Unreachable, MOST_UNREACHABLE);
    assert!(origins.check(origin).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dead_host_fails_at_once_and_says_why_and_when_it_is_tried() {
    let (origins, metrics) = origins();
    kill(&origins, &home());
    let failure = origins.admit(&home()).unwrap_err();
    assert_eq!(failure.kind, Kind::Shut);
    let text = failure.error.to_string();
    assert!(text.contains("https://registry.example"), "{text}");
    assert!(text.contains("1 s") && text.contains("refuses"), "{text}");
    assert!(shown(&metrics, "unreachable"));
}

#[tokio::test(start_paused = true)]
async fn exactly_one_request_sees_whether_a_dead_host_is_back() {
    let (origins, metrics) = origins();
    kill(&origins, &home());
    advance(Duration::from_secs(1)).await;
    assert!(origins.check(&home()).is_ok());
    let probe = origins.admit(&home()).unwrap();
    assert!(origins.check(&home()).is_err());
    assert!(origins.admit(&home()).is_err());
    probe.answered(StatusCode::NOT_FOUND);
    assert!(origins.admit(&home()).is_ok());
    assert!(!shown(&metrics, "unreachable"));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_prolongs_the_rest() {
    let (origins, _) = origins();
    kill(&origins, &home());
    advance(Duration::from_secs(1)).await;
    fail(&origins, &home(), Kind::Unreachable, 1);
    advance(Duration::from_secs(1)).await;
    assert!(origins.check(&home()).is_err());
    advance(Duration::from_secs(1)).await;
    assert!(origins.check(&home()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_counts_as_nothing_even_as_the_probe() {
    let (origins, _) = origins();
    for _ in 0..20 {
        drop(origins.admit(&home()).unwrap());
    }
    fail(&origins, &home(), Kind::Hurried, 20);
    assert!(origins.check(&home()).is_ok());
    kill(&origins, &home());
    advance(Duration::from_secs(1)).await;
    drop(origins.admit(&home()).unwrap());
    assert!(origins.admit(&home()).is_ok(), "the next one tries");
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_dead_too_and_later() {
    let (origins, metrics) = origins();
    fail(&origins, &home(), Kind::Silent, MOST_SILENT - 1);
    assert!(origins.check(&home()).is_ok());
    fail(&origins, &home(), Kind::Silent, 1);
    let failure = origins.check(&home()).unwrap_err();
    let text = failure.error.to_string();
    assert!(text.contains("answers nothing"), "{text}");
    assert!(!text.contains("refuses"), "{text}");
    assert!(shown(&metrics, "silent"));
}

#[tokio::test(start_paused = true)]
async fn failing_answers_and_broken_connections_are_signs_of_life() {
    let (origins, _) = origins();
    fail(&origins, &home(), Kind::Unreachable, MOST_UNREACHABLE - 1);
    origins
        .admit(&home())
        .unwrap()
        .answered(StatusCode::INTERNAL_SERVER_ERROR);
    fail(&origins, &home(), Kind::Unreachable, MOST_UNREACHABLE - 1);
    fail(&origins, &home(), Kind::Broken, 20);
    fail(&origins, &home(), Kind::Unreachable, MOST_UNREACHABLE - 1);
    assert!(origins.check(&home()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dead_storage_host_is_no_dead_registry() {
    let (origins, _) = origins();
    kill(&origins, &origin("https://storage.example"));
    assert!(origins.admit(&home()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_holds_the_host_for_the_time_that_is_left() {
    let (origins, metrics) = origins();
    let asked = Some(Duration::from_secs(20));
    origins
        .admit(&home())
        .unwrap()
        .answered(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(origins.limited(&home(), asked), Duration::from_secs(20));
    advance(Duration::from_secs(5)).await;
    let Failure { error, kind } = origins.admit(&home()).unwrap_err();
    assert_eq!(kind, Kind::Shut);
    let Error::RateLimited { retry_after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(15)));
    assert!(shown(&metrics, "rate_limit"));
    assert!(origins.admit(&origin("https://storage.example")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_request_sees_whether_the_limit_is_over() {
    let (origins, metrics) = origins();
    for _ in 0..2 {
        origins.limited(&home(), Some(Duration::from_secs(20)));
        advance(Duration::from_secs(20)).await;
        let probe = origins.admit(&home()).unwrap();
        assert!(origins.admit(&home()).is_err(), "one at a time");
        probe.answered(StatusCode::TOO_MANY_REQUESTS);
    }
    let probe = origins.admit(&home()).unwrap();
    probe.answered(StatusCode::OK);
    assert!(origins.check(&home()).is_ok());
    assert!(!shown(&metrics, "rate_limit"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_what_was_sent_before_lifts_no_hold() {
    let (origins, _) = origins();
    let before = origins.admit(&home()).unwrap();
    origins.limited(&home(), Some(Duration::from_secs(20)));
    before.answered(StatusCode::OK);
    assert!(origins.check(&home()).is_err());
}

#[tokio::test(start_paused = true)]
async fn foreign_hosts_are_forgotten_beyond_a_limit_and_the_own_never() {
    let (origins, metrics) = origins();
    kill(&origins, &home());
    let other = |n: usize| origin(&format!("https://s{n}.example"));
    kill(&origins, &other(0));
    for n in 1..3 * MOST {
        advance(Duration::from_millis(1)).await;
        drop(origins.admit(&other(n)).unwrap());
    }
    assert!(origins.check(&home()).is_err());
    assert!(origins.check(&other(0)).is_err(), "healthy ones go first");
    for n in 0..3 * MOST {
        advance(Duration::from_millis(1)).await;
        if origins.check(&other(n)).is_ok() {
            kill(&origins, &other(n));
        }
    }
    assert_eq!(origins.states.lock().len(), MOST);
    let held = r#"layby_upstream_held{upstream="registry.example",reason="unreachable"} 64"#;
    assert!(metrics.render().contains(held));
}
