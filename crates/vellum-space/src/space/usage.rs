//! How much memory a space uses, page by page, and with whom it shares it.
//!
//! ```text
//!   a page that n leaves map        Rss 4 KiB      Pss 4 KiB / n
//!     n = 1                         Private_Clean or Private_Dirty
//!     n > 1                         Shared_Clean or Shared_Dirty
//! ```
//!
//! Pss is summed in units of 2<sup>-12</sup> bytes, so that the shares of all spaces in a page are the page
//! but for one unit each.
//!
//! Source: Linux, fs/proc/task_mmu.c (`smaps_page_accumulate`), Documentation/filesystems/proc.rst.

use super::AddressSpace;
use super::parts::Parts;
use super::regions::Found;
use crate::vma::VmFlags;
use crate::vma_map::PageRange;
use core::ops::{AddAssign, ControlFlow};
use lock_api::RawRwLock;
use vellum_cache::page::State;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, PhysAddr, Span, VirtAddr, Walk};
use vellum_fault::{Marker, System};

/// Bits behind the point of a share.
const PSS_SHIFT: u32 = 12;

/// Memory of a region, or of several, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Pages that are there.
    pub rss: u64,
    /// The same, each divided by how many leaves map it, in units of 2<sup>-12</sup> bytes.
    pub pss: u64,
    /// Of that, what is dirty.
    pub pss_dirty: u64,
    /// Of `pss`, anonymous memory.
    pub pss_anon: u64,
    /// Of `pss`, files.
    pub pss_file: u64,
    /// Of `pss`, shared memory.
    pub pss_shmem: u64,
    /// Of `pss`, what is locked.
    pub pss_locked: u64,
    /// Mapped by others too, and not written.
    pub shared_clean: u64,
    /// Mapped by others too, and written.
    pub shared_dirty: u64,
    /// Mapped once, and not written.
    pub private_clean: u64,
    /// Mapped once, and written.
    pub private_dirty: u64,
    /// Used since somebody last asked.
    pub referenced: u64,
    /// Anonymous.
    pub anonymous: u64,
    /// Anonymous, and may go when memory is short.
    pub lazy_free: u64,
    /// Anonymous, in large leaves.
    pub anon_huge: u64,
    /// Out in swap.
    pub swap: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.rss += other.rss;
        self.pss += other.pss;
        self.pss_dirty += other.pss_dirty;
        self.pss_anon += other.pss_anon;
        self.pss_file += other.pss_file;
        self.pss_shmem += other.pss_shmem;
        self.pss_locked += other.pss_locked;
        self.shared_clean += other.shared_clean;
        self.shared_dirty += other.shared_dirty;
        self.private_clean += other.private_clean;
        self.private_dirty += other.private_dirty;
        self.referenced += other.referenced;
        self.anonymous += other.anonymous;
        self.lazy_free += other.lazy_free;
        self.anon_huge += other.anon_huge;
        self.swap += other.swap;
    }
}

impl Usage {
    /// Pss in whole bytes.
    #[must_use]
    pub const fn pss_bytes(&self) -> u64 {
        self.pss >> PSS_SHIFT
    }

    /// Adds a page that is to be divided by `maps`: the leaves that map it, times the spaces that have this
    /// one in common. So the parts of a page that spaces have add up to it, however they came by it.
    fn add_page(&mut self, state: State, attr: Attr, maps: u32, is_locked: bool) {
        let dirty = attr.contains(Attr::DIRTY) || state.contains(State::DIRTY);
        let share = (PAGE_SIZE << PSS_SHIFT) / u64::from(maps.max(1));
        self.rss += PAGE_SIZE;
        self.pss += share;
        let (clean_cell, dirty_cell) = if maps > 1 {
            (&mut self.shared_clean, &mut self.shared_dirty)
        } else {
            (&mut self.private_clean, &mut self.private_dirty)
        };
        *(if dirty { dirty_cell } else { clean_cell }) += PAGE_SIZE;
        if dirty {
            self.pss_dirty += share;
        }
        if is_locked {
            self.pss_locked += share;
        }
        if attr.contains(Attr::ACCESSED) {
            self.referenced += PAGE_SIZE;
        }
        if state.contains(State::ANON) {
            self.anonymous += PAGE_SIZE;
            self.pss_anon += share;
            if !dirty {
                self.lazy_free += PAGE_SIZE;
            }
        } else if state.contains(State::MEMORY) {
            self.pss_shmem += share;
        } else {
            self.pss_file += share;
        }
    }
}

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// The memory of the whole space. O(pages that are there).
    pub fn usage(&self) -> Usage {
        let parts = self.parts.read();
        let mut all = Usage::default();
        for found in parts.vmas.iter(PageRange::ALL).map(Found::new) {
            all += parts.usage(&found);
        }
        all
    }
}

impl<S: System> Parts<'_, S> {
    /// The memory of one region.
    pub(super) fn usage(&self, found: &Found) -> Usage {
        let mut usage = Usage::default();
        let is_locked = found.vma.flags.contains(VmFlags::LOCKED);
        let (va, len) = (VirtAddr::new(found.start), found.end - found.start);
        // A region lies in what the table translates, so this cannot fail.
        let _visited = self.mmu.visit(va, len, &mut |span| {
            match span.entry {
                Entry::Leaf(pa, attr) => {
                    let anonymous = usage.anonymous;
                    self.add_span(&mut usage, (span, pa, attr), is_locked);
                    if self.is_large(span.va) {
                        usage.anon_huge += usage.anonymous - anonymous;
                    }
                }
                Entry::Soft(soft) => {
                    if let Some(Marker::Swap(_)) = Marker::of(soft) {
                        usage.swap += PAGE_SIZE;
                    }
                }
                Entry::Hole => {}
            }
            ControlFlow::Continue(())
        });
        usage
    }

    /// Whether the leaf at `va` is more than a page.
    fn is_large(&self, va: VirtAddr) -> bool {
        let table = self.mmu.table();
        S::Table::LEAVES != PAGE_SIZE
            && table.walk(va, &mut ()).is_ok_and(|leaf| leaf.len > PAGE_SIZE)
    }

    /// Adds leaves that follow each other, part by part of the table: others may have some of them, too.
    fn add_span(
        &self,
        usage: &mut Usage,
        (span, pa, attr): (Span, PhysAddr, Attr),
        is_locked: bool,
    ) {
        let mut done = 0;
        while done < span.len {
            let (others, len) = self.mmu.co_owners(span.va.wrapping_add(done), span.len - done);
            let run = (pa.wrapping_add(done), len);
            self.add_run(usage, run, attr, others.saturating_add(1), is_locked);
            done += len;
        }
    }

    /// Adds leaves that `spaces` spaces have in common.
    fn add_run(
        &self,
        usage: &mut Usage,
        (pa, len): (PhysAddr, u64),
        attr: Attr,
        spaces: u32,
        is_locked: bool,
    ) {
        let engine = self.mmu.engine();
        for offset in (0..len).step_by(PAGE_SIZE as usize) {
            let at = pa.wrapping_add(offset);
            if at == engine.zeros() {
                continue;
            }
            if let Some(info) = engine.system().info(at) {
                let maps = info.maps().saturating_mul(spaces);
                usage.add_page(info.state(), attr, maps, is_locked);
            }
        }
    }
}
