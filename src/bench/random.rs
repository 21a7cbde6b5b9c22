//! What is drawn: keys, lengths of values, gaps. Seeded, so that a run can be repeated.

use bytes::Bytes;

use super::plan::{KeyOrder, Keys, ValueSizes, Values};

/// Bytes that values are cut from; no filesystem or device compresses them.
const POOL_BYTES: usize = 4 << 20;
const ZIPF_EXPONENT: f64 = 0.99;
const EXPONENTIAL_MAX: f64 = 16.0;

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0);
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// Which key is next, and how it is written.
pub struct KeySource {
    keys: Keys,
    next: u64,
    step: u64,
    zipf: Option<Zipf>,
}

impl KeySource {
    /// The keys of thread `thread` among `threads`: in sequence each thread takes every `threads`th.
    pub fn new(keys: Keys, thread: u32, threads: u32) -> KeySource {
        let zipf = (keys.order == KeyOrder::Zipfian).then(|| Zipf::new(keys.space));
        KeySource {
            keys,
            next: u64::from(thread),
            step: u64::from(threads),
            zipf,
        }
    }

    /// The next key's number.
    pub fn draw(&mut self, random: &mut Random) -> u64 {
        match (self.keys.order, &self.zipf) {
            (KeyOrder::Sequential, _) => {
                let number = self.next % self.keys.space;
                self.next += self.step;
                number
            }
            (_, Some(zipf)) => zipf.draw(random),
            _ => random.below(self.keys.space),
        }
    }

    /// How many keys there are.
    pub fn space(&self) -> u64 {
        self.keys.space
    }

    /// Writes a key: the prefix, and the number in decimal digits with zeros before it.
    pub fn write(&self, number: u64, output: &mut Vec<u8>) {
        output.extend_from_slice(self.keys.prefix.as_bytes());
        let digits = self.keys.bytes - self.keys.prefix.len();
        let start = output.len();
        output.resize(start + digits, b'0');
        let mut rest = number;
        for digit in output[start..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// A key.
    pub fn key(&self, number: u64) -> Bytes {
        let mut key = Vec::with_capacity(self.keys.bytes);
        self.write(number, &mut key);
        key.into()
    }
}

/// Values, cut from one pool.
pub struct ValueSource {
    values: Values,
    pool: Bytes,
}

impl ValueSource {
    /// A pool from a seed.
    pub fn new(values: Values, random: &mut Random) -> ValueSource {
        let largest = ValueSource::bytes_max(&values);
        let len = POOL_BYTES.max(2 * largest).next_multiple_of(8);
        let pool: Vec<u8> = (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        ValueSource {
            values,
            pool: pool.into(),
        }
    }

    /// The longest value that may be drawn.
    pub fn bytes_max(values: &Values) -> usize {
        match values.sizes {
            ValueSizes::Fixed => values.bytes,
            ValueSizes::Uniform => 2 * values.bytes,
            ValueSizes::Exponential => (values.bytes as f64 * EXPONENTIAL_MAX) as usize,
        }
    }

    /// The next value.
    pub fn draw(&self, random: &mut Random) -> Bytes {
        let len = match self.values.sizes {
            ValueSizes::Fixed => self.values.bytes,
            ValueSizes::Uniform => random.below(2 * self.values.bytes as u64 + 1) as usize,
            ValueSizes::Exponential => (random.exponential().min(EXPONENTIAL_MAX) * self.values.bytes as f64) as usize,
        };
        let start = random.below((self.pool.len() - len) as u64) as usize;
        self.pool.slice(start..start + len)
    }
}

/// Zipf's distribution by inverting its continuous envelope: number k is drawn about as often as 1/(k+1)^s. Ranks are
/// scattered over the key space, so that the popular keys are no neighbours.
struct Zipf {
    space: u64,
    area: f64,
}

impl Zipf {
    fn new(space: u64) -> Zipf {
        let area = ((space as f64 + 1.0).powf(1.0 - ZIPF_EXPONENT) - 1.0) / (1.0 - ZIPF_EXPONENT);
        Zipf { space, area }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let at = random.unit() * self.area * (1.0 - ZIPF_EXPONENT) + 1.0;
        let rank = (at.powf(1.0 / (1.0 - ZIPF_EXPONENT)) - 1.0) as u64;
        // A prime: it shares no factor with the space, so that every key has its rank.
        let scattered = u128::from(rank.min(self.space - 1)) * 0x9e37_79b1_85eb_ca87;
        (scattered % u128::from(self.space)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(order: KeyOrder, space: u64) -> Keys {
        Keys {
            bytes: 12,
            prefix: "k/".to_owned(),
            space,
            order,
        }
    }

    fn counts(order: KeyOrder, space: u64, draws: u64) -> Vec<u64> {
        let mut source = KeySource::new(keys(order, space), 0, 1);
        let mut random = Random::new(1);
        let mut counts = vec![0; space as usize];
        for _ in 0..draws {
            counts[source.draw(&mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn keys_are_written_with_their_prefix_and_zeros() {
        let source = KeySource::new(keys(KeyOrder::Uniform, 1), 0, 1);
        assert_eq!(source.key(7), "k/0000000007");
        assert_eq!(source.key(1_234_567_890), "k/1234567890");
    }

    #[test]
    fn orders_are_what_they_say() {
        let uniform = counts(KeyOrder::Uniform, 100, 100_000);
        assert!(uniform.iter().all(|count| (850..1150).contains(count)), "{uniform:?}");
        assert_eq!(counts(KeyOrder::Sequential, 100, 300), vec![3; 100]);
        let mut zipfian = counts(KeyOrder::Zipfian, 1000, 1_000_000);
        zipfian.sort_unstable_by(|one, other| other.cmp(one));
        // With an exponent near 1 the first ten of a thousand have about ln 11 / ln 1001 of all draws.
        let first: u64 = zipfian[..10].iter().sum();
        assert!((310_000..380_000).contains(&first), "{:?}", &zipfian[..10]);
        assert!(zipfian[0] > 5 * zipfian[9] && zipfian[999] < 1000);
    }

    #[test]
    fn threads_share_a_sequence() {
        let mut random = Random::new(1);
        let mut drawn: Vec<u64> = (0..3)
            .flat_map(|thread| {
                let mut source = KeySource::new(keys(KeyOrder::Sequential, 1000), thread, 3);
                (0..5).map(|_| source.draw(&mut random)).collect::<Vec<_>>()
            })
            .collect();
        drawn.sort_unstable();
        assert_eq!(drawn, (0..15).collect::<Vec<_>>());
    }

    #[test]
    fn values_have_the_lengths_that_are_asked_for() {
        let mut random = Random::new(1);
        for (sizes, largest) in [
            (ValueSizes::Fixed, 100),
            (ValueSizes::Uniform, 200),
            (ValueSizes::Exponential, 1600),
        ] {
            let source = ValueSource::new(Values { bytes: 100, sizes }, &mut random);
            let lens: Vec<usize> = (0..20_000).map(|_| source.draw(&mut random).len()).collect();
            let mean = lens.iter().sum::<usize>() / lens.len();
            assert!((97..=103).contains(&mean), "{sizes:?}: {mean}");
            assert!(lens.iter().all(|len| *len <= largest), "{sizes:?}");
        }
    }
}
