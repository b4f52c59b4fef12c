//! Which physical memory is RAM: from the memory map to stretches that can be mapped.
//!
//! ```text
//!   RAM          [=======)   [==[=====)==)        any order, overlapping
//!   anything else     [-----)                     wins where it overlaps RAM
//!   ram()        [====)      [===========)        sorted, apart, whole pages
//! ```
//!
//! # Invariants
//!
//! - [`Stretches`] ascend, do not touch, and start and end on pages.

use crate::start_info::{BootInfo, Extent, MAX_REGIONS, RegionKind};
use arrayvec::ArrayVec;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Sorted stretches of memory. A map of n regions gives at most n, and each cut one more.
pub type Stretches = ArrayVec<Extent, { 2 * MAX_REGIONS }>;

/// The whole pages of RAM below `limit`.
#[must_use]
pub fn ram(info: &BootInfo, limit: u64) -> Stretches {
    let mut found: ArrayVec<Extent, MAX_REGIONS> = info
        .regions()
        .iter()
        .filter(|region| region.kind == RegionKind::Ram)
        .map(|region| region.extent)
        .collect();
    found.sort_unstable_by_key(|extent| extent.start());
    let mut stretches = merged(&found);
    for region in info.regions().iter().filter(|region| region.kind != RegionKind::Ram) {
        stretches = without(&stretches, region.extent);
    }
    stretches.iter().filter_map(|stretch| whole_pages(*stretch, limit)).collect()
}

/// The stretches, but for what lies in `hole`.
#[must_use]
pub fn without(stretches: &[Extent], hole: Extent) -> Stretches {
    let mut rest = Stretches::new();
    for stretch in stretches {
        let below = (stretch.start(), stretch.end().min(hole.start()));
        let above = (stretch.start().max(hole.end()), stretch.end());
        for (start, end) in [below, above] {
            let part = Extent::new(start, end.saturating_sub(start));
            if let Some(part) = part {
                // Only more cuts than the type is made for could fail here; the rest is not used.
                let _ = rest.try_push(part);
            }
        }
    }
    rest
}

/// Joins what overlaps or touches; the input ascends by its starts.
fn merged(sorted: &[Extent]) -> Stretches {
    let mut joined = Stretches::new();
    for &extent in sorted {
        match joined.last_mut() {
            Some(last) if extent.start() <= last.end() => {
                let end = last.end().max(extent.end());
                *last = Extent::new(last.start(), end - last.start()).unwrap_or(*last);
            }
            _ => joined.push(extent),
        }
    }
    joined
}

/// The whole pages below `limit` in a stretch.
fn whole_pages(stretch: Extent, limit: u64) -> Option<Extent> {
    let start = stretch.start().checked_next_multiple_of(PAGE)?;
    let end = stretch.end().min(limit) / PAGE * PAGE;
    Extent::new(start, end.checked_sub(start)?)
}

#[cfg(test)]
mod tests;
