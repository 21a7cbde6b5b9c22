//! The index against a map from keys to lists of changes, with enough keys for several levels.

use std::{collections::BTreeMap, ops::ControlFlow};

use proptest::prelude::*;

use super::*;

/// A key's changes: the revision, and whether it is a put.
type Changes = Vec<(i64, bool)>;

#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Changes>,
}

impl Model {
    fn at(&self, key: &[u8], main: i64) -> Option<KeyState> {
        let mut state = None;
        for &(revision, is_put) in self.keys.get(key)? {
            if revision <= main {
                let before: Option<KeyState> = state;
                state = is_put.then_some(KeyState {
                    modified: Revision::new(revision, 0),
                    create_revision: before.map_or(revision, |before| before.create_revision),
                    version: before.map_or(0, |before| before.version) + 1,
                });
            }
        }
        state
    }

    fn count(&self, span: Span<'_>, main: i64) -> u64 {
        let keys = self.keys.keys().filter(|key| span.contains(key));
        keys.filter(|key| self.at(key, main).is_some()).count() as u64
    }
}

/// What happens to a random walk through the index.
struct Subject {
    index: Index,
    model: Model,
    main: i64,
    compacted: i64,
}

/// A generator that needs no entropy from outside.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Keys of several lengths with long common prefixes, some empty at the end, some with zero bytes.
fn key(number: u64) -> Vec<u8> {
    match number % 4 {
        0 => format!("/registry/pods/{:05}", number / 4).into_bytes(),
        1 => (number as u32).to_be_bytes().to_vec(),
        2 => vec![b'x'; (number % 300) as usize + 1],
        _ => [format!("k{number}").as_bytes(), &[0; 3][..(number % 4) as usize]].concat(),
    }
}

impl Subject {
    fn change(&mut self, number: u64, is_put: bool) {
        let key = key(number);
        let before = self.model.at(&key, self.main);
        if !is_put && before.is_none() {
            return;
        }
        self.main += 1;
        let revision = Revision::new(self.main, 0);
        match is_put {
            true => assert_eq!(self.index.put(&key, revision), before),
            false => self.index.tombstone(&key, revision),
        }
        self.model.keys.entry(key).or_default().push((self.main, is_put));
    }

    fn check(&self, random: &mut Lcg, keys: u64) {
        for _ in 0..4 {
            let (from, to) = (key(random.below(keys)), key(random.below(keys)));
            for span in [
                Span::from_request(&from, &to),
                Span::from_request(&from, b"\0"),
                Span::key(&from),
            ] {
                assert_eq!(self.index.count_live(span), self.model.count(span, self.main));
                let mut seen = 0;
                let at = self.main - random.below((self.main - self.compacted + 1) as u64) as i64;
                self.index.walk(span, span.start, |key, view| {
                    assert!(span.contains(key));
                    seen += u64::from(view.at(at).is_some());
                    assert_eq!(view.at(at), self.model.at(key, at));
                    ControlFlow::Continue(())
                });
                assert_eq!(seen, self.model.count(span, at));
            }
        }
    }

    /// Compacts in slices, with changes between them.
    fn compact(&mut self, random: &mut Lcg, keys: u64) {
        let target = self.compacted + random.below((self.main - self.compacted + 1) as u64) as i64;
        let expected: Vec<Revision> = self
            .model
            .keys
            .iter()
            .filter_map(|(key, changes)| {
                let tombstone = changes.contains(&(target, false)).then_some(Revision::new(target, 0));
                self.model.at(key, target).map(|state| state.modified).or(tombstone)
            })
            .collect();
        self.compacted = target;
        let (mut cursor, mut kept) = (Cursor::Start, Vec::new());
        while cursor != Cursor::End {
            self.index.compact_slice(target, &mut cursor, 100, &mut kept);
            self.index.verify();
            for _ in 0..random.below(20) {
                self.change(random.below(keys), random.below(3) > 0);
            }
        }
        assert_eq!(kept, expected);
        let known = |changes: &Changes| {
            let (main, is_put) = changes[changes.len() - 1];
            is_put || main >= target
        };
        let keys = self.model.keys.values().filter(|changes| known(changes)).count();
        assert_eq!(self.index.keys(), keys as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 16, ..ProptestConfig::default() })]

    #[test]
    fn index_does_what_a_map_of_lists_does(seed: u64, keys in 1..4000u64, puts_of_ten in 3..10u64) {
        let mut random = Lcg(seed);
        let mut subject = Subject { index: Index::new(), model: Model::default(), main: 1, compacted: 1 };
        for round in 0..6 {
            for step in 0..keys {
                let number = if round == 0 { step } else { random.below(keys) };
                subject.change(number, random.below(10) < puts_of_ten);
            }
            subject.index.verify();
            subject.check(&mut random, keys);
            subject.compact(&mut random, keys);
            subject.check(&mut random, keys);
        }
    }
}

#[test]
fn index_shrinks_to_nothing_when_all_is_deleted_and_compacted() {
    let mut index = Index::new();
    let (mut main, mut kept) = (1, Vec::new());
    for number in 0..50_000u64 {
        main += 1;
        index.put(&key(number), Revision::new(main, 0));
    }
    assert!(matches!(index.root, Node::Inner(_)));
    for (key, _) in index.live_in(Span::all()) {
        main += 1;
        index.tombstone(&key, Revision::new(main, 0));
    }
    assert_eq!((index.live_keys(), index.count_live(Span::all())), (0, 0));
    let mut cursor = Cursor::Start;
    while cursor != Cursor::End {
        index.compact_slice(main + 1, &mut cursor, 1, &mut kept);
    }
    assert_eq!(index.keys(), 0);
    assert!(matches!(index.root, Node::Leaf(_)) && kept.is_empty());
    index.verify();
}
