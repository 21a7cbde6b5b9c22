//! Search in sorted keys that starts from a guess. Keys of the `key` bucket are revisions, which are dense, so that the
//! guess is nearly always right; each comparison that is saved is a cache miss or two.

use std::{cmp::Ordering, ops::Range};

/// Finds a key among `count` as `slice::binary_search` would, where `compare(i)` says how key `i` relates to it: outwards from
/// `guess` in doubling steps, then by halves.
#[inline]
pub(super) fn search_from<E>(
    count: usize,
    guess: usize,
    mut compare: impl FnMut(usize) -> Result<Ordering, E>,
) -> Result<Result<usize, usize>, E> {
    if count == 0 {
        return Ok(Err(0));
    }
    let guess = guess.min(count - 1);
    // Keys below `low` are less, keys from `high` on are greater.
    let (mut low, mut high) = (0, count);
    let mut step = 1;
    match compare(guess)? {
        Ordering::Equal => return Ok(Ok(guess)),
        Ordering::Less => {
            low = guess + 1;
            while low < count {
                let probe = (low + step - 1).min(count - 1);
                match compare(probe)? {
                    Ordering::Equal => return Ok(Ok(probe)),
                    Ordering::Less => low = probe + 1,
                    Ordering::Greater => {
                        high = probe;
                        break;
                    }
                }
                step *= 2;
            }
        }
        Ordering::Greater => {
            high = guess;
            while high > 0 {
                let probe = high.saturating_sub(step);
                match compare(probe)? {
                    Ordering::Equal => return Ok(Ok(probe)),
                    Ordering::Greater => high = probe,
                    Ordering::Less => {
                        low = probe + 1;
                        break;
                    }
                }
                step *= 2;
            }
        }
    }
    search_between(low..high, compare)
}

/// Finds a key by halves within a range of indexes.
#[inline]
pub(super) fn search_between<E>(
    range: Range<usize>,
    mut compare: impl FnMut(usize) -> Result<Ordering, E>,
) -> Result<Result<usize, usize>, E> {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        match compare(middle)? {
            Ordering::Equal => return Ok(Ok(middle)),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Ok(Err(low))
}

/// Where `key` would be among `count` keys spread evenly from `first` up to `end`; `None` if their beginnings do not tell.
#[inline]
pub(super) fn guess(key: &[u8], first: &[u8], end: &[u8], count: usize) -> Option<usize> {
    let number = |key: &[u8]| key.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let (key, first, end) = (number(key)?, number(first)?, number(end)?);
    if first >= end {
        return None;
    }
    let above = key.saturating_sub(first).min(end - first);
    // Keys so far apart that this overflows are not revisions.
    Some((above.checked_mul(count as u64)? / (end - first)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_guess_finds_what_a_binary_search_finds(mut keys in prop::collection::vec(0u16..300, 0..60), key in 0u16..300, guess in 0usize..70) {
            keys.sort_unstable();
            keys.dedup();
            let found = search_from::<()>(keys.len(), guess, |index| Ok(keys[index].cmp(&key)));
            prop_assert_eq!(found, Ok(keys.binary_search(&key)));
        }
    }

    #[test]
    fn dense_keys_are_guessed_right() {
        let key = |n: u64| n.to_be_bytes();
        for n in 0..100 {
            assert_eq!(guess(&key(7000 + n), &key(7000), &key(7100), 100), Some(n as usize));
        }
        assert_eq!(guess(&key(1), &key(7000), &key(7100), 100), Some(0));
        assert_eq!(guess(&key(u64::MAX), &key(7000), &key(7100), 100), Some(100));
        assert_eq!(guess(b"short", &key(1), &key(2), 3), None);
        assert_eq!(guess(&key(1), &key(2), &key(2), 3), None);
    }
}
