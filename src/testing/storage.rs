//! The content of one file: what programs see, and what a power failure would leave. Pure: no time, no faults drawn.
//!
//! ```text
//!   write ──▶ current  (and every map)           sync ──▶ pending changes so far are applied to durable
//!        └──▶ pending: change, change, change    crash ─▶ durable + for each sector any of the pending writes to it
//! ```
//!
//! Content is kept in chunks, of which those that are all zeros are left out: a log segment written with zeros costs
//! nothing. Invariant: applying all pending changes to `durable` gives `current`, unless a sync failed.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Weak},
};

use super::{faults::Unsynced, memory::Region, random::Random};

/// What a disk writes at once or not at all.
pub const SECTOR_BYTES: u64 = 512;
const CHUNK_BYTES: u64 = 4096;
const ZEROS: [u8; CHUNK_BYTES as usize] = [0; CHUNK_BYTES as usize];

type Chunk = [u8; CHUNK_BYTES as usize];

/// Bytes by position; what was never written is zero. Copies share what neither has changed since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    chunks: BTreeMap<u64, Rc<Chunk>>,
    len: u64,
}

/// A change that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Rc<Vec<u8>> },
    SetLen(u64),
}

/// A change with its number in the order of all changes.
#[derive(Clone, Debug)]
struct Pending {
    number: u64,
    change: Change,
}

/// A write that has been begun and not finished: a power failure may leave any of its sectors.
#[derive(Clone, Debug)]
pub struct Begun {
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Rc<Vec<u8>>,
}

/// One file's content.
#[derive(Debug, Default)]
pub struct Storage {
    current: Content,
    durable: Content,
    pending: Vec<Pending>,
    next_pending: u64,
    begun: BTreeMap<u64, Begun>,
    maps: Vec<Weak<Region>>,
    // Which life of the machine, and which open file of it, has the file locked.
    lock_owner: Option<(u64, u64)>,
}

impl Content {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Copies what is at `offset` into `bytes`; zeros beyond the end.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        for_chunks(offset, bytes.len(), |chunk, within, range| {
            match self.chunks.get(&chunk) {
                Some(content) => {
                    let len = range.len();
                    bytes[range].copy_from_slice(&content[within..within + len]);
                }
                None => bytes[range].fill(0),
            }
        });
    }

    /// Writes, growing as needed; nothing grows a file by nothing.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        for_chunks(offset, bytes.len(), |chunk, within, range| {
            let part = &bytes[range];
            if *part == ZEROS[..part.len()] && !self.chunks.contains_key(&chunk) {
                return;
            }
            let content = self
                .chunks
                .entry(chunk)
                .or_insert_with(|| Rc::new([0; CHUNK_BYTES as usize]));
            Rc::make_mut(content)[within..within + part.len()].copy_from_slice(part);
        });
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Cuts or lengthens; what is cut off is zero if the file grows again.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.chunks.split_off(&len.div_ceil(CHUNK_BYTES));
            if !len.is_multiple_of(CHUNK_BYTES)
                && let Some(content) = self.chunks.get_mut(&(len / CHUNK_BYTES))
            {
                Rc::make_mut(content)[(len % CHUNK_BYTES) as usize..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Calls `each` with chunk number, offset within the chunk, and range of the caller's bytes.
fn for_chunks(offset: u64, len: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = (at % CHUNK_BYTES) as usize;
        let count = (CHUNK_BYTES as usize - within).min(len - done);
        each(at / CHUNK_BYTES, within, done..done + count);
        done += count;
    }
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, bytes } => content.write(*offset, bytes),
            Change::SetLen(len) => content.set_len(*len),
        }
    }

    fn overlaps(&self, offset: u64, len: u64) -> bool {
        match self {
            Change::Write { offset: at, bytes } => *at < offset + len && offset < *at + bytes.len() as u64,
            Change::SetLen(_) => true,
        }
    }
}

impl Storage {
    /// Who has the file locked.
    pub fn lock_owner(&self) -> Option<(u64, u64)> {
        self.lock_owner
    }

    /// Locks or unlocks it.
    pub fn set_lock_owner(&mut self, owner: Option<(u64, u64)>) {
        self.lock_owner = owner;
    }

    /// What programs see.
    pub fn current(&self) -> &Content {
        &self.current
    }

    /// A write through the page cache, or a direct one: seen at once, durable with the next sync.
    pub fn write(&mut self, offset: u64, bytes: Rc<Vec<u8>>) {
        self.show(offset, &bytes);
        self.push(Change::Write { offset, bytes });
    }

    fn push(&mut self, change: Change) {
        let number = self.next_pending;
        self.next_pending += 1;
        self.pending.push(Pending { number, change });
    }

    /// A write that is durable when it is done, with all that was changed up to the last change of the same place.
    pub fn write_durable(&mut self, offset: u64, bytes: &[u8]) {
        let overlaps = |pending: &Pending| pending.change.overlaps(offset, bytes.len() as u64);
        if let Some(last) = self.pending.iter().rposition(overlaps) {
            self.sync(self.pending[last].number + 1);
        }
        self.show(offset, bytes);
        self.durable.write(offset, bytes);
    }

    /// Cuts or lengthens.
    pub fn set_len(&mut self, len: u64) {
        self.current.set_len(len);
        self.push(Change::SetLen(len));
        self.each_map(|map| map.set_len(len));
    }

    /// What a sync begun now has to make durable: all changes before this number.
    pub fn sync_point(&self) -> u64 {
        self.next_pending
    }

    /// Ends a sync: the changes before `point` are durable.
    pub fn sync(&mut self, point: u64) {
        let count = self.pending.partition_point(|pending| pending.number < point);
        for pending in self.pending.drain(..count) {
            pending.change.apply(&mut self.durable);
        }
    }

    /// Ends a sync that failed: the changes before `point` count as clean and will never become durable.
    pub fn sync_failed(&mut self, point: u64) {
        self.pending.retain(|pending| pending.number >= point);
    }

    /// Announces a write under way.
    pub fn begin(&mut self, id: u64, begun: Begun) {
        self.begun.insert(id, begun);
    }

    /// Takes back the announcement; `None` if a crash was faster.
    pub fn finish(&mut self, id: u64) -> Option<Begun> {
        self.begun.remove(&id)
    }

    /// Flips bits of a byte, at rest and as seen.
    pub fn flip(&mut self, offset: u64, mask: u8) {
        for content in [&mut self.current, &mut self.durable] {
            let mut byte = [0];
            content.read(offset, &mut byte);
            if offset < content.len() {
                content.write(offset, &[byte[0] ^ mask]);
            }
        }
        let mut byte = [0];
        self.current.read(offset, &mut byte);
        self.each_map(|map| map.write(offset, &byte));
    }

    /// Puts bytes over others, at rest and as seen; the file keeps its length.
    pub fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        let within =
            |len: u64| usize::try_from(len.saturating_sub(offset)).map_or(bytes.len(), |left| left.min(bytes.len()));
        for content in [&mut self.current, &mut self.durable] {
            let count = within(content.len());
            content.write(offset, &bytes[..count]);
        }
        let count = within(self.current.len());
        self.each_map(|map| map.write(offset, &bytes[..count]));
    }

    /// A power failure: what is left becomes what is seen. Maps of before are not kept up any more.
    pub fn crash(&mut self, unsynced: Unsynced, random: &mut Random) {
        let begun: Vec<Change> = std::mem::take(&mut self.begun)
            .into_values()
            .map(|begun| Change::Write {
                offset: begun.offset,
                bytes: begun.bytes,
            })
            .collect();
        let pending = std::mem::take(&mut self.pending).into_iter();
        let mut changes: Vec<Change> = pending.map(|pending| pending.change).collect();
        match unsynced {
            Unsynced::Lost => {}
            Unsynced::Kept => changes.iter().for_each(|change| change.apply(&mut self.durable)),
            Unsynced::Torn => {
                changes.extend(begun);
                tear(&mut self.durable, &changes, random);
            }
        }
        self.current = self.durable.clone();
        self.maps.clear();
        self.lock_owner = None;
    }

    /// Attaches a map: filled with what is seen now, and kept up from here on.
    pub fn attach(&mut self, map: &Arc<Region>) {
        map.set_len(self.current.len());
        for (chunk, content) in &self.current.chunks {
            map.write(chunk * CHUNK_BYTES, &content[..]);
        }
        self.maps.retain(|map| map.strong_count() > 0);
        self.maps.push(Arc::downgrade(map));
    }

    fn show(&mut self, offset: u64, bytes: &[u8]) {
        self.current.write(offset, bytes);
        let len = self.current.len();
        self.each_map(|map| {
            map.set_len(len);
            map.write(offset, bytes);
        });
    }

    fn each_map(&self, each: impl Fn(&Region)) {
        self.maps.iter().filter_map(Weak::upgrade).for_each(|map| each(&map));
    }
}

/// Applies some of the changes, as a device without power may have: either in their order up to one that may be torn,
/// or each sector on its own.
fn tear(content: &mut Content, changes: &[Change], random: &mut Random) {
    if changes.is_empty() {
        return;
    }
    let whole = random.index(changes.len() + 1);
    let is_in_order = random.chance(0.7);
    if is_in_order {
        changes[..whole].iter().for_each(|change| change.apply(content));
        if let Some(Change::Write { offset, bytes }) = changes.get(whole)
            && random.chance(0.5)
        {
            tear_write(content, *offset, bytes, random);
        }
        return;
    }
    let mut lens = content.clone();
    changes[..whole].iter().for_each(|change| change.apply(&mut lens));
    for (sector, touching) in touched_sectors(changes) {
        for &change in &touching[..random.index(touching.len() + 1)] {
            apply_to_sector(content, &changes[change], sector);
        }
    }
    content.set_len(lens.len());
}

/// Applies a random part of one write's sectors.
fn tear_write(content: &mut Content, offset: u64, bytes: &Rc<Vec<u8>>, random: &mut Random) {
    let change = Change::Write {
        offset,
        bytes: Rc::clone(bytes),
    };
    for sector in offset / SECTOR_BYTES..(offset + bytes.len() as u64).div_ceil(SECTOR_BYTES) {
        if random.chance(0.5) {
            apply_to_sector(content, &change, sector);
        }
    }
}

/// Which changes write to each sector, in their order.
fn touched_sectors(changes: &[Change]) -> BTreeMap<u64, Vec<usize>> {
    let mut touched: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (number, change) in changes.iter().enumerate() {
        if let Change::Write { offset, bytes } = change {
            for sector in offset / SECTOR_BYTES..(offset + bytes.len() as u64).div_ceil(SECTOR_BYTES) {
                touched.entry(sector).or_default().push(number);
            }
        }
    }
    touched
}

fn apply_to_sector(content: &mut Content, change: &Change, sector: u64) {
    let Change::Write { offset, bytes } = change else {
        return;
    };
    let first = (sector * SECTOR_BYTES).max(*offset);
    let last = ((sector + 1) * SECTOR_BYTES).min(offset + bytes.len() as u64);
    if first < last {
        content.write(first, &bytes[(first - offset) as usize..(last - offset) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0; content.len() as usize];
        content.read(0, &mut bytes);
        bytes
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(u16, u16, u8),
        WriteDurable(u16, u16, u8),
        SetLen(u16),
        Sync,
    }

    fn step() -> impl Strategy<Value = Step> {
        let place = (0..20_000u16, 0..5_000u16, 0..3u8);
        prop_oneof![
            place
                .clone()
                .prop_map(|(offset, len, byte)| Step::Write(offset, len, byte)),
            place.prop_map(|(offset, len, byte)| Step::WriteDurable(offset, len, byte)),
            (0..20_000u16).prop_map(Step::SetLen),
            Just(Step::Sync),
        ]
    }

    fn write_model(model: &mut Vec<u8>, offset: u16, len: u16, byte: u8) {
        let end = usize::from(offset) + usize::from(len);
        if len == 0 {
            return;
        }
        if model.len() < end {
            model.resize(end, 0);
        }
        model[usize::from(offset)..end].fill(byte);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn content_is_as_a_plain_vector_has_it(steps in prop::collection::vec(step(), 1..40)) {
            let mut storage = Storage::default();
            let map = Region::new(1 << 16);
            storage.attach(&map);
            let mut model = Vec::new();
            let mut synced = Vec::new();
            for step in steps {
                match step {
                    Step::Write(offset, len, byte) => {
                        storage.write(u64::from(offset), Rc::new(vec![byte; usize::from(len)]));
                        write_model(&mut model, offset, len, byte);
                    }
                    Step::WriteDurable(offset, len, byte) => {
                        storage.write_durable(u64::from(offset), &vec![byte; usize::from(len)]);
                        write_model(&mut model, offset, len, byte);
                        storage.sync(storage.sync_point());
                        synced = model.clone();
                    }
                    Step::SetLen(len) => {
                        storage.set_len(u64::from(len));
                        model.resize(usize::from(len), 0);
                    }
                    Step::Sync => {
                        storage.sync(storage.sync_point());
                        synced = model.clone();
                    }
                }
                prop_assert!(all(storage.current()) == model);
                prop_assert!(map.bytes(0, model.len()) == model);
            }
            storage.crash(Unsynced::Lost, &mut Random::new(1));
            prop_assert!(all(storage.current()) == synced);
        }
    }

    #[test]
    fn a_torn_crash_keeps_old_or_new_sectors_and_nothing_else() {
        let (mut kept, mut lost, mut mixed) = (0, 0, 0);
        for seed in 0..200 {
            let mut storage = Storage::default();
            storage.write(0, Rc::new(vec![1; 4096]));
            storage.sync(1);
            storage.write(0, Rc::new(vec![2; 4096]));
            storage.crash(Unsynced::Torn, &mut Random::new(seed));
            let content = all(storage.current());
            for sector in content.chunks(512) {
                assert!(sector == [1; 512] || sector == [2; 512]);
            }
            match content.iter().filter(|&&byte| byte == 2).count() {
                0 => lost += 1,
                4096 => kept += 1,
                _ => mixed += 1,
            }
        }
        assert!(kept > 10 && lost > 10 && mixed > 10, "{kept} {lost} {mixed}");
    }

    #[test]
    fn a_begun_write_may_be_torn_and_a_failed_sync_loses_for_good() {
        let mut torn = 0;
        for seed in 0..100 {
            let mut storage = Storage::default();
            storage.write_durable(0, &[1; 2048]);
            storage.begin(
                9,
                Begun {
                    offset: 0,
                    bytes: Rc::new(vec![2; 2048]),
                },
            );
            storage.crash(Unsynced::Torn, &mut Random::new(seed));
            assert!(storage.finish(9).is_none());
            torn += usize::from(all(storage.current()) != [1; 2048]);
        }
        assert!(torn > 20);

        let mut storage = Storage::default();
        storage.write(0, Rc::new(vec![1; 10]));
        storage.sync_failed(1);
        storage.write(100, Rc::new(vec![2; 10]));
        storage.sync(storage.sync_point());
        assert_eq!(storage.current().len(), 110);
        storage.crash(Unsynced::Kept, &mut Random::new(0));
        assert_eq!(all(storage.current())[..10], [0; 10]);
        assert_eq!(all(storage.current())[100..], [2; 10]);
    }

    #[test]
    fn a_flip_is_seen_at_rest_and_in_maps() {
        let mut storage = Storage::default();
        storage.write_durable(0, b"abc");
        let map = Region::new(4096);
        storage.attach(&map);
        storage.flip(1, 0x01);
        assert_eq!(map.bytes(0, 3), b"acc");
        storage.overwrite(2, b"xyz");
        assert_eq!(map.bytes(0, 3), b"acx");
        storage.crash(Unsynced::Lost, &mut Random::new(0));
        assert_eq!(all(storage.current()), b"acx");
    }
}
