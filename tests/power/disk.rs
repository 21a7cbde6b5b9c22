//! A disk with a volatile cache: it forgets any part of what was not flushed, in any order. Pure.
//!
//! The newest content is what a reader sees. Beside it stands, for each write since the last flush, what was there before;
//! at a power cut these are undone, and then each write is done again wholly, in part (some of its sectors) or not at all.

use crate::model::Random;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// One write that may still be lost.
struct Unflushed {
    offset: usize,
    before: Vec<u8>,
}

/// What a cut did to the writes that were not flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    pub kept: u64,
    pub torn: u64,
    pub lost: u64,
}

pub struct Disk {
    bytes: Vec<u8>,
    unflushed: Vec<Unflushed>,
    is_off: bool,
    pub flushes: u64,
    pub writes: u64,
}

/// The disk has no power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Off;

impl Disk {
    /// A disk full of zeros.
    pub fn new(size_bytes: usize) -> Disk {
        assert_eq!(size_bytes % 4096, 0, "whole blocks");
        Disk {
            bytes: vec![0; size_bytes],
            unflushed: vec![],
            is_off: false,
            flushes: 0,
            writes: 0,
        }
    }

    /// Full of zeros again, and with power.
    pub fn reset(&mut self) {
        *self = Disk::new(self.bytes.len());
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes from `offset`; fewer at the disk's end.
    pub fn read(&self, offset: usize, length: usize) -> Result<&[u8], Off> {
        if self.is_off {
            return Err(Off);
        }
        let start = offset.min(self.bytes.len());
        Ok(&self.bytes[start..(offset + length).min(self.bytes.len())])
    }

    /// Takes bytes into the cache.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), Off> {
        if self.is_off {
            return Err(Off);
        }
        assert!(
            offset + bytes.len() <= self.bytes.len(),
            "a write beyond the disk's end"
        );
        let target = &mut self.bytes[offset..offset + bytes.len()];
        self.unflushed.push(Unflushed {
            offset,
            before: target.to_vec(),
        });
        target.copy_from_slice(bytes);
        self.writes += 1;
        Ok(())
    }

    /// Writes in the cache, oldest first.
    pub fn unflushed(&self) -> usize {
        self.unflushed.len()
    }

    /// The oldest `writes` of the cache survive from now on.
    pub fn flush(&mut self, writes: usize) -> Result<(), Off> {
        if self.is_off {
            return Err(Off);
        }
        self.unflushed.drain(..writes);
        self.flushes += 1;
        Ok(())
    }

    /// Takes the power away.
    pub fn cut(&mut self, random: &mut Random) -> Damage {
        self.is_off = true;
        let mut again = Vec::with_capacity(self.unflushed.len());
        while let Some(write) = self.unflushed.pop() {
            let target = &mut self.bytes[write.offset..write.offset + write.before.len()];
            again.push((write.offset, target.to_vec()));
            target.copy_from_slice(&write.before);
        }
        // Some cuts lose everything, some most, some little.
        let kept_of_8 = random.below(9);
        let mut damage = Damage::default();
        for (offset, bytes) in again.into_iter().rev() {
            if random.below(8) < kept_of_8 {
                damage.kept += 1;
                self.bytes[offset..offset + bytes.len()].copy_from_slice(&bytes);
            } else if random.below(4) == 0 {
                damage.torn += 1;
                self.tear(offset, &bytes, random);
            } else {
                damage.lost += 1;
            }
        }
        damage
    }

    /// Some sectors of a write arrive: its beginning, or any of them.
    fn tear(&mut self, offset: usize, bytes: &[u8], random: &mut Random) {
        let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
        let first_missing = random.below(2).checked_sub(1).map(|_| random.below(sectors));
        for (number, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let arrives = match first_missing {
                Some(first) => (number as u64) < first,
                None => random.below(2) == 0,
            };
            if arrives {
                let start = offset + number * SECTOR_BYTES;
                self.bytes[start..start + sector.len()].copy_from_slice(sector);
            }
        }
    }

    pub fn power_on(&mut self) {
        self.is_off = false;
    }
}

/// The disk must lose what it may lose and nothing else; run before the cuts.
pub fn self_check() {
    let mut fates = [0; 3];
    for seed in 1..200 {
        let mut random = Random::new(seed);
        let mut disk = Disk::new(64 << 10);
        disk.write(0, &[1; 8192]).unwrap();
        disk.flush(1).unwrap();
        disk.write(4096, &[2; 8192]).unwrap();
        disk.write(8192, &[3; 4096]).unwrap();
        let damage = disk.cut(&mut random);
        assert_eq!(damage.kept + damage.torn + damage.lost, 2);
        assert_eq!(disk.read(0, 1), Err(Off));
        assert_eq!(disk.write(0, &[9]), Err(Off));
        disk.power_on();
        assert_eq!(disk.read(0, 4096).unwrap(), [1; 4096], "what was flushed stays");
        for sector in disk.read(4096, 4096).unwrap().chunks(512) {
            assert!(sector == [1; 512] || sector == [2; 512], "a sector is old or new");
        }
        let last = disk.read(8192, 4096).unwrap();
        fates[0] += u32::from(last == [3; 4096]);
        fates[1] += u32::from(last == [0; 4096] || last == [2; 4096]);
        fates[2] += u32::from(last.windows(2).any(|pair| pair[0] != pair[1]));
    }
    assert!(fates.iter().all(|fate| *fate > 10), "each fate occurs: {fates:?}");
}
