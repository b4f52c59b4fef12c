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

use crate::table::size;
use core::fmt;
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

/// So many KiB in so many ways; what does not divide does not compile.
const fn kib(kib: u32, ways: u16) -> Geometry {
    match Geometry::new((kib << 10) >> LINE_SHIFT, ways) {
        Some(geometry) => geometry,
        None => panic!("ways must divide lines"),
    }
}

impl CachePreset {
    /// 256 KiB in 8 ways, 14 cycles a hit, 200 a miss.
    pub const DEFAULT: Self =
        Self { name: "256k", geometry: kib(256, 8), hit_cycles: 14, miss_cycles: 200 };

    /// Every preset: the size of a first level, of a second level of before and of today.
    pub const ALL: &'static [Self] = &[
        Self { name: "32k", geometry: kib(32, 8), hit_cycles: 5, ..Self::DEFAULT },
        Self::DEFAULT,
        Self { name: "1m", geometry: kib(1024, 16), hit_cycles: 16, ..Self::DEFAULT },
    ];

    /// The preset of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|preset| preset.name == name)
    }
}

/// As `256 KiB, 8 ways, 14 cycles a hit, 200 a miss`.
impl fmt::Display for CachePreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { geometry, hit_cycles, miss_cycles, .. } = self;
        let bytes = size(u64::from(geometry.entries()) << LINE_SHIFT);
        let ways = geometry.ways();
        write!(f, "{bytes}, {ways} ways, {hit_cycles} cycles a hit, {miss_cycles} a miss")
    }
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
        self.lines.touch_or_insert(line, tag)
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
    fn presets_are_what_their_names_say() {
        let texts: Vec<_> = CachePreset::ALL.iter().map(|p| format!("{}: {p}", p.name)).collect();
        assert_eq!(texts[1], "256k: 256 KiB, 8 ways, 14 cycles a hit, 200 a miss");
        for preset in CachePreset::ALL {
            let kib = u64::from(preset.geometry.entries()) << LINE_SHIFT >> 10;
            assert!([format!("{kib}k"), format!("{}m", kib >> 10)].contains(&preset.name.into()));
            assert_eq!(CachePreset::by_name(preset.name), Some(preset));
        }
        assert_eq!(CachePreset::by_name("3k"), None);
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
