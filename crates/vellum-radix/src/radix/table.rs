//! [`PageTable`], operation by operation, each in a file of its own.

use super::{Detached, Radix, Stock};
use crate::format::{self, Format};
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Gather, Given, Linked, Memory, Need, OutOfFrames,
    PageTable, PhysAddr, RangeError, ReplaceError, Run, Span, VirtAddr,
};

impl<F: Format, M: Memory> PageTable for Radix<F, M> {
    type Stock = Stock<F, M>;
    type Detached = Detached<F, M>;
    const LEAVES: u64 = format::leaves::<F>();
    const REPLACEABLE: u64 = format::single_entry_leaves::<F>();
    const PART: u64 = if F::LEVELS.len() > 1 { 1 << Self::NODE } else { 0 };
    const SOFT_BITS: u8 = F::SOFT_BITS;

    fn canonical(&self) -> Canonical {
        F::CANONICAL
    }

    /// Counts the nodes by reading the interior ones: all but the lowest level. A node that is shared
    /// counts in each table that links it.
    fn table_bytes(&self) -> u64 {
        self.own_bytes()
    }

    fn stock(&self) -> Stock<F, M> {
        Stock::new(self.mem.clone())
    }

    fn refill(&self, stock: &mut Stock<F, M>, need: Need) -> Result<(), OutOfFrames> {
        if stock.mem != self.mem {
            *stock = self.stock();
        }
        let [first, last, ..] = need.get().to_le_bytes();
        let last = usize::from(last).min(F::LEVELS.len() - 1);
        stock.fill(usize::from(first).max(1)..=last)
    }

    fn replace<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut Stock<F, M>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        self.replace_one((va, len), expect, new, stock, gather)
    }

    fn fill_holes<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        frames: &[Option<PhysAddr>],
        attr: Attr,
        gather: &mut G,
    ) -> u64 {
        self.fill_some(va, frames, attr, gather)
    }

    #[inline]
    fn map<G: Gather<Self::Detached>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.map_run(run, gather)
    }

    fn unmap<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.unmap_range(va, len, gather)
    }

    fn protect<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.protect_range(va, len, change, gather)
    }

    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        Self::check(va, len)?;
        self.visit_runs(va, len, f);
        Ok(())
    }

    fn harvest<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        self.check_own(va, len)?;
        self.harvest_leaves((va, len), clear, gather, f);
        Ok(())
    }

    fn share<G: Gather<Self::Detached>, H: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
        child: (&mut Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        self.share_range((va, len), change, gather, child, f)
    }

    fn fork<G: Gather<Self::Detached>, H: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        child: (&mut Self, &mut H),
        f: &mut impl FnMut(Given),
    ) -> Result<(), RangeError> {
        self.fork_nodes((va, len), gather, child, f)
    }

    fn unshare<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        self.unshare_nodes((va, len), gather, f)
    }

    fn next_linked(&self, va: VirtAddr, len: u64) -> Option<Linked> {
        self.next_shared(va, len)
    }

    fn move_parts<G: Gather<Self::Detached>>(
        &mut self,
        from: VirtAddr,
        to: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        self.move_nodes((from, to), len, gather)
    }

    fn retire<G: Gather<Self::Detached>>(self, gather: &mut G) {
        self.give_up(gather);
    }
}
