//! Whatever happens, in whatever order: no byte is asked for that is there or on its way, and everybody gets what they want.

use proptest::prelude::*;

use super::*;

/// Something that happens to a flight. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Happening {
    /// The head of an answer comes.
    Head(usize),
    /// So many bytes of a body come.
    Bytes(usize, u64),
    /// A connection breaks.
    Break(usize),
    /// A body ends early, as if that were right.
    EndEarly(usize),
    /// A client wants a part.
    Part(u64, u64),
    /// A client reads on.
    Read(usize, u64),
    /// A client leaves.
    Leave(usize),
    /// A client wants it all.
    Whole,
    /// The wait after a failure is over.
    GoOn,
}

fn happening() -> impl Strategy<Value = Happening> {
    let number = 0..16_usize;
    prop_oneof![
        4 => number.clone().prop_map(Happening::Head),
        6 => (number.clone(), 1..3 * MIB).prop_map(|(step, len)| Happening::Bytes(step, len)),
        1 => number.clone().prop_map(Happening::Break),
        1 => number.clone().prop_map(Happening::EndEarly),
        3 => (0..SIZE, 1..20 * MIB).prop_map(|(start, len)| Happening::Part(start, len)),
        3 => (number.clone(), 1..4 * MIB).prop_map(|(reader, len)| Happening::Read(reader, len)),
        1 => number.prop_map(Happening::Leave),
        1 => Just(Happening::Whole),
        1 => Just(Happening::GoOn),
    ]
}

const SIZE: u64 = 60 * MIB + 12_345;

struct Request {
    ask: Ask,
    answered: bool,
    /// Where the body ends.
    end: u64,
}

struct Client {
    id: ReaderId,
    position: u64,
    end: u64,
}

/// A flight, its upstream and its clients.
struct World {
    state: TestState,
    takes_ranges: bool,
    requests: Vec<Request>,
    clients: Vec<Client>,
    kept: u64,
    skipped: u64,
}

impl World {
    fn new(first: First, parallel: usize, takes_ranges: bool) -> Self {
        Self {
            state: State::new("a", first, parallel),
            takes_ranges,
            requests: Vec::new(),
            clients: Vec::new(),
            kept: 0,
            skipped: 0,
        }
    }

    /// Makes all requests that are due, and checks that none asks for what is there or on its way.
    fn plan(&mut self) -> Plan {
        loop {
            match self.state.plan() {
                Plan::Ask(ask) => {
                    if let Some(range) = &ask.range {
                        assert!(range.start < range.end && range.end <= SIZE, "{range:?}");
                        assert!(range.end - range.start <= STEP, "{range:?}");
                        if self.takes_ranges {
                            self.assert_new(range);
                        }
                    }
                    assert!(self.requests.len() < MAX_STEPS);
                    let end = ask.range.as_ref().map_or(SIZE, |range| range.end);
                    self.requests.push(Request {
                        ask,
                        answered: false,
                        end,
                    });
                }
                other => return other,
            }
        }
    }

    fn assert_new(&self, range: &Range<u64>) {
        let there = self.state.arrived();
        assert_eq!(
            there.run_from(range.start),
            range.start,
            "{range:?} is there"
        );
        let next = there.next_start(range.start);
        assert!(
            next.is_none_or(|next| next >= range.end),
            "{range:?} is there"
        );
        for request in &self.requests {
            if request.ask.range.is_some() {
                let at = self.state.position(request.ask.step);
                let is_apart = range.end <= at || range.start >= request.end || at >= request.end;
                assert!(is_apart, "{range:?} is on its way");
            }
        }
    }

    fn happens(&mut self, what: &Happening) {
        match *what {
            Happening::Head(number) => self.head(number),
            Happening::Bytes(number, len) => self.bytes(number, len),
            Happening::Break(number) => self.breaks(number),
            Happening::EndEarly(number) => {
                if let Some(index) = index(number, &self.requests)
                    && self.requests[index].answered
                    && self.requests[index].ask.range.is_some()
                {
                    self.ends(index);
                }
            }
            Happening::Part(start, len) => {
                let end = (start + len).min(SIZE);
                let id = self.state.reader_wants(start..end);
                let position = start;
                self.state.reader_joined(false);
                self.clients.push(Client { id, position, end });
            }
            Happening::Read(number, len) => {
                if let Some(index) = index(number, &self.clients) {
                    self.reads(index, len);
                }
            }
            Happening::Leave(number) => {
                if let Some(index) = index(number, &self.clients) {
                    self.state.reader_done(self.clients[index].id);
                    self.clients.remove(index);
                }
            }
            Happening::Whole => self.state.reader_joined(true),
            Happening::GoOn => self.state.go_on(),
        }
    }

    fn head(&mut self, number: usize) {
        let waiting = self.requests.iter().filter(|r| !r.answered).count();
        let nth = number.checked_rem(waiting);
        let unanswered = self.requests.iter_mut().enumerate();
        let request = nth.and_then(|nth| unanswered.filter(|(_, r)| !r.answered).nth(nth));
        let Some((index, request)) = request else {
            return;
        };
        request.answered = true;
        let range = request.ask.range.as_ref();
        let part = range.filter(|_| self.takes_ranges).map(|range| range.start);
        if part.is_none() {
            request.end = SIZE;
        }
        let answer = self.state.answered(request.ask.step, part, Some(SIZE));
        if answer == Ok(Answered::Redundant) {
            self.requests.remove(index);
        }
    }

    fn bytes(&mut self, number: usize, mut len: u64) {
        let Some(index) = index(number, &self.requests) else {
            return;
        };
        let (step, end) = (self.requests[index].ask.step, self.requests[index].end);
        if !self.requests[index].answered {
            return;
        }
        len = len.min(end - self.state.position(step));
        while len > 0 {
            let at = self.state.position(step);
            match self.state.take(step, len).unwrap() {
                Take::Keep(count) => {
                    assert_eq!(self.state.landed(at..at + count), count, "kept twice");
                    self.kept += count;
                    len -= count;
                }
                Take::Skip(count) => {
                    assert!(!self.takes_ranges || count == 0);
                    self.skipped += count;
                    len -= count;
                }
                Take::Wait => return,
                Take::Stop => {
                    self.state.close_step(step);
                    self.requests.remove(index);
                    return;
                }
            }
        }
        if self.state.position(step) == end {
            self.ends(index);
        }
    }

    fn ends(&mut self, index: usize) {
        let step = self.requests.remove(index).ask.step;
        if !self.state.ended(step).unwrap() {
            let again = Remedy::Again(Duration::ZERO);
            self.state.step_failed(step, "short", again, 0.5);
        }
    }

    fn breaks(&mut self, number: usize) {
        if let Some(index) = index(number, &self.requests) {
            let step = self.requests.remove(index).ask.step;
            let again = Remedy::Again(Duration::ZERO);
            self.state.step_failed(step, "broke", again, 0.5);
        }
    }

    fn reads(&mut self, index: usize, len: u64) {
        let client = &mut self.clients[index];
        if let Readable::Upto(limit) = self.state.readable(client.position, false) {
            client.position = limit.min(client.position + len).min(client.end);
        }
        self.state.reader_at(client.id, client.position);
        if client.position == client.end {
            self.state.reader_done(client.id);
            self.clients.remove(index);
        }
    }

    /// From here on nothing goes wrong.
    fn finish(&mut self) -> Plan {
        for _ in 0..10_000 {
            self.state.go_on();
            let plan = self.plan();
            if plan == Plan::Complete || plan == Plan::GiveUp {
                return plan;
            }
            let before = (self.requests.len(), self.kept, self.skipped);
            for number in 0..MAX_STEPS {
                self.head(number);
                self.bytes(number, MIB);
            }
            for number in (0..self.clients.len()).rev() {
                self.reads(number, MIB);
            }
            if before == (self.requests.len(), self.kept, self.skipped) && self.clients.is_empty() {
                return plan;
            }
        }
        panic!("it does not come to an end");
    }
}

/// The `number`th, counted round and round.
fn index<T>(number: usize, of: &[T]) -> Option<usize> {
    number.checked_rem(of.len())
}

fn first() -> impl Strategy<Value = First> {
    prop_oneof![
        Just(First::Start),
        (0..SIZE - MIB, 1..MIB).prop_map(|(start, len)| First::Part(start..start + len)),
    ]
}

proptest! {
    #[test]
    fn no_byte_is_asked_for_twice_and_everybody_gets_what_they_want(
        first in first(),
        parallel in 1..5_usize,
        happenings in prop::collection::vec(happening(), 0..120),
        whole in any::<bool>(),
    ) {
        let mut world = World::new(first, parallel, true);
        for what in &happenings {
            world.plan();
            world.happens(what);
        }
        if whole {
            world.state.reader_joined(true);
        }
        let plan = world.finish();
        if plan == Plan::GiveUp {
            // As it should after many failures on end.
            prop_assert!(happenings.iter().any(|what| matches!(what, Happening::Break(_) | Happening::EndEarly(_))));
        } else {
            prop_assert!(plan == Plan::Complete || world.clients.is_empty());
            prop_assert!(!whole || plan == Plan::Complete);
        }
        prop_assert!(world.kept <= SIZE);
    }

    #[test]
    fn without_ranges_everybody_still_gets_what_they_want(
        first in first(),
        parallel in 1..5_usize,
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let mut world = World::new(first, parallel, false);
        for what in &happenings {
            world.plan();
            world.happens(what);
        }
        world.state.reader_joined(true);
        prop_assert_ne!(world.finish(), Plan::Wait);
    }
}
