//! The compare-and-set of one page.
//!
//! ```text
//!    check, encode `new`        nothing taken yet
//!    room, or drain             may call out
//!    +-- lock ---------------+
//!    | now == expect ?       |  else Changed(now)
//!    | a node for a new page |  else Need
//!    | store                 |
//!    +-----------------------+
//!    old -> gather              by now nobody else can reach it through the table
//! ```

use super::{Space, decode, make_room, settle};
use crate::key::CANONICAL;
use crate::{Key, Refused, Store};
use core::convert::Infallible;
use vellum_core::{Cause, Entry, Gather, PAGE_SHIFT, PAGE_SIZE, ReplaceError, VirtAddr, pte};

impl<'t, S: Store> Space<'t, S> {
    pub(super) fn replace_page<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        (expect, new): (Entry, Entry),
        stock: &mut S::Stock<'t>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        if len != PAGE_SIZE {
            let page = u8::try_from(len.checked_ilog2().unwrap_or(0)).unwrap_or(0);
            return Err(Cause::NoLeaf { page }.into());
        }
        CANONICAL.check(va, len, PAGE_SHIFT)?;
        if let Entry::Soft(soft) = new {
            if soft.get() >> S::SOFT_BITS != 0 {
                return Err(Cause::SoftTooWide(soft.get()).into());
            }
        }
        let raw = pte::encode(new, PAGE_SHIFT)?;
        if expect != Entry::Hole {
            make_room(gather);
        }
        let replacing = |old| {
            let now = decode(old);
            if !now.same_but_status(expect) {
                return Err(now);
            }
            Ok(match (now, new) {
                (Entry::Leaf(a, _), Entry::Leaf(b, _)) if a == b => {
                    raw | old & (pte::ACCESSED | pte::DIRTY)
                }
                _ => raw,
            })
        };
        match self.update(Key::new(self.asid, va), stock, replacing) {
            Ok(step) => {
                settle(va, step, gather);
                Ok(())
            }
            Err(Refused::By(now)) => Err(ReplaceError::Changed(now)),
            Err(Refused::Need(need)) => Err(ReplaceError::Need(need)),
        }
    }
}
