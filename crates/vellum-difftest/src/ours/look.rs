//! A look at an address space that changes nothing: its own smaps, read as Linux's is, and what its
//! table has.

use super::run::Space;
use crate::abi::PAGE;
use crate::op::{MARGIN, Sequence};
use crate::smaps;
use crate::subject::SubjectError;
use crate::trace::{PageState, State};
use core::ops::ControlFlow;
use vellum_cache::Pages;
use vellum_cache::page::State as PageFlags;
use vellum_core::{Entry, PageTable, VirtAddr};
use vellum_fault::Mmu;
use vellum_fault::host::HostSystem;
use vellum_fault::soft::Marker;

/// The state of a space.
pub(super) fn state<T: PageTable>(
    space: &Space<'_, '_, T>,
    base: u64,
    sequence: &Sequence,
) -> Result<State, SubjectError> {
    let mut text = String::new();
    space.write_smaps(&mut text).map_err(|e| SubjectError::Record(format!("smaps: {e}")))?;
    let low = if sequence.heap { base } else { base - 2 * MARGIN };
    let regions = smaps::regions(&text, low, base).map_err(SubjectError::Record)?;
    let mut pages = vec![PageState::default(); sequence.pages as usize];
    space.with_mmu(|mmu| entries(mmu, base, &mut pages))?;
    for (page, at) in pages.iter_mut().zip((base..).step_by(PAGE as usize)) {
        let mut there = [0];
        page.in_core = space.mincore(at, PAGE, &mut there).ok().map(|()| there[0] != 0);
    }
    Ok(State { regions, pages })
}

/// What the table has of the arena.
fn entries<T: PageTable>(
    mmu: &Mmu<'_, HostSystem<'_, T>>,
    base: u64,
    pages: &mut [PageState],
) -> Result<(), SubjectError> {
    let engine = mmu.engine();
    let len = pages.len() as u64 * PAGE;
    let visited = mmu.visit(VirtAddr::new(base), len, &mut |span| {
        for at in (0..span.len).step_by(PAGE as usize) {
            let index = (span.va.as_u64() + at).wrapping_sub(base) / PAGE;
            let page = usize::try_from(index).ok().and_then(|index| pages.get_mut(index));
            let Some(page) = page else { continue };
            match span.entry {
                Entry::Leaf(pa, _) => {
                    let pa = pa.wrapping_add(at);
                    page.present = true;
                    page.file = pa != engine.zeros()
                        && engine
                            .system()
                            .info(pa)
                            .is_some_and(|info| !info.state().contains(PageFlags::ANON));
                }
                Entry::Soft(soft) => match Marker::of(soft) {
                    Some(Marker::Guard) => page.guard = true,
                    _ => page.swapped = true,
                },
                Entry::Hole => {}
            }
        }
        ControlFlow::Continue(())
    });
    visited.map_err(|cause| SubjectError::Record(format!("the table: {cause}")))
}
