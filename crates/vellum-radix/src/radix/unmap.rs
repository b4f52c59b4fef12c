//! Removing everything in a range.
//!
//! ```text
//!   entries   . . L L L L . S L l L        one run per stretch of leaves that continue each other;
//!                 |-----|   | | | |        a leaf whose status hardware changed under us (l) is
//!                   run    soft             a run of its own
//! ```

use super::change::{Edit, Edited, Stretch, make_room};
use super::group::Group;
use super::node::Pattern;
use super::{Detached, Radix};
use crate::format::Format;
use vellum_core::{Attr, Cause, Entry, Gather, Memory, RangeError, Run, VirtAddr};

struct Unmap;

impl<F: Format, M: Memory> Radix<F, M> {
    pub(super) fn unmap_range<G: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.check_own(va, len)?;
        self.change(va, len, &mut Unmap, gather)
    }
}

impl<F: Format, M: Memory> Edit<F, M> for Unmap {
    const DETACH: bool = true;

    fn keeps(&self, _: Attr) -> bool {
        false
    }

    fn stretch<G: Gather<Detached<F, M>>>(
        &mut self,
        stretch: &Stretch<'_, F, M>,
        gather: &mut G,
    ) -> Edited {
        let Stretch { node, level, first, count, .. } = *stretch;
        let (mut i, mut holes) = (0, 0);
        loop {
            i += node.count_zeros(first + i, count - i);
            if i == count {
                return (holes, Ok(()));
            }
            let raw = node.slot(first + i).load();
            make_room(gather);
            let gone = match F::decode(raw, level.shift).entry() {
                Entry::Leaf(pa, attr) => {
                    let pattern = Pattern { raw, step: F::step(level.shift) };
                    let most = pattern.longest::<F>(level.shift).min(count - i);
                    let locked = G::LIVE && !F::is_quiet(raw);
                    let (n, odd) = node.take_matching(first + i, most, pattern, locked);
                    let page = level.shift;
                    if n > 0 {
                        gather.leaf(Run { va: stretch.va_of(i), pa, len: n << page, attr, page });
                    }
                    if let Some(raw) = odd {
                        make_room(gather);
                        take_one::<F, M, G>(stretch, i + n, raw, gather);
                    }
                    n + u64::from(odd.is_some())
                }
                _ => {
                    node.slot(first + i).store(0);
                    take_one::<F, M, G>(stretch, i, raw, gather);
                    1
                }
            };
            i += gone;
            holes += gone;
        }
    }

    fn group<G: Gather<Detached<F, M>>>(
        &mut self,
        group: &Group<'_, F, M>,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        group.unmap(gather);
        Ok(true)
    }
}

/// Gives to the gather what entry `i` of the stretch held: `raw`.
fn take_one<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
    stretch: &Stretch<'_, F, M>,
    i: u64,
    raw: u64,
    gather: &mut G,
) {
    let (va, page) = (stretch.va_of(i), stretch.level.shift);
    match F::decode(raw, page).entry() {
        Entry::Leaf(pa, attr) => gather.leaf(Run { va, pa, len: 1 << page, attr, page }),
        Entry::Soft(soft) => gather.soft(va, soft),
        Entry::Hole => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::X86_64;
    use crate::radix::node::index;
    use vellum_core::{Batch, Flush, Gone, Invalidate, PAGE_SIZE, PhysAddr};
    use vellum_testkit::Arena;

    type Table<'a> = Radix<X86_64<4>, &'a Arena>;

    /// Wants this address flushed, and nothing else.
    struct Wants(VirtAddr);

    // SAFETY: no CPU walks the tables of this test.
    #[allow(unsafe_code, reason = "implements an unsafe trait")]
    unsafe impl Invalidate for Wants {
        fn flush(&self, flushes: &[Flush]) {
            assert_eq!((flushes.len(), flushes[0].first), (1, self.0));
        }
    }

    /// Between the look at an entry and the swap there is no time in which a test could change it.
    #[test]
    fn a_leaf_that_hardware_changed_as_it_went_comes_out_flushed() {
        let arena = Arena::new(16);
        let table = Table::new(&arena).expect("room");
        let (before, va) = (VirtAddr::new(4 * PAGE_SIZE), VirtAddr::new(5 * PAGE_SIZE));
        let mut gone = std::vec::Vec::new();
        // SAFETY: no CPU walks the table, and this gather is used with it alone.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        let mut gather: Batch<_, _, Detached<X86_64<4>, &Arena>, 4> =
            unsafe { Batch::new(Wants(va), |item| gone.push(item)) };
        let level = X86_64::<4>::LEVELS[3];
        let node = table.node(table.root());
        let stretch = Stretch { node, level, first: index(before, level), count: 2, va: before };
        let run = Run::new(va, PhysAddr::new(0x7000), PAGE_SIZE, Attr::RW | Attr::STATUS);
        let raw = X86_64::<4>::encode(Entry::Leaf(run.pa, run.attr), 12).expect("a leaf");
        take_one(&stretch, 1, raw, &mut gather);
        gather.finish();
        assert_eq!(gone, [Gone::Run(run)]);
        // SAFETY: as above.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        let mut direct = unsafe { vellum_core::Direct::new(|_| {}) };
        vellum_core::PageTable::retire(table, &mut direct);
    }
}
