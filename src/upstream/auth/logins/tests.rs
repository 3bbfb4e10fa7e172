//! Each rule of rests as one sentence, on a paused clock.

use tokio::time::advance;

use super::pause::TRIAL;
use super::*;
use crate::upstream::auth::credentials::Login;

const FIRST: Duration = Duration::from_secs(10);
const FIRST_HERE: Duration = Duration::from_secs(15);

fn shown_with(password: &str, place: &str) -> Shown {
    let login = Login::password("jane", password.into());
    Shown::new("", place, login.fingerprint())
}

fn shown(place: &str) -> Shown {
    shown_with("pw", place)
}

impl Logins {
    fn unclear(&self, place: &str) -> Option<Rest> {
        self.refused(&shown(place), Refusal::Unclear)
    }

    fn may(&self, place: &str) -> bool {
        self.admit(&shown(place)).is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_rests_where_it_was_refused_and_after_the_third_place_everywhere() {
    let logins = Logins::default();
    for place in ["a", "b"] {
        assert_eq!(logins.unclear(place), Some(Rest::Here(FIRST_HERE)));
        assert_eq!(logins.admit(&shown(place)), Err(FIRST_HERE));
    }
    assert!(logins.may("d"));
    assert_eq!(logins.unclear("c"), Some(Rest::Everywhere(FIRST)));
    assert_eq!(logins.admit(&shown("d")), Err(FIRST));
    let other = shown_with("another", "d");
    assert_eq!(logins.admit(&other), Ok(()), "it is another login");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_refuses_again_and_again_is_one_place() {
    let logins = Logins::default();
    for rest in [15, 30, 60, 120, 240, 300, 300] {
        let rest = Duration::from_secs(rest);
        assert_eq!(logins.unclear("a"), Some(Rest::Here(rest)));
        assert_eq!(logins.unclear("a"), None, "of the same moment");
        assert!(logins.may("b"));
        advance(rest).await;
        assert!(logins.may("a"));
        assert_eq!(logins.admit(&shown("a")), Err(TRIAL), "one tries");
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_a_token_service_does_not_know_rests_at_once_and_ever_longer() {
    let logins = Logins::default();
    for (time, rest) in [10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        let rest = Duration::from_secs(rest);
        let place = shown(&time.to_string());
        let begins = logins.refused(&place, Refusal::Unknown);
        assert_eq!(begins, Some(Rest::Everywhere(rest)));
        advance(rest).await;
        assert!(logins.may("x"));
        assert_eq!(logins.admit(&shown("y")), Err(TRIAL));
    }
    assert!(logins.accepted(&shown("x")));
    assert!(logins.may("y"));
    assert!(!logins.accepted(&shown("x")));
}

#[tokio::test(start_paused = true)]
async fn one_that_tries_and_leaves_makes_way_for_another() {
    let logins = Logins::default();
    logins.refused(&shown("a"), Refusal::Unknown);
    advance(FIRST).await;
    assert!(logins.may("b"));
    assert!(!logins.may("b"));
    advance(TRIAL).await;
    assert!(logins.may("b"));
}

#[tokio::test(start_paused = true)]
async fn who_may_not_try_everywhere_does_not_take_the_turn_to_try_here() {
    let logins = Logins::default();
    for place in ["a", "b", "c"] {
        logins.unclear(place);
    }
    advance(FIRST).await;
    assert!(logins.may("d"), "tries it for all");
    advance(FIRST_HERE.saturating_sub(FIRST)).await;
    assert!(!logins.may("a"), "its own rest is over, the trial is not");
    logins.accepted(&shown("d"));
    assert!(logins.may("a"));
}

#[tokio::test(start_paused = true)]
async fn places_without_rights_do_not_keep_a_good_login_from_those_that_accepted_it() {
    let logins = Logins::default();
    logins.accepted(&shown("good"));
    for place in 0..50 {
        logins.unclear(&place.to_string());
    }
    assert!(!logins.may("never seen"));
    assert!(logins.may("good") && logins.may("good"));
    logins.accepted(&shown("good"));
    assert!(logins.may("never seen"));
}

#[tokio::test(start_paused = true)]
async fn one_place_without_rights_never_makes_a_good_login_rest_elsewhere() {
    let logins = Logins::default();
    logins.accepted(&shown("good"));
    for _ in 0..50 {
        logins.unclear("forbidden");
        assert!(logins.may("never seen") && logins.may("good"));
        advance(REST_HERE.wait(9)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_login_of_a_busy_mirror_rests_after_three_refusals() {
    let logins = Logins::default();
    for place in 0..100 {
        logins.accepted(&shown(&place.to_string()));
    }
    let tries = (0..100).filter(|place| {
        let place = place.to_string();
        let may = logins.may(&place);
        if may {
            logins.unclear(&place);
        }
        may
    });
    assert_eq!(tries.count(), 3);
    advance(FIRST).await;
    let tries = (3..100).filter(|place| logins.may(&place.to_string()));
    assert_eq!(tries.count(), 1, "then one tries");
}

#[tokio::test(start_paused = true)]
async fn what_a_known_login_may_not_have_says_nothing_against_it() {
    let logins = Logins::default();
    let forbidden = |place: &str| logins.refused(&shown(place), Refusal::Forbidden);
    assert_eq!((forbidden("a"), forbidden("b")), (None, None));
    assert_eq!(forbidden("c"), Some(Rest::Everywhere(FIRST)));
    assert!(logins.accepted(&shown("d")));
    for place in 0..50 {
        assert_eq!(forbidden(&place.to_string()), None);
    }
    assert!(logins.may("a"));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_places_the_idle_are_forgotten_and_not_those_that_rest() {
    let logins = Logins::default();
    logins.unclear("a");
    for place in 0..3 * MAX_PLACES {
        logins.accepted(&shown(&place.to_string()));
    }
    assert!(!logins.may("a"));
    let len = logins.0.lock().values().next().unwrap().places.len();
    assert_eq!(len, MAX_PLACES);
}

#[tokio::test(start_paused = true)]
async fn of_too_many_logins_the_idle_are_forgotten_and_not_those_that_rest() {
    let logins = Logins::default();
    logins.refused(&shown("a"), Refusal::Unknown);
    for n in 0..3 * MAX_ACCOUNTS {
        logins.accepted(&shown_with(&n.to_string(), "a"));
    }
    assert!(!logins.may("b"));
    assert_eq!(logins.0.lock().len(), MAX_ACCOUNTS);
}
