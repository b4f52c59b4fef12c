//! What paging replaced: every process in one piece, in a hole that is large enough for it.
//!
//! ```text
//!         +-------+.....+---------------+...+------+..........+-----+..+
//!  memory |   A   |  6  |       B       | 4 |  C   |    11    |  D  | 3|
//!         +-------+.....+---------------+...+------+..........+-----+..+
//!                  hole                 hole        hole            hole
//!
//!  24 units are free, and a process of 12 cannot be loaded: external fragmentation.
//! ```
//!
//! [`Partitions`] is the table of a system with partitions of variable size: it makes one in a hole
//! that a [`Fit`] chooses, frees it and merges what is free, and [compacts](Partitions::compact).
//! [`BaseLimit`] is what the hardware of such systems translated with. It is here to be compared with:
//! `cargo xtask compare --fits` runs it over a stream of processes, beside paging. It serves as well
//! wherever something needs variable sizes in one piece and can be told that they moved, such as the
//! window of a device.
//!
//! ```
//! use vellum_core::PhysAddr;
//! use vellum_frame::fits::{Fit, FitError, Partitions, Record};
//!
//! let mut records = [Record::EMPTY; 16];
//! let memory = PhysAddr::new(0x10_0000);
//! let mut table = Partitions::new(memory, 64 << 10, 16, Fit::First, &mut records)?;
//! let a = table.alloc(24 << 10)?;
//! let b = table.alloc(16 << 10)?;
//! table.free(a)?;
//!
//! // 48 KiB are free, 24 below b and 24 above it. 32 are asked for.
//! let error = table.alloc(32 << 10).unwrap_err();
//! assert_eq!(error, FitError::NoHole { wanted: 32 << 10, free: 48 << 10, largest: 24 << 10 });
//! assert!(error.is_fragmentation());
//!
//! let compaction = table.compact(|moved| {
//!     // Here a kernel copies `len` bytes from `from` to `to`.
//!     assert_eq!((moved.partition, moved.to, moved.len), (b, memory, 16 << 10));
//! });
//! assert_eq!(compaction.bytes, 16 << 10);
//! table.alloc(32 << 10)?;
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! It only counts: no memory is touched, so a table can stand for memory that is not there. Nothing
//! here allocates or panics, unless a callback does. Making a partition is O(holes), freeing one O(1)
//! in the long run (see `blocks.rs`), compaction O(blocks).
//!
//! # Invariants
//!
//! - `free` is the length of all holes together, and `partitions` counts what is not a hole.
//! - Every block begins and ends at a multiple of the granule from the memory's first byte.
//! - An error means that nothing was changed, but for what [`Effort`] counts.
//!
//! Source: D. E. Knuth, *The Art of Computer Programming*, vol. 1, 2.5 "Dynamic storage allocation".

mod blocks;
mod compact;
mod error;
mod relocate;
mod search;

#[cfg(test)]
mod tests;

pub use blocks::Record;
pub use compact::{Compaction, Move};
pub use error::{FitError, LimitFault, PartitionError, TableError};
pub use relocate::BaseLimit;
pub use search::Fit;

use blocks::Blocks;
use vellum_core::PhysAddr;

/// How many records are enough for so many partitions at once: as many again for the holes between
/// them, and one more.
#[must_use]
pub const fn records_for(partitions: usize) -> usize {
    partitions.saturating_mul(2).saturating_add(1)
}

/// A handle to a partition, which stays the same when the partition moves.
///
/// Once freed it is refused as such, until its record has been used 2<sup>31</sup> times more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Partition {
    slot: u32,
    life: u32,
}

/// A stretch of memory: a partition, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its first byte.
    pub base: PhysAddr,
    /// Its length.
    pub len_bytes: u64,
    /// Whose it is; `None` for a hole.
    pub partition: Option<Partition>,
}

/// What a table has come to; all sizes in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FitStats {
    /// All the memory.
    pub total: u64,
    /// What of it is in holes.
    pub free: u64,
    /// The largest hole.
    pub largest: u64,
    /// How many holes there are.
    pub holes: u64,
    /// How many partitions there are.
    pub partitions: u64,
}

impl FitStats {
    /// External fragmentation in thousandths: 1 - largest / free, rounded down. 0 if all that is free
    /// is in one piece, or nothing is.
    #[must_use]
    pub const fn fragmentation_permille(self) -> u32 {
        if self.free == 0 {
            return 0;
        }
        // At most 1000.
        ((self.free - self.largest) as u128 * 1000 / self.free as u128) as u32
    }
}

/// What searches have cost since the table was made, those included that found nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Searches for a hole.
    pub searches: u64,
    /// Holes that they looked at.
    pub holes_examined: u64,
}

/// The table of a memory that is dealt out in partitions of variable size.
///
/// `'m` is how long its records live.
#[derive(Debug)]
pub struct Partitions<'m> {
    blocks: Blocks<'m>,
    fit: Fit,
    granule: u64,
    total: u64,
    free: u64,
    partitions: u64,
    effort: Effort,
}

impl<'m> Partitions<'m> {
    /// A table of `len_bytes` of memory from `base` on, all of it free.
    ///
    /// Partitions are made in multiples of `granule_bytes`, a power of two: 1 for exact sizes, 64 as
    /// in a PDP-11. What the memory has beyond the last whole granule is left out. `records` may hold
    /// anything: [`Record::EMPTY`], or what another table left, whose partitions then count as freed.
    ///
    /// # Errors
    ///
    /// Every [`TableError`].
    pub fn new(
        base: PhysAddr,
        len_bytes: u64,
        granule_bytes: u64,
        fit: Fit,
        records: &'m mut [Record],
    ) -> Result<Self, TableError> {
        if !granule_bytes.is_power_of_two() {
            return Err(TableError::Granule { granule_bytes });
        }
        // The last byte must have an address; the one behind it need not.
        if len_bytes > 0 && base.as_u64().checked_add(len_bytes - 1).is_none() {
            return Err(TableError::Range { base, len_bytes });
        }
        let total = len_bytes & !(granule_bytes - 1);
        let blocks = Blocks::new(records, base.as_u64(), total).ok_or(TableError::NoRecords)?;
        let (free, partitions, effort) = (total, 0, Effort::default());
        Ok(Self { blocks, fit, granule: granule_bytes, total, free, partitions, effort })
    }

    /// Makes a partition of `size_bytes`, rounded up to the granule, at the low end of the hole that
    /// the fit chooses.
    ///
    /// # Errors
    ///
    /// Every [`FitError`]; none of them took anything.
    pub fn alloc(&mut self, size_bytes: u64) -> Result<Partition, FitError> {
        let len = self.rounded(size_bytes)?;
        // A size that cannot be rounded up is searched for like any that is too large.
        let search = self.blocks.search(self.fit, len.unwrap_or(u64::MAX));
        self.effort.searches += 1;
        self.effort.holes_examined += search.examined;
        let (Some(hole), Some(len)) = (search.found, len) else {
            let (free, largest) = (self.free, search.largest);
            return Err(FitError::NoHole { wanted: size_bytes, free, largest });
        };
        let records = self.blocks.len();
        let before = core::mem::replace(&mut self.blocks.rover, hole);
        let Some(slot) = self.blocks.carve(hole, len) else {
            self.blocks.rover = before;
            return Err(FitError::NoRecord { records });
        };
        self.free -= len;
        self.partitions += 1;
        Ok(Partition { slot, life: self.blocks.at(slot).life })
    }

    /// Frees a partition; its bytes and the holes beside it become one.
    ///
    /// # Errors
    ///
    /// Every [`PartitionError`].
    pub fn free(&mut self, partition: Partition) -> Result<(), PartitionError> {
        self.check(partition)?;
        self.free += self.blocks.at(partition.slot).len;
        self.partitions -= 1;
        self.blocks.release(partition.slot);
        Ok(())
    }

    /// Where a partition lies, until the next compaction.
    ///
    /// # Errors
    ///
    /// Every [`PartitionError`].
    pub fn get(&self, partition: Partition) -> Result<BaseLimit, PartitionError> {
        self.check(partition)?;
        let record = self.blocks.at(partition.slot);
        Ok(BaseLimit::new(record.start, record.len))
    }

    fn check(&self, Partition { slot, life }: Partition) -> Result<(), PartitionError> {
        let record = self.blocks.get(slot).ok_or(PartitionError::Unknown)?;
        match record.life.wrapping_sub(life) {
            0 => Ok(()),
            later if later <= u32::MAX / 2 => Err(PartitionError::Freed),
            _ => Err(PartitionError::Unknown),
        }
    }

    /// A size in whole granules, or `None` if that is no number.
    const fn rounded(&self, size_bytes: u64) -> Result<Option<u64>, FitError> {
        match size_bytes {
            0 => Err(FitError::ZeroSize),
            _ => Ok(size_bytes.checked_next_multiple_of(self.granule)),
        }
    }

    /// How holes are chosen.
    #[must_use]
    pub const fn fit(&self) -> Fit {
        self.fit
    }

    /// What searches have cost.
    #[must_use]
    pub const fn effort(&self) -> Effort {
        self.effort
    }

    /// Counts bytes, holes and partitions. O(holes).
    #[must_use]
    pub fn stats(&self) -> FitStats {
        FitStats {
            total: self.total,
            free: self.free,
            largest: self.largest_hole(),
            holes: self.blocks.holes_from(self.blocks.first_hole).count() as u64,
            partitions: self.partitions,
        }
    }

    fn largest_hole(&self) -> u64 {
        let holes = self.blocks.holes_from(self.blocks.first_hole);
        holes.map(|(_, hole)| hole.len).max().unwrap_or(0)
    }

    /// All of the memory, ascending: no gap, and no two holes beside each other.
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        self.blocks.blocks_from(self.blocks.first).map(|(slot, record)| Block {
            base: PhysAddr::new(record.start),
            len_bytes: record.len,
            partition: record.is_partition().then_some(Partition { slot, life: record.life }),
        })
    }
}
