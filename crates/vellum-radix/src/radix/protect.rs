//! Changing the attributes of everything in a range.
//!
//! ```text
//!   entry      frame          flags         leaves of one kind have the same flags, and the change
//!             +--------------+---------+    is the same exclusive-or for all of them: decided once,
//!             | ...          | rw u  a |    then a compare and a store each
//!             +--------------+---------+
//!                             ^^^^^^^^^ delta
//! ```
//!
//! Where hardware may still write to the entry, the store is a compare-and-set; status bits are
//! among the flags, so that a kind is either quiet or not.

use super::change::{Edit, Edited, Stretch, settle_breaks};
use super::group::Group;
use super::{Detached, Radix};
use crate::format::Format;
use vellum_core::{Attr, Cause, Change, Entry, Flush, Gather, Memory, RangeError, VirtAddr};

struct Protect<'t, F: Format, M: Memory> {
    table: &'t Radix<F, M>,
    change: Change,
}

/// Leaves with the same flags, and what the change does to them.
#[derive(Clone, Copy)]
struct Kind {
    flags: u64,
    delta: u64,
    old: Attr,
    new: Attr,
}

impl Kind {
    /// Whether user mode gets a right to it.
    fn gains_user(&self) -> bool {
        self.new.contains(Attr::USER) && !self.old.contains(Attr::USER)
    }

    /// Whether hardware could not use the entry before, and can now: as if it were freshly mapped.
    fn gains_access(&self) -> bool {
        !self.old.intersects(Attr::RWX) && self.new.intersects(Attr::RWX)
    }
}

impl<F: Format, M: Memory> Radix<F, M> {
    pub(super) fn protect_range<G: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.check_own(va, len)?;
        settle_breaks::<F, M, G>(gather);
        let table = &*self;
        table.change(va, len, &mut Protect { table, change }, gather)
    }
}

impl<F: Format, M: Memory> Protect<'_, F, M> {
    /// What the change makes of an entry like `raw`; `None` for a hole or a soft entry.
    fn judge(&self, raw: u64, page: u8, va: VirtAddr) -> Result<Option<Kind>, Cause> {
        let Entry::Leaf(pa, old) = F::decode(raw, page).entry() else { return Ok(None) };
        let new = self.change.apply(old);
        let delta = if new == old {
            0
        } else {
            self.table.admit((va, 1 << page), new)?;
            F::encode(Entry::Leaf(pa, new), page)? ^ raw
        };
        let flags = raw & !F::frame_mask(page);
        Ok(Some(Kind { flags, delta, old, new }))
    }

    /// Changes entry `i` by break, flush and make.
    fn remake<G: Gather<Detached<F, M>>>(
        &self,
        stretch: &Stretch<'_, F, M>,
        i: u64,
        gather: &mut G,
    ) -> Result<(), Cause> {
        let (va, page) = (stretch.va_of(i), stretch.level.shift);
        let slot = stretch.node.slot(stretch.first + i);
        let last = slot.swap(0);
        let Entry::Leaf(pa, old) = F::decode(last, page).entry() else { return Ok(()) };
        gather.stale(Flush::new(va, 1 << page, page, old));
        gather.drain();
        // Hardware may have added status since this was judged, which every format has room for.
        let made = F::encode(Entry::Leaf(pa, self.change.apply(old)), page);
        slot.store(made.unwrap_or(last));
        if let Some(scope) = F::fresh(page) {
            gather.stale(Flush::new(va, 1 << page, page, old).with_scope(scope));
        }
        made.map(drop)
    }
}

impl<F: Format, M: Memory> Edit<F, M> for Protect<'_, F, M> {
    const DETACH: bool = false;

    fn keeps(&self, attr: Attr) -> bool {
        self.change.apply(attr) == attr
    }

    fn stretch<G: Gather<Detached<F, M>>>(
        &mut self,
        stretch: &Stretch<'_, F, M>,
        gather: &mut G,
    ) -> Edited {
        let Stretch { node, level, first, count, .. } = *stretch;
        let (page, mask) = (level.shift, F::frame_mask(level.shift));
        let mut i = 0;
        while i < count {
            let raw = node.slot(first + i).load();
            let kind = match self.judge(raw, page, stretch.va_of(i)) {
                Ok(Some(kind)) => kind,
                Ok(None) => {
                    i += 1 + node.count_zeros(first + i + 1, count - i - 1);
                    continue;
                }
                Err(cause) => return (0, Err((cause, i))),
            };
            if F::BREAKS && G::LIVE && F::needs_break(raw, raw ^ kind.delta, page) {
                if let Err(cause) = self.remake(stretch, i, gather) {
                    return (0, Err((cause, i)));
                }
                i += 1;
                continue;
            }
            // At least this one, unless hardware has just made it another kind.
            let locked = G::LIVE && !F::is_quiet(raw);
            let mut rest = (first + i, count - i);
            if F::LEVELS.len() == 1 && kind.gains_user() {
                // Only here can a stretch cross the border of the kernel's part.
                rest.1 = 1;
            }
            let n = node.change_kind(rest, (!mask, kind.flags), kind.delta, locked);
            if let (true, Some(scope)) = (G::LIVE && kind.gains_access(), F::fresh(page)) {
                let fresh = Flush::new(stretch.va_of(i), n << page, page, kind.new);
                gather.stale(fresh.with_scope(scope));
            }
            if kind.old.narrows_to(kind.new) && n > 0 {
                gather.stale(Flush::new(stretch.va_of(i), n << page, page, kind.old));
            }
            i += n;
        }
        (0, Ok(()))
    }

    fn group<G: Gather<Detached<F, M>>>(
        &mut self,
        group: &Group<'_, F, M>,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        if let Entry::Leaf(_, old) = group.leaf() {
            let new = self.change.apply(old);
            if new != old {
                let len = 1 << group.level.group_shift();
                self.table.admit((group.va, len), new)?;
                group.remake(|attr| self.change.apply(attr), true, gather)?;
            }
        }
        Ok(false)
    }
}
