//! The tree against a map, step by step, with versions held meanwhile.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u8, u16),
    Put(u8, u16, u16),
    Delete(u8, u16),
    DeleteRange(u8, u16, u16),
    Commit,
    Pin,
    Unpin,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<u8>(), 0u16..600).prop_map(|(n, len)| Step::Append(n, len)),
        4 => (0u8..10, 0u16..400, prop_oneof![8 => 0u16..300, 1 => 3000u16..20_000]).prop_map(|(b, k, len)| Step::Put(b, k, len)),
        2 => (0u8..10, 0u16..400).prop_map(|(b, k)| Step::Delete(b, k)),
        1 => (0u8..10, 0u16..400, 0u16..400).prop_map(|(b, k, n)| Step::DeleteRange(b, k, n)),
        3 => Just(Step::Commit),
        1 => Just(Step::Pin),
        1 => Just(Step::Unpin),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

fn small_key(key: u16) -> Vec<u8> {
    // Some keys are long, so that branches become so as well.
    let mut bytes = key.to_be_bytes().to_vec();
    bytes.resize(2 + usize::from(key % 7) * 40, b'k');
    bytes
}

struct Tester {
    host: MemoryHost,
    volume: Volume<MemoryHost>,
    batch: Batch,
    model: Model,
    revision: u64,
    pins: Vec<(Pin<MemoryMap>, Model)>,
    committed: Model,
}

impl Tester {
    fn put(&mut self, bucket: Bucket, key: Vec<u8>, value: Vec<u8>) {
        self.batch.put(bucket, key.clone(), Bytes::from(value.clone()));
        self.model.insert((bucket, key), value);
    }

    fn delete(&mut self, bucket: Bucket, key: Vec<u8>) {
        self.batch.delete(bucket, key.clone());
        self.model.remove(&(bucket, key));
    }

    fn commit(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        commit(&self.host, &mut self.volume, &batch);
        self.volume.assert_accounted();
        self.committed = self.model.clone();
        assert_eq!(contents(self.volume.current()), self.model);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(count, len) => {
                for _ in 0..count {
                    self.revision += 1;
                    let key = crate::base::Revision::new(self.revision as i64, 0).encode().to_vec();
                    self.put(Bucket::Key, key, vec![self.revision as u8; usize::from(len)]);
                }
            }
            Step::Put(bucket, key, len) => {
                let value = vec![key as u8; usize::from(len)];
                self.put(BUCKETS[usize::from(bucket)], small_key(key), value);
            }
            Step::Delete(bucket, key) => self.delete(BUCKETS[usize::from(bucket)], small_key(key)),
            Step::DeleteRange(bucket, from, count) => {
                let bucket = BUCKETS[usize::from(bucket)];
                let keys = self.model.range((bucket, from.to_be_bytes().to_vec())..);
                let keys = keys
                    .take_while(|((present, _), _)| *present == bucket)
                    .take(usize::from(count));
                let keys: Vec<_> = keys.map(|((_, key), _)| key.clone()).collect();
                for key in keys {
                    self.delete(bucket, key);
                }
            }
            Step::Commit => self.commit(),
            Step::Pin => self.pins.push((self.volume.current().clone(), self.committed.clone())),
            Step::Unpin => {
                if !self.pins.is_empty() {
                    self.pins.remove(0);
                }
            }
            Step::Reopen => {
                self.commit();
                assert_sound(self.host.content(PATH));
                let other = MemoryHost::default();
                other.add_file(PATH, self.host.content(PATH));
                self.volume = open(&other);
                self.host = other;
                assert_eq!(contents(self.volume.current()), self.model);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn the_tree_agrees_with_a_map_and_pinned_versions_do_not_change(steps in steps()) {
        let host = MemoryHost::default();
        let volume = open(&host);
        let mut tester = Tester {
            host, volume, batch: Batch::new(), model: Model::new(), revision: 1, pins: Vec::new(), committed: Model::new(),
        };
        for step in steps {
            tester.step(step);
            for (pin, model) in &tester.pins {
                prop_assert_eq!(&contents(pin), model);
            }
        }
        tester.commit();
        prop_assert_eq!(contents_backwards(tester.volume.current()), tester.model.clone());
        for ((bucket, key), value) in &tester.model {
            prop_assert_eq!(tester.volume.current().get(*bucket, key).unwrap(), Some(&value[..]));
        }
        assert_sound(tester.host.content(PATH));
    }
}

fn cases() -> u32 {
    if std::env::var_os("RINGD_SLOW").is_some() {
        500
    } else {
        12
    }
}
