//! The shapes of known TLBs and walk caches, as data with names.
//!
//! ```text
//!               L1D         L1I         L2
//!  skylake      64/4        128/8       1536/12      entries/ways
//!  zen5         96/full     96/full     4096/16      (what is assumed: the preset's note)
//! ```
//!
//! Vendors publish first-level and second-level sizes, rarely how sets are chosen, and next to
//! nothing about walk caches; what a preset had to assume it says in its [`note`](Preset::note).
//!
//! Source: vendors' optimisation manuals, as collected by wikichip.org, 7-cpu.com and
//! chipsandcheese.com.

use core::fmt;

/// Entries and ways of one array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    sets: u16,
    ways: u16,
}

impl Geometry {
    /// An array that holds nothing.
    pub const NONE: Self = Self { sets: 0, ways: 0 };

    /// `entries` in sets of `ways`; `None` unless that is a whole number of sets, from 1 to 65535.
    #[must_use]
    pub const fn new(entries: u32, ways: u16) -> Option<Self> {
        if ways == 0 || !entries.is_multiple_of(ways as u32) {
            return None;
        }
        let sets = entries / ways as u32;
        if sets == 0 || sets > u16::MAX as u32 {
            return None;
        }
        Some(Self { sets: sets as u16, ways })
    }

    /// One set of `entries`: any page may be in any of them.
    #[must_use]
    pub const fn full(entries: u16) -> Self {
        if entries == 0 { Self::NONE } else { Self { sets: 1, ways: entries } }
    }

    /// How many entries there are.
    #[must_use]
    pub const fn entries(self) -> u32 {
        self.sets as u32 * self.ways as u32
    }

    /// How many sets there are.
    #[must_use]
    pub const fn sets(self) -> u16 {
        self.sets
    }

    /// How many entries a set has.
    #[must_use]
    pub const fn ways(self) -> u16 {
        self.ways
    }
}

/// As `1536/12`, or `48/full` for a single set.
impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sets {
            1 => write!(f, "{}/full", self.ways),
            _ => write!(f, "{}/{}", self.entries(), self.ways),
        }
    }
}

/// The shape of a two-level TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// What it is asked for by.
    pub name: &'static str,
    /// First level for loads and stores.
    pub l1d: Geometry,
    /// First level for instruction fetches.
    pub l1i: Geometry,
    /// Second level, for both.
    pub l2: Geometry,
    /// What is assumed, because it is not published or cannot be so; empty if nothing is.
    pub note: &'static str,
}

/// A geometry of the table below; a mistake there does not compile.
const fn sets(entries: u32, ways: u16) -> Geometry {
    match Geometry::new(entries, ways) {
        Some(geometry) => geometry,
        None => panic!("ways must divide entries"),
    }
}

const L1I_AS_L1D: &str = "L1I as L1D";

impl Preset {
    /// The geometry and rules against which the project's traces were counted by an independent
    /// simulator: that of `skylake`, under a name that will not follow later knowledge.
    pub const REFERENCE: Self = Self {
        name: "reference",
        l1d: sets(64, 4),
        l1i: sets(128, 8),
        l2: sets(1536, 12),
        note: "",
    };

    /// Every preset.
    pub const ALL: &'static [Self] = &[
        Self::REFERENCE,
        Self { name: "skylake", ..Self::REFERENCE },
        Self { name: "sunny-cove", l2: sets(2048, 16), note: "L1 as Skylake's", ..Self::REFERENCE },
        Self {
            name: "zen2",
            l1d: Geometry::full(64),
            l1i: Geometry::full(64),
            l2: sets(2048, 16),
            note: "L1I as L1D; L2 of 16 ways (published are 12, which do not divide 2048)",
        },
        Self {
            name: "zen4",
            l1d: Geometry::full(72),
            l1i: Geometry::full(72),
            l2: sets(3072, 24),
            note: "L1I as L1D, both fully associative; L2 of 24 ways",
        },
        Self {
            name: "zen5",
            l1d: Geometry::full(96),
            l1i: Geometry::full(96),
            l2: sets(4096, 16),
            note: "L1I as L1D, both fully associative; L2 of 16 ways",
        },
        Self {
            name: "cortex-a76",
            l1d: Geometry::full(48),
            l1i: Geometry::full(48),
            l2: sets(1280, 5),
            note: L1I_AS_L1D,
        },
        Self {
            name: "arm-c1-ultra",
            l1d: Geometry::full(96),
            l1i: Geometry::full(96),
            l2: sets(2048, 8),
            note: L1I_AS_L1D,
        },
        Self {
            name: "apple-m1",
            l1d: Geometry::full(160),
            l1i: Geometry::full(160),
            l2: sets(3072, 12),
            note: "L1I as L1D, both fully associative; L2 12-way; pages of 4 KiB, not 16",
        },
    ];

    /// The preset of this name.
    ///
    /// # Errors
    ///
    /// [`UnknownPreset`], which prints the names that exist.
    pub fn by_name(name: &str) -> Result<&'static Self, UnknownPreset> {
        Self::ALL.iter().find(|preset| preset.name == name).ok_or(UnknownPreset)
    }
}

/// There is no preset of the name asked for; prints those that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPreset;

impl fmt::Display for UnknownPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown TLB preset; choose one of ")?;
        for (i, preset) in Preset::ALL.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(preset.name)?;
        }
        Ok(())
    }
}

impl core::error::Error for UnknownPreset {}

/// The walk cache of the interior entries of one span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkCacheSize {
    /// log2 of the bytes that one entry leads to: 21 for x86 PDEs, 30 for PDPTEs, 39 for PML4Es,
    /// 48 for PML5Es.
    pub span: u8,
    /// How many of them are kept, fully associative.
    pub entries: u16,
}

/// 32 PDEs, 4 PDPTEs, 2 PML4Es and 2 PML5Es. Vendors do not publish these sizes; measurements of
/// Skylake-era cores agree on the order of magnitude.
pub const WALK_CACHE_X86: &[WalkCacheSize] = &[
    WalkCacheSize { span: 21, entries: 32 },
    WalkCacheSize { span: 30, entries: 4 },
    WalkCacheSize { span: 39, entries: 2 },
    WalkCacheSize { span: 48, entries: 2 },
];

/// No walk caches: every walk reads every entry.
pub const WALK_CACHE_NONE: &[WalkCacheSize] = &[];

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::string::ToString;

    #[test]
    fn names_are_unique_and_found() {
        for (i, preset) in Preset::ALL.iter().enumerate() {
            assert_eq!(Preset::by_name(preset.name), Ok(preset));
            assert!(Preset::ALL[..i].iter().all(|other| other.name != preset.name));
        }
    }

    #[test]
    fn published_sizes() {
        let shape = |name| {
            let p = Preset::by_name(name).unwrap();
            [p.l1d.to_string(), p.l2.to_string()]
        };
        assert_eq!(shape("skylake"), ["64/4", "1536/12"]);
        assert_eq!(Preset::by_name("skylake").unwrap().l1i.to_string(), "128/8");
        assert_eq!(shape("sunny-cove")[1], "2048/16");
        assert_eq!(shape("zen2"), ["64/full", "2048/16"]);
        assert_eq!(shape("zen4"), ["72/full", "3072/24"]);
        assert_eq!(shape("zen5"), ["96/full", "4096/16"]);
        assert_eq!(shape("cortex-a76"), ["48/full", "1280/5"]);
        assert_eq!(shape("arm-c1-ultra"), ["96/full", "2048/8"]);
        assert_eq!(shape("apple-m1"), ["160/full", "3072/12"]);
    }

    #[test]
    fn an_unknown_name_lists_the_choices() {
        let message = Preset::by_name("skylark").unwrap_err().to_string();
        assert!(Preset::ALL.iter().all(|preset| message.contains(preset.name)), "{message}");
        assert!(!message.contains('\n'));
    }

    #[test]
    fn a_geometry_is_whole_sets_or_none() {
        assert_eq!(Geometry::new(2048, 12), None);
        assert_eq!(Geometry::new(8, 0), None);
        assert_eq!(Geometry::new(0, 4), None);
        assert_eq!(Geometry::new(65_536, 1), None);
        assert_eq!(Geometry::new(1536, 12).map(Geometry::sets), Some(128));
        assert_eq!(Geometry::full(0), Geometry::NONE);
    }
}
