//! Operations on ranges that change entries: map, unmap, protect, harvest.
//!
//! Mapping goes page by page in ascending order, so that a conflict or a want of memory ends it
//! with an exact `done`. Removing cannot fail and protecting almost never can; they go in the order
//! that is cheapest. Where a change of attributes might have no encoding for some entry, a first
//! pass looks for the lowest such page, and the range ends before it.

use super::{Space, decode, make_room, settle, status};
use crate::{Key, Keys, Refused, Store};
use core::convert::Infallible;
use vellum_core::{
    Attr, Cause, Change, Entry, Gather, PAGE_SHIFT, PAGE_SIZE, RangeError, Run, Span, pte,
};

impl<'t, S: Store> Space<'t, S> {
    pub(super) fn map_run(&self, run: Run) -> Result<(), RangeError> {
        let keys = self.keys(run.va, run.len)?;
        let raw = encode_run(run)?;
        let Some(keys) = keys else { return Ok(()) };
        let mut stock = self.table.stock();
        for (done, key) in (0..).step_by(PAGE_SIZE as usize).zip(keys.iter()) {
            self.map_page(key, raw + done, &mut stock)
                .map_err(|cause| RangeError { cause, done })?;
        }
        Ok(())
    }

    fn map_page(&self, key: Key, raw: u64, stock: &mut S::Stock<'t>) -> Result<(), Cause> {
        loop {
            let vacant = |old| if old == 0 { Ok(raw) } else { Err(decode(old)) };
            match self.update(key, stock, vacant) {
                Ok(_) => return Ok(()),
                Err(Refused::Need(need)) => self.table.refill(stock, need)?,
                Err(Refused::By(entry)) => {
                    return Err(Cause::Mapped(Span { va: key.va(), len: PAGE_SIZE, entry }));
                }
            }
        }
    }

    pub(super) fn remove<G: Gather<Infallible>>(&self, keys: Keys, gather: &mut G) {
        let mut stock = self.table.stock();
        self.each(keys, &mut |key| {
            make_room(gather);
            let step = self.change(key, &mut stock, |_| 0);
            settle(key.va(), step, gather);
        });
    }

    pub(super) fn protect_keys<G: Gather<Infallible>>(
        &self,
        keys: Keys,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        let misfit = if fits_always(change) { None } else { self.first_misfit(keys, change) };
        let fitting = match misfit {
            Some((key, _)) => keys.before(key),
            None => Some(keys),
        };
        let mut stock = self.table.stock();
        if let Some(keys) = fitting {
            self.each(keys, &mut |key| {
                let step = self.change(key, &mut stock, |raw| changed(raw, change).unwrap_or(raw));
                settle(key.va(), step, gather);
            });
        }
        match misfit {
            None => Ok(()),
            Some((key, attr)) => Err(RangeError {
                cause: Cause::Unencodable(attr),
                done: (key.tag() - keys.first().tag()) << PAGE_SHIFT,
            }),
        }
    }

    /// The lowest page for which the result of the change has no encoding, and that result.
    fn first_misfit(&self, keys: Keys, change: Change) -> Option<(Key, Attr)> {
        let mut lowest: Option<(Key, Attr)> = None;
        self.each(keys, &mut |key| {
            let lower = lowest.is_none_or(|(known, _)| key < known);
            match changed(self.table.walk(key, &mut ()), change) {
                Err(attr) if lower => lowest = Some((key, attr)),
                _ => {}
            }
        });
        lowest
    }

    pub(super) fn harvest_keys<G: Gather<Infallible>>(
        &self,
        keys: Keys,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) {
        let mut stock = self.table.stock();
        let clear = status(clear);
        self.each(keys, &mut |key| {
            let leaf = |raw| matches!(decode(raw), Entry::Leaf(..));
            let step =
                self.change(key, &mut stock, |raw| if leaf(raw) { raw & !clear } else { raw });
            settle(key.va(), step, gather);
            if step.old != step.new {
                f(Span { va: key.va(), len: PAGE_SIZE, entry: decode(step.old) });
            }
        });
    }
}

/// The raw entry of the run's first page, if all of the run can be held.
fn encode_run(run: Run) -> Result<u64, Cause> {
    if run.page < PAGE_SHIFT {
        return Err(Cause::NoLeaf { page: run.page });
    }
    let raw = pte::encode(Entry::Leaf(run.pa, run.attr), PAGE_SHIFT)?;
    let last = run.pa.checked_add(run.len.saturating_sub(1));
    match last {
        Some(last) if last.align_down(PAGE_SHIFT).as_u64() & !pte::FRAME == 0 => Ok(raw),
        _ => Err(Cause::PhysTooWide(run.pa)),
    }
}

/// A raw entry after the change; the attributes that cannot be had, if so.
fn changed(raw: u64, change: Change) -> Result<u64, Attr> {
    match decode(raw) {
        Entry::Leaf(pa, attr) => {
            let attr = change.apply(attr);
            pte::encode(Entry::Leaf(pa, attr), PAGE_SHIFT).map_err(|_| attr)
        }
        _ => Ok(raw),
    }
}

/// Whether the change makes an encodable entry of every encodable one; if not, it still may of
/// those that are there.
fn fits_always(change: Change) -> bool {
    let beyond_read = Attr::WRITE | Attr::EXEC;
    let gives = change.set.intersects(beyond_read);
    let rights = change.set.contains(Attr::READ)
        || !gives && (change.clear.contains(beyond_read) || !change.clear.contains(Attr::READ));
    let memory = if change.clear.contains(Attr::MEMORY_MASK) {
        change.set.memory().is_some()
    } else {
        !(change.set | change.clear).intersects(Attr::MEMORY_MASK)
    };
    rights && memory
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(1024))]

        #[test]
        fn what_fits_always_does(attr: u32, set: u32, clear: u32) {
            let (attr, set, clear) =
                (Attr::from_bits(attr), Attr::from_bits(set), Attr::from_bits(clear));
            let change = Change { set, clear };
            if fits_always(change) && pte::encode_attr(attr, PAGE_SHIFT).is_ok() {
                prop_assert!(pte::encode_attr(change.apply(attr), PAGE_SHIFT).is_ok());
            }
        }
    }

    #[test]
    fn the_changes_of_mprotect_and_fork_fit_always() {
        for attr in [Attr::NONE, Attr::READ, Attr::RW, Attr::RX, Attr::RWX] {
            assert!(fits_always(Change::to(attr, Attr::RWX)), "{attr:?}");
        }
        assert!(fits_always(Change::clearing(Attr::WRITE)));
        assert!(fits_always(Change::to(Attr::NONE, Attr::MEMORY_MASK)));
        assert!(!fits_always(Change::setting(Attr::WRITE)));
        assert!(!fits_always(Change::clearing(Attr::READ)));
    }
}
