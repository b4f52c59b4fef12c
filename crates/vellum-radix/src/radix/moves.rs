//! Moving what lowest nodes translate to other addresses, by moving the entries that link them.
//!
//! ```text
//!    from  [ T1 | .  | T2 | L ]        1. nodes on the way to each place are linked, and the places seen
//!            |         |    |             to be holes: here memory may run out, and nothing has changed
//!            v         v    v          2. entry by entry: out of the one place, into the other
//!    to    [ T1 | .  | T2 | L ]        3. one flush of all that was there
//! ```
//!
//! The nodes stay as they are, so that nobody has to look at a page, and whoever else links one does not
//! notice.
//!
//! # Invariants
//!
//! - Until the flush a processor may translate by both addresses, which is one page all the while.

use super::change::settle_breaks;
use super::node::index;
use super::way::{Next, Place};
use super::{Detached, Radix};
use crate::format::{Decoded, Format, base_shift};
use core::ops::ControlFlow;
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, VirtAddr};

impl<F: Format, M: Memory> Radix<F, M> {
    /// See [`PageTable::move_parts`](vellum_core::PageTable::move_parts). About four walks a node; per
    /// page, nothing.
    pub(super) fn move_nodes<G: Gather<Detached<F, M>>>(
        &mut self,
        (from, to): (VirtAddr, VirtAddr),
        len: u64,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        self.check_own(from, len)?;
        self.check_own(to, len)?;
        let is_whole = |n: u64| n & ((1 << Self::NODE) - 1) == 0;
        let ends = [from, to].map(|va| (va, va.wrapping_add(len.saturating_sub(1))));
        let [kernel, ..] = ends.map(|(first, _)| self.is_kernel(first));
        let same_rights =
            ends.iter().all(|&(a, b)| self.is_kernel(a) == kernel && self.is_kernel(b) == kernel);
        let is_apart = from.as_u64().abs_diff(to.as_u64()) >= len;
        let aligned = is_whole(from.as_u64()) && is_whole(to.as_u64()) && is_whole(len);
        if F::LEVELS.len() == 1 || !(aligned && same_rights && is_apart) {
            return Ok(false);
        }
        settle_breaks::<F, M, G>(gather);
        let (mut offset, mut last) = (0, None);
        while let Some((at, next)) = self.next_part(from, len, offset) {
            offset = at;
            let (here, there) = (from.wrapping_add(at), to.wrapping_add(at));
            let root_entries = [here, there].map(|va| index(va, F::LEVELS[0]));
            let pinned = root_entries.into_iter().any(|at| self.half.is_pinned(0, at));
            let in_pair = F::LEVELS.len() == 2 && matches!(next, Next::Leaf(_));
            if next.page::<F, M>() != Self::NODE || pinned || in_pair && self.user_root().is_some()
            {
                return Ok(false);
            }
            let place = self.place_behind(&mut last, there, gather)?;
            self.clear_place(&place, there, gather)?;
            offset += 1 << Self::NODE;
        }
        self.near.forget();
        let (mut offset, mut last_old, mut last_new) = (0, None, None);
        while let Some((at, _)) = self.next_part(from, len, offset) {
            let (here, there) = (from.wrapping_add(at), to.wrapping_add(at));
            // There are both, as was just seen, and it takes no memory to get there.
            let old = self.place_behind(&mut last_old, here, gather)?;
            let new = self.place_behind(&mut last_new, there, gather)?;
            self.move_one((&old, here), (&new, there), gather);
            offset = at + (1 << Self::NODE);
        }
        let global = self.may_be_global();
        gather.stale(Flush::tables(from, len, global));
        let base = const { base_shift::<F>() };
        if let (true, Some(scope)) = (G::LIVE, F::fresh(base)) {
            let attr = if global { Attr::GLOBAL } else { Attr::NONE };
            gather.stale(Flush::new(to, len, base, attr).with_scope(scope));
        }
        Ok(true)
    }

    /// What comes next in a range from `offset` on, and where, counted from `from`.
    fn next_part(&self, from: VirtAddr, len: u64, offset: u64) -> Option<(u64, Next)> {
        let left = len.checked_sub(offset).filter(|&left| left > 0)?;
        let (more, next) = self.next(from.wrapping_add(offset), left)?;
        Some((offset + more, next))
    }

    /// Sees that a place is a hole: an empty node in it goes.
    fn clear_place<G: Gather<Detached<F, M>>>(
        &self,
        place: &Place<'_, F, M>,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<(), Cause> {
        let raw = place.link.slot.load();
        match F::decode(raw, Self::NODE) {
            Decoded::Entry(Entry::Hole) => Ok(()),
            Decoded::Table(pa) if place.link.count() == 0 => {
                let shared = Self::is_shared(Self::PLACES, raw);
                let at = (Self::PLACES, index(va, F::LEVELS[Self::PLACES]));
                self.unlink(place.link, at, (pa, shared), va, gather);
                Self::vacate(place);
                Ok(())
            }
            _ => {
                let mut first = self.span_at(va);
                self.visit_runs(va, 1 << Self::NODE, &mut |span| {
                    first = span;
                    ControlFlow::Break(())
                });
                Err(Cause::Mapped(first))
            }
        }
    }

    /// Moves the entry of one place to another, which is a hole.
    fn move_one<G: Gather<Detached<F, M>>>(
        &self,
        (old, from): (&Place<'_, F, M>, VirtAddr),
        (new, to): (&Place<'_, F, M>, VirtAddr),
        gather: &mut G,
    ) {
        let raw = old.link.slot.load();
        let is_node = matches!(F::decode(raw, Self::NODE), Decoded::Table(_));
        let count = if is_node { old.link.count() } else { 0 };
        // What hardware has noted in a leaf until now.
        let raw = old.link.slot.swap(0);
        old.link.clear();
        self.mirror(Self::PLACES, index(from, F::LEVELS[Self::PLACES]));
        Self::vacate(old);
        self.occupy(new, to, (raw, count), gather);
    }

    /// Notes that a place has become a hole.
    fn vacate(place: &Place<'_, F, M>) {
        if let Some(above) = place.above {
            above.sub(1);
        }
    }
}
