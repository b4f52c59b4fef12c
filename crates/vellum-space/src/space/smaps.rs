//! `/proc/PID/smaps`, `smaps_rollup` and the memory lines of `status`, byte for byte.
//!
//! Source: Linux, fs/proc/task_mmu.c (`show_smap`, `show_smaps_rollup`, `task_mem`).

use super::AddressSpace;
use super::parts::Parts;
use super::regions::Found;
use super::usage::Usage;
use crate::vma::VmFlags;
use crate::vma_map::PageRange;
use core::fmt::{self, Write};
use lock_api::RawRwLock;
use vellum_core::{PAGE_SHIFT, PageTable};
use vellum_fault::{RssKind, System};

/// Flags as `VmFlags` names them, in its order.
const NAMES: [(VmFlags, &str); 27] = [
    (VmFlags::READ, "rd"),
    (VmFlags::WRITE, "wr"),
    (VmFlags::EXEC, "ex"),
    (VmFlags::SHARED, "sh"),
    (VmFlags::MAYREAD, "mr"),
    (VmFlags::MAYWRITE, "mw"),
    (VmFlags::MAYEXEC, "me"),
    (VmFlags::MAYSHARE, "ms"),
    (VmFlags::GROWSDOWN, "gd"),
    (VmFlags::SPECIAL, "pf"),
    (VmFlags::MAYBE_GUARD, "gu"),
    (VmFlags::LOCKED, "lo"),
    (VmFlags::SEQ_READ, "sr"),
    (VmFlags::RAND_READ, "rr"),
    (VmFlags::DONTCOPY, "dc"),
    (VmFlags::DONTEXPAND, "de"),
    (VmFlags::LOCKONFAULT, "lf"),
    (VmFlags::ACCOUNT, "ac"),
    (VmFlags::NORESERVE, "nr"),
    (VmFlags::SYNC, "sf"),
    (VmFlags::WIPEONFORK, "wf"),
    (VmFlags::DONTDUMP, "dd"),
    (VmFlags::HUGEPAGE, "hg"),
    (VmFlags::NOHUGEPAGE, "nh"),
    (VmFlags::MERGEABLE, "mg"),
    (VmFlags::DROPPABLE, "dp"),
    (VmFlags::SEALED, "sl"),
];

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Writes each region's line and memory, as `/proc/PID/smaps` has them. O(pages that are there).
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_smaps(&self, to: &mut dyn Write) -> fmt::Result {
        let parts = self.parts.read();
        for found in parts.vmas.iter(PageRange::ALL).map(Found::new) {
            parts.write_line(&found, to)?;
            kilobytes(to, "Size", found.end - found.start)?;
            kilobytes(to, "KernelPageSize", 1 << PAGE_SHIFT)?;
            kilobytes(to, "MMUPageSize", 1 << PAGE_SHIFT)?;
            write_usage(&parts.usage(&found), false, to)?;
            writeln!(to, "THPeligible:    {:8}", u8::from(parts.may_be_huge(&found)))?;
            to.write_str("VmFlags: ")?;
            for (flag, name) in NAMES {
                if found.vma.flags.contains(flag) {
                    write!(to, "{name} ")?;
                }
            }
            to.write_char('\n')?;
        }
        Ok(())
    }

    /// Writes the sums over all regions, as `/proc/PID/smaps_rollup` has them.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_smaps_rollup(&self, to: &mut dyn Write) -> fmt::Result {
        let parts = self.parts.read();
        let mut all = Usage::default();
        let (mut first, mut end) = (None, 0);
        for found in parts.vmas.iter(PageRange::ALL).map(Found::new) {
            first = first.or(Some(found.start));
            end = found.end;
            all += parts.usage(&found);
        }
        let start = first.unwrap_or(0);
        write!(to, "{start:08x}-{end:08x} ---p 00000000 00:00 0 ")?;
        let digits = |n: u64| (n.checked_ilog2().map_or(1, |log| log / 4 + 1)).max(8) as usize;
        let written = digits(start) + 1 + digits(end) + " ---p 00000000 00:00 0 ".len();
        writeln!(to, "{:pad$}[rollup]", "", pad = 73usize.saturating_sub(written))?;
        write_usage(&all, true, to)
    }

    /// Writes the lines of memory that `/proc/PID/status` has.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_status(&self, to: &mut dyn Write) -> fmt::Result {
        let parts = self.parts.read();
        let rss = parts.mmu.rss();
        let used = &parts.used;
        let code = parts.layout.code;
        let program = code.1.saturating_sub(code.0) >> PAGE_SHIFT;
        let lines = [
            ("VmPeak", parts.peak.size.max(used.total)),
            ("VmSize", used.total),
            ("VmLck", used.locked),
            ("VmPin", 0),
            ("VmHWM", parts.peak.rss.max(rss.resident())),
            ("VmRSS", rss.resident()),
            ("RssAnon", rss.pages(RssKind::Anon)),
            ("RssFile", rss.pages(RssKind::File)),
            ("RssShmem", rss.pages(RssKind::Shmem)),
            ("VmData", used.data),
            ("VmStk", used.stack),
            ("VmExe", program.min(used.exec)),
            ("VmLib", used.exec.saturating_sub(program)),
            ("VmPTE", parts.mmu.table_bytes() >> PAGE_SHIFT),
            ("VmSwap", rss.pages(RssKind::Swap)),
        ];
        for (name, count) in lines {
            writeln!(to, "{name}:\t{:8} kB", count << (PAGE_SHIFT - 10))?;
        }
        Ok(())
    }
}

impl<S: System> Parts<'_, S> {
    /// Whether a fault in it may make a large leaf.
    fn may_be_huge(&self, found: &Found) -> bool {
        const LARGE: u64 = 1 << 21;
        let has_block = found.start.next_multiple_of(LARGE) + LARGE <= found.end;
        let is_wanted = found.vma.flags.contains(VmFlags::HUGEPAGE);
        S::Table::LEAVES & LARGE != 0 && is_wanted && found.vma.is_anon() && has_block
    }
}

/// `Name:      123 kB`.
fn kilobytes(to: &mut dyn Write, name: &str, bytes: u64) -> fmt::Result {
    write!(to, "{name}:")?;
    let pad = 15usize.saturating_sub(name.len());
    writeln!(to, "{:pad$}{:8} kB", "", bytes >> 10)
}

fn write_usage(usage: &Usage, is_sum: bool, to: &mut dyn Write) -> fmt::Result {
    let share = |pss: u64| pss >> 12;
    kilobytes(to, "Rss", usage.rss)?;
    kilobytes(to, "Pss", share(usage.pss))?;
    kilobytes(to, "Pss_Dirty", share(usage.pss_dirty))?;
    if is_sum {
        kilobytes(to, "Pss_Anon", share(usage.pss_anon))?;
        kilobytes(to, "Pss_File", share(usage.pss_file))?;
        kilobytes(to, "Pss_Shmem", share(usage.pss_shmem))?;
    }
    kilobytes(to, "Shared_Clean", usage.shared_clean)?;
    kilobytes(to, "Shared_Dirty", usage.shared_dirty)?;
    kilobytes(to, "Private_Clean", usage.private_clean)?;
    kilobytes(to, "Private_Dirty", usage.private_dirty)?;
    kilobytes(to, "Referenced", usage.referenced)?;
    kilobytes(to, "Anonymous", usage.anonymous)?;
    kilobytes(to, "KSM", 0)?;
    kilobytes(to, "LazyFree", usage.lazy_free)?;
    kilobytes(to, "AnonHugePages", usage.anon_huge)?;
    kilobytes(to, "ShmemPmdMapped", 0)?;
    kilobytes(to, "FilePmdMapped", 0)?;
    kilobytes(to, "Shared_Hugetlb", 0)?;
    kilobytes(to, "Private_Hugetlb", 0)?;
    kilobytes(to, "Swap", usage.swap)?;
    kilobytes(to, "SwapPss", usage.swap)?;
    kilobytes(to, "Locked", share(usage.pss_locked))
}
