//! The records of all blocks, holes and partitions, in the order of their addresses.
//!
//! ```text
//!   memory    | partition |   hole    | partition | partition |   hole    |
//!   blocks    [ 0 ]<----->[ 3 ]<----->[ 1 ]<----->[ 4 ]<----->[ 2 ]           prev, next
//!   holes                 [ 3 ]<----------------------------->[ 2 ]           hole_prev, hole_next
//!   spare     [ 5 ]->[ 6 ]->...                                               next
//! ```
//!
//! The first list gives a block its neighbours, so that merging looks at two records; the second
//! spares a search all partitions. A record is named by its place in the slice.
//!
//! A freed block with a hole beside it joins that hole in O(1). One without must find its place among
//! the holes: it walks down over partitions to the next hole below. By the fifty-percent rule there
//! are half as many holes as partitions in the long run, which makes two steps on the average; O(n) in
//! the worst case.
//!
//! # Invariants
//!
//! - The blocks tile the memory: each begins where the one before it ends, and none is empty.
//! - No two holes are neighbours. So holes outnumber partitions by at most one.
//! - A record is a partition exactly while its `life` is odd; each change of it counts one up.
//! - Every record is either in the list of blocks or spare, and a hole's is in that of holes as well.
//! - `rover` is a hole, or `NONE`.
//!
//! Source: D. E. Knuth, *The Art of Computer Programming*, vol. 1, 2.5: boundary tags (algorithm C),
//! the roving pointer (exercise 6), the fifty-percent rule.

/// No record.
pub(super) const NONE: u32 = u32::MAX;

/// Storage for one hole or one partition.
///
/// A table of `n` partitions never needs more than [`records_for`](super::records_for)`(n)` of them.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub(super) start: u64,
    pub(super) len: u64,
    prev: u32,
    pub(super) next: u32,
    hole_prev: u32,
    pub(super) hole_next: u32,
    pub(super) life: u32,
}

impl Record {
    /// What an array for a table is filled with.
    pub const EMPTY: Self = Self {
        start: 0,
        len: 0,
        prev: NONE,
        next: NONE,
        hole_prev: NONE,
        hole_next: NONE,
        life: 0,
    };

    pub(super) const fn is_partition(&self) -> bool {
        self.life % 2 == 1
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The lists.
#[derive(Debug)]
pub(super) struct Blocks<'m> {
    records: &'m mut [Record],
    pub(super) first: u32,
    pub(super) first_hole: u32,
    spare: u32,
    /// Where a search by next fit begins; the first hole, if `NONE`.
    pub(super) rover: u32,
}

impl<'m> Blocks<'m> {
    /// One hole, if there are bytes at all; `None` without a record for it.
    pub(super) fn new(records: &'m mut [Record], start: u64, len: u64) -> Option<Self> {
        // What a u32 cannot name is left alone.
        let most = records.len().min(NONE as usize);
        let records = &mut records[..most];
        if records.is_empty() {
            return None;
        }
        for (record, slot) in records.iter_mut().zip(0..) {
            // What a table before this one left allocated is freed with it.
            let life = record.life.wrapping_add(record.life % 2);
            let next = if slot as usize + 1 < most { slot + 1 } else { NONE };
            *record = Record { next, life, ..Record::EMPTY };
        }
        let mut blocks = Self { records, first: NONE, first_hole: NONE, spare: 0, rover: NONE };
        if len > 0 {
            blocks.first = blocks.take_spare()?;
            blocks.first_hole = blocks.first;
            let hole = blocks.at_mut(blocks.first);
            (hole.start, hole.len) = (start, len);
        }
        Some(blocks)
    }

    pub(super) const fn len(&self) -> usize {
        self.records.len()
    }

    /// The record in `slot`, which must be one that the lists name.
    pub(super) const fn at(&self, slot: u32) -> &Record {
        &self.records[slot as usize]
    }

    const fn at_mut(&mut self, slot: u32) -> &mut Record {
        &mut self.records[slot as usize]
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Record> {
        self.records.get(slot as usize)
    }

    /// The holes from `slot` on, in ascending order.
    pub(super) fn holes_from(&self, slot: u32) -> impl Iterator<Item = (u32, &Record)> {
        self.follow(slot, |record| record.hole_next)
    }

    /// The blocks from `slot` on, in ascending order.
    pub(super) fn blocks_from(&self, slot: u32) -> impl Iterator<Item = (u32, &Record)> {
        self.follow(slot, |record| record.next)
    }

    fn follow(
        &self,
        slot: u32,
        next: impl Fn(&Record) -> u32,
    ) -> impl Iterator<Item = (u32, &Record)> {
        let named = |slot: u32| self.get(slot).map(|record| (slot, record));
        core::iter::successors(named(slot), move |(_, record)| named(next(record)))
    }

    /// Makes the lowest `len` bytes of a hole a partition; `None`, and nothing is changed, if that
    /// takes a record and there is none.
    pub(super) fn carve(&mut self, hole: u32, len: u64) -> Option<u32> {
        let slot = if self.at(hole).len == len {
            self.unlink_hole(hole);
            hole
        } else {
            let slot = self.take_spare()?;
            let rest = self.at_mut(hole);
            let (start, prev) = (rest.start, rest.prev);
            rest.start += len;
            rest.len -= len;
            let record = self.at_mut(slot);
            (record.start, record.len) = (start, len);
            self.link(prev, slot);
            self.link(slot, hole);
            slot
        };
        let record = self.at_mut(slot);
        record.life = record.life.wrapping_add(1);
        Some(slot)
    }

    /// Makes a partition a hole, and one with the holes beside it.
    pub(super) fn release(&mut self, slot: u32) {
        let record = self.at_mut(slot);
        record.life = record.life.wrapping_add(1);
        let (prev, next) = (record.prev, record.next);
        if self.is_hole(prev) {
            self.absorb_next(prev);
            if self.is_hole(next) {
                self.absorb_next(prev);
            }
            return;
        }
        if self.is_hole(next) {
            self.insert_hole(self.at(next).hole_prev, slot);
            self.absorb_next(slot);
            return;
        }
        let mut below = prev;
        while below != NONE && !self.is_hole(below) {
            below = self.at(below).prev;
        }
        self.insert_hole(below, slot);
    }

    fn is_hole(&self, slot: u32) -> bool {
        self.get(slot).is_some_and(|record| !record.is_partition())
    }

    /// Moves the partition above a hole below it, and joins the hole with one that it then touches.
    /// Returns the partition, or `None` at the end of memory, where nothing is changed.
    pub(super) fn sink(&mut self, hole: u32) -> Option<u32> {
        let slot = self.at(hole).next;
        let &Record { len, next: above, .. } = self.get(slot)?;
        let gap = self.at_mut(hole);
        let (start, below) = (gap.start, gap.prev);
        gap.start += len;
        self.at_mut(slot).start = start;
        self.link(below, slot);
        self.link(slot, hole);
        self.link(hole, above);
        if self.is_hole(above) {
            self.absorb_next(hole);
        }
        Some(slot)
    }

    /// Adds the block above to a hole: a hole, or what has just become one and is in no list of
    /// holes yet.
    fn absorb_next(&mut self, hole: u32) {
        let gone = self.at(hole).next;
        let &Record { len, next, hole_prev, .. } = self.at(gone);
        if self.rover == gone {
            self.rover = hole;
        }
        if hole_prev == hole {
            self.unlink_hole(gone);
        }
        self.at_mut(hole).len += len;
        self.link(hole, next);
        self.put_spare(gone);
    }

    /// Makes two blocks neighbours; either may be the end of the list.
    const fn link(&mut self, lower: u32, upper: u32) {
        if lower == NONE {
            self.first = upper;
        } else {
            self.at_mut(lower).next = upper;
        }
        if upper != NONE {
            self.at_mut(upper).prev = lower;
        }
    }

    /// The same in the list of holes.
    const fn link_hole(&mut self, lower: u32, upper: u32) {
        if lower == NONE {
            self.first_hole = upper;
        } else {
            self.at_mut(lower).hole_next = upper;
        }
        if upper != NONE {
            self.at_mut(upper).hole_prev = lower;
        }
    }

    fn insert_hole(&mut self, below: u32, hole: u32) {
        let above = if below == NONE { self.first_hole } else { self.at(below).hole_next };
        self.link_hole(below, hole);
        self.link_hole(hole, above);
    }

    fn unlink_hole(&mut self, hole: u32) {
        let &Record { hole_prev, hole_next, .. } = self.at(hole);
        self.link_hole(hole_prev, hole_next);
        let record = self.at_mut(hole);
        (record.hole_prev, record.hole_next) = (NONE, NONE);
        if self.rover == hole {
            self.rover = hole_next;
        }
    }

    fn take_spare(&mut self) -> Option<u32> {
        let slot = self.spare;
        self.spare = self.get(slot)?.next;
        self.at_mut(slot).next = NONE;
        Some(slot)
    }

    fn put_spare(&mut self, slot: u32) {
        let life = self.at(slot).life;
        *self.at_mut(slot) = Record { next: self.spare, life, ..Record::EMPTY };
        self.spare = slot;
    }
}
