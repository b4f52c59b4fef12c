//! PowerPC's hashed page table: groups of eight entries, each in one of two groups.
//!
//! ```text
//!   VSID, page --> hash --> primary group     8 slots of 16 bytes     128 bytes, read at once
//!                    |            | not there
//!                    +-- ~ -----> secondary group  8 slots, marked H
//!                                 | not there, and all 16 slots taken
//!                                 chain of the pair     software's: nodes of 24 bytes
//! ```
//!
//! The entries and both hashes are those of the architecture, bit by bit (htab/entry.rs,
//! htab/virt.rs), and at rest the table is one aligned block as a processor wants it:
//! [`origin`](Htab::origin). Pages are of 4 KiB: there is no 2 MiB or 1 GiB page in this format
//! (64 KiB, 16 MiB and 16 GiB are), so larger leaves are made of small ones.
//!
//! # When both groups are full
//!
//! Hardware finds 16 entries of a pair, and no more. Linux, which has a tree as well and the hash
//! table as a cache of that, throws some entry of the primary group away that is not bolted, and
//! loads it again when it faults. Here the table is all there is, so what is pushed out goes to the
//! pair's chain, where software finds it: first an entry that hardware cannot use anyway (`PROT_NONE`,
//! soft), then one of the primary group in turns, then of the secondary, never a bolted one. A new
//! entry that hardware cannot use goes to the chain itself. An entry of the chain that changes, as
//! one does that is touched, changes places with one of the groups: what a fault on it does. When a
//! slot becomes free, the first of the chain takes it.
//!
//! # Growth
//!
//! At half as many entries as slots (4 a group, of which .0008 overflow), a table of twice the size
//! is taken, and pairs move there one by one, 4 at most for 8 entries that come: 24 groups of 128
//! bytes read or written (htab/grow.rs). Linux has the firmware do it, or sizes the table for all
//! of memory; hardware that walks this table would have to stop until a resize is through. Where
//! there is no block of that size, chains get longer, and it is tried again later.
//!
//! Look-ups take no lock. The stripe of a pair is chosen by its low 9 bits, which the pairs have
//! that it is split into, in tables of every size: one sequence lock covers both groups, the chain,
//! and wherever they move to.
//!
//! # Invariants
//!
//! - Slots, heads and nodes in chains are stored under the stripe of the pair; so is the state, by
//!   whoever moves that pair and holds `growing`.
//! - A table that the state leads to, or led to since the table was last exclusive, stays.
//! - A look-up follows a link only after it saw that the version had not moved since.
//! - An entry moves within its pair, or to one of a higher number.
//!
//! # Lock order
//!
//! One stripe; nothing under it. `growing` is only ever tried.
//!
//! Source: Power ISA 2.07B, Book III-S, chapter "Storage Control", "Virtual to Real Translation"; Linux,
//! arch/powerpc/mm/book3s64/hash_native.c (`native_hpte_remove`), hash_utils.c.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use entry::{SECONDARY, decode, is_taken};
use table::{Found, GROUP_BYTES, SLOTS, Table, pair_of, slots};
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, PhysAddr, Sink};
use vellum_global::node;
use vellum_global::pool::NODE_BYTES;
use vellum_global::stripes::{Held, Version};
use vellum_global::{
    Asid, AsidError, Asids, Key, Lowest, Nodes, Note, Notes, Pool, Refused, Space, Store, Stripes,
};
use virt::Virtual;

mod change;
mod entry;
mod grow;
mod table;
mod virt;

/// log2 of the groups of the smallest table there is: 256 KiB.
const LEAST: u8 = 11;
/// Sizes that there may be, by log2 of their groups; a hash has 39 bits.
const SIZES: usize = 40;
/// log2 of the groups by whose pairs stripes are chosen: twice as many as stripes.
const STRIPES: u8 = PAGE_SHIFT - 3 + 1;
/// In a table's word: it is there. (Its address may be 0.)
const THERE: u64 = 1;
/// The state: log2 of the groups above, and how many pairs have moved from that table.
const LOG2_SHIFT: u32 = 56;
/// Entries that may come between two steps of growth.
const CREDIT: u32 = 8;

/// What an insertion may need: a node, or a step of growth.
const NODE: Need = Need::new(1);
const GROWTH: Need = Need::new(2);

/// Bytes that a walker reads of a head.
const HEAD_BYTES: u8 = 8;

/// How many entries a table holds before it grows: four a group.
const fn room(log2: u8) -> u64 {
    (SLOTS / 2) << log2
}

/// A hashed page table of all spaces; [`space`](Self::space) makes a handle of one.
pub struct Htab<M: Memory> {
    memory: M,
    stripes: Stripes<M>,
    pool: Pool<M>,
    asids: Asids,
    /// The blocks of the table of each size: groups, with [`THERE`], and heads.
    blocks: [[AtomicU64; 2]; SIZES],
    state: AtomicU64,
    entries: AtomicU64,
    overflow: AtomicU64,
    evictions: AtomicU64,
    reloads: AtomicU64,
    count_frames: AtomicU64,
    /// Somebody is moving a pair.
    growing: AtomicBool,
    /// After a table could not be had: how many entries there will be when it is tried again.
    retry_at: AtomicU64,
}

/// Where the entries are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// In their primary group.
    pub primary: u64,
    /// In their secondary group.
    pub secondary: u64,
    /// In chains.
    pub overflow: u64,
}

/// What changes may consume: nodes, and entries that may come before the table has to grow on.
pub struct Stock<'t, M: Memory> {
    table: &'t Htab<M>,
    nodes: Nodes<'t, M>,
    credit: u32,
}

impl<'t, M: Memory> Stock<'t, M> {
    fn new(table: &'t Htab<M>) -> Self {
        Self { table, nodes: Nodes::new(&table.pool), credit: 0 }
    }
}

impl<M: Memory> Htab<M> {
    /// An empty table of the least size, 2048 groups: 256 KiB in one block, 8 KiB of heads, and a
    /// frame of locks.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(memory: M) -> Result<Self, OutOfFrames> {
        Self::with_capacity(memory, 0)
    }

    /// An empty table that does not grow before it has as many entries: 32 to 64 bytes for each.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn with_capacity(memory: M, pages: u64) -> Result<Self, OutOfFrames> {
        let log2 = (LEAST..SIZES as u8 - 1).find(|&log2| pages <= room(log2));
        let log2 = log2.unwrap_or(SIZES as u8 - 1);
        let table = Self {
            stripes: Stripes::new(memory.clone())?,
            pool: Pool::keeping(memory.clone(), NODE_BYTES),
            memory,
            asids: Asids::new(),
            blocks: [const { [const { AtomicU64::new(0) }; 2] }; SIZES],
            state: AtomicU64::new(u64::from(log2) << LOG2_SHIFT),
            entries: AtomicU64::new(0),
            overflow: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            reloads: AtomicU64::new(0),
            count_frames: AtomicU64::new(0),
            growing: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
        };
        table.add_table(log2, true)?;
        Ok(table)
    }

    /// The space `asid`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn space(&self, asid: Asid) -> Result<Space<'_, Self>, AsidError> {
        Space::open(self, asid)
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// How many groups there are; while it grows, still those of the smaller table.
    pub fn count_groups(&self) -> u64 {
        1 << self.state().0
    }

    /// Entries in chains, which hardware would not find.
    pub fn count_overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// Entries that were pushed out of their groups by new ones, so far.
    pub fn count_evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Entries of chains that changed places with one of a group, so far.
    pub fn count_reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Where the groups lie and log2 of their bytes, for a processor's HTABORG and HTABSIZE; `None`
    /// while the table is growing, as it is in two places then.
    pub fn origin(&self) -> Option<(PhysAddr, u8)> {
        let (log2, moved) = self.state();
        let bytes_log2 = log2 + GROUP_BYTES.ilog2() as u8;
        (moved == 0).then(|| (self.table(log2).group_at(0), bytes_log2))
    }

    /// Counts where the entries are, in a pass over the table.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for pair in 0..self.count_stripes() {
            self.with_pair(pair, |table| {
                for slot in table.groups_of(pair).into_iter().flat_map(slots) {
                    match table.v(slot) {
                        v if !is_taken(v) => {}
                        v if v & SECONDARY != 0 => census.secondary += 1,
                        _ => census.primary += 1,
                    }
                }
                table.each(pair, |_, _| census.overflow += 1);
            });
        }
        census.overflow -= census.primary + census.secondary;
        census
    }

    /// log2 of the groups of the table in use, and how many of its pairs have moved to the next.
    fn state(&self) -> (u8, u64) {
        // Acquire: with it come the blocks of both tables.
        let state = self.state.load(Ordering::Acquire);
        ((state >> LOG2_SHIFT) as u8, state & ((1 << LOG2_SHIFT) - 1))
    }

    fn set_state(&self, (log2, moved): (u8, u64)) {
        self.state.store(u64::from(log2) << LOG2_SHIFT | moved, Ordering::Release);
    }

    /// The table of a size that the state leads to.
    fn table(&self, log2: u8) -> Table<'_, M> {
        let blocks = self.blocks.get(usize::from(log2));
        let at = |n: usize| blocks.map_or(0, |blocks| blocks[n].load(Ordering::Relaxed));
        debug_assert!(at(0) & THERE != 0, "there is no table of 2^{log2} groups");
        let blocks = (PhysAddr::new(at(0) & !THERE), PhysAddr::new(at(1)));
        // SAFETY: `add_table` took both blocks in these sizes, and they stay while `&self` is and
        // the state leads, or has led, there. Nodes are of our pool, which keeps its frames.
        unsafe { Table::new(&self.memory, blocks, log2) }
    }

    /// The table that a hash is in now; for good, while its stripe is held.
    fn table_of(&self, hash: u64) -> Table<'_, M> {
        let (log2, moved) = self.state();
        let has_moved = pair_of(hash, log2) < moved;
        self.table(log2 + u8::from(has_moved))
    }

    fn stripe(&self, hash: u64) -> vellum_global::Stripe {
        self.stripes.of(pair_of(hash, STRIPES))
    }

    /// Takes the stripe of a hash, or of the pair with this number.
    fn hold(&self, hash: u64) -> Held<'_, M> {
        self.stripes.hold(self.stripe(hash))
    }

    /// Calls `f` with the table that a pair is in, if there is such a pair now, under its stripe.
    fn with_pair(&self, pair: u64, f: impl FnOnce(&Table<'_, M>)) {
        let _held = self.hold(pair);
        let (log2, moved) = self.state();
        let groups = 1u64 << log2;
        let origin = if pair < groups / 2 { pair } else { (groups - 1).saturating_sub(pair) };
        if pair < groups / 2 || pair < groups && origin < moved {
            f(&self.table(log2 + u8::from(origin < moved)));
        }
    }

    /// The raw entry of a page, or 0.
    #[inline]
    fn look_up(&self, key: Key, notes: &mut impl Note) -> u64 {
        match self.look(key, notes) {
            Some(raw) => raw,
            None => self.look_again(key, notes),
        }
    }

    /// [`look_up`](Self::look_up) when somebody wrote meanwhile.
    #[cold]
    fn look_again(&self, key: Key, notes: &mut impl Note) -> u64 {
        notes.until(|notes| self.look(key, notes))
    }

    /// A look-up, noting what a walker reads; `None` if somebody wrote meanwhile.
    #[inline]
    fn look(&self, key: Key, notes: &mut impl Note) -> Option<u64> {
        let page = Virtual::of(key);
        let version = self.stripes.begin(self.stripe(page.hash()));
        let table = self.table_of(page.hash());
        let [group, _] = table.groups_of(page.hash());
        notes.note(table.group_at(group), GROUP_BYTES as u8, false);
        if let Some((_, [v, r])) = table.search(group, page.avpn()) {
            return version.is_current().then(|| decode(v, r));
        }
        self.look_further(key, version, notes)
    }

    /// The part of a look-up that few pages need which are there: the secondary group, and where both
    /// are full the chain.
    #[inline(never)]
    fn look_further<'t>(
        &'t self,
        key: Key,
        version: Version<'t, M>,
        notes: &mut impl Note,
    ) -> Option<u64> {
        let page = Virtual::of(key);
        // The same, unless the pair has moved, and with it the version.
        let table = self.table_of(page.hash());
        let groups = table.groups_of(page.hash());
        notes.note(table.group_at(groups[1]), GROUP_BYTES as u8, false);
        if let Some((_, [v, r])) = table.search(groups[1], page.avpn() | SECONDARY) {
            return version.is_current().then(|| decode(v, r));
        }
        if !groups.into_iter().all(|group| table.is_full(group)) {
            return version.is_current().then_some(0);
        }
        let pair = table.pair(page);
        let first = table.head(pair);
        notes.note(table.head_at(pair), HEAD_BYTES, false);
        // SAFETY: the version is that of the pair, hence of its chain, whose nodes are the pool's, and
        // that keeps its frames while `&self` is. Heads hold links at all times.
        unsafe { node::look(&self.memory, &version, first, key, notes) }
    }
}

impl<M: Memory> Store for Htab<M> {
    type Stock<'t>
        = Stock<'t, M>
    where
        Self: 't;

    fn stock(&self) -> Stock<'_, M> {
        Stock::new(self)
    }

    fn refill<'t>(&'t self, stock: &mut Stock<'t, M>, need: Need) -> Result<(), OutOfFrames> {
        stock.become_of(self);
        self.grow(&mut stock.nodes);
        stock.credit = CREDIT;
        if need == NODE { stock.nodes.refill(&self.pool, NODE.get()) } else { Ok(()) }
    }

    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64 {
        if S::HEARS {
            Notes::told(sink, |notes| self.look_up(key, notes))
        } else {
            self.look_up(key, &mut ())
        }
    }

    fn update<'t, E>(
        &'t self,
        key: Key,
        stock: &mut Stock<'t, M>,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        let page = Virtual::of(key);
        let held = self.hold(page.hash());
        let table = self.table_of(page.hash());
        let found = table.find(page, key);
        let old = match &found {
            None => 0,
            Some(Found::Slot(slot)) => table.entry(*slot).1,
            Some(Found::Node(node, _)) => node.raw(),
        };
        let new = f(old).map_err(Refused::By)?;
        if new == old {
            return Ok(old);
        }
        let Some(found) = found else {
            self.insert(&table, (page, key), new, stock).map_err(Refused::Need)?;
            return Ok(0);
        };
        let left = self.change(&table, &found, page, new);
        drop(held);
        self.entries.fetch_sub(u64::from(new == 0), Ordering::Relaxed);
        if let Some(node) = left {
            // SAFETY: of our pool, and in no chain any more; a look-up that has its address still
            // reads it, which the pool allows for.
            unsafe { stock.nodes.put(&self.pool, node) };
        }
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        let (log2, moved) = self.state();
        if moved > 0 { 1 << log2 } else { 1 << (log2 - 1) }
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        self.with_pair(stripe, |table| {
            table.each(stripe, |page, raw| {
                if let Some(key) = page.key() {
                    found.offer(key, raw);
                }
            });
        });
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        let frames = self.count_frames.load(Ordering::Relaxed) + self.pool.count_frames();
        self.stripes.table_bytes() + (frames << PAGE_SHIFT)
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory> fmt::Debug for Htab<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Htab")
            .field("entries", &self.count_entries())
            .field("groups", &self.count_groups())
            .field("overflow", &self.count_overflow())
            .field("bytes", &self.table_bytes())
            .finish()
    }
}

impl<M: Memory> fmt::Debug for Stock<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock").field("nodes", &self.nodes).field("credit", &self.credit).finish()
    }
}

#[cfg(test)]
mod tests;
