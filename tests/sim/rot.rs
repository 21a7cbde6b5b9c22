//! Damage at rest: bytes that rot, and blocks that a write for another place of the file was put over. A lone member has
//! nobody to ask for what it lost, so what is promised is that it stops and says in which file and where, and answers
//! nothing wrong before.
//!
//! Limits: the last segment of the log stays whole, since damage to a record's length there looks like a write that a
//! power failure tore, and is cut off as one (etcd does the same). Of a write that went astray, what it was put over is
//! found; what it should have replaced a lone member cannot always know, and neither a write that was lost, the device
//! having said that it is done: the page of before has its checksum too.

use std::path::{Path, PathBuf};

use ringd::{
    host::{Disk, Host},
    testing::{Random, SECTOR_BYTES, Sim, SimHost},
};

/// Bytes that have changed.
#[derive(Clone)]
pub struct Rot {
    path: PathBuf,
    offset: u64,
    before: Vec<u8>,
    /// What they are now.
    after: Vec<u8>,
}

impl std::fmt::Debug for Rot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} bytes at {} of {}",
            self.after.len(),
            self.offset,
            self.path.display()
        )
    }
}

/// Damages one file.
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
    let content = disk.read_file(path).await.unwrap_or_default();
    match random.chance(0.6) {
        true => draw_bits(sim, host, path, content, random),
        false => draw_astray(sim, host, path, &content, random).into_iter().collect(),
    }
}

/// Some bits of the file flip.
fn draw_bits(sim: &Sim, host: &SimHost, path: &Path, content: Vec<u8>, random: &mut Random) -> Vec<Rot> {
    let mut rotten = content.clone();
    for _ in 0..(1 + random.index(12)).min(content.len()) {
        let (offset, mask) = (random.index(content.len()), 1 << random.below(8));
        rotten[offset] ^= mask;
        sim.flip(host, path, offset as u64, mask).expect("it was read");
    }
    // Whole sectors are kept, so that what was written over by chance with such a byte is not taken for damage.
    let sectors = content
        .chunks(SECTOR_BYTES as usize)
        .zip(rotten.chunks(SECTOR_BYTES as usize));
    let damaged = sectors.enumerate().filter(|(_, (before, after))| before != after);
    damaged
        .map(|(sector, (before, after))| Rot {
            path: path.to_path_buf(),
            offset: sector as u64 * SECTOR_BYTES,
            before: before.to_vec(),
            after: after.to_vec(),
        })
        .collect()
}

/// A block of the file lands on another; `None` if that changes nothing.
fn draw_astray(sim: &Sim, host: &SimHost, path: &Path, content: &[u8], random: &mut Random) -> Option<Rot> {
    let block_bytes = [SECTOR_BYTES, 4096][random.index(2)];
    let blocks = content.len() as u64 / block_bytes;
    if blocks < 2 {
        return None;
    }
    let block = |number: u64| &content[(number * block_bytes) as usize..((number + 1) * block_bytes) as usize];
    let (source, target) = (random.below(blocks), random.below(blocks));
    // A sector of zeros, or of what fills long values, is found in sound places too: damage could not be told from them.
    let is_filler = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
    let is_common = block(source).chunks(SECTOR_BYTES as usize).any(is_filler);
    if block(source) == block(target) || is_common {
        return None;
    }
    let rot = Rot {
        path: path.to_path_buf(),
        offset: target * block_bytes,
        before: block(target).to_vec(),
        after: block(source).to_vec(),
    };
    sim.overwrite(host, path, rot.offset, &rot.after).expect("it was read");
    Some(rot)
}

/// Puts right what nobody has written over, sector by sector.
pub async fn undo(sim: &Sim, host: &SimHost, rot: &mut Vec<Rot>) {
    for damage in rot.drain(..).rev() {
        // A `.snap` that could not be read was put aside under another name. Who brings the content from elsewhere brings the name.
        let aside = damage.path.with_added_extension("broken");
        let is_gone = !host.disk().exists(&damage.path).await.unwrap_or_default();
        if is_gone && host.disk().exists(&aside).await.unwrap_or_default() {
            host.disk().rename(&aside, &damage.path).await.expect("it is there");
        }
        // A file that was purged meanwhile has nothing to be put right.
        let content = host.disk().read_file(&damage.path).await.unwrap_or_default();
        let pieces = damage.after.chunks(SECTOR_BYTES as usize);
        for (number, (after, before)) in pieces.zip(damage.before.chunks(SECTOR_BYTES as usize)).enumerate() {
            let offset = damage.offset + number as u64 * SECTOR_BYTES;
            if content.get(offset as usize..offset as usize + after.len()) == Some(after) {
                sim.overwrite(host, &damage.path, offset, before).expect("it was read");
            }
        }
    }
}

/// Whether the words with which a server ends name a file and a place in it.
pub fn is_precise(why: &str) -> bool {
    let has_file = why.contains("/data/member/") || why.contains(".wal'");
    has_file && ["offset", "position", ".snap"].iter().any(|word| why.contains(word))
}
