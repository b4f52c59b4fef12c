//! The model of the data cache that page-table lines go through.
//!
//! ```text
//!   reference pa, bytes --> line(s) of 64 bytes --> set-associative, LRU --> hit or miss, cycles
//! ```
//!
//! It holds lines of page tables alone: what the program's own data would push out of a real cache
//! is not modelled. That is why its default is smaller than any second-level cache of today.
//!
//! # Invariants
//!
//! - A line is charged as a hit exactly if it is among the last `ways` lines used of its set.
//!
//! Source: the trial of the project's design notes; the latencies are those of a second-level hit
//! and of memory on a desktop processor, in round numbers.

use vellum_core::PhysAddr;
use vellum_tlb::{Geometry, LruSets};

/// log2 of the bytes of a line.
pub const LINE_SHIFT: u32 = 6;

/// Shape and latencies of the cache model: its named parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePreset {
    /// What reports call it.
    pub name: &'static str,
    /// Lines and ways.
    pub geometry: Geometry,
    /// Cycles of a reference whose line is cached.
    pub hit_cycles: u32,
    /// Cycles of one whose line is not.
    pub miss_cycles: u32,
}

impl CachePreset {
    /// 256 KiB in 8 ways, 14 cycles a hit, 200 a miss.
    pub const DEFAULT: Self = Self {
        name: "256k",
        geometry: match Geometry::new((256 << 10) >> LINE_SHIFT, 8) {
            Some(geometry) => geometry,
            None => panic!("4096 lines in 8 ways are 512 sets"),
        },
        hit_cycles: 14,
        miss_cycles: 200,
    };
}

/// One cache.
#[derive(Clone, Debug)]
pub struct Cache {
    preset: CachePreset,
    lines: LruSets,
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(preset: CachePreset) -> Self {
        Self { preset, lines: LruSets::new(preset.geometry) }
    }

    /// Uses the line of this number; whether it was there.
    pub fn touch(&mut self, line: u64) -> bool {
        let tag = line + 1; // 0 is no tag, and there are fewer than 2^58 lines
        let hit = self.lines.touch(line, tag);
        if !hit {
            self.lines.insert(line, tag);
        }
        hit
    }

    /// Cycles of one reference.
    #[must_use]
    pub const fn cycles(&self, hit: bool) -> u64 {
        (if hit { self.preset.hit_cycles } else { self.preset.miss_cycles }) as u64
    }
}

/// The lines that `bytes` from `pa` lie in: one, or two where they straddle.
pub fn lines_of(pa: PhysAddr, bytes: u8) -> core::ops::RangeInclusive<u64> {
    let first = pa.as_u64();
    let last = first.saturating_add(u64::from(bytes).saturating_sub(1));
    first >> LINE_SHIFT..=last >> LINE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_ways_lines_of_a_set() {
        let geometry = Geometry::new(8, 2).unwrap();
        let mut cache = Cache::new(CachePreset { geometry, ..CachePreset::DEFAULT });
        assert!(!cache.touch(0));
        assert!(!cache.touch(4));
        assert!(cache.touch(0));
        assert!(!cache.touch(8), "a third line of set 0 pushes 4 out");
        assert!(cache.touch(0));
        assert!(!cache.touch(4));
        assert_eq!((cache.cycles(true), cache.cycles(false)), (14, 200));
    }

    #[test]
    fn the_default_holds_256_kib() {
        let mut cache = Cache::new(CachePreset::DEFAULT);
        for line in 0..4096 {
            assert!(!cache.touch(line));
        }
        assert!((0..4096).all(|line| cache.touch(line)));
        assert!(!cache.touch(4096));
    }

    #[test]
    fn an_entry_may_straddle_lines() {
        assert_eq!(lines_of(PhysAddr::new(0x1038), 8), 0x40..=0x40);
        assert_eq!(lines_of(PhysAddr::new(0x1038), 24), 0x40..=0x41);
        assert_eq!(lines_of(PhysAddr::new(0x1040), 0), 0x41..=0x41);
    }
}
