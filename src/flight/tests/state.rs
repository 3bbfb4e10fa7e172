//! The rules of a flight.

use crate::flight::state::*;

type TestState = State<&'static str, &'static str>;

const MIB: u64 = 1024 * 1024;

fn fetching(size: u64) -> TestState {
    let mut state = State::new("a");
    assert_eq!(state.next_step(), Step::Ask(0, None));
    state.answered(0, Some(size)).unwrap();
    state
}

#[test]
fn the_first_request_asks_for_the_whole_without_a_range() {
    let mut state = TestState::new("a");
    assert_eq!(state.next_step(), Step::Ask(0, None));
}

#[test]
fn a_source_that_broke_off_is_followed_by_the_next_from_the_first_missing_byte() {
    let mut state = fetching(MIB);
    state.add_source("b");
    state.landed(0..1000);
    state.source_failed(0, "broke");
    assert_eq!(state.next_step(), Step::Ask(1, Some(1000..MIB)));
}

#[test]
fn the_flight_gives_up_only_when_every_source_has_failed_and_names_the_one_that_broke() {
    let mut state = TestState::new("a");
    state.add_source("b");
    assert_eq!(state.next_step(), Step::Ask(0, None));
    state.source_failed(0, "404");
    assert_eq!(state.next_step(), Step::Ask(1, None));
    state.answered(1, Some(10)).unwrap();
    state.source_failed(1, "broke");
    assert_eq!(state.next_step(), Step::GiveUp(1));
    assert_eq!(state.failure_of(1), Some("broke"));
}

#[test]
fn a_source_is_added_once() {
    let mut state = TestState::new("a");
    assert!(!state.add_source("a"));
    assert!(state.add_source("b"));
}

#[test]
fn a_reader_of_the_whole_is_kept_from_the_tail_until_the_digest_matches() {
    let mut state = fetching(MIB);
    state.landed(0..MIB);
    assert_eq!(state.readable(0, true), Readable::Upto(MIB - TAIL));
    assert_eq!(state.readable(MIB - TAIL, true), Readable::Wait);
    assert_eq!(state.next_step(), Step::Verify);
    state.verified();
    assert_eq!(state.readable(MIB - TAIL, true), Readable::Upto(MIB));
    assert_eq!(state.readable(MIB, true), Readable::End);
}

#[test]
fn a_blob_smaller_than_the_tail_is_kept_whole() {
    let mut state = fetching(TAIL);
    state.landed(0..TAIL);
    assert_eq!(state.readable(0, true), Readable::Wait);
}

#[test]
fn a_reader_of_a_part_reads_what_has_landed() {
    let mut state = fetching(MIB);
    state.landed(0..MIB);
    assert_eq!(state.readable(MIB - 10, false), Readable::Upto(MIB));
}

#[test]
fn a_failed_flight_breaks_its_readers_where_they_are() {
    let mut state = fetching(MIB);
    state.landed(0..MIB);
    state.failed("corrupt");
    assert_eq!(state.readable(0, true), Readable::Failed("corrupt"));
    assert_eq!(state.readable(MIB, true), Readable::Failed("corrupt"));
}

#[test]
fn what_was_verified_cannot_fail_any_more() {
    let mut state = fetching(10);
    state.landed(0..10);
    state.verified();
    state.failed("commit failed");
    assert_eq!(state.readable(0, true), Readable::Upto(10));
}

#[test]
fn without_an_announced_size_the_end_of_the_body_is_the_size() {
    let mut state = TestState::new("a");
    assert_eq!(state.next_step(), Step::Ask(0, None));
    state.answered(0, None).unwrap();
    state.landed(0..MIB);
    assert_eq!(state.readable(0, true), Readable::Upto(MIB - TAIL));
    state.ended(MIB).unwrap();
    assert_eq!(state.size(), Some(MIB));
    assert_eq!(state.next_step(), Step::Verify);
}

#[test]
fn bodies_that_are_too_long_or_too_short_do_not_fit() {
    let mut state = fetching(10);
    assert_eq!(state.fits(&(5..11)), Err(Mismatch::TooLong(10)));
    state.landed(0..9);
    assert_eq!(
        state.ended(9),
        Err(Mismatch::TooShort { came: 9, size: 10 })
    );
    assert_eq!(
        state.answered(0, Some(11)),
        Err(Mismatch::Size {
            known: 10,
            told: 11
        })
    );
}

#[test]
fn an_unproven_client_is_admitted_by_its_own_repositorys_answer_only() {
    let mut state = TestState::new("a");
    state.add_source("b");
    assert_eq!(state.next_step(), Step::Ask(0, None));
    assert_eq!(state.admission("a", false), Admission::Wait);
    // It may never be asked, so its clients cannot wait for its answer.
    assert!(!state.vouches("b"));
    state.source_failed(0, "404");
    assert_eq!(state.next_step(), Step::Ask(1, None));
    state.answered(1, Some(10)).unwrap();
    assert_eq!(state.admission("a", false), Admission::Refused("404"));
    assert_eq!(state.admission("a", true), Admission::Admitted(Some(10)));
    assert_eq!(state.admission("b", false), Admission::Admitted(Some(10)));
    assert_eq!(state.admission("c", false), Admission::Wait);
    assert!(!state.vouches("a"));
    assert!(state.vouches("b"));
    assert!(!state.vouches("c"));
}

#[test]
fn a_blob_without_bytes_is_verified_before_anybody_is_admitted() {
    let mut state = fetching(0);
    assert_eq!(state.admission("a", false), Admission::Wait);
    assert_eq!(state.next_step(), Step::Verify);
    state.verified();
    assert_eq!(state.admission("a", false), Admission::Admitted(Some(0)));
    assert_eq!(state.readable(0, true), Readable::End);
}

#[test]
fn an_abandoned_flight_goes_on_if_all_was_wanted_or_half_is_there() {
    let mut state = fetching(100);
    state.reader_joined(false);
    state.landed(0..49);
    assert_eq!(state.reader_left(), Abandoned::Stop);

    state.reader_joined(false);
    state.landed(49..50);
    assert_eq!(state.reader_left(), Abandoned::Finish);

    let mut state = fetching(100);
    state.reader_joined(true);
    state.reader_joined(false);
    assert_eq!(state.reader_left(), Abandoned::NotYet);
    assert_eq!(state.reader_left(), Abandoned::Finish);
}
