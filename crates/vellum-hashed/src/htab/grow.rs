//! A table twice as large, a pair at a time; a smaller one, at once.
//!
//! ```text
//!   N groups:   pairs 0 ...... s ......... N/2         s pairs have moved
//!               | in 2N groups | still here |
//!
//!   pair p --> pair p       hashes = p, or its complement, mod 2N
//!              pair N-1-p   hashes = p + N, or its complement
//! ```
//!
//! The architecture's table is one block, so a larger one is a new block and not an addition to the
//! old. It is not filled with zeros first: a move writes all of both new pairs. What is left of the
//! old table is never looked at again, but for look-ups that are under way and will find out; it is
//! kept until the table is exclusive, or the caller knows that there are none.

use super::entry::{SECONDARY, V_AVPN, is_taken};
use super::table::{GROUP_BYTES, Table, slots};
use super::virt::Virtual;
use super::{CREDIT, Htab, LEAST, SIZES, Stock, THERE};
use core::sync::atomic::Ordering;
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PhysAddr};
use vellum_global::word::alloc_zeroed;
use vellum_global::{Key, Node, Nodes};

/// Pairs that one call moves at most. For [`CREDIT`] entries this is four times as many as it takes
/// to be done before the next table is due.
const STEPS: u32 = CREDIT / 2;

/// The orders of a table's blocks: groups, heads.
fn orders(log2: u8) -> (u8, u8) {
    let bytes_log2 = |bytes: u64| bytes.ilog2() as u8;
    let groups = log2 + bytes_log2(GROUP_BYTES) - PAGE_SHIFT;
    (groups, (log2 + 2).saturating_sub(PAGE_SHIFT))
}

impl<M: Memory> Htab<M> {
    /// Whether the table is growing or ought to.
    pub(super) fn wants_to_grow(&self) -> bool {
        let (log2, moved) = self.state();
        moved > 0 || self.is_due(log2)
    }

    /// More than half of the slots' number in entries, and no recent failure.
    fn is_due(&self, log2: u8) -> bool {
        let entries = self.entries.load(Ordering::Relaxed);
        entries > super::room(log2) && entries >= self.retry_at.load(Ordering::Relaxed)
    }

    /// Moves up to [`STEPS`] pairs if that is due; does nothing while somebody else does.
    pub(super) fn grow(&self, nodes: &mut Nodes<'_, M>) {
        if !self.wants_to_grow() || self.growing.swap(true, Ordering::Acquire) {
            return;
        }
        for _ in 0..STEPS {
            if !self.wants_to_grow() || !self.step(nodes) {
                break;
            }
        }
        self.growing.store(false, Ordering::Release);
    }

    /// Moves the next pair, by the holder of `growing`; `false` if there is no memory for it.
    pub(super) fn step(&self, nodes: &mut Nodes<'_, M>) -> bool {
        let (log2, moved) = self.state();
        if !self.has(log2 + 1) && self.add_table(log2 + 1, false).is_err() {
            let entries = self.entries.load(Ordering::Relaxed);
            self.retry_at.store(entries + (1 << log2) / 4, Ordering::Relaxed);
            return false;
        }
        self.move_pair(log2, moved, nodes);
        true
    }

    /// Takes the blocks of a table; `zeroed` unless each pair is written before it is used.
    pub(super) fn add_table(&self, log2: u8, zeroed: bool) -> Result<(), OutOfFrames> {
        let (groups, heads) = orders(log2);
        let Some(blocks) = self.blocks.get(usize::from(log2)) else {
            return Err(OutOfFrames { order: groups });
        };
        let alloc = |order| {
            if zeroed { alloc_zeroed(&self.memory, order) } else { self.memory.alloc(order) }
        };
        let first = alloc(groups)?;
        let second = alloc(heads).inspect_err(|_| {
            // SAFETY: allocated just now, and nobody knows of it.
            unsafe { self.memory.free(first, groups) };
        })?;
        self.count_frames.fetch_add((1 << groups) + (1 << heads), Ordering::Relaxed);
        // Ordered before the first use by the store of the state that leads there.
        blocks[0].store(first.as_u64() | THERE, Ordering::Relaxed);
        blocks[1].store(second.as_u64(), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn has(&self, log2: u8) -> bool {
        let blocks = self.blocks.get(usize::from(log2));
        blocks.is_some_and(|blocks| blocks[0].load(Ordering::Relaxed) & THERE != 0)
    }

    /// Gives a table's blocks back, if it has any.
    ///
    /// # Safety
    ///
    /// The state does not lead there, and no look-up is under way that may have begun when it did.
    unsafe fn free_table(&self, log2: u8) {
        let Some(blocks) = self.blocks.get(usize::from(log2)) else { return };
        let (first, second) =
            (blocks[0].swap(0, Ordering::Relaxed), blocks[1].load(Ordering::Relaxed));
        if first & THERE == 0 {
            return;
        }
        let (groups, heads) = orders(log2);
        self.count_frames.fetch_sub((1 << groups) + (1 << heads), Ordering::Relaxed);
        // SAFETY: allocated in `add_table` with this order; unreachable, by the caller.
        unsafe { self.memory.free(PhysAddr::new(first & !THERE), groups) };
        // SAFETY: likewise.
        unsafe { self.memory.free(PhysAddr::new(second), heads) };
    }

    /// Moves the entries of pair `pair`, the next, into the table twice as large; nodes that find a
    /// slot there go into `nodes`.
    fn move_pair(&self, log2: u8, pair: u64, nodes: &mut Nodes<'_, M>) {
        let (from, to) = (self.table(log2), self.table(log2 + 1));
        let held = self.hold(pair);
        to.clear(pair);
        to.clear((1 << log2) - 1 - pair);
        for slot in from.groups_of(pair).into_iter().flat_map(slots) {
            let v = from.v(slot);
            let page = Virtual::found(v, slot.group);
            // Sixteen at most, and either new pair has as many slots.
            if let (true, Some(free)) = (is_taken(v), to.free_slot(page)) {
                let bits = v & !(V_AVPN | SECONDARY);
                to.set(free, to.v_of(free, page) | bits, from.r(slot));
            }
        }
        let (mut link, mut spare, mut count) = (from.head(pair), 0, 0);
        // SAFETY: the stripe is held.
        while let Some(node) = unsafe { from.follow(link) } {
            link = node.next();
            let Some(key) = Key::from_tag(node.tag()) else { continue };
            let page = Virtual::of(key);
            if let Some(free) = to.free_slot(page) {
                to.put(free, page, node.raw());
                node.set_next(spare);
                spare = node.at().as_u64();
                count += 1;
            } else {
                to.push(&node, (page, key), node.raw());
            }
        }
        self.overflow.fetch_sub(count, Ordering::Relaxed);
        let last = pair + 1 == from.count_pairs();
        self.set_state(if last { (log2 + 1, 0) } else { (log2, pair + 1) });
        drop(held);
        self.put_all(&to, spare, nodes);
    }

    /// Gives the nodes of a chain back, which nobody else finds any more.
    fn put_all(&self, table: &Table<'_, M>, mut link: u64, nodes: &mut Nodes<'_, M>) {
        // SAFETY: the link was in a chain under its stripe, which has been taken apart since.
        while let Some(node) = unsafe { table.follow(link) } {
            link = node.next();
            // SAFETY: of our pool; in no chain, and given back once.
            unsafe { nodes.put(&self.pool, node.at()) };
        }
    }

    /// Gives memory back after many entries are gone: one table, of the least size at which it is
    /// not due to grow, and no frame without a node in use.
    ///
    /// Costs a pass over the table. It takes that exclusively, hence no space may be open. Where
    /// there is no memory for the smaller table, the larger one stays.
    pub fn shrink(&mut self) {
        let mut nodes = Nodes::new(&self.pool);
        while self.state().1 > 0 && self.step(&mut nodes) {}
        let entries = self.entries.load(Ordering::Relaxed);
        let (now, _) = self.state();
        let least = (LEAST..now).find(|&log2| entries <= super::room(log2));
        // SAFETY: `&mut self`: nobody looks anything up.
        unsafe { self.free_retired() };
        if let Some(log2) = least {
            // Without memory, nothing has changed.
            let _ = self.rebuild(now, log2, &mut nodes);
        }
        drop(nodes);
        self.retry_at.store(0, Ordering::Relaxed);
        self.pool.trim();
    }

    /// Gives back tables that have been replaced and frames of nodes that have none in use, though
    /// the table is shared.
    ///
    /// # Safety
    ///
    /// No other call on the table or its spaces is under way: a kernel's grace period has passed.
    pub unsafe fn reclaim(&self) {
        // SAFETY: the caller's: look-ups are calls.
        unsafe { self.free_retired() };
        // SAFETY: likewise.
        unsafe { self.pool.reclaim() };
    }

    /// # Safety
    ///
    /// No look-up is under way.
    unsafe fn free_retired(&self) {
        let (log2, moved) = self.state();
        let keep = log2..=log2 + u8::from(moved > 0);
        for log2 in (0..SIZES as u8).filter(|log2| !keep.contains(log2)) {
            // SAFETY: the state does not lead there; the rest is the caller's.
            unsafe { self.free_table(log2) };
        }
    }

    /// Copies everything into a table of another size. The table is exclusive.
    fn rebuild<'t>(
        &'t self,
        now: u8,
        then: u8,
        nodes: &mut Nodes<'t, M>,
    ) -> Result<(), OutOfFrames> {
        self.add_table(then, true)?;
        let (from, to) = (self.table(now), self.table(then));
        let mut result = Ok(0);
        for pair in 0..from.count_pairs() {
            from.each(pair, |page, raw| {
                result = result.and_then(|n| Ok(n + self.copy(&to, page, raw, nodes)?));
            });
        }
        let (gone, kept) = if result.is_ok() { (&from, then) } else { (&to, now) };
        for pair in 0..gone.count_pairs() {
            self.put_all(gone, gone.head(pair), nodes);
        }
        if let Ok(overflow) = result {
            self.overflow.store(overflow, Ordering::Relaxed);
        }
        self.set_state((kept, 0));
        // SAFETY: nobody else is here, by the caller.
        unsafe { self.free_retired() };
        result.map(|_| ())
    }

    /// Puts an entry into a table that nobody else knows; how many nodes it took.
    fn copy<'t>(
        &'t self,
        to: &Table<'t, M>,
        page: Virtual,
        raw: u64,
        nodes: &mut Nodes<'t, M>,
    ) -> Result<u64, OutOfFrames> {
        if let Some(free) = to.free_slot(page) {
            to.put(free, page, raw);
            return Ok(0);
        }
        nodes.refill(&self.pool, 1)?;
        let (Some(at), Some(key)) = (nodes.take(&self.pool), page.key()) else { return Ok(0) };
        // SAFETY: a node of our pool, which `nodes` had alone.
        let node = unsafe { Node::new(&self.memory, at) };
        to.push(&node, (page, key), raw);
        Ok(1)
    }
}

impl<M: Memory> Drop for Htab<M> {
    fn drop(&mut self) {
        for log2 in 0..SIZES as u8 {
            // SAFETY: `&mut self`, and nothing comes after.
            unsafe { self.free_table(log2) };
        }
    }
}

/// A stock is of one table: another's is emptied into that first.
impl<'t, M: Memory> Stock<'t, M> {
    pub(super) fn become_of(&mut self, table: &'t Htab<M>) {
        if !core::ptr::eq(self.table, table) {
            *self = Self::new(table);
        }
    }
}
