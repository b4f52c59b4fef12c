//! A system for models under loom: this crate's, and those of the crates above.
//!
//! ```text
//!   program's access    translation that the CPU has, as old as flushes allow, or a walk that it keeps
//!   flush               waits for accesses that are under way; what was cached of the range is void then
//! ```
//!
//! So a flush that is missing shows: a CPU never looks again by itself at what it has cached.

mod table;

use crate::mmu::Mmu;
use crate::system::System;
use loom::sync::{Mutex, MutexGuard};
use std::sync::Arc;
use vellum_cache::modelled::{Disk, Ram};
use vellum_cache::{PageInfo, Pages};
use vellum_core::{
    Attr, Entry, Flush, FrameBytes, Invalidate, PAGE_SIZE, PhysAddr, Swap, SwapEntry, SwapError,
    VirtAddr, Walk,
};

pub use table::{BASE, SLOTS, Table};

/// The address of page `n` of those that a table has.
#[must_use]
pub const fn page(n: u64) -> VirtAddr {
    BASE.wrapping_add(n * PAGE_SIZE)
}

/// The CPUs of one space: how often each page was flushed. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Cpus(Arc<Mutex<[u64; SLOTS]>>);

impl Cpus {
    fn lock(&self) -> MutexGuard<'_, [u64; SLOTS]> {
        self.0.lock().expect("a thread panicked")
    }
}

// SAFETY: who accesses memory through a translation has the lock, and sees whether it was flushed
// since it was cached.
unsafe impl Invalidate for Cpus {
    fn flush(&self, flushes: &[Flush]) {
        let mut counts = self.lock();
        for (n, count) in (0..).zip(counts.iter_mut()) {
            if flushes.iter().any(|flush| flush.covers(page(n))) {
                *count += 1;
            }
        }
    }
}

/// One CPU, in one space: what it has cached, by page, and at which count of flushes.
#[derive(Debug, Default)]
pub struct Cpu([Option<(u64, PhysAddr, Attr)>; SLOTS]);

impl Cpu {
    /// Calls `f` with the frame of page `n`, for a load or a store; false if the CPU faults.
    pub fn access<S: System<Cpus = Cpus>>(
        &mut self,
        mmu: &Mmu<'_, S>,
        n: u64,
        need: Attr,
        f: impl FnOnce(PhysAddr),
    ) -> bool {
        let counts = mmu.cpus().lock();
        let (count, cached) = (counts[n as usize], &mut self.0[n as usize]);
        let status = if need.contains(Attr::WRITE) { Attr::STATUS } else { Attr::ACCESSED };
        let known = cached.filter(|(at, _, attr)| *at == count && attr.contains(need | status));
        let found = known.or_else(|| match mmu.table().touch(page(n), need, status) {
            Entry::Leaf(pa, attr) if attr.contains(need) => Some((count, pa, attr | status)),
            _ => None,
        });
        *cached = found;
        found.map(|(_, pa, _)| f(pa)).is_some()
    }
}

/// Places for two pages.
#[derive(Debug, Default)]
pub struct Places(Mutex<[(u32, u64); 2]>);

impl Places {
    /// Stores a page, with one share.
    pub fn store(&self, ram: &Ram, from: FrameBytes<'_>) -> Option<SwapEntry> {
        let word = ram.load(Ram::frame_of(from));
        let mut places = self.0.lock().expect("a thread panicked");
        let free = places.iter().position(|(shares, _)| *shares == 0)?;
        places[free] = (1, word);
        Some(SwapEntry(free as u64))
    }

    /// Places that are in use.
    pub fn count_used(&self) -> usize {
        self.0.lock().expect("a thread panicked").iter().filter(|(shares, _)| *shares != 0).count()
    }
}

/// Memory, files, swap.
#[derive(Debug)]
pub struct Machine {
    /// Memory.
    pub ram: Ram,
    /// Files.
    pub disk: Disk,
    /// Swap.
    pub places: Places,
}

impl Machine {
    /// A machine of this many frames, with files of four pages.
    #[must_use]
    pub fn new(frames: u32) -> Self {
        let ram = Ram::new(frames);
        Self { disk: Disk::new(&ram, 4 * PAGE_SIZE), ram, places: Places::default() }
    }
}

// SAFETY: forwards to `Ram`, which keeps the contract.
unsafe impl Pages for Machine {
    type Memory = Ram;

    fn memory(&self) -> &Ram {
        &self.ram
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        self.ram.info(pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        self.ram.each_info(f);
    }

    unsafe fn clear(&self, pa: PhysAddr) {
        // SAFETY: the caller's.
        unsafe { self.ram.clear(pa) }
    }

    unsafe fn copy(&self, to: PhysAddr, from: PhysAddr) {
        // SAFETY: the caller's.
        unsafe { self.ram.copy(to, from) }
    }
}

impl System for Machine {
    type Table = Table;
    type Cpus = Cpus;
    type Files = Disk;
    type Swap = Self;

    fn files(&self) -> &Disk {
        &self.disk
    }

    fn swap(&self) -> &Self {
        self
    }
}

impl Swap for Machine {
    fn read(&self, entry: SwapEntry, to: FrameBytes<'_>) -> Result<(), SwapError> {
        let places = self.places.0.lock().expect("a thread panicked");
        let (shares, word) = places[entry.0 as usize];
        assert_ne!(shares, 0, "a free place was read");
        self.ram.fill(Ram::frame_of(to), word);
        Ok(())
    }

    fn share(&self, entry: SwapEntry) -> bool {
        let mut places = self.places.0.lock().expect("a thread panicked");
        let (shares, _) = &mut places[entry.0 as usize];
        if *shares != 0 {
            *shares += 1;
        }
        *shares != 0
    }

    fn release(&self, entry: SwapEntry) {
        let mut places = self.places.0.lock().expect("a thread panicked");
        let (shares, _) = &mut places[entry.0 as usize];
        *shares = shares.checked_sub(1).expect("a share of a free place was given back");
    }
}
