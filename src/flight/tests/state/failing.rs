//! What becomes of steps that break, and of sources that fail.

use super::*;

const SIZE: u64 = 100 * MIB;

#[test]
fn a_broken_step_goes_on_from_its_first_missing_byte_with_a_bounded_range() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    let step = only_step(&state);
    brings(&mut state, step, 5 * MIB + 7);
    assert_eq!(state.step_failed(step, "broke", again(), 1.0), None);
    let ask = asked(&mut state);
    assert_eq!(ask.range, Some(5 * MIB + 7..13 * MIB + 7));
    assert!(ask.again);
}

#[test]
fn without_progress_the_waits_grow_and_then_the_flight_gives_up() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    let mut step = only_step(&state);
    let mut waits = Vec::new();
    loop {
        waits.push(
            state
                .step_failed(step, "broke", again(), 1.0)
                .map(|wait| wait.as_millis()),
        );
        state.go_on();
        match state.plan() {
            Plan::Ask(ask) => step = ask.step,
            other => {
                assert_eq!(other, Plan::GiveUp);
                break;
            }
        }
    }
    assert_eq!(waits.len(), 11);
    assert_eq!(waits[..4], [None, Some(100), Some(200), Some(400)]);
    assert_eq!(state.most_telling(), Some("broke"));
}

#[test]
fn nothing_is_asked_during_a_wait() {
    let mut state = from_start();
    state.reader_joined(true);
    let ask = asked(&mut state);
    assert!(state.step_failed(ask.step, "busy", again(), 1.0).is_some());
    assert_eq!(state.plan(), Plan::Wait);
    state.go_on();
    asked(&mut state);
}

#[test]
fn progress_gives_all_tries_back() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    let mut step = only_step(&state);
    for _ in 0..50 {
        brings(&mut state, step, PROGRESS);
        assert_eq!(state.step_failed(step, "broke", again(), 1.0), None);
        step = answered(&mut state).0;
    }
}

#[test]
fn steps_that_break_together_count_as_one_failure() {
    let mut state = State::new("a", First::Start, 4);
    state.reader_joined(true);
    let (first, _) = {
        let ask = asked(&mut state);
        state.answered(ask.step, Some(0), Some(SIZE)).unwrap();
        (ask.step, ask.range)
    };
    let others: Vec<_> = (0..3).map(|_| answered(&mut state).0).collect();
    assert_eq!(state.step_failed(first, "broke", again(), 1.0), None);
    let waits: Vec<_> = others
        .into_iter()
        .filter_map(|step| state.step_failed(step, "broke", again(), 1.0))
        .collect();
    assert_eq!(waits, [Duration::from_millis(100)]);
}

#[test]
fn before_the_first_answer_there_are_two_more_tries_and_none_after_a_final_refusal() {
    let mut state = from_start();
    for _ in 0..2 {
        let ask = asked(&mut state);
        assert!(state.step_failed(ask.step, "busy", again(), 1.0).is_some());
        state.go_on();
    }
    let ask = asked(&mut state);
    assert_eq!(state.step_failed(ask.step, "busy", again(), 1.0), None);
    assert_eq!(state.plan(), Plan::GiveUp);

    for remedy in [Remedy::None, Remedy::Renew, Remedy::Again(SECOND * 30)] {
        let mut state = from_start();
        let ask = asked(&mut state);
        assert_eq!(state.step_failed(ask.step, "no", remedy, 1.0), None);
        assert_eq!(state.plan(), Plan::GiveUp, "{remedy:?}");
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_wait_that_the_upstream_asks_for_is_kept_if_it_is_bearable() {
    for (asked, expected) in [(30, Some(30)), (3600, None)] {
        let mut state = fetching(SIZE);
        state.reader_joined(true);
        let step = only_step(&state);
        let remedy = Remedy::Again(SECOND * asked);
        let wait = state.step_failed(step, "429", remedy, 1.0);
        assert_eq!(wait, expected.map(|wait| SECOND * wait));
        assert_eq!(state.plan() == Plan::GiveUp, expected.is_none());
    }
}

#[test]
fn a_denial_in_mid_fetch_is_tried_again_once_per_progress() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    let mut step = only_step(&state);
    for _ in 0..3 {
        brings(&mut state, step, PROGRESS);
        state.step_failed(step, "denied", Remedy::Renew, 1.0);
        step = answered(&mut state).0;
    }
    state.step_failed(step, "denied", Remedy::Renew, 1.0);
    assert_eq!(state.plan(), Plan::GiveUp);
}

#[test]
fn broken_sources_take_turns_and_the_flight_gives_up_only_when_all_are_out() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    state.add_source("b");
    let step = only_step(&state);
    state.step_failed(step, "broke", again(), 0.0);
    let ask = asked(&mut state);
    assert_eq!(ask.source, 1);
    state.step_failed(ask.step, "404", Remedy::None, 0.0);
    let ask = asked(&mut state);
    assert_eq!(ask.source, 0);
    state.step_failed(ask.step, "gone", Remedy::None, 0.0);
    assert_eq!(state.plan(), Plan::GiveUp);
    // The one that had answered says more than the one that never had the blob.
    assert_eq!(state.most_telling(), Some("gone"));
}

#[test]
fn a_new_source_revives_a_flight_that_was_about_to_give_up() {
    let mut state = from_start();
    let ask = asked(&mut state);
    state.step_failed(ask.step, "404", Remedy::None, 0.0);
    assert!(!state.add_source("a"));
    assert!(state.add_source("b"));
    assert_eq!(asked(&mut state).source, 1);
}

#[test]
fn where_bytes_are_taken_from_one_source_alone_no_other_adds_to_them() {
    let mut state = State::new("a", First::Start, 2);
    state.take_from_one();
    state.add_source("b");
    state.reader_joined(true);
    let first = asked(&mut state);
    state.answered(first.step, Some(0), Some(SIZE)).unwrap();
    // Before the first byte another may be asked instead.
    state.step_failed(first.step, "broke", again(), 0.0);
    let (of_b, _) = answered(&mut state);
    assert_eq!(state.source_of(of_b), Some(1));
    state.step_failed(of_b, "broke", again(), 0.0);
    state.go_on();
    let (of_a, _) = answered(&mut state);
    let late = asked(&mut state);
    assert_eq!(
        [of_a, late.step].map(|step| state.source_of(step)),
        [Some(0); 2]
    );
    brings(&mut state, of_a, MIB);
    assert_eq!(state.bringers(), [0]);
    state.step_failed(of_a, "broke", again(), 0.0);
    state.step_failed(late.step, "404", Remedy::None, 0.0);
    state.go_on();
    assert_eq!(state.plan(), Plan::GiveUp);
}

#[test]
fn a_second_source_that_was_asked_before_the_first_byte_came_brings_none() {
    let mut state = State::new("a", First::Start, 2);
    state.take_from_one();
    state.add_source("b");
    state.reader_joined(true);
    let ask = asked(&mut state);
    state.answered(ask.step, Some(0), Some(SIZE)).unwrap();
    let of_a = answered(&mut state).0;
    state.step_failed(ask.step, "broke", again(), 0.0);
    let of_b = answered(&mut state).0;
    assert_eq!(state.source_of(of_b), Some(1));
    brings(&mut state, of_a, MIB);
    assert_eq!(state.take(of_b, 1000), Ok(Take::Stop));
    assert_eq!(state.bringers(), [0]);
}

#[test]
fn a_short_answer_is_gone_on_from() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    let step = only_step(&state);
    state.step_failed(step, "broke", again(), 0.0);
    let (step, range) = answered(&mut state);
    brings(&mut state, step, 3 * MIB);
    assert_eq!(state.ended(step), Ok(false));
    state.step_failed(step, "short", again(), 0.0);
    assert_eq!(answered(&mut state).1.start, range.start + 3 * MIB);
}

#[test]
fn answers_that_contradict_what_is_known_do_not_fit() {
    let mut state = fetching(10);
    let step = only_step(&state);
    assert_eq!(state.take(step, 11), Err(Mismatch::TooLong(10)));
    let told = state.answered(step, None, Some(11));
    assert_eq!(
        told,
        Err(Mismatch::Size {
            known: 10,
            told: 11
        })
    );
    let mut state = from_start();
    let ask = asked(&mut state);
    state.answered(ask.step, None, None).unwrap();
    brings(&mut state, ask.step, 100);
    state.step_failed(ask.step, "broke", again(), 0.0);
    let ask = asked(&mut state);
    assert_eq!(ask.range, None);
    state.answered(ask.step, None, None).unwrap();
    assert_eq!(state.take(ask.step, 40), Ok(Take::Skip(40)));
    assert_eq!(state.ended(ask.step), Err(Mismatch::TooShort { end: 40 }));
}
