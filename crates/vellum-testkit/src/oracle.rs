//! The naive table: one `BTreeMap` from page to entry, and nothing clever.
//!
//! It says what a [`PageTable`] should hold, page by page, so that a sequence of operations can be run
//! on both and compared. Its pages are the table's smallest ones; what is wrong with an address is the
//! table's business, and not modelled here.

use core::ops::Range;
use std::collections::BTreeMap;
use vellum_core::{Attr, Change, Entry, Gone, PAGE_SHIFT, PageTable, PhysAddr, Run, VirtAddr};

/// What is mapped, by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oracle {
    /// log2 of a page's bytes.
    page: u8,
    /// By the page's number: its address, shifted right by `page`.
    pages: BTreeMap<u64, Entry>,
}

/// Of pages of 4 KiB.
impl Default for Oracle {
    fn default() -> Self {
        Self::with_pages_of(PAGE_SHIFT)
    }
}

impl Oracle {
    /// An empty one of pages of 2<sup>`page`</sup> bytes.
    #[must_use]
    pub const fn with_pages_of(page: u8) -> Self {
        Self { page, pages: BTreeMap::new() }
    }

    /// An empty one of the smallest pages of this table.
    #[must_use]
    pub fn of<T: PageTable>(_: &T) -> Self {
        Self::with_pages_of(base_page::<T>())
    }

    const fn number(&self, va: VirtAddr) -> u64 {
        va.as_u64() >> self.page
    }

    /// The page numbers of a range of whole pages.
    fn numbers(&self, va: VirtAddr, len: u64) -> Range<u64> {
        let first = self.number(va);
        first..first + (len >> self.page)
    }

    /// The address of page `n`.
    const fn page(&self, n: u64) -> VirtAddr {
        VirtAddr::new(n << self.page)
    }

    /// The entry of the page at `va`.
    #[must_use]
    pub fn get(&self, va: VirtAddr) -> Entry {
        self.pages.get(&self.number(va)).copied().unwrap_or(Entry::Hole)
    }

    /// Makes the page at `va` hold `entry`.
    pub fn set(&mut self, va: VirtAddr, entry: Entry) {
        match entry {
            Entry::Hole => self.pages.remove(&self.number(va)),
            _ => self.pages.insert(self.number(va), entry),
        };
    }

    /// All pages that hold something, ascending, within the range.
    pub fn range(&self, va: VirtAddr, len: u64) -> impl Iterator<Item = (VirtAddr, Entry)> + '_ {
        self.pages.range(self.numbers(va, len)).map(|(&n, &entry)| (self.page(n), entry))
    }

    /// All pages that hold something, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (VirtAddr, Entry)> + '_ {
        self.pages.iter().map(|(&n, &entry)| (self.page(n), entry))
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
        for (i, n) in self.numbers(run.va, done).enumerate() {
            let pa = run.pa.wrapping_add((i as u64) << self.page);
            self.pages.insert(n, Entry::Leaf(pa, run.attr));
        }
    }

    /// Removes a range; what was there, page by page.
    pub fn unmap(&mut self, va: VirtAddr, len: u64) -> Vec<(VirtAddr, Entry)> {
        let gone: Vec<_> = self.range(va, len).collect();
        for (va, _) in &gone {
            self.pages.remove(&self.number(*va));
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
        let page = self.page;
        for (&n, entry) in self.pages.range_mut(self.numbers(va, len)) {
            if let Entry::Leaf(pa, attr) = *entry {
                let new = change.apply(attr);
                if !fits(new) {
                    return (n << page) - va.as_u64();
                }
                *entry = Entry::Leaf(pa, new);
            }
        }
        len
    }

    /// What a gather delivered, page by page, in ascending order.
    #[must_use]
    pub fn pages_of(&self, gone: &[Gone]) -> Vec<(VirtAddr, Entry)> {
        let mut pages: Vec<_> = gone.iter().flat_map(|gone| self.pages_of_one(gone)).collect();
        pages.sort_by_key(|&(va, _)| va);
        pages
    }

    fn pages_of_one(&self, gone: &Gone) -> Vec<(VirtAddr, Entry)> {
        match *gone {
            Gone::Soft(va, soft) => vec![(va, Entry::Soft(soft))],
            Gone::Run(run) => self.pages_of_span(run.va, run.len, Entry::Leaf(run.pa, run.attr)),
        }
    }

    /// A uniform stretch, page by page.
    #[must_use]
    pub fn pages_of_span(&self, va: VirtAddr, len: u64, entry: Entry) -> Vec<(VirtAddr, Entry)> {
        let at = |i: u64| match entry {
            Entry::Leaf(pa, attr) => {
                Entry::Leaf(PhysAddr::new(pa.as_u64() + (i << self.page)), attr)
            }
            other => other,
        };
        (0..len >> self.page).map(|i| (va.wrapping_add(i << self.page), at(i))).collect()
    }
}

/// log2 of the bytes of a table's smallest page.
#[must_use]
pub fn base_page<T: PageTable>() -> u8 {
    u8::try_from(T::LEAVES.trailing_zeros()).unwrap_or(PAGE_SHIFT)
}

/// What a gather delivered, by pages of 4 KiB, in ascending order.
#[must_use]
pub fn pages_of(gone: &[Gone]) -> Vec<(VirtAddr, Entry)> {
    Oracle::default().pages_of(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vellum_core::PAGE_SIZE;

    fn page(n: u64) -> VirtAddr {
        VirtAddr::new(n * PAGE_SIZE)
    }

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

    #[test]
    fn pages_are_as_large_as_the_tables() {
        let mut oracle = Oracle::with_pages_of(16);
        let pa = PhysAddr::new(0x30_0000);
        let run = Run::new(VirtAddr::new(0x5_0000), pa, 0x2_0000, Attr::RW);
        oracle.map(run, run.len);
        let second = (VirtAddr::new(0x6_0000), Entry::Leaf(PhysAddr::new(0x31_0000), Attr::RW));
        assert_eq!(oracle.iter().nth(1), Some(second));
        assert_eq!(oracle.get(VirtAddr::new(0x6_f000)), second.1, "anywhere in the page");
        assert_eq!(oracle.pages_of(&[Gone::Run(run)])[1], second);
        assert_eq!(oracle.len(), 2);
        let narrowed = oracle.protect(run.va, run.len, Change::clearing(Attr::WRITE), |attr| {
            attr.contains(Attr::WRITE)
        });
        assert_eq!(narrowed, 0, "the first does not fit");
        assert_eq!(oracle.unmap(second.0, 0x1_0000), [second]);
    }
}
