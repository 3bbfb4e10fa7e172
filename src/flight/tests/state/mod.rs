//! The rules of a flight.

mod failing;
mod fetching;
mod random;
mod reading;

use std::ops::Range;
use std::time::Duration;

use crate::flight::ports::Remedy;
use crate::flight::state::*;

type TestState = State<&'static str, &'static str>;

const MIB: u64 = 1024 * 1024;

/// A flight that wants the blob from its start.
fn from_start() -> TestState {
    State::new("a", First::Start, 1)
}

/// Where the first answer, to a request for the whole, has told the size.
fn fetching(size: u64) -> TestState {
    let mut state = from_start();
    let ask = asked(&mut state);
    assert_eq!(ask.range, None);
    state.answered(ask.step, None, Some(size)).unwrap();
    state
}

/// The next request.
fn asked(state: &mut TestState) -> Ask {
    match state.plan() {
        Plan::Ask(ask) => ask,
        other => panic!("{other:?} instead of a request"),
    }
}

/// The next request, for a range, answered as asked.
fn answered(state: &mut TestState) -> (StepId, Range<u64>) {
    let ask = asked(state);
    let range = ask.range.expect("a request without a range");
    let size = state.size();
    let answer = state.answered(ask.step, Some(range.start), size);
    assert_eq!(answer, Ok(Answered::Wanted));
    (ask.step, range)
}

/// The bytes of a step, which are all new, and written at once.
fn brings(state: &mut TestState, step: StepId, mut len: u64) {
    while len > 0 {
        let at = state.position(step);
        match state.take(step, len) {
            Ok(Take::Keep(count)) => {
                state.landed(at..at + count);
                len -= count;
            }
            other => panic!("{other:?} at {at}"),
        }
    }
}

fn only(range: Range<u64>) -> Vec<Range<u64>> {
    std::iter::once(range).collect()
}

fn only_step(state: &TestState) -> StepId {
    let ids = state.steps();
    assert_eq!(ids.len(), 1);
    ids[0]
}

fn again() -> Remedy {
    Remedy::Again(Duration::ZERO)
}
