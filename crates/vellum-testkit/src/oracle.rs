//! The naive table: one `BTreeMap` from page to entry, and nothing clever.
//!
//! It says what a [`PageTable`](vellum_core::PageTable) should hold, page by page, so that a
//! sequence of operations can be run on both and compared. Ranges are pairs of a first page and a
//! count; what is wrong with an address is the table's business, and not modelled here.

use core::ops::Range;
use std::collections::BTreeMap;
use vellum_core::{Attr, Change, Entry, Gone, PAGE_SHIFT, PAGE_SIZE, PhysAddr, Run, VirtAddr, Vpn};

/// What is mapped, by page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oracle {
    pages: BTreeMap<u64, Entry>,
}

/// The page numbers of a range of whole pages.
fn numbers(va: VirtAddr, len: u64) -> Range<u64> {
    let first = va.number().as_u64();
    first..first + (len >> PAGE_SHIFT)
}

impl Oracle {
    /// The entry of the page at `va`.
    #[must_use]
    pub fn get(&self, va: VirtAddr) -> Entry {
        self.pages.get(&va.number().as_u64()).copied().unwrap_or(Entry::Hole)
    }

    /// Makes the page at `va` hold `entry`.
    pub fn set(&mut self, va: VirtAddr, entry: Entry) {
        match entry {
            Entry::Hole => self.pages.remove(&va.number().as_u64()),
            _ => self.pages.insert(va.number().as_u64(), entry),
        };
    }

    /// All pages that hold something, ascending, within the range.
    pub fn range(&self, va: VirtAddr, len: u64) -> impl Iterator<Item = (VirtAddr, Entry)> + '_ {
        self.pages.range(numbers(va, len)).map(|(&n, &entry)| (page(n), entry))
    }

    /// All pages that hold something, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (VirtAddr, Entry)> + '_ {
        self.pages.iter().map(|(&n, &entry)| (page(n), entry))
    }

    /// How many pages hold something.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Whether no page holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Maps the first `done` bytes of a run.
    pub fn map(&mut self, run: Run, done: u64) {
        for (i, n) in numbers(run.va, done).enumerate() {
            let pa = run.pa.wrapping_add(i as u64 * PAGE_SIZE);
            self.pages.insert(n, Entry::Leaf(pa, run.attr));
        }
    }

    /// Removes a range; what was there, page by page.
    pub fn unmap(&mut self, va: VirtAddr, len: u64) -> Vec<(VirtAddr, Entry)> {
        let gone: Vec<_> = self.range(va, len).collect();
        for (va, _) in &gone {
            self.pages.remove(&va.number().as_u64());
        }
        gone
    }

    /// Changes the leaves of a range, up to the first for which `fits` refuses the result; the
    /// bytes before that one.
    pub fn protect(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        fits: impl Fn(Attr) -> bool,
    ) -> u64 {
        for (&n, entry) in self.pages.range_mut(numbers(va, len)) {
            if let Entry::Leaf(pa, attr) = *entry {
                let new = change.apply(attr);
                if !fits(new) {
                    return page(n).as_u64() - va.as_u64();
                }
                *entry = Entry::Leaf(pa, new);
            }
        }
        len
    }
}

/// The address of page `n`.
///
/// # Panics
///
/// When page `n` has no address of 64 bits.
#[must_use]
pub fn page(n: u64) -> VirtAddr {
    Vpn::new(n).expect("a page number below 2^52").addr()
}

/// What a gather delivered, page by page, in ascending order.
#[must_use]
pub fn pages_of(gone: &[Gone]) -> Vec<(VirtAddr, Entry)> {
    let mut pages: Vec<_> = gone.iter().flat_map(pages_of_one).collect();
    pages.sort_by_key(|&(va, _)| va);
    pages
}

fn pages_of_one(gone: &Gone) -> Vec<(VirtAddr, Entry)> {
    match *gone {
        Gone::Soft(va, soft) => vec![(va, Entry::Soft(soft))],
        Gone::Run(run) => pages_of_span(run.va, run.len, Entry::Leaf(run.pa, run.attr)),
    }
}

/// A uniform stretch, page by page.
#[must_use]
pub fn pages_of_span(va: VirtAddr, len: u64, entry: Entry) -> Vec<(VirtAddr, Entry)> {
    let step = |i: u64| i * PAGE_SIZE;
    let at = |i: u64| match entry {
        Entry::Leaf(pa, attr) => Entry::Leaf(PhysAddr::new(pa.as_u64() + step(i)), attr),
        other => other,
    };
    (0..len >> PAGE_SHIFT).map(|i| (va.wrapping_add(step(i)), at(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, pages: u64, attr: Attr) -> Run {
        Run::new(page(first), PhysAddr::new(0x10_0000), pages * PAGE_SIZE, attr)
    }

    #[test]
    fn frames_follow_pages() {
        let mut oracle = Oracle::default();
        oracle.map(run(5, 3, Attr::RW), 2 * PAGE_SIZE);
        assert_eq!(oracle.get(page(6)), Entry::Leaf(PhysAddr::new(0x10_1000), Attr::RW));
        assert_eq!(oracle.get(page(7)), Entry::Hole);
        assert_eq!(oracle.len(), 2);
    }

    #[test]
    fn protect_stops_at_the_first_that_does_not_fit() {
        let mut oracle = Oracle::default();
        oracle.map(run(0, 2, Attr::READ), 2 * PAGE_SIZE);
        oracle.map(run(4, 1, Attr::NONE), PAGE_SIZE);
        let readable = |attr: Attr| attr.contains(Attr::READ);
        let done = oracle.protect(page(0), 8 * PAGE_SIZE, Change::setting(Attr::WRITE), readable);
        assert_eq!(done, 4 * PAGE_SIZE);
        assert_eq!(oracle.get(page(1)), Entry::Leaf(PhysAddr::new(0x10_1000), Attr::RW));
    }

    #[test]
    fn a_gather_is_read_page_by_page() {
        let gone = [Gone::Run(run(8, 2, Attr::RW)), Gone::Run(run(1, 1, Attr::READ))];
        let vas: Vec<_> = pages_of(&gone).into_iter().map(|(va, _)| va).collect();
        assert_eq!(vas, [page(1), page(8), page(9)]);
    }
}
