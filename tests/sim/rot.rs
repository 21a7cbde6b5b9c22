//! Bytes that rot at rest. A lone member has nobody to ask for what it lost, so what is promised is that it stops and says
//! in which file and where, and answers nothing wrong before.
//!
//! Limits: the last segment of the log stays whole, since damage to a record's length there looks like a write that a
//! power failure tore, and is cut off as one (etcd does the same). What a write put elsewhere or lost, the device having
//! said that it is done, a lone member cannot always know: the page of before has its checksum too.

use std::path::{Path, PathBuf};

use ringd::{
    host::{Disk, Host},
    testing::{Random, Sim, SimHost},
};

/// A byte that has changed.
#[derive(Clone, Debug)]
pub struct Rot {
    path: PathBuf,
    offset: u64,
    mask: u8,
    /// What it is now.
    rotten: u8,
}

/// Lets some bytes of one file rot.
pub async fn draw(sim: &Sim, host: &SimHost, random: &mut Random) -> Vec<Rot> {
    let disk = host.disk();
    let mut paths = Vec::new();
    for directory in ["/data/member/snap", "/data/member/wal"] {
        let mut names = disk.list(Path::new(directory)).await.unwrap_or_default();
        names.sort();
        names.retain(|name| [".wal", ".snap", "db"].iter().any(|end| name.ends_with(end)));
        if directory.ends_with("wal") {
            names.pop();
        }
        paths.extend(names.iter().map(|name| Path::new(directory).join(name)));
    }
    if paths.is_empty() {
        return Vec::new();
    }
    let path = &paths[random.index(paths.len())];
    let mut content = disk.read_file(path).await.unwrap_or_default();
    let len = content.len() as u64;
    let mut rot = Vec::new();
    for _ in 0..(1 + random.below(12)).min(len) {
        let (offset, mask) = (random.below(len), 1 << random.below(8));
        content[offset as usize] ^= mask;
        let byte = Rot {
            path: path.clone(),
            offset,
            mask,
            rotten: content[offset as usize],
        };
        sim.flip(host, path, byte.offset, byte.mask).expect("it was read");
        rot.push(byte);
    }
    rot
}

/// Puts the bytes right that nobody has written over.
pub async fn undo(sim: &Sim, host: &SimHost, rot: &mut Vec<Rot>) {
    for byte in rot.drain(..).rev() {
        // A file that was purged meanwhile has nothing to be put right.
        let content = host.disk().read_file(&byte.path).await.unwrap_or_default();
        if content.get(byte.offset as usize) == Some(&byte.rotten) {
            sim.flip(host, &byte.path, byte.offset, byte.mask).expect("it was read");
        }
    }
}

/// Whether the words with which a server ends name a file and a place in it.
pub fn is_precise(why: &str) -> bool {
    let has_file = why.contains("/data/member/") || why.contains(".wal'");
    has_file && ["offset", "position", ".snap"].iter().any(|word| why.contains(word))
}
