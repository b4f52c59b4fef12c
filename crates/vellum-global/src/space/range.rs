//! Operations on ranges that change entries: map, unmap, protect, harvest.
//!
//! Mapping goes leaf by leaf in ascending order, so that a conflict or a want of memory ends it with
//! an exact `done`. Removing and protecting split the leaves that reach out of the range first; after
//! that removing cannot fail and protecting almost never can, and they go in the order that is
//! cheapest. Where a change of attributes might have no encoding for some entry, a first pass looks
//! for the lowest such leaf, and the range ends before it.

use super::Space;
use super::step::{Settle, Step, decode, status};
use crate::{Key, Keys, Refused, Size, Store};
use core::convert::Infallible;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Cause, Change, Entry, Gather, PAGE_SHIFT, RangeError, Run, Span, VirtAddr, pte,
};

impl<'t, S: Store> Space<'t, S> {
    pub(super) fn map_run(&self, run: Run) -> Result<(), RangeError> {
        let keys = self.keys(run.va, run.len)?;
        check_run(run)?;
        if keys.is_none() {
            return Ok(());
        }
        let mut stock = self.table.stock();
        let mut done = 0;
        while done < run.len {
            let rest = run.skip(done);
            let size = largest_leaf(&rest, S::LEAVES);
            self.map_leaf(&rest, size, done == 0, &mut stock)
                .map_err(|cause| RangeError { cause, done })?;
            done += size.bytes();
        }
        Ok(())
    }

    /// Maps the first leaf of a run.
    fn map_leaf(
        &self,
        run: &Run,
        size: Size,
        is_first: bool,
        stock: &mut S::Stock<'t>,
    ) -> Result<(), Cause> {
        let key = self.key(run.va, size);
        let raw = pte::encode(Entry::Leaf(run.pa, run.attr), size.page())?;
        if size != Size::Base {
            self.check_vacant(key)?;
        } else if (is_first || run.va.is_aligned(Size::Large.page())) && self.has_large() {
            // Within one of these nothing but itself can cover a page.
            self.check_uncovered(run.va)?;
        }
        loop {
            let vacant = |old| if old == 0 { Ok(raw) } else { Err(decode(old, size)) };
            match self.update(key, stock, vacant, || Ok(())) {
                Ok(_) => return Ok(()),
                Err(Refused::Need(need)) => self.table.refill(stock, need)?,
                Err(Refused::By(entry)) => {
                    return Err(Cause::Mapped(Span { va: key.va(), len: size.bytes(), entry }));
                }
            }
        }
    }

    /// Looks that no large leaf covers the page at `va`.
    fn check_uncovered(&self, va: VirtAddr) -> Result<(), Cause> {
        for size in [Size::Large, Size::Huge].into_iter().filter(|&size| self.has(size)) {
            let key = self.key(va, size);
            let raw = self.table.walk(key, &mut ());
            if raw != 0 {
                let entry = decode(raw, size);
                return Err(Cause::Mapped(Span { va: key.va(), len: size.bytes(), entry }));
            }
        }
        Ok(())
    }

    /// Looks that nothing of any size has a page in common with `key`; else names the lowest.
    fn check_vacant(&self, key: Key) -> Result<(), Cause> {
        let mut there = None;
        self.visit_keys(Keys::parts(key, Size::Base), &mut |span| {
            there = Some(span);
            ControlFlow::Break(())
        });
        there.map_or(Ok(()), |span| Err(Cause::Mapped(span)))
    }

    pub(super) fn unmap_keys<G: Gather<Infallible>>(
        &self,
        keys: Keys,
        gather: &mut G,
    ) -> Result<(), Cause> {
        let mut stock = self.table.stock();
        self.split_around(keys, &mut stock, gather)?;
        self.remove(keys, &mut stock, gather);
        Ok(())
    }

    /// Removes every leaf that lies in the range; those that reach out of it were split.
    pub(super) fn remove<G: Gather<Infallible>>(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        gather: &mut G,
    ) {
        let mut settle = Settle::new(gather);
        self.change_within(keys, stock, &mut |_, _| 0, &mut |key, step| settle.step(key, step));
        settle.end();
    }

    /// [`change_each`](Self::change_each) for the leaves of every size that lie in the range.
    fn change_within(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) {
        for size in Size::ALL.into_iter().filter(|&size| self.has(size)) {
            if let Some(keys) = keys.within(size) {
                self.change_each(keys, stock, f, then);
            }
        }
    }

    pub(super) fn protect_keys<G: Gather<Infallible>>(
        &self,
        keys: Keys,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        let mut stock = self.table.stock();
        self.split_around(keys, &mut stock, gather).map_err(Cause::from)?;
        let misfit =
            if fits_always(change) { None } else { self.first_misfit(keys, change, &mut stock) };
        let fitting = match misfit {
            Some((key, _)) => keys.before(key.sized(Size::Base)),
            None => Some(keys),
        };
        if let Some(keys) = fitting {
            let mut settle = Settle::new(gather);
            self.change_within(
                keys,
                &mut stock,
                &mut |key, raw| changed(raw, key.size(), change).unwrap_or(raw),
                &mut |key, step| settle.step(key, step),
            );
            settle.end();
        }
        match misfit {
            None => Ok(()),
            Some((key, attr)) => Err(RangeError {
                cause: Cause::Unencodable(attr),
                done: key.va().as_u64().wrapping_sub(keys.first().va().as_u64()),
            }),
        }
    }

    /// The lowest leaf for which the result of the change has no encoding, and that result.
    fn first_misfit(
        &self,
        keys: Keys,
        change: Change,
        stock: &mut S::Stock<'t>,
    ) -> Option<(Key, Attr)> {
        let mut lowest: Option<(Key, Attr)> = None;
        let mut look = |key: Key, step: Step| {
            let lower = lowest.is_none_or(|(known, _)| key.va() < known.va());
            match changed(step.old, key.size(), change) {
                Err(attr) if lower => lowest = Some((key, attr)),
                _ => {}
            }
        };
        self.change_within(keys, stock, &mut |_, raw| raw, &mut look);
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
        let clean = |key: Key, raw| match decode(raw, key.size()) {
            Entry::Leaf(..) => raw & !clear,
            _ => raw,
        };
        let mut settle = Settle::new(gather);
        for size in Size::ALL.into_iter().filter(|&size| self.has(size)) {
            self.change_each(keys.touching(size), &mut stock, &mut { clean }, &mut |key, step| {
                settle.step(key, step);
                if step.old != step.new {
                    f(cut(key, step.old, keys));
                }
            });
        }
        settle.end();
    }
}

/// The part of a leaf that lies in a range, of which it has a page.
pub(super) fn cut(key: Key, raw: u64, keys: Keys) -> Span {
    let first = key.sized(Size::Base).max(keys.first());
    let last = key.last_page().min(keys.last());
    let offset = first.va().as_u64() - key.va().as_u64();
    let entry = match decode(raw, key.size()) {
        Entry::Leaf(pa, attr) => Entry::Leaf(pa.wrapping_add(offset), attr),
        other => other,
    };
    let len = (last.number() - first.number() + 1) << PAGE_SHIFT;
    Span { va: first.va(), len, entry }
}

/// The largest leaf of `leaves` that can be the next of the run.
fn largest_leaf(run: &Run, leaves: u64) -> Size {
    let fits = |size: Size| {
        size.is_in(leaves)
            && size.page() <= run.page
            && size.bytes() <= run.len
            && run.va.is_aligned(size.page())
            && run.pa.is_aligned(size.page())
    };
    [Size::Huge, Size::Large].into_iter().find(|&size| fits(size)).unwrap_or(Size::Base)
}

/// Looks that all of the run can be held.
fn check_run(run: Run) -> Result<(), Cause> {
    if run.page < PAGE_SHIFT {
        return Err(Cause::NoLeaf { page: run.page });
    }
    pte::encode(Entry::Leaf(run.pa, run.attr), PAGE_SHIFT)?;
    let last = run.pa.checked_add(run.len.saturating_sub(1));
    match last {
        Some(last) if last.align_down(PAGE_SHIFT).as_u64() & !pte::FRAME == 0 => Ok(()),
        _ => Err(Cause::PhysTooWide(run.pa)),
    }
}

/// A raw entry after the change; the attributes that cannot be had, if so.
fn changed(raw: u64, size: Size, change: Change) -> Result<u64, Attr> {
    match decode(raw, size) {
        Entry::Leaf(pa, attr) => {
            let attr = change.apply(attr);
            pte::encode(Entry::Leaf(pa, attr), size.page()).map_err(|_| attr)
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
