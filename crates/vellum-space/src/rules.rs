//! What all spaces of a system obey, what one process may use, and where things lie in a space.
//!
//! ```text
//!   0     lowest                                   top of mmap area     top of user space
//!   |------|----[program][heap -->]------....------<-- mmap |---- gap ----[stack]|
//!                         ^ Layout::heap            ^ Layout::mmap_top    ^ Layout::stack
//! ```
//!
//! Source: Linux, Documentation/mm/overcommit-accounting.rst; setrlimit(2).

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vellum_core::PAGE_SIZE;

/// How much may be promised beyond what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overcommit {
    /// Refuses only what is more than all memory at once (`vm.overcommit_memory` 0).
    #[default]
    Heuristic,
    /// Refuses nothing (1).
    Always,
    /// Refuses what passes the limit (2).
    Never,
}

/// What all spaces of a system share.
#[derive(Debug)]
pub struct Rules {
    /// How much may be promised.
    pub overcommit: Overcommit,
    /// Pages of memory and swap together.
    pub total_pages: u64,
    /// Pages that may be promised where [`Overcommit::Never`] holds.
    pub commit_limit: u64,
    /// Regions of a space (`vm.max_map_count`).
    pub max_map_count: u64,
    /// The lowest address that programs may map (`vm.mmap_min_addr`), in bytes.
    pub mmap_min_addr: u64,
    /// Bytes that stay free in front of a region that grows down.
    pub stack_guard_gap: u64,
    /// Pages that one fault in a file maps at most, a power of two (`fault_around_bytes` / 4 KiB).
    pub fault_around: u64,
    committed: AtomicU64,
    families: AtomicU64,
}

impl Rules {
    /// Linux's defaults, for this much memory and swap.
    #[must_use]
    pub const fn new(total_pages: u64) -> Self {
        Self {
            overcommit: Overcommit::Heuristic,
            total_pages,
            commit_limit: total_pages / 2,
            max_map_count: 65_530,
            mmap_min_addr: 65_536,
            stack_guard_gap: 256 << 12,
            fault_around: 16,
            committed: AtomicU64::new(0),
            families: AtomicU64::new(1),
        }
    }

    /// Pages that are promised (`Committed_AS`).
    pub fn committed(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// Promises pages; false, and nothing is promised, where that is too much.
    #[must_use]
    pub fn promise(&self, pages: u64) -> bool {
        let before = self.committed.fetch_add(pages, Relaxed);
        let is_fine = match self.overcommit {
            Overcommit::Always => true,
            Overcommit::Heuristic => pages <= self.total_pages,
            Overcommit::Never => before.saturating_add(pages) <= self.commit_limit,
        };
        if !is_fine {
            self.committed.fetch_sub(pages, Relaxed);
        }
        is_fine
    }

    /// Promises pages whatever the limit, for who gives as many back at once.
    pub(crate) fn promise_again(&self, pages: u64) {
        self.committed.fetch_add(pages, Relaxed);
    }

    /// Takes a promise back.
    pub fn release(&self, pages: u64) {
        self.committed.fetch_sub(pages, Relaxed);
    }

    /// A number that no family and no region had before.
    pub(crate) fn number(&self) -> u64 {
        self.families.fetch_add(1, Relaxed)
    }
}

/// Without a limit.
pub const INFINITY: u64 = u64::MAX;

/// What a process may use, in bytes (`RLIMIT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`: all regions together.
    pub address_space: u64,
    /// `RLIMIT_DATA`: heap and private writable regions.
    pub data: u64,
    /// `RLIMIT_STACK`: one region that grows down.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`: locked regions.
    pub locked: u64,
    /// Whether it may lock whatever it wants (`CAP_IPC_LOCK`).
    pub may_lock_all: bool,
    /// Whether it may map below [`Rules::mmap_min_addr`] (`CAP_SYS_RAWIO`).
    pub may_map_low: bool,
}

impl Default for Limits {
    /// Linux's, for an ordinary user: 8 MiB of stack, 8 MiB locked.
    fn default() -> Self {
        Self {
            address_space: INFINITY,
            data: INFINITY,
            stack: 8 << 20,
            locked: 8 << 20,
            may_lock_all: false,
            may_map_low: false,
        }
    }
}

/// Where things lie in a space, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where user space ends (`TASK_SIZE`).
    pub end: u64,
    /// Below which regions without an address of their own are put, downwards.
    pub mmap_top: u64,
    /// From which they are put upwards, where there is no room below `mmap_top`, and with
    /// `MAP_32BIT`.
    pub mmap_bottom: u64,
    /// Where the heap begins: behind the program's data, or at random.
    pub heap: u64,
    /// The program's data, for `RLIMIT_DATA`: begin and end.
    pub data: (u64, u64),
    /// The program's code, which `VmExe` counts: begin and end.
    pub code: (u64, u64),
    /// Where the stack pointer was at first; the region with this address is `[stack]`.
    pub stack: u64,
}

impl Layout {
    /// The same as far as it fits into the first `len` bytes of a space: what is to be a multiple of 4 KiB
    /// is rounded down, and nothing lies behind the end.
    #[must_use]
    pub(crate) fn within(self, len: u64) -> Self {
        let end = self.end.min(len) & !(PAGE_SIZE - 1);
        let page = |at: u64| at.min(end) & !(PAGE_SIZE - 1);
        Self {
            end,
            mmap_top: page(self.mmap_top),
            mmap_bottom: page(self.mmap_bottom),
            heap: self.heap.min(end),
            ..self
        }
    }
}

impl Default for Layout {
    /// As Linux on x86-64 has it with 4 levels, without randomisation.
    fn default() -> Self {
        let end = 0x7fff_ffff_f000;
        Self {
            end,
            mmap_top: 0x7fff_f7ff_f000,
            mmap_bottom: 0x2aaa_aaaa_a000,
            heap: 0x5555_5555_9000,
            data: (0x5555_5555_8000, 0x5555_5555_9000),
            code: (0x5555_5555_4000, 0x5555_5555_8000),
            stack: 0x7fff_ffff_e000,
        }
    }
}
