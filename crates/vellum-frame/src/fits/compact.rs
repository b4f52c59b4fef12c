//! Compaction: partitions move together, so that holes become one.
//!
//! ```text
//!   before     |AAAAA|..|BBB|....|CC|...|DDDD|.....|
//!
//!   compact    |AAAAA|BBB|CC|DDDD|.................|       all of it; 3 + 2 + 4 moved
//!   make_room  |AAAAA|..|BBB|CC|.......|DDDD|.....|        for 7: only C lies in the way
//! ```
//!
//! Either way a hole *bubbles* upward: the partition above it is moved down by the hole's length, and
//! the hole takes in the next one when it touches it. Each such step leaves a complete table behind.
//!
//! [`make_room`](Partitions::make_room) begins where that is cheapest: among all stretches of blocks
//! whose holes add up to enough it takes the one with the fewest bytes in partitions. Two ends that
//! only move upward find it in O(blocks). (That is the least for moves that keep the order of
//! partitions. A partition that were moved into a hole elsewhere might be cheaper still.)
//!
//! Either is O(blocks), and as many bytes as it reports are copied while no program can run.
//!
//! Source: D. E. Knuth, *The Art of Computer Programming*, vol. 1, 2.5, on "compacting"; P. J.
//! Denning, "Virtual Memory", Computing Surveys 2(3), 1970, on why that was given up.

use super::blocks::{Blocks, NONE};
use super::{FitError, Partition, Partitions};
use vellum_core::PhysAddr;

/// One partition that moves downward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub partition: Partition,
    /// Its first byte so far.
    pub from: PhysAddr,
    /// Its first byte from now on: the new content of its base register. Less than `from`, and maybe
    /// nearer than `len`: copy as `memmove` does.
    pub to: PhysAddr,
    /// Its bytes.
    pub len: u64,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Compaction {
    /// Partitions moved.
    pub moves: u64,
    /// Bytes moved.
    pub bytes: u64,
}

impl Partitions<'_> {
    /// Moves all partitions together to the low end of memory, so that one hole is left.
    ///
    /// `moved` is called for each that changes its place, in ascending order, and copies its bytes
    /// before it returns. Nothing else may use the memory meanwhile.
    pub fn compact(&mut self, moved: impl FnMut(Move)) -> Compaction {
        self.bubble(self.blocks.first_hole, u64::MAX, moved)
    }

    /// Moves as few bytes as needed for a hole of `wanted` bytes: none, if there is such a hole.
    /// `moved` as for [`compact`](Self::compact). A search by next fit then begins at that hole.
    ///
    /// # Errors
    ///
    /// [`FitError::ZeroSize`]; [`FitError::NoHole`], if so many bytes are not free at all. Nothing was
    /// moved then.
    pub fn make_room(
        &mut self,
        wanted: u64,
        moved: impl FnMut(Move),
    ) -> Result<Compaction, FitError> {
        let len = self.rounded(wanted)?;
        let hole = len.and_then(|len| self.blocks.cheapest_stretch(len)).ok_or_else(|| {
            FitError::NoHole { wanted, free: self.free, largest: self.largest_hole() }
        })?;
        Ok(self.bubble(hole, len.unwrap_or(u64::MAX), moved))
    }

    /// Moves partitions from above `hole` to below it until it has `wanted` bytes or nothing is
    /// above it.
    fn bubble(&mut self, hole: u32, wanted: u64, mut moved: impl FnMut(Move)) -> Compaction {
        let mut done = Compaction::default();
        let Some(&gap) = self.blocks.get(hole) else { return done };
        let mut gap = gap;
        while gap.len < wanted {
            let Some(&above) = self.blocks.get(gap.next) else { break };
            moved(Move {
                partition: Partition { slot: gap.next, life: above.life },
                from: PhysAddr::new(above.start),
                to: PhysAddr::new(gap.start),
                len: above.len,
            });
            self.blocks.sink(hole);
            done.moves += 1;
            done.bytes += above.len;
            gap = *self.blocks.at(hole);
        }
        self.blocks.rover = hole;
        done
    }
}

impl Blocks<'_> {
    /// The lowest hole of the stretch of blocks whose holes have `wanted` bytes in all and whose
    /// partitions have the fewest.
    fn cheapest_stretch(&self, wanted: u64) -> Option<u32> {
        let mut best: Option<(u64, u32)> = None;
        // The holes from `low` up to the one that the loop is at, and the partitions between them.
        let mut low = NONE;
        let (mut free, mut used) = (0, 0);
        for (slot, block) in self.blocks_from(self.first_hole) {
            if block.is_partition() {
                used += block.len;
                continue;
            }
            if low == NONE {
                low = slot;
            }
            free += block.len;
            while free >= wanted {
                if best.is_none_or(|(least, _)| used < least) {
                    best = Some((used, low));
                }
                if low == slot {
                    // One hole is enough by itself.
                    return Some(slot);
                }
                free -= self.at(low).len;
                let next = self.at(low).hole_next;
                used -= self.at(next).start - (self.at(low).start + self.at(low).len);
                low = next;
            }
        }
        best.map(|(_, hole)| hole)
    }
}
