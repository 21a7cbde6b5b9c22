//! The fuzzer's targets without the fuzzer: each entry is given its corpus and 1,000 inputs made of it by a seed.
//! `RINGD_SLOW=1` makes it 100,000; `RINGD_FUZZ=NAME` is for that entry alone.

use std::{env, fs, path::Path};

use ringd::testing::{
    Random,
    fuzz::{ENTRIES, entry},
};

const INPUT_BYTES_MAX: usize = 16 * 1024;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut paths: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|file| file.expect("a directory that can be read").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths
        .iter()
        .map(|path| fs::read(path).expect("a file that can be read"))
        .collect()
}

/// One of the corpus with some bytes changed, left out, repeated or exchanged with another's; now and then noise.
fn mutated(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus[random.index(corpus.len())].clone();
    if random.chance(0.02) {
        let len = random.below(200);
        return (0..len).map(|_| random.next_u64() as u8).collect();
    }
    for _ in 0..random.below(6) {
        let place = random.index(input.len() + 1);
        let end = (place + random.index(32)).min(input.len());
        match random.below(6) {
            0 if place < input.len() => input[place] ^= 1 << random.below(8),
            1 if place < input.len() => input[place] = [0, 0x7f, 0x80, 0xff][random.index(4)],
            2 => drop(input.drain(place..end)),
            3 => {
                let piece = input[place..end].to_vec();
                input.splice(place..place, piece);
            }
            4 => {
                let other = &corpus[random.index(corpus.len())];
                let from = random.index(other.len() + 1);
                input.truncate(place);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.insert(place, random.next_u64() as u8),
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

#[test]
fn every_entry_returns_whatever_it_is_given() {
    let count = if env::var("RINGD_SLOW").is_ok_and(|value| value == "1") {
        100_000
    } else {
        1_000
    };
    let only = env::var("RINGD_FUZZ").ok();
    for (number, (name, try_input)) in ENTRIES.iter().enumerate() {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let corpus = corpus(name);
        corpus.iter().for_each(|input| try_input(input));
        let mut random = Random::new(number as u64 + 1);
        for _ in 0..count {
            let input = mutated(&corpus, &mut random);
            let text = format!("{name}: {}", input.escape_ascii());
            let is_fine = std::panic::catch_unwind(|| try_input(&input)).is_ok();
            assert!(is_fine, "{text:.4000}");
        }
    }
}

#[test]
fn every_entry_has_a_target_for_the_fuzzer() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(directory.join("Cargo.toml")).expect("the fuzzer's manifest");
    for (name, _) in ENTRIES {
        assert!(
            manifest.contains(&format!("name = \"{name}\"\n")),
            "{name} is no target"
        );
        let target = fs::read_to_string(directory.join(format!("targets/{name}.rs"))).expect("a target");
        assert!(
            target.contains(&format!("entry(\"{name}\")")),
            "{name}'s target tries another"
        );
        _ = entry(name);
    }
}
