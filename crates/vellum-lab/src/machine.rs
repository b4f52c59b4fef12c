//! The simulated processor: TLB, walk caches, and the cache that walks read through.
//!
//! ```text
//!   event --> [ TLB ] --miss--> table.walk(va) --refs--> [ walk caches ] --rest--> [ cache ]
//!                ^                                          skip the leading         |
//!                +------------------ fill --------------------------------------- charge
//! ```
//!
//! What is counted of a walk is what is left of it after the walk caches: references, different
//! lines among them, lines that missed in the cache, and cycles. References that the design allows
//! to be fetched together cost as much as the slowest of them; all others cost one after the
//! other. A reference that straddles two lines waits for the slower.
//!
//! # Invariants
//!
//! - `walks` counts what `refs` and `lines` have recorded.
//!
//! Source: Intel SDM vol. 3A, 5.10 for the order of TLB and paging-structure caches.

use crate::cache::{Cache, CachePreset, lines_of};
use crate::histogram::Histogram;
use crate::ram::HUGE_SHIFT;
use vellum_core::{PAGE_SHIFT, Ref, VirtAddr};
use vellum_tlb::{Asid, Leaf, Lookup, Port, Preset, Tlb, TlbCounts, WalkCacheSize, WalkCaches};

/// What the processor is made of.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// The TLB's shape.
    pub tlb: Preset,
    /// Sizes of the walk caches.
    pub walk_caches: Vec<WalkCacheSize>,
    /// The cache of page-table lines.
    pub cache: CachePreset,
}

impl MachineConfig {
    /// The walk caches as `span:entries,...`, or `none`.
    #[must_use]
    pub fn walk_caches_text(&self) -> String {
        if self.walk_caches.is_empty() {
            return "none".to_owned();
        }
        let texts: Vec<_> =
            self.walk_caches.iter().map(|c| format!("{}:{}", c.span, c.entries)).collect();
        texts.join(",")
    }
}

/// What successful walks cost.
#[derive(Clone, Debug, Default)]
pub struct WalkCounts {
    /// References of each walk.
    pub refs: Histogram,
    /// Different cache lines of each walk.
    pub lines: Histogram,
    /// Lines that were not in the cache.
    pub cache_misses: u64,
    /// Cycles, as the cache model has them.
    pub cycles: u64,
}

/// The processor.
#[derive(Clone, Debug)]
pub struct Machine {
    tlb: Tlb,
    walk_caches: WalkCaches,
    cache: Cache,
    counts: WalkCounts,
}

impl Machine {
    /// A processor with nothing cached.
    #[must_use]
    pub fn new(config: &MachineConfig) -> Self {
        Self {
            tlb: Tlb::new(&config.tlb),
            walk_caches: WalkCaches::new(&config.walk_caches),
            cache: Cache::new(config.cache),
            counts: WalkCounts::default(),
        }
    }

    /// Translates by the TLB; `false` means that a walk is due.
    #[inline]
    pub fn translate(&mut self, va: VirtAddr, asid: Asid, port: Port) -> bool {
        self.tlb.lookup(va, asid, port) != Lookup::Miss
    }

    /// Charges a walk that found `leaf` by reading `refs`, and caches what it found.
    pub fn walked(&mut self, va: VirtAddr, asid: Asid, port: Port, leaf: Leaf, refs: &[Ref]) {
        let skipped = self.walk_caches.walk(va, asid, leaf.shift, refs);
        self.charge(refs.get(skipped..).unwrap_or(&[]));
        self.tlb.fill(va, asid, port, leaf);
    }

    fn charge(&mut self, refs: &[Ref]) {
        let mut seen = LineSet::default();
        let mut group = 0; // cycles of the references that are fetched together
        for (i, r) in refs.iter().enumerate() {
            let mut slowest = 0;
            for line in lines_of(r.pa, r.bytes) {
                seen.insert(line);
                let hit = self.cache.touch(line);
                self.counts.cache_misses += u64::from(!hit);
                slowest = self.cache.cycles(hit).max(slowest);
            }
            if r.parallel && i > 0 {
                group = slowest.max(group);
            } else {
                self.counts.cycles += group;
                group = slowest;
            }
        }
        self.counts.cycles += group;
        self.counts.refs.record(refs.len());
        self.counts.lines.record(seen.len());
    }

    /// Forgets every translation and interior entry but global ones: a change of address space
    /// without identifiers.
    pub fn flush_non_global(&mut self) {
        self.tlb.flush_non_global();
        self.walk_caches.flush_all();
    }

    /// Forgets one page of one address space.
    pub fn flush_page(&mut self, va: VirtAddr, asid: Asid) {
        self.tlb.flush_page(va, asid);
        self.walk_caches.flush_page(va, asid);
    }

    /// Forgets everything of one address space.
    pub fn flush_asid(&mut self, asid: Asid) {
        self.tlb.flush_asid(asid);
        self.walk_caches.flush_asid(asid);
    }

    /// Forgets the pages of the 2 MiB from `region` in one address space, and the interior entries
    /// that lead to them.
    pub fn flush_huge(&mut self, region: VirtAddr, asid: Asid) {
        for page in 0..1 << (HUGE_SHIFT - PAGE_SHIFT) {
            self.tlb.flush_page(region.wrapping_add(page << PAGE_SHIFT), asid);
        }
        self.walk_caches.flush_page(region, asid);
    }

    /// What the TLB has counted.
    #[must_use]
    pub const fn tlb_counts(&self) -> TlbCounts {
        self.tlb.counts()
    }

    /// What walks have cost.
    #[must_use]
    pub const fn walk_counts(&self) -> &WalkCounts {
        &self.counts
    }
}

/// The different lines of one walk: a handful, or as many as a long chain has.
#[derive(Debug, Default)]
struct LineSet {
    few: [u64; 16],
    len: usize,
    more: Vec<u64>,
}

impl LineSet {
    fn insert(&mut self, line: u64) {
        if self.few[..self.len].contains(&line) || self.more.contains(&line) {
            return;
        }
        match self.few.get_mut(self.len) {
            Some(slot) => {
                *slot = line;
                self.len += 1;
            }
            None => self.more.push(line),
        }
    }

    const fn len(&self) -> usize {
        self.len + self.more.len()
    }
}

#[cfg(test)]
mod tests;
