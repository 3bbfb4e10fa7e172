//! Who may read, and how far.

use super::*;

/// A flight with all bytes there.
fn complete(size: u64) -> TestState {
    let mut state = fetching(size);
    state.landed(0..size);
    state
}

#[test]
fn a_reader_of_the_whole_is_kept_from_the_tail_until_the_digest_matches() {
    let mut state = complete(MIB);
    assert_eq!(state.readable(0, true), Readable::Upto(MIB - TAIL));
    assert_eq!(state.readable(MIB - TAIL, true), Readable::Wait);
    state.verified();
    assert_eq!(state.readable(MIB - TAIL, true), Readable::Upto(MIB));
    assert_eq!(state.readable(MIB, true), Readable::End);
}

#[test]
fn a_blob_smaller_than_the_tail_is_kept_whole() {
    assert_eq!(complete(TAIL).readable(0, true), Readable::Wait);
}

#[test]
fn a_reader_of_a_part_reads_what_has_landed() {
    let state = complete(MIB);
    assert_eq!(state.readable(MIB - 10, false), Readable::Upto(MIB));
}

#[test]
fn a_failed_flight_breaks_its_readers_of_the_whole_where_they_are() {
    let mut state = complete(MIB);
    state.failed("broke");
    assert_eq!(state.readable(0, true), Readable::Failed("broke"));
    assert_eq!(state.readable(MIB, true), Readable::Failed("broke"));
}

#[test]
fn a_reader_of_a_part_gets_what_is_there_of_a_failed_flight() {
    let mut state = fetching(MIB);
    state.landed(0..1000);
    state.failed("broke");
    assert_eq!(state.readable(0, false), Readable::Upto(1000));
    assert_eq!(state.readable(1000, false), Readable::Failed("broke"));
}

#[test]
fn nobody_reads_on_what_is_not_to_be_trusted() {
    let mut state = complete(MIB);
    state.discredited("corrupt");
    assert_eq!(state.readable(0, false), Readable::Failed("corrupt"));
    assert_eq!(state.readable(0, true), Readable::Failed("corrupt"));
}

#[test]
fn what_was_verified_cannot_fail_any_more() {
    let mut state = complete(10);
    state.verified();
    state.failed("commit failed");
    assert_eq!(state.readable(0, true), Readable::Upto(10));
}

#[test]
fn without_a_size_the_tail_is_the_last_of_what_has_come() {
    let mut state = from_start();
    let ask = asked(&mut state);
    state.answered(ask.step, None, None).unwrap();
    brings(&mut state, ask.step, MIB);
    assert_eq!(state.readable(0, true), Readable::Upto(MIB - TAIL));
    assert_eq!(state.ended(ask.step), Ok(true));
    assert_eq!(state.size(), Some(MIB));
    assert_eq!(state.plan(), Plan::Complete);
}

#[test]
fn an_unproven_client_is_admitted_by_its_own_repositorys_answer_only() {
    let mut state = from_start();
    state.add_source("b");
    let ask = asked(&mut state);
    assert_eq!(state.admission("a", false), Admission::Wait);
    // It may never be asked, so its clients cannot wait for its answer.
    assert!(!state.vouches("b"));
    state.step_failed(ask.step, "404", Remedy::None, 0.0);
    let ask = asked(&mut state);
    assert_eq!(ask.source, 1);
    state.answered(ask.step, None, Some(10)).unwrap();
    assert_eq!(state.admission("a", false), Admission::Refused("404"));
    assert_eq!(state.admission("a", true), Admission::Admitted(Some(10)));
    assert_eq!(state.admission("b", false), Admission::Admitted(Some(10)));
    assert_eq!(state.admission("c", false), Admission::Wait);
    assert!(!state.vouches("a"));
    assert!(state.vouches("b"));
    assert!(!state.vouches("c"));
}

#[test]
fn a_client_whose_source_fails_for_a_while_is_refused_once_another_has_taken_over() {
    let mut state = from_start();
    state.add_source("b");
    let ask = asked(&mut state);
    state.step_failed(ask.step, "busy", Remedy::Again(Duration::ZERO), 0.0);
    assert_eq!(state.admission("a", false), Admission::Wait);
    assert!(state.vouches("a"));
    state.go_on();
    let ask = asked(&mut state);
    state.answered(ask.step, None, Some(10)).unwrap();
    assert_eq!(state.admission("a", false), Admission::Refused("busy"));
    assert!(!state.vouches("a"));
}

#[test]
fn a_blob_without_bytes_is_verified_before_anybody_is_admitted() {
    let mut state = fetching(0);
    assert_eq!(state.admission("a", false), Admission::Wait);
    assert_eq!(state.plan(), Plan::Complete);
    state.verified();
    assert_eq!(state.admission("a", false), Admission::Admitted(Some(0)));
    assert_eq!(state.readable(0, true), Readable::End);
}

#[test]
fn with_all_bytes_there_and_nobody_asked_a_proof_decides() {
    let mut state = from_start();
    state.resumed(MIB, only(0..MIB));
    assert!(state.vouches("a"));
    assert_eq!(state.admission("a", true), Admission::Wait);
    assert!(state.settle());
    state.verified();
    assert!(!state.vouches("a"));
    assert_eq!(state.admission("a", false), Admission::Unproven);
    assert_eq!(state.admission("a", true), Admission::Admitted(Some(MIB)));
}

#[test]
fn an_abandoned_flight_goes_on_if_all_was_wanted_or_half_is_there_or_it_is_small() {
    let mut state = from_start();
    let ask = asked(&mut state);
    state.answered(ask.step, None, Some(2 * MIB)).unwrap();
    state.reader_joined(false);
    brings(&mut state, ask.step, MIB - 1);
    assert_eq!(state.reader_left(), Abandoned::Stop);

    state.reader_joined(false);
    brings(&mut state, ask.step, 1);
    assert_eq!(state.reader_left(), Abandoned::Finish);

    let mut state = fetching(MIB - 1);
    state.reader_joined(false);
    assert_eq!(state.reader_left(), Abandoned::Finish);

    let mut state = fetching(100);
    state.reader_joined(true);
    state.reader_joined(false);
    assert_eq!(state.reader_left(), Abandoned::NotYet);
    assert_eq!(state.reader_left(), Abandoned::Finish);
}

#[test]
fn a_flight_that_has_all_its_bytes_is_not_abandoned_any_more() {
    let mut state = fetching(100);
    state.reader_joined(false);
    assert!(state.settle());
    assert_eq!(state.reader_left(), Abandoned::NotYet);
    state.abandon();
    assert!(!state.is_ending());

    let mut state = fetching(100);
    state.abandon();
    assert!(!state.settle());
}
