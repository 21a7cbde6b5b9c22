//! The house rules that a program can check. The module table here is `src/ARCHITECTURE.md`'s: a new arrow in it is a
//! decision about the design.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which module may use which, besides `base`, `limits` and the generated messages.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("host", &[]),
    ("limits", &[]),
    ("wire", &[]),
    ("propose", &["wire", "backend", "host"]),
    (
        "rpc",
        &[
            "wire", "propose", "watch", "mvcc", "apply", "backend", "ops", "host", "config",
        ],
    ),
    ("raft", &[]),
    ("peer", &["raft", "wire", "host", "snapshot", "backend"]),
    ("wal", &["host"]),
    ("snapshot", &["wal", "host"]),
    ("mvcc", &[]),
    ("lease", &[]),
    ("auth", &["backend"]),
    ("member", &["backend", "snapshot"]),
    ("backend", &["host"]),
    ("watch", &["mvcc"]),
    ("bench", &["wire", "host", "config"]),
    ("doctor", &["bench"]),
    ("apply", &["mvcc", "lease", "auth", "member", "backend", "host"]),
    (
        "replica",
        &[
            "wire", "rpc", "propose", "raft", "peer", "wal", "snapshot", "apply", "mvcc", "lease", "member", "backend",
            "watch", "host", "ops", "config",
        ],
    ),
    ("ops", &["wire", "propose", "config"]),
    ("config", &[]),
];

/// Files that may name glommio.
const GLOMMIO_IN: &[&str] = &["src/ring/", "src/node/", "src/main.rs"];

/// Words that mark a driver or an edge: their files may read the clock, the disk or entropy.
const EDGES: &[&str] = &[
    "src/ring/",
    "src/node/",
    "src/main.rs",
    "src/cli/",
    "src/config/",
    "src/ops/",
    "src/testing/",
];

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Source files below `src`, by path from the crate's root, without what is generated.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let sources: BTreeMap<_, _> = files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| !name.starts_with("src/wire/proto/"))
        .collect();
    assert!(sources.len() > 50, "the tree is where it is expected");
    sources
}

/// A file without its unit tests, which stand at its end.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod ").next().unwrap()
}

fn is_test_file(name: &str) -> bool {
    name.ends_with("/tests.rs")
        || name.contains("/tests/")
        || name.ends_with("/testing.rs")
        || name.ends_with("/model.rs")
}

/// The crate's modules that a file names: in `crate::NAME` paths and in `use crate::{NAME, …}` lists. The generated
/// messages and gRPC's status count as base.
fn used_modules(text: &str) -> Vec<String> {
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            if !rest.starts_with("wire::proto") && !rest.starts_with("wire::status") {
                used.push(word(rest));
            }
            continue;
        };
        let (mut depth, mut start) = (1, 0);
        for (position, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => {}
                _ => continue,
            }
            if depth == 0 || (depth == 1 && character == ',') {
                let item = list[start..position].trim();
                start = position + 1;
                let is_messages = item.starts_with("wire::proto")
                    || item.starts_with("wire::status")
                    || (item.starts_with("wire::{") && !item.contains("server") && !item.contains("client"));
                if !is_messages {
                    used.push(word(item));
                }
            }
            if depth == 0 {
                break;
            }
        }
    }
    used
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let module = name["src/".len()..].split(['/', '.']).next().unwrap().to_owned();
        let Some((_, allowed)) = MAY_USE.iter().find(|(of, _)| *of == module) else {
            continue;
        };
        if is_test_file(&name) {
            continue;
        }
        for other in used_modules(without_tests(&text)) {
            let is_known = MAY_USE.iter().any(|(of, _)| *of == other);
            let is_allowed =
                other == module || allowed.contains(&other.as_str()) || ["base", "limits"].contains(&&other[..]);
            if is_known && !is_allowed {
                wrong.push(format!("{name} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn glommio_stays_behind_the_host() {
    for (name, text) in sources() {
        let is_named = text
            .lines()
            .any(|line| line.contains("glommio::") || line.contains("use glommio"));
        let may = GLOMMIO_IN.iter().any(|prefix| name.starts_with(prefix));
        assert!(!is_named || may, "{name} names glommio");
    }
}

#[test]
fn clocks_disks_and_entropy_come_through_the_host() {
    let forbidden = [
        "Instant::now",
        "SystemTime::now",
        "thread_rng",
        "rand::random",
        "std::fs::",
        "RandomState",
        "std::collections::HashMap",
    ];
    for (name, text) in sources() {
        if EDGES.iter().any(|prefix| name.starts_with(prefix)) || is_test_file(&name) {
            continue;
        }
        for word in forbidden {
            assert!(!without_tests(&text).contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn files_say_what_they_own_and_stay_readable() {
    for (name, text) in sources() {
        assert!(text.starts_with("//!"), "{name} does not open with what it owns");
        let lines = text.lines().count();
        assert!(
            lines <= 800,
            "{name} has {lines} lines: where concerns meet, giants grow"
        );
    }
}

#[test]
fn nothing_is_left_unfinished() {
    for (name, text) in sources() {
        for word in ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"] {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn unsafe_blocks_argue() {
    for (name, text) in sources() {
        let lines: Vec<_> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !(code.contains("unsafe {") || code.contains("unsafe impl")) {
                continue;
            }
            let argued = lines[number.saturating_sub(6)..=number]
                .iter()
                .any(|line| line.contains("SAFETY"));
            assert!(argued, "{name}:{} is unsafe without a SAFETY argument", number + 1);
        }
    }
}
