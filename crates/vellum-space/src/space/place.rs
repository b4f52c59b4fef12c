//! Where a new region goes.
//!
//! ```text
//!   FIXED             at the address, or not at all
//!   a hint            there, if it is free
//!   neither           the highest room below Layout::mmap_top; else the lowest above mmap_bottom
//!   32BIT             the lowest room from 1 GiB to 2 GiB
//!   ABOVE4G           no room below 4 GiB
//! ```
//!
//! Private anonymous memory of whole 2 MiB that has no hint begins at a multiple of 2 MiB, so that large
//! leaves fit, whatever the table has: room is sought for 2 MiB more than is needed.
//!
//! Source: Linux, arch/x86/kernel/sys_x86_64.c, mm/mmap.c (`__get_unmapped_area`).

use super::parts::Parts;
use super::{bounds_of, is_aligned};
use crate::abi::map;
use crate::errno::Errno;
use crate::vma_map::{Direction, PageRange, Room};
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use vellum_fault::System;

/// Where `MAP_32BIT` puts regions.
const LOW: (u64, u64) = (1 << 30, 1 << 31);

/// What large leaves of x86-64 are aligned to.
const LARGE: u64 = 1 << 21;

impl<S: System> Parts<'_, S> {
    /// Finds room for `len` bytes, a multiple of 4 KiB.
    pub(crate) fn place(&self, hint: u64, len: u64, flags: u64) -> Result<u64, Errno> {
        let end = self.layout.end;
        if len > end {
            return Err(Errno::Enomem);
        }
        let addr = if flags & map::FIXED == 0 { self.room(hint, len, flags)? } else { hint };
        if addr > end - len {
            return Err(Errno::Enomem);
        }
        if !is_aligned(addr) {
            return Err(Errno::Einval);
        }
        if addr < self.rules.mmap_min_addr && !self.limits.may_map_low {
            return Err(Errno::Eperm);
        }
        Ok(addr)
    }

    /// The address that a hint is taken as.
    pub(crate) fn rounded_hint(&self, hint: u64) -> u64 {
        let hint = hint & !(PAGE_SIZE - 1);
        if hint != 0 && hint < self.rules.mmap_min_addr {
            super::page_align(self.rules.mmap_min_addr)
        } else {
            hint
        }
    }

    fn room(&self, hint: u64, len: u64, flags: u64) -> Result<u64, Errno> {
        let is_low = flags & map::BIT32 != 0;
        let end = if is_low { LOW.1 } else { self.layout.end };
        if hint != 0 && end.checked_sub(len).is_some_and(|last| hint <= last) {
            let next = self.next(hint);
            let free_to = next.map_or(self.layout.end, |next| {
                next.start - next.vma.guard(self.rules.stack_guard_gap).min(next.start)
            });
            if hint + len <= free_to {
                return Ok(hint);
            }
        }
        let is_private = flags & map::ANONYMOUS != 0 && flags & map::TYPE != map::SHARED;
        if hint == 0 && is_private && len.is_multiple_of(LARGE) {
            let padded = len.checked_add(LARGE).and_then(|len| self.search(len, flags));
            if let Some(at) = padded {
                // The upper one of two places that would do.
                return Ok((at & !(LARGE - 1)) + LARGE);
            }
        }
        self.search(len, flags).ok_or(Errno::Enomem)
    }

    /// The room for so many bytes that nobody asked for by its address.
    fn search(&self, len: u64, flags: u64) -> Option<u64> {
        if flags & map::BIT32 != 0 {
            return self.gap(len, LOW, Direction::Up);
        }
        let lowest = if flags & map::ABOVE4G != 0 { 1 << 32 } else { PAGE_SIZE };
        let lowest = self.rules.mmap_min_addr.max(lowest);
        self.gap(len, (lowest, self.layout.mmap_top), Direction::Down)
            .or_else(|| self.gap(len, (self.layout.mmap_bottom, self.layout.end), Direction::Up))
    }

    /// As Linux searches: what reaches into the guard gap of a region that grows down is passed over,
    /// and then so is all that lies between it and the gap's other end.
    fn gap(&self, len: u64, within: (u64, u64), direction: Direction) -> Option<u64> {
        let (mut from, mut to) = within;
        loop {
            let within = PageRange::new(VirtAddr::new(from), to.checked_sub(from)?).ok()?;
            let room = Room { len, align: PAGE_SHIFT, within, from: direction };
            let at = self.vmas.find_gap(room, |_| 0)?.as_u64();
            let guard = self.rules.stack_guard_gap;
            let next = self.vmas.with_next(VirtAddr::new(at), |range, vma| {
                let (start, end) = bounds_of(range);
                (start.saturating_sub(vma.guard(guard)), end)
            });
            let Some((free_to, end)) = next.filter(|&(free_to, _)| free_to < at + len) else {
                return Some(at);
            };
            match direction {
                Direction::Down => to = free_to,
                Direction::Up => from = end,
            }
        }
    }
}
