//! What is asked of whom, and when.

use super::*;

const SIZE: u64 = 100 * MIB;

/// A flight for parts, whose first was answered, and of which nothing else is wanted yet.
fn parts_of(size: u64, first: Range<u64>) -> TestState {
    let mut state = State::new("a", First::Part(first.clone()), 1);
    let ask = asked(&mut state);
    assert_eq!(ask.range, Some(first.clone()));
    state
        .answered(ask.step, Some(first.start), Some(size))
        .unwrap();
    brings(&mut state, ask.step, first.end - first.start);
    assert_eq!(state.ended(ask.step), Ok(true));
    assert_eq!(state.plan(), Plan::Wait);
    state
}

#[test]
fn the_first_request_asks_for_the_whole_without_a_range() {
    assert_eq!(asked(&mut from_start()).range, None);
}

#[test]
fn nothing_else_is_asked_before_the_first_answer() {
    let mut state = State::new("a", First::Start, 4);
    asked(&mut state);
    state.reader_wants(50 * MIB..60 * MIB);
    assert_eq!(state.plan(), Plan::Wait);
}

#[test]
fn a_flight_for_a_part_asks_for_that_part_alone() {
    parts_of(SIZE, 30 * MIB..31 * MIB);
}

#[test]
fn a_reader_far_ahead_has_its_own_step_for_what_it_wants() {
    let mut state = fetching(SIZE);
    let step = only_step(&state);
    brings(&mut state, step, MIB);
    state.reader_wants(SIZE - 64 * 1024..SIZE);
    assert_eq!(answered(&mut state).1, SIZE - 64 * 1024..SIZE);
    assert_eq!(state.plan(), Plan::Wait);
}

#[test]
fn a_reader_just_ahead_of_a_step_that_reads_on_waits_for_it() {
    let mut state = fetching(SIZE);
    let step = only_step(&state);
    brings(&mut state, step, MIB);
    let reader = state.reader_wants(2 * MIB..SIZE);
    assert_eq!(state.plan(), Plan::Wait);
    assert!(!state.reader_at(reader, 2 * MIB - 1));
}

#[test]
fn an_open_ended_reader_has_the_next_step_begun_before_the_last_one_ends() {
    let mut state = parts_of(SIZE, 20 * MIB..21 * MIB);
    let reader = state.reader_wants(20 * MIB..SIZE);
    let (step, range) = answered(&mut state);
    assert_eq!(range, 21 * MIB..29 * MIB);
    brings(&mut state, step, 7 * MIB);
    assert!(!state.reader_at(reader, 28 * MIB - 1));
    assert_eq!(state.plan(), Plan::Wait);
    assert!(state.reader_at(reader, 28 * MIB));
    assert_eq!(answered(&mut state).1, 29 * MIB..37 * MIB);
}

#[test]
fn readers_of_the_same_bytes_share_a_step() {
    let mut state = parts_of(SIZE, 20 * MIB..21 * MIB);
    state.reader_wants(40 * MIB..44 * MIB);
    state.reader_wants(41 * MIB..42 * MIB);
    assert_eq!(answered(&mut state).1, 40 * MIB..44 * MIB);
    assert_eq!(state.plan(), Plan::Wait);
}

#[test]
fn a_step_ends_where_what_is_there_or_claimed_begins() {
    let mut state = parts_of(SIZE, 20 * MIB..21 * MIB);
    state.reader_wants(18 * MIB..30 * MIB);
    assert_eq!(answered(&mut state).1, 18 * MIB..20 * MIB);
    state.reader_wants(16 * MIB..19 * MIB);
    assert_eq!(answered(&mut state).1, 16 * MIB..18 * MIB);
    assert_eq!(state.plan(), Plan::Wait);
}

#[test]
fn a_step_that_reads_on_stops_where_another_claims() {
    let mut state = fetching(SIZE);
    state.reader_joined(true);
    let open = only_step(&state);
    brings(&mut state, open, MIB);
    state.reader_wants(10 * MIB..12 * MIB);
    let (far, _) = answered(&mut state);
    brings(&mut state, open, 9 * MIB);
    assert_eq!(state.take(open, MIB), Ok(Take::Stop));
    state.close_step(open);
    // The blob is filled on behind the claim.
    assert_eq!(answered(&mut state).1, 12 * MIB..20 * MIB);
    brings(&mut state, far, 2 * MIB);
}

#[test]
fn a_step_that_reads_on_waits_where_it_is_not_known_whether_another_will_bring_anything() {
    let mut state = fetching(SIZE);
    let open = only_step(&state);
    brings(&mut state, open, MIB);
    state.reader_wants(10 * MIB..12 * MIB);
    let far = asked(&mut state);
    brings(&mut state, open, 9 * MIB);
    assert_eq!(state.take(open, MIB), Ok(Take::Wait));
    // The source ignores ranges: what reads on brings it all.
    let answer = state.answered(far.step, None, Some(SIZE));
    assert_eq!(answer, Ok(Answered::Redundant));
    assert_eq!(state.take(open, MIB), Ok(Take::Keep(MIB)));
    assert_eq!(state.plan(), Plan::Wait);
}

#[test]
fn a_claim_goes_with_its_step_and_another_step_brings_what_it_did_not() {
    let mut state = parts_of(SIZE, 20 * MIB..21 * MIB);
    state.reader_wants(40 * MIB..44 * MIB);
    let (step, _) = answered(&mut state);
    // The reader has all that it wants on the way, and says nothing more.
    assert_eq!(state.plan(), Plan::Wait);
    brings(&mut state, step, MIB);
    state.step_failed(step, "broke", again(), 0.0);
    assert_eq!(answered(&mut state).1, 41 * MIB..44 * MIB);
}

#[test]
fn readers_wait_in_turn_for_the_steps_of_a_flight() {
    let mut state = parts_of(1000 * MIB, 0..MIB);
    let start = |number: u64| (10 + 10 * number) * MIB;
    for number in 0..40 {
        state.reader_wants(start(number)..start(number) + MIB);
    }
    let mut running: Vec<_> = (0..MAX_STEPS).map(|_| answered(&mut state)).collect();
    assert_eq!(state.plan(), Plan::Wait);
    for number in (MAX_STEPS as u64)..40 {
        let (step, _) = running.remove(0);
        brings(&mut state, step, MIB);
        assert_eq!(state.ended(step), Ok(true));
        let next = answered(&mut state);
        assert_eq!(next.1.start, start(number));
        running.push(next);
    }
}

#[test]
fn without_a_reader_of_the_whole_only_what_is_wanted_is_fetched_until_half_is_there() {
    let mut state = parts_of(16 * MIB, 0..MIB);
    state.reader_joined(false);
    state.reader_wants(8 * MIB..15 * MIB);
    let (step, _) = answered(&mut state);
    brings(&mut state, step, 7 * MIB - 1);
    assert_eq!(state.plan(), Plan::Wait);
    brings(&mut state, step, 1);
    assert_eq!(answered(&mut state).1, MIB..8 * MIB);
}

#[test]
fn a_reader_of_the_whole_has_the_gaps_filled_in_order() {
    let mut state = parts_of(40 * MIB, 10 * MIB..11 * MIB);
    state.reader_joined(true);
    let mut gaps = Vec::new();
    while let Plan::Ask(ask) = state.plan() {
        let range = ask.range.unwrap();
        state
            .answered(ask.step, Some(range.start), Some(40 * MIB))
            .unwrap();
        brings(&mut state, ask.step, range.end - range.start);
        assert_eq!(state.ended(ask.step), Ok(true));
        gaps.push(range.start / MIB..range.end / MIB);
    }
    assert_eq!(gaps, [0..8, 8..10, 11..19, 19..27, 27..35, 35..40]);
    assert_eq!(state.plan(), Plan::Complete);
}

#[test]
fn the_next_step_in_order_is_begun_before_the_last_one_ends() {
    let mut state = parts_of(SIZE, 0..MIB);
    state.reader_joined(true);
    let (step, range) = answered(&mut state);
    assert_eq!(range, MIB..9 * MIB);
    brings(&mut state, step, 7 * MIB - 1);
    assert_eq!(state.plan(), Plan::Wait);
    brings(&mut state, step, 1);
    assert_eq!(answered(&mut state).1, 9 * MIB..17 * MIB);
}

#[test]
fn parallel_steps_stay_within_a_window_of_the_prefix() {
    let mut state = State::new("a", First::Start, 4);
    state.reader_joined(true);
    let ask = asked(&mut state);
    assert_eq!(ask.range, Some(0..8 * MIB));
    state.answered(ask.step, Some(0), Some(1000 * MIB)).unwrap();
    let mut begun = 8;
    let mut others = Vec::new();
    for _ in 0..3 {
        let (step, range) = answered(&mut state);
        assert_eq!(range, begun * MIB..(begun + 8) * MIB);
        begun += 8;
        others.push(step);
    }
    assert_eq!(state.plan(), Plan::Wait);
    // The first one hangs: the others go on as far as the window reaches.
    while let Some(step) = others.pop() {
        brings(&mut state, step, 8 * MIB);
        assert_eq!(state.ended(step), Ok(true));
        while let Plan::Ask(ask) = state.plan() {
            let range = ask.range.unwrap();
            assert!(range.start < 64 * MIB, "{range:?}");
            state
                .answered(ask.step, Some(range.start), Some(1000 * MIB))
                .unwrap();
            others.push(ask.step);
        }
    }
    assert_eq!(state.plan(), Plan::Wait);
    brings(&mut state, ask.step, 8 * MIB);
    assert_eq!(answered(&mut state).1.start, 64 * MIB);
}

#[test]
fn a_source_that_ignores_ranges_is_read_on_and_readers_ahead_wait_for_it() {
    let mut state = parts_of(SIZE, 20 * MIB..21 * MIB);
    state.reader_wants(40 * MIB..44 * MIB);
    let ask = asked(&mut state);
    assert_eq!(
        state.answered(ask.step, None, Some(SIZE)),
        Ok(Answered::Wanted)
    );
    brings(&mut state, ask.step, 20 * MIB);
    assert_eq!(state.take(ask.step, 2 * MIB), Ok(Take::Skip(MIB)));
    brings(&mut state, ask.step, MIB);
    state.reader_wants(60 * MIB..61 * MIB);
    assert_eq!(state.plan(), Plan::Wait);
    // A retry asks for the whole again.
    state.step_failed(ask.step, "broke", again(), 0.0);
    let ask = asked(&mut state);
    assert_eq!(ask.range, None);
    state.answered(ask.step, None, Some(SIZE)).unwrap();
    assert_eq!(state.take(ask.step, 30 * MIB), Ok(Take::Skip(22 * MIB)));
}

#[test]
fn all_of_a_blob_for_a_range_from_its_start_on_is_read_on_alone() {
    let mut state = State::new("a", First::Start, 4);
    state.reader_joined(true);
    let ask = asked(&mut state);
    assert_eq!(ask.range, Some(0..8 * MIB));
    state.answered(ask.step, None, Some(SIZE)).unwrap();
    assert_eq!(state.plan(), Plan::Wait);
    brings(&mut state, ask.step, SIZE);
    assert_eq!(state.plan(), Plan::Complete);
}

#[test]
fn a_blob_that_ends_within_the_range_asked_for_tells_nothing_of_ranges() {
    let mut state = State::new("a", First::Start, 4);
    state.reader_joined(true);
    let ask = asked(&mut state);
    state.answered(ask.step, None, Some(MIB)).unwrap();
    brings(&mut state, ask.step, MIB / 2);
    state.step_failed(ask.step, "broke", again(), 0.0);
    assert_eq!(asked(&mut state).range, Some(MIB / 2..MIB));
}

#[test]
fn a_part_that_brings_more_than_was_asked_for_is_not_read_on() {
    let mut state = State::new("a", First::Start, 2);
    let ask = asked(&mut state);
    state.answered(ask.step, Some(0), Some(SIZE)).unwrap();
    brings(&mut state, ask.step, 8 * MIB);
    assert_eq!(state.take(ask.step, MIB), Ok(Take::Stop));
}

#[test]
fn an_answer_without_a_length_is_the_whole_blob_and_ends_it() {
    let mut state = State::new("a", First::Start, 2);
    let ask = asked(&mut state);
    state.answered(ask.step, None, None).unwrap();
    assert_eq!(state.plan(), Plan::Wait);
    brings(&mut state, ask.step, MIB);
    assert_eq!(state.ended(ask.step), Ok(true));
    assert_eq!(state.size(), Some(MIB));
    assert_eq!(state.plan(), Plan::Complete);
}

#[test]
fn ranges_go_to_the_sources_that_take_them() {
    let mut state = parts_of(SIZE, 20 * MIB..21 * MIB);
    state.add_source("b");
    state.reader_wants(40 * MIB..44 * MIB);
    let ask = asked(&mut state);
    state.answered(ask.step, None, Some(SIZE)).unwrap();
    state.step_failed(ask.step, "broke", again(), 0.0);
    let ask = asked(&mut state);
    assert_eq!((ask.source, ask.range), (1, Some(40 * MIB..44 * MIB)));
}

#[test]
fn what_an_earlier_fetch_left_is_not_asked_for() {
    let mut state = from_start();
    state.reader_joined(true);
    state.resumed(20 * MIB, vec![0..10 * MIB, 12 * MIB..13 * MIB]);
    assert_eq!(answered(&mut state).1, 10 * MIB..12 * MIB);
    assert_eq!(state.readable(0, false), Readable::Upto(10 * MIB));

    let mut state = State::new("a", First::Part(5 * MIB..11 * MIB), 1);
    state.resumed(20 * MIB, only(0..10 * MIB));
    assert_eq!(asked(&mut state).range, Some(10 * MIB..11 * MIB));

    // Its part is there, and the client leaves with it.
    let mut state = State::new("a", First::Part(5 * MIB..10 * MIB), 1);
    state.resumed(20 * MIB, only(0..10 * MIB));
    assert_eq!(asked(&mut state).range, Some(10 * MIB..10 * MIB + 1));

    let mut state = from_start();
    state.resumed(MIB, only(0..MIB));
    assert_eq!(state.plan(), Plan::Complete);
}

#[test]
fn what_an_earlier_fetch_left_counts_less_than_the_first_answer() {
    let mut state = from_start();
    state.reader_joined(true);
    state.resumed(20 * MIB, only(0..10 * MIB));
    let ask = asked(&mut state);
    let told = state.answered(ask.step, Some(10 * MIB), Some(30 * MIB));
    assert!(matches!(told, Err(Mismatch::Size { .. })));
    state.close_step(ask.step);
    state.start_over();
    assert_eq!(asked(&mut state).range, None);
}
