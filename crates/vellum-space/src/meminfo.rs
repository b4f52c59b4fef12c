//! `/proc/meminfo`, and a table of processes by memory.

use crate::rules::Rules;
use crate::space::AddressSpace;
use core::fmt::{self, Write};
use lock_api::RawRwLock;
use vellum_core::PAGE_SHIFT;
use vellum_fault::{RssKind, System};

/// What a system has and uses, in pages; what only the embedder knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemInfo {
    /// All frames.
    pub total: u64,
    /// Free ones.
    pub free: u64,
    /// What could be had without swapping: free ones, and what of the page cache is clean.
    pub available: u64,
    /// Pages in the page cache, shared memory too.
    pub cached: u64,
    /// Anonymous pages that are mapped.
    pub anonymous: u64,
    /// Pages of files that are mapped.
    pub mapped: u64,
    /// Pages of shared memory.
    pub shmem: u64,
    /// Pages that wait to be stored.
    pub dirty: u64,
    /// Pages that are being stored.
    pub writeback: u64,
    /// Locked pages.
    pub locked: u64,
    /// Page tables.
    pub tables: u64,
    /// Swap, and what of it is free.
    pub swap: (u64, u64),
}

impl MemInfo {
    /// Writes lines as `/proc/meminfo` has them, in its order; of those for which there is nothing here,
    /// none.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write(&self, rules: &Rules, to: &mut dyn Write) -> fmt::Result {
        let lines = [
            ("MemTotal", self.total),
            ("MemFree", self.free),
            ("MemAvailable", self.available),
            ("Buffers", 0),
            ("Cached", self.cached),
            ("SwapCached", 0),
            ("Mlocked", self.locked),
            ("SwapTotal", self.swap.0),
            ("SwapFree", self.swap.1),
            ("Dirty", self.dirty),
            ("Writeback", self.writeback),
            ("AnonPages", self.anonymous),
            ("Mapped", self.mapped),
            ("Shmem", self.shmem),
            ("PageTables", self.tables),
            ("CommitLimit", rules.commit_limit),
            ("Committed_AS", rules.committed()),
        ];
        for (name, count) in lines {
            write!(to, "{name}:")?;
            let pad = 15usize.saturating_sub(name.len());
            writeln!(to, "{:pad$}{:8} kB", "", count << (PAGE_SHIFT - 10))?;
        }
        Ok(())
    }
}

/// One line of [`write_processes`].
#[derive(Debug)]
pub struct Process<'a, 'e, S: System, L: RawRwLock> {
    /// Its number.
    pub pid: u32,
    /// What it is called.
    pub name: &'a str,
    /// Its space.
    pub space: &'a AddressSpace<'e, S, L>,
    /// Its resident pages, as they were when the table was begun: who sorts by what changes meanwhile has no
    /// order.
    pages: u64,
}

impl<'a, 'e, S: System, L: RawRwLock> Process<'a, 'e, S, L> {
    /// A process.
    pub const fn new(pid: u32, name: &'a str, space: &'a AddressSpace<'e, S, L>) -> Self {
        Self { pid, name, space, pages: 0 }
    }
}

/// Writes a table of processes, those with the most resident memory first; the slice is put in that
/// order. Sizes are in KiB; `%MEM` is of `total_pages`.
///
/// ```text
///   PID    VSZ    RSS    PSS   SWAP %MEM COMMAND
///    12  10240   2048   1024      0  6.2 init
/// ```
///
/// # Errors
///
/// Those of `to`.
pub fn write_processes<S: System, L: RawRwLock>(
    processes: &mut [Process<'_, '_, S, L>],
    total_pages: u64,
    to: &mut dyn Write,
) -> fmt::Result {
    for process in processes.iter_mut() {
        process.pages = process.space.with_mmu(|mmu| mmu.rss().resident());
    }
    processes.sort_unstable_by_key(|p| (core::cmp::Reverse(p.pages), p.pid));
    writeln!(
        to,
        "{:>7} {:>10} {:>10} {:>10} {:>10} {:>5} COMMAND",
        "PID", "VSZ", "RSS", "PSS", "SWAP", "%MEM"
    )?;
    for process in processes.iter() {
        let pages = process.pages;
        let permille = pages.saturating_mul(1000) / total_pages.max(1);
        let swap = process.space.with_mmu(|mmu| mmu.rss().pages(RssKind::Swap));
        writeln!(
            to,
            "{:>7} {:>10} {:>10} {:>10} {:>10} {:>3}.{} {}",
            process.pid,
            process.space.size_bytes() >> 10,
            pages << (PAGE_SHIFT - 10),
            process.space.usage().pss_bytes() >> 10,
            swap << (PAGE_SHIFT - 10),
            permille / 10,
            permille % 10,
            process.name,
        )?;
    }
    Ok(())
}
