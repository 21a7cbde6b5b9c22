//! Whether a history is linearizable: whether each operation can be thought to have happened at one moment between its
//! call and its return, so that a sequential model explains all answers. The search is Wing and Gong's with Lowe's memory
//! of what was tried, on a list of calls and returns from which placed operations are lifted, as in porcupine.
//!
//! ```text
//!   calls and returns in time:   a( ── b( ── )a ── c( ── )b ── )c
//!   candidates to come next:     those called before the first return in the list: a, b
//!   place a: lift its two ends:  b( ── c( ── )b ── )c          … until no return is left, or none fits: go back
//! ```
//!
//! Knows no store and no clock: [`Model`] says what an operation does to a state, places in time are any numbers. An
//! operation whose fate nobody knows has no return: it may happen at any time after its call, or never. The search is
//! exponential at worst, so it ends undecided after so many steps, which also bound its memory.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    hash::Hash,
};

use hashbrown::HashSet;

/// What operations do to a state.
pub trait Model {
    /// A state. Equal ones are equal in every future.
    type State: Clone + Eq + Hash;
    /// An operation together with its answer, if there was one.
    type Operation;

    /// The state that a history begins with.
    fn start(&self) -> Self::State;

    /// The state after an operation, or `None` if it cannot have given that answer here.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Whether an operation with that answer changes no state, ever. It can then as well stand where it first fits, and
    /// the search tries it nowhere else.
    fn is_read(&self, _operation: &Self::Operation) -> bool {
        false
    }

    /// What never becomes less from one state to the next, if there is such a thing, as a revision.
    fn rank(&self, _state: &Self::State) -> u64 {
        0
    }

    /// The highest rank that the state behind an operation with that answer can have. No state of a higher one comes before
    /// it: the search sees at once what it would else see when the operation returns.
    fn rank_max(&self, _operation: &Self::Operation) -> u64 {
        u64::MAX
    }

    /// Whether two operations that never returned do the same to every state. Of such only the earliest that has no place
    /// is tried.
    fn is_same(&self, _left: &Self::Operation, _right: &Self::Operation) -> bool {
        false
    }
}

/// An operation and when it was under way.
#[derive(Clone, Debug)]
pub struct Span<O> {
    /// When it was called.
    pub invoked: u64,
    /// When it returned; an operation called at the same place counts as concurrent. `None`: nobody knows whether it
    /// happened, or will.
    pub returned: Option<u64>,
    /// What it was.
    pub operation: O,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order: operations by their places in the history.
    Linearizable(Vec<usize>),
    /// There is none.
    Impossible {
        /// The longest order that explains a beginning.
        placed: Vec<usize>,
        /// The operation that returned and found no place in it.
        stuck: usize,
    },
    /// The steps were used up.
    Undecided,
}

/// Looks for an order. `steps_max` bounds applications of the model, and thereby time and memory.
pub fn linearize<M: Model>(model: &M, history: &[Span<M::Operation>], steps_max: u64) -> Verdict {
    Search::new(model, history).run(steps_max)
}

/// An end of the list, and its sentinel.
const NONE: usize = usize::MAX;

#[derive(Clone, Copy)]
struct Node {
    operation: usize,
    is_return: bool,
    before: usize,
    after: usize,
}

/// Calls and returns in the order of time. Node `2 * n` is the call of operation `n`, `2 * n + 1` its return.
struct Ends {
    nodes: Vec<Node>,
    first: usize,
}

impl Ends {
    fn new<O>(history: &[Span<O>]) -> Ends {
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (operation, span) in history.iter().enumerate() {
            order.push((span.invoked, false, operation));
            if let Some(returned) = span.returned {
                assert!(
                    returned >= span.invoked,
                    "operation {operation} returned before it was called"
                );
                order.push((returned, true, operation));
            }
        }
        order.sort_unstable();
        let empty = Node {
            operation: NONE,
            is_return: false,
            before: NONE,
            after: NONE,
        };
        let mut ends = Ends {
            nodes: vec![empty; 2 * history.len()],
            first: NONE,
        };
        let mut last = NONE;
        for (_, is_return, operation) in order {
            let place = 2 * operation + usize::from(is_return);
            ends.nodes[place] = Node {
                operation,
                is_return,
                before: last,
                after: NONE,
            };
            match last {
                NONE => ends.first = place,
                last => ends.nodes[last].after = place,
            }
            last = place;
        }
        ends
    }

    fn unlink(&mut self, place: usize) {
        let Node { before, after, .. } = self.nodes[place];
        match before {
            NONE => self.first = after,
            before => self.nodes[before].after = after,
        }
        if after != NONE {
            self.nodes[after].before = before;
        }
    }

    /// Undoes the last `unlink` that was not undone.
    fn link(&mut self, place: usize) {
        let Node { before, after, .. } = self.nodes[place];
        match before {
            NONE => self.first = place,
            before => self.nodes[before].after = place,
        }
        if after != NONE {
            self.nodes[after].before = place;
        }
    }
}

/// See [`Search::twins`].
fn twins<M: Model>(model: &M, history: &[Span<M::Operation>]) -> Vec<Option<usize>> {
    let mut open: Vec<usize> = (0..history.len())
        .filter(|operation| history[*operation].returned.is_none())
        .collect();
    open.sort_by_key(|operation| (history[*operation].invoked, *operation));
    let mut twins = vec![None; history.len()];
    for (place, &operation) in open.iter().enumerate() {
        let is_twin = |other: &&usize| model.is_same(&history[**other].operation, &history[operation].operation);
        twins[operation] = open[..place].iter().rev().find(is_twin).copied();
    }
    twins
}

/// Which operations have been placed.
type Placed = Box<[u64]>;

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Span<M::Operation>],
    ends: Ends,
    placed: Placed,
    state: M::State,
    /// Operations in the order so far, each with the state before it.
    order: Vec<(usize, M::State)>,
    returns_left: usize,
    tried: HashSet<(Placed, M::State), foldhash::fast::FixedState>,
    longest: Vec<usize>,
    stuck: usize,
    /// For an operation that never returned: the last one before it of the same kind that does the same, which may stand
    /// wherever this one may, so that this one need be tried only behind it.
    twins: Vec<Option<usize>>,
    /// The highest ranks of those that have returned and have no place, each with their number.
    ranks_left: BTreeMap<u64, usize>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Span<M::Operation>]) -> Search<'a, M> {
        let mut ranks_left = BTreeMap::new();
        for span in history.iter().filter(|span| span.returned.is_some()) {
            *ranks_left.entry(model.rank_max(&span.operation)).or_default() += 1;
        }
        Search {
            model,
            history,
            ends: Ends::new(history),
            placed: vec![0; history.len().div_ceil(64)].into(),
            state: model.start(),
            order: Vec::new(),
            returns_left: history.iter().filter(|span| span.returned.is_some()).count(),
            tried: HashSet::default(),
            longest: Vec::new(),
            stuck: NONE,
            twins: twins(model, history),
            ranks_left,
        }
    }

    fn run(mut self, steps_max: u64) -> Verdict {
        let mut steps = 0;
        let mut place = self.ends.first;
        while self.returns_left > 0 {
            let node = self.ends.nodes[place];
            if !node.is_return {
                steps += 1;
                if steps > steps_max {
                    return Verdict::Undecided;
                }
                place = match self.try_next(node.operation) {
                    true => self.ends.first,
                    false => node.after,
                };
                continue;
            }
            // What has returned here can have no later place, and none of the candidates fits.
            if self.stuck == NONE || self.order.len() > self.longest.len() {
                self.longest = self.order.iter().map(|(operation, _)| *operation).collect();
                self.stuck = node.operation;
            }
            let Some(operation) = self.go_back() else {
                return Verdict::Impossible {
                    placed: self.longest,
                    stuck: self.stuck,
                };
            };
            place = self.ends.nodes[2 * operation].after;
        }
        Verdict::Linearizable(self.order.into_iter().map(|(operation, _)| operation).collect())
    }

    fn try_next(&mut self, operation: usize) -> bool {
        let span = &self.history[operation];
        if self.twins[operation].is_some_and(|twin| !self.is_placed(twin)) {
            return false;
        }
        let Some(state) = self.model.step(&self.state, &span.operation) else {
            return false;
        };
        // What need not have happened and changes nothing is never worth a place.
        if span.returned.is_none() && state == self.state {
            return false;
        }
        let lowest = self.ranks_left.first_key_value();
        if lowest.is_some_and(|(lowest, _)| self.model.rank(&state) > *lowest) {
            return false;
        }
        self.placed[operation / 64] |= 1 << (operation % 64);
        if !self.tried.insert((self.placed.clone(), state.clone())) {
            self.placed[operation / 64] &= !(1 << (operation % 64));
            return false;
        }
        self.order.push((operation, std::mem::replace(&mut self.state, state)));
        self.ends.unlink(2 * operation);
        if span.returned.is_some() {
            self.ends.unlink(2 * operation + 1);
            self.returns_left -= 1;
            self.take_rank(operation);
        }
        true
    }

    fn take_rank(&mut self, operation: usize) {
        let rank = self.model.rank_max(&self.history[operation].operation);
        if let Entry::Occupied(mut left) = self.ranks_left.entry(rank) {
            *left.get_mut() -= 1;
            if *left.get() == 0 {
                left.remove();
            }
        }
    }

    fn is_placed(&self, operation: usize) -> bool {
        self.placed[operation / 64] & 1 << (operation % 64) != 0
    }

    /// Takes the last operations out of the order, up to one that may stand elsewhere: that one.
    fn go_back(&mut self) -> Option<usize> {
        loop {
            let (operation, before) = self.order.pop()?;
            self.state = before;
            self.placed[operation / 64] &= !(1 << (operation % 64));
            if self.history[operation].returned.is_some() {
                self.ends.link(2 * operation + 1);
                self.returns_left += 1;
                let rank = self.model.rank_max(&self.history[operation].operation);
                *self.ranks_left.entry(rank).or_default() += 1;
            }
            self.ends.link(2 * operation);
            if !self.model.is_read(&self.history[operation].operation) {
                return Some(operation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A register of small numbers.
    struct Register;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Call {
        Write(u8),
        Read(u8),
        /// Writes the second if it finds the first, and says whether.
        Swap(u8, u8, Option<bool>),
    }

    impl Model for Register {
        type State = u8;
        type Operation = Call;

        fn start(&self) -> u8 {
            0
        }

        fn step(&self, state: &u8, call: &Call) -> Option<u8> {
            match *call {
                Call::Write(value) => Some(value),
                Call::Read(value) => (value == *state).then_some(*state),
                Call::Swap(from, to, told) => {
                    let is_done = *state == from;
                    let fits = told.is_none_or(|told| told == is_done);
                    fits.then_some(if is_done { to } else { *state })
                }
            }
        }

        fn is_read(&self, call: &Call) -> bool {
            matches!(call, Call::Read(_) | Call::Swap(_, _, Some(false)))
        }

        fn is_same(&self, left: &Call, right: &Call) -> bool {
            left == right
        }
    }

    fn span(invoked: u64, returned: impl Into<Option<u64>>, operation: Call) -> Span<Call> {
        Span {
            invoked,
            returned: returned.into(),
            operation,
        }
    }

    fn is_linearizable(history: &[Span<Call>]) -> bool {
        match linearize(&Register, history, 1_000_000) {
            Verdict::Linearizable(order) => {
                explain(history, &order);
                true
            }
            Verdict::Impossible { .. } => false,
            Verdict::Undecided => panic!("few operations are decided"),
        }
    }

    /// An order that was found keeps to time and to the model, and leaves out only what nobody knows of.
    fn explain(history: &[Span<Call>], order: &[usize]) {
        let mut state = 0;
        for (place, &operation) in order.iter().enumerate() {
            state = Register.step(&state, &history[operation].operation).expect("it fits");
            for &later in &order[place + 1..] {
                let returned = history[later].returned.unwrap_or(u64::MAX);
                assert!(
                    returned >= history[operation].invoked,
                    "{later} came before {operation}"
                );
            }
        }
        for (operation, span) in history.iter().enumerate() {
            assert!(span.returned.is_none() || order.contains(&operation));
        }
    }

    #[test]
    fn histories_known_to_be_good_are_accepted() {
        assert!(is_linearizable(&[]));
        let overlapping = [
            span(0, 10, Call::Write(1)),
            span(1, 3, Call::Read(0)),
            span(4, 6, Call::Read(1)),
            span(11, 12, Call::Read(1)),
        ];
        assert!(is_linearizable(&overlapping));
        let unknown_happened_late = [
            span(0, None, Call::Write(7)),
            span(1, 2, Call::Read(0)),
            span(3, 4, Call::Write(2)),
            span(5, 6, Call::Read(7)),
        ];
        assert!(is_linearizable(&unknown_happened_late));
        let unknown_never_happened = [span(0, None, Call::Swap(0, 1, None)), span(5, 6, Call::Read(0))];
        assert!(is_linearizable(&unknown_never_happened));
        let swaps = [
            span(0, 9, Call::Swap(1, 2, Some(true))),
            span(0, 9, Call::Swap(0, 1, Some(true))),
            span(0, 9, Call::Swap(5, 6, Some(false))),
        ];
        assert!(is_linearizable(&swaps));
    }

    #[test]
    fn histories_known_to_be_bad_are_refused() {
        let stale = [span(0, 1, Call::Write(1)), span(2, 3, Call::Read(0))];
        let verdict = linearize(&Register, &stale, 100);
        let expected = Verdict::Impossible {
            placed: vec![0],
            stuck: 1,
        };
        assert_eq!(verdict, expected);
        let there_and_gone = [
            span(0, 100, Call::Write(1)),
            span(1, 2, Call::Read(1)),
            span(3, 4, Call::Read(0)),
        ];
        assert!(!is_linearizable(&there_and_gone));
        let happened_twice = [
            span(0, None, Call::Write(1)),
            span(1, 2, Call::Read(1)),
            span(3, 4, Call::Write(0)),
            span(5, 6, Call::Read(1)),
        ];
        assert!(!is_linearizable(&happened_twice));
        let before_it_was_called = [span(0, 1, Call::Read(3)), span(2, None, Call::Write(3))];
        assert!(!is_linearizable(&before_it_was_called));
        let both_won = [
            span(0, 9, Call::Swap(0, 1, Some(true))),
            span(0, 9, Call::Swap(0, 2, Some(true))),
        ];
        assert!(!is_linearizable(&both_won));
    }

    #[test]
    fn a_search_ends_when_its_steps_are_used_up() {
        // Reads of what nobody wrote: every order of the writes is to be tried.
        let mut history: Vec<_> = (0..40).map(|value| span(0, 100, Call::Write(value + 1))).collect();
        history.push(span(0, 100, Call::Read(99)));
        assert_eq!(linearize(&Register, &history, 10_000), Verdict::Undecided);
    }

    /// Tries every order.
    fn is_linearizable_by_force(history: &[Span<Call>], placed: &mut Vec<usize>, state: u8) -> bool {
        let is_left = |operation: &usize| !placed.contains(operation);
        let left: Vec<usize> = (0..history.len()).filter(is_left).collect();
        if left.iter().all(|&operation| history[operation].returned.is_none()) {
            return true;
        }
        let first_return = left.iter().filter_map(|&operation| history[operation].returned).min();
        for operation in left {
            if history[operation].invoked > first_return.expect("one is left") {
                continue;
            }
            if let Some(after) = Register.step(&state, &history[operation].operation) {
                placed.push(operation);
                let is_found = is_linearizable_by_force(history, placed, after);
                placed.pop();
                if is_found {
                    return true;
                }
            }
        }
        false
    }

    fn call() -> impl Strategy<Value = Call> {
        prop_oneof![
            (0..3u8).prop_map(Call::Write),
            (0..3u8).prop_map(Call::Read),
            (0..3u8, 0..3u8, prop::option::of(any::<bool>())).prop_map(|(from, to, told)| Call::Swap(from, to, told)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_search_agrees_with_trying_every_order(
            calls in prop::collection::vec((0..12u64, prop::option::weighted(0.8, 0..8u64), call()), 0..7)
        ) {
            let history: Vec<_> = calls
                .into_iter()
                .map(|(invoked, length, call)| span(invoked, length.map(|length| invoked + length), call))
                .collect();
            let expected = is_linearizable_by_force(&history, &mut Vec::new(), 0);
            prop_assert_eq!(is_linearizable(&history), expected);
        }

        /// Ranks only make it shorter.
        #[test]
        fn ranks_change_no_verdict(
            calls in prop::collection::vec((0..20u64, prop::option::weighted(0.8, 0..12u64), any::<bool>(), 0..5u64), 0..9)
        ) {
            let history: Vec<_> = calls
                .into_iter()
                .map(|(invoked, length, is_step, told)| Span {
                    invoked,
                    returned: length.map(|length| invoked + length),
                    operation: (is_step, length.map(|_| told)),
                })
                .collect();
            let is_possible = |has_ranks| matches!(
                linearize(&Counter { has_ranks }, &history, 1_000_000),
                Verdict::Linearizable(_)
            );
            prop_assert_eq!(is_possible(true), is_possible(false));
        }
    }

    /// A number that is asked for or raised by one; who is answered is told it.
    struct Counter {
        has_ranks: bool,
    }

    impl Model for Counter {
        type State = u64;
        type Operation = (bool, Option<u64>);

        fn start(&self) -> u64 {
            0
        }

        fn step(&self, state: &u64, (is_step, told): &(bool, Option<u64>)) -> Option<u64> {
            let next = state + u64::from(*is_step);
            told.is_none_or(|told| told == next).then_some(next)
        }

        fn rank(&self, state: &u64) -> u64 {
            if self.has_ranks { *state } else { 0 }
        }

        fn rank_max(&self, (_, told): &(bool, Option<u64>)) -> u64 {
            told.filter(|_| self.has_ranks).unwrap_or(u64::MAX)
        }
    }
}
