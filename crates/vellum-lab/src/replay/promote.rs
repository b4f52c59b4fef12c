//! Makes one leaf of 2 MiB out of pages, when a program has touched enough of them.
//!
//! ```text
//!   fault --> pages touched in its 2 MiB, this one included
//!               fewer than `touched`      install the page
//!               as many                   unmap the 2 MiB, map one leaf there, flush its pages
//! ```
//!
//! Linux collapses like this in the background (khugepaged), and with `touched` = 1 at the first
//! fault (transparent huge pages `always`); FreeBSD's reservations promote when all 512 pages are
//! there. Here it happens at once, at the fault that brings the last page asked for: that is the
//! policy at its best. Copying the pages and zeroing the rest is not charged; how many pages the
//! program never asked for is told.
//!
//! # Invariants
//!
//! - A region is promoted at most once, and no page of it faults after that.
//!
//! Source: Linux, Documentation/admin-guide/mm/transhuge.rst; Navarro et al., "Practical, Transparent
//! Operating System Support for Superpages", OSDI 2002.

use super::{Cpu, Process, ReplayError};
use crate::experiment::{ATTR, gathered};
use crate::ram::HUGE_SHIFT;
use core::ops::Add;
use std::collections::HashMap;
use vellum_core::{PAGE_SHIFT, PageTable, Run, VirtAddr};

/// Pages in one leaf of 2 MiB.
pub(crate) const PAGES: u16 = 1 << (HUGE_SHIFT - PAGE_SHIFT);

/// When a region of 2 MiB becomes one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pages of it that the program has touched by then: 1 to 512.
    pub touched: u16,
}

/// What was promoted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promotions {
    /// Regions.
    pub count: u64,
    /// Pages of them that nobody had touched then.
    pub pages_filled: u64,
}

impl Add for Promotions {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { count: self.count + more.count, pages_filled: self.pages_filled + more.pages_filled }
    }
}

/// What one process has touched.
#[derive(Debug)]
pub(super) struct Promoter {
    policy: Policy,
    touched: HashMap<u64, u16>,
    promotions: Promotions,
}

impl Promoter {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, touched: HashMap::new(), promotions: Promotions::default() }
    }

    pub(super) const fn promotions(&self) -> Promotions {
        self.promotions
    }

    /// A page of the region of `va` is touched for the first time: whether the region is due.
    fn is_due(&mut self, va: VirtAddr) -> bool {
        let touched = self.touched.entry(va.as_u64() >> HUGE_SHIFT).or_default();
        *touched += 1;
        let due = *touched == self.policy.touched.clamp(1, PAGES);
        if due {
            self.promotions.count += 1;
            self.promotions.pages_filled += u64::from(PAGES - *touched);
        }
        due
    }
}

impl Cpu<'_, '_> {
    /// Promotes the region of `va`, where a page is about to come, if it is due.
    pub(super) fn promote<T: PageTable>(
        &mut self,
        process: &mut Process<'_, T>,
        va: VirtAddr,
    ) -> Result<bool, ReplayError> {
        if !process.promoter.as_mut().is_some_and(|promoter| promoter.is_due(va)) {
            return Ok(false);
        }
        const BYTES: u64 = 1 << HUGE_SHIFT;
        let region = va.align_down(HUGE_SHIFT);
        let block = self.data.alloc_huge().map_err(ReplayError::OutOfData)?;
        let run = Run::new(region, block, BYTES, ATTR).with_leaves_up_to(HUGE_SHIFT);
        let table = &mut *process.table;
        gathered::<T, _>(|gather| {
            table.unmap(region, BYTES, gather)?;
            table.map(run, gather)
        })?;
        self.machine.flush_huge(region, process.asid);
        Ok(true)
    }
}
