//! One stream's state, and the table of a connection's streams.
//!
//! Stream ids only ever ascend, so the table is a sorted ring of (id, slot) beside a slab: no hashing, nothing that a
//! peer's choice of ids could make slow. Clients use every second id, so an id's place is nearly always its distance from
//! the front; otherwise it is found by binary search. Ids of streams that are gone stay until they are at the front or
//! outnumber the others.

use std::collections::VecDeque;

use slab::Slab;

use super::SendState;

/// A stream's place in the table; valid until the stream is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// One open stream. `A` is what the connection's user keeps for it.
pub struct Stream<A> {
    /// Its number on the wire.
    pub id: u32,
    /// The peer has sent END_STREAM.
    pub receive_closed: bool,
    /// The peer's first block (a response that is not informational) has come.
    pub(super) head_seen: bool,
    /// Content that `content-length` still promises.
    pub(super) content_left: u64,
    /// Bytes that the peer may still send.
    pub(super) receive_window: i64,
    /// Bytes taken in since the last WINDOW_UPDATE.
    pub(super) receive_credit: u32,
    /// What waits to be sent.
    pub(super) send: SendState,
    /// The user's part.
    pub app: A,
}

/// A connection's streams.
pub struct StreamTable<A> {
    order: VecDeque<(u32, Slot)>,
    slab: Slab<Stream<A>>,
}

impl<A> Default for StreamTable<A> {
    fn default() -> StreamTable<A> {
        StreamTable {
            order: VecDeque::new(),
            // Most connections have one call at a time, and a vector would begin with room for four.
            slab: Slab::with_capacity(1),
        }
    }
}

/// Streams whose memory an idle connection keeps.
const STREAMS_KEPT: usize = 256;
const GONE: Slot = Slot(u32::MAX);

impl<A> StreamTable<A> {
    /// Streams open.
    #[inline]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether no stream is open.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The slot of stream `id`, if it is open.
    #[inline]
    pub fn find(&self, id: u32) -> Option<Slot> {
        let position = self.position(id)?;
        let slot = self.order[position].1;
        (slot != GONE).then_some(slot)
    }

    /// Adds a stream whose id is above all before it.
    pub fn insert(&mut self, stream: Stream<A>) -> Slot {
        let id = stream.id;
        debug_assert!(self.order.back().is_none_or(|(last, _)| *last < id));
        let slot = Slot(self.slab.insert(stream) as u32);
        self.order.push_back((id, slot));
        slot
    }

    /// Takes a stream out.
    pub fn remove(&mut self, slot: Slot) -> Stream<A> {
        let stream = self.slab.remove(slot.0 as usize);
        if self.slab.is_empty() && self.slab.capacity() > STREAMS_KEPT {
            self.slab = Slab::new();
            self.order = VecDeque::new();
            return stream;
        }
        if let Some(position) = self.position(stream.id) {
            self.order[position].1 = GONE;
        }
        while self.order.front().is_some_and(|(_, slot)| *slot == GONE) {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.slab.len() + 16 {
            self.order.retain(|(_, slot)| *slot != GONE);
        }
        stream
    }

    /// Whether a stream is in the slot.
    pub fn contains(&self, slot: Slot) -> bool {
        self.slab.contains(slot.0 as usize)
    }

    /// The stream in a slot.
    #[inline]
    pub fn at(&self, slot: Slot) -> &Stream<A> {
        &self.slab[slot.0 as usize]
    }

    /// The stream in a slot.
    #[inline]
    pub fn at_mut(&mut self, slot: Slot) -> &mut Stream<A> {
        &mut self.slab[slot.0 as usize]
    }

    /// Open streams in the order of their ids.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.order.iter().map(|(_, slot)| *slot).filter(|slot| *slot != GONE)
    }

    #[inline]
    fn position(&self, id: u32) -> Option<usize> {
        // A new stream's id is above all others: the common case of one that is not there.
        if self.order.back()?.0 < id {
            return None;
        }
        let first = self.order.front()?.0;
        let guess = (id.checked_sub(first)? / 2) as usize;
        match self.order.get(guess) {
            Some((found, _)) if *found == id => Some(guess),
            _ => self.order.binary_search_by_key(&id, |(id, _)| *id).ok(),
        }
    }
}
