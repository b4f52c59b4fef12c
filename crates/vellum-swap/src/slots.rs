//! Which slots of an area are free, and how many share the others.
//!
//! ```text
//!   cluster       512 slots, written one after the other
//!   +------+---------------------------------------+
//!   | free |  8 words, a bit for each slot: free   |      slot    +-------+-----+
//!   +------+---------------------------------------+   ------->   | count | tag |
//!      ^                                                          +-------+-----+
//!      `- never more than bits are set: who counts it down            ^      ^
//!         by one has a bit for himself, wherever that is              |      `- of what is stored
//!                                                                     `- shares: entries of tables, the cache
//!   take     free - 1, then a bit cleared, then count 0 -> 1
//!   put      count 1 -> 0, tag forgotten, then the bit set, then free + 1
//!   discard  free 512 -> 0, the whole cluster told to the device, free = 512
//! ```
//!
//! A CPU that takes slots goes on in the cluster that its *lane* names, so that pages which go out
//! together lie together, and come back in one read. It leaves the cluster when that is full, for one that
//! is free as a whole, if there is any.
//!
//! # Invariants
//!
//! - In each cluster, as many bits are set as `free` says and those who have counted it down still look
//!   for, or more by those who have not counted it up yet.
//! - A slot whose bit is set has no shares. A bad slot has neither a bit nor, ever again, a share.
//! - The tag belongs to who has stored the page, until somebody else can name the slot.
//!
//! # Cost
//!
//! [`take`](Slots::take) is O(1) while its lane's cluster has room, else O(clusters); the rest is O(1).
//! No locks; who takes waits for nobody but those who take faster.
//!
//! Source: Linux, mm/swapfile.c (`scan_swap_map_slots`, clusters and per-CPU clusters); LLFree (USENIX ATC
//! 2023) for counting down before looking.

use core::fmt;
use core::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use vellum_frame::table::{Count, Put};

/// Slots in a cluster.
pub const CLUSTER: u32 = 512;

/// CPUs beyond this many share lanes.
const LANES: usize = 16;

/// What is known of one slot: 16 bytes for each page of the area.
#[derive(Debug, Default)]
pub struct Slot {
    count: Count,
    tag: AtomicU64,
}

impl Slot {
    /// A slot that no area has yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { count: Count::new(), tag: AtomicU64::new(0) }
    }
}

/// What is known of 512 slots together.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Cluster {
    words: [AtomicU64; 8],
    free: AtomicU32,
}

impl Cluster {
    /// A cluster that no area has yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: [const { AtomicU64::new(0) }; 8], free: AtomicU32::new(0) }
    }
}

/// The slots of one area; see the [module](self).
pub struct Slots<'m> {
    slots: &'m [Slot],
    clusters: &'m [Cluster],
    lanes: [AtomicU32; LANES],
}

/// Why slots could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// One cluster is needed for each 512 slots, begun or whole: `needed`, and `lent` were lent.
    Clusters {
        /// How many there must be.
        needed: usize,
        /// How many there are.
        lent: usize,
    },
    /// 2^32 slots or more.
    TooMany(usize),
    /// A slot or a cluster is in use elsewhere: it is not as [`Default`] makes it.
    InUse,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clusters { needed, lent } => {
                write!(f, "{needed} clusters are needed, {lent} were lent")
            }
            Self::TooMany(slots) => write!(f, "{slots} slots are more than 2^32 - 1"),
            Self::InUse => f.write_str("a record that was lent is in use already"),
        }
    }
}

impl core::error::Error for SizeError {}

/// What [`Slots::put`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Left {
    /// Others have a share still.
    Shared,
    /// That was the last one; the slot is free. `whole` if all of its cluster is.
    Free {
        /// Whether the cluster may be discarded.
        whole: bool,
    },
    /// There is no such slot, or it had no share: nothing was changed.
    Unowned,
}

impl<'m> Slots<'m> {
    /// How many clusters `slots` slots need.
    #[must_use]
    pub const fn clusters_for(slots: usize) -> usize {
        slots.div_ceil(CLUSTER as usize)
    }

    /// Slots, all of them free.
    ///
    /// # Errors
    ///
    /// [`SizeError`].
    pub fn new(slots: &'m [Slot], clusters: &'m [Cluster]) -> Result<Self, SizeError> {
        let needed = Self::clusters_for(slots.len());
        if clusters.len() != needed {
            return Err(SizeError::Clusters { needed, lent: clusters.len() });
        }
        let number = u32::try_from(slots.len()).ok().filter(|&n| n < u32::MAX);
        let number = number.ok_or(SizeError::TooMany(slots.len()))?;
        let slots_used = slots.iter().any(|slot| slot.count.count() != 0);
        if slots_used || clusters.iter().any(|cluster| cluster.free.load(Relaxed) != 0) {
            return Err(SizeError::InUse);
        }
        let mut left = number;
        for cluster in clusters {
            let here = left.min(CLUSTER);
            left -= here;
            for (word, first) in cluster.words.iter().zip((0u32..).step_by(64)) {
                let bits = here.saturating_sub(first).min(64);
                word.store(u64::MAX.checked_shr(64 - bits).unwrap_or(0), Relaxed);
            }
            cluster.free.store(here, Relaxed);
        }
        Ok(Self { slots, clusters, lanes: [const { AtomicU32::new(0) }; LANES] })
    }

    /// How many slots there are, with bad ones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many are free: exact while nobody takes or puts. O(clusters).
    #[must_use]
    pub fn count_free(&self) -> usize {
        let free = self.clusters.iter().map(|cluster| cluster.free.load(Relaxed) as usize);
        free.sum()
    }

    /// Takes a free slot, with one share; `None` if all are in use. `cpu` is any number that differs
    /// between CPUs.
    #[must_use]
    pub fn take(&self, cpu: usize) -> Option<u32> {
        let lane = self.lanes.get(cpu % LANES)?;
        let current = lane.load(Relaxed);
        if let Some(slot) = self.take_in(current) {
            return Some(slot);
        }
        let all = u32::try_from(self.clusters.len()).ok()?;
        let others = || (current..all).chain(0..current.min(all));
        let is_whole = |&index: &u32| {
            let cluster = self.clusters.get(index as usize);
            cluster.is_some_and(|cluster| cluster.free.load(Relaxed) == CLUSTER)
        };
        others().filter(is_whole).chain(others()).find_map(|index| {
            let slot = self.take_in(index)?;
            lane.store(index, Relaxed);
            Some(slot)
        })
    }

    /// A slot of one cluster.
    fn take_in(&self, index: u32) -> Option<u32> {
        let cluster = self.clusters.get(index as usize)?;
        let fewer = |free: u32| free.checked_sub(1);
        // Acquires the bits of those who counted up.
        cluster.free.fetch_update(Acquire, Relaxed, fewer).ok()?;
        loop {
            // One of the bits is ours; another may take the one that is seen, and leave his behind.
            for (word, first) in cluster.words.iter().zip((0u32..).step_by(64)) {
                let Some(bit) = clear_lowest(word) else { continue };
                let number = index * CLUSTER + first + bit;
                let slot = self.slots.get(number as usize)?;
                let is_ours = slot.count.take();
                debug_assert!(is_ours, "a slot with a bit has no share");
                return Some(number);
            }
            core::hint::spin_loop();
        }
    }

    /// One share more; false if the slot has none any more, or is none.
    #[must_use]
    pub fn share(&self, slot: u32) -> bool {
        self.slot(slot).is_some_and(|slot| slot.count.try_get())
    }

    /// One share fewer.
    pub fn put(&self, slot: u32) -> Left {
        match self.slot(slot).map(|slot| slot.count.put()) {
            None | Some(Put::Unowned) => Left::Unowned,
            Some(Put::Shared) => Left::Shared,
            Some(Put::Last) => Left::Free { whole: self.give_back(slot) },
        }
    }

    /// Whether the whole cluster is free with it.
    fn give_back(&self, number: u32) -> bool {
        let cluster = self.clusters.get((number / CLUSTER) as usize);
        let (Some(slot), Some(cluster)) = (self.slot(number), cluster) else { return false };
        slot.tag.store(0, Relaxed);
        let in_cluster = number % CLUSTER;
        if let Some(word) = cluster.words.get((in_cluster / 64) as usize) {
            word.fetch_or(1 << (in_cluster % 64), Release);
        }
        cluster.free.fetch_add(1, Release) + 1 == CLUSTER
    }

    /// Makes a slot bad, for who took it and has told nobody: it is never free again. False, and nothing has
    /// changed, if it has not exactly one share.
    pub fn spoil(&self, slot: u32) -> bool {
        // Without its bit it can be taken no more, and without a share it cannot be had.
        self.slot(slot).is_some_and(|slot| slot.count.is_sole() && slot.count.put() == Put::Last)
    }

    /// Makes a free slot bad, as the header of an area says of some, before it is used; false if it is not
    /// free or no slot.
    pub fn spoil_free(&self, number: u32) -> bool {
        let cluster = self.clusters.get((number / CLUSTER) as usize);
        let in_cluster = number % CLUSTER;
        let word = cluster.and_then(|cluster| cluster.words.get((in_cluster / 64) as usize));
        let (Some(cluster), Some(word)) = (cluster, word) else { return false };
        let bit = 1 << (in_cluster % 64);
        let reserved = cluster.free.fetch_update(Acquire, Relaxed, |free| free.checked_sub(1));
        if reserved.is_err() {
            return false;
        }
        if word.fetch_and(!bit, AcqRel) & bit != 0 {
            return true;
        }
        cluster.free.fetch_add(1, Release);
        false
    }

    /// Calls `discard` with the first slot of a cluster that is free as a whole, and how many slots it has,
    /// while nobody can take one. False if it is in use, or no cluster begins there.
    pub fn discard(&self, cluster: u32, discard: impl FnOnce(u32, u32)) -> bool {
        let Some(found) = self.clusters.get(cluster as usize) else { return false };
        // Not the last one, if it is no whole cluster; there is little to gain.
        if found.free.compare_exchange(CLUSTER, 0, Acquire, Relaxed).is_err() {
            return false;
        }
        discard(cluster * CLUSTER, CLUSTER);
        found.free.fetch_add(CLUSTER, Release);
        true
    }

    /// How many share the slot; 0 for one that is free, bad, or none.
    #[must_use]
    pub fn count(&self, slot: u32) -> u32 {
        self.slot(slot).map_or(0, |slot| slot.count.count())
    }

    /// The tag of what is stored there.
    #[must_use]
    pub fn tag(&self, slot: u32) -> u64 {
        self.slot(slot).map_or(0, |slot| slot.tag.load(Acquire))
    }

    /// Sets the tag, for who took the slot, before anybody else can name it.
    pub fn set_tag(&self, slot: u32, tag: u64) {
        if let Some(slot) = self.slot(slot) {
            slot.tag.store(tag, Release);
        }
    }

    fn slot(&self, number: u32) -> Option<&'m Slot> {
        self.slots.get(number as usize)
    }
}

/// Clears the lowest bit that is set; which it was.
fn clear_lowest(word: &AtomicU64) -> Option<u32> {
    let mut bits = word.load(Relaxed);
    while bits != 0 {
        match word.compare_exchange_weak(bits, bits & (bits - 1), Acquire, Relaxed) {
            Ok(_) => return Some(bits.trailing_zeros()),
            Err(now) => bits = now,
        }
    }
    None
}

impl fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("len", &self.len())
            .field("free", &self.count_free())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
