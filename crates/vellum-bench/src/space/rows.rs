//! The rows: which regions there are, and what a turn does with them.
//!
//! ```text
//!   regions    [##]  [#####] [#]        [###] [##]            [####]  [#]     1 to 8 pages each
//!   gaps          1..3      .   8, one in 16      256, in the middle
//!
//!   build      all of them, in no order, into an empty map
//!   find       bytes in regions             hole    bytes in gaps
//!   near       from anywhere up: 6 pages, which one gap in 16 has
//!   low, high  from either end: 100 to 200 pages, which only the gap in the middle has
//!   pair       takes a region out, and puts it back
//! ```
//!
//! Small maps are built more than once, and looked at more often than they have regions, so that a clock
//! can tell. Where a contender looks at all regions for an act, it does the act less often.
//!
//! # Invariants
//!
//! - Each act is checked by what it returns.

use super::map::{Ask, Map, Span};
use crate::random::Random;
use core::hint::black_box;

/// The first region is here.
const FIRST: u64 = 0x10_0000;
const PAGE: u64 = 4096;
/// Look-ups of a turn, at least and at most.
const LOOKS: [usize; 2] = [1 << 14, 1 << 19];
/// Regions that are put into maps at least, in a turn.
const LEAST: usize = 1 << 12;
/// Regions that scanning acts look at, in a turn.
const SCANNED: usize = 1 << 22;
/// Pages of the gap in the middle.
const LARGE: u64 = 256;

/// What is measured, in the order of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts a region in, from an empty map on.
    Build,
    /// Finds the region of a byte.
    Find,
    /// Finds that there is none.
    Hole,
    /// The lowest gap from somewhere on, a common one.
    Near,
    /// The lowest gap of all, a rare one.
    Low,
    /// The highest gap of all.
    High,
    /// Takes a region out and puts it back.
    Pair,
}

impl Act {
    /// All.
    pub const ALL: [Self; 7] =
        [Self::Build, Self::Find, Self::Hole, Self::Near, Self::Low, Self::High, Self::Pair];

    /// The first word of a row's title.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Find => "find",
            Self::Hole => "hole",
            Self::Near => "near",
            Self::Low => "low",
            Self::High => "high",
            Self::Pair => "pair",
        }
    }
}

/// Takes the time, or counts, of what it is given, and calls it once.
pub type Meter<'m> = &'m mut dyn FnMut(&mut dyn FnMut());

/// The regions of a turn.
#[derive(Clone, Debug)]
pub struct Regions {
    inserted: Vec<Span>,
    hits: Vec<u64>,
    holes: Vec<u64>,
    near: Vec<Ask>,
    far: Vec<Ask>,
    paired: Vec<Span>,
    /// The values of `hits`.
    found: u64,
    /// The lowest gap for each of `near`.
    near_gaps: Vec<u64>,
    /// The gap in the middle.
    middle: (u64, u64),
}

impl Regions {
    /// Of so many regions, 2 at least.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut random = Random::new(0x3c);
        let (regions, middle) = layout(count, &mut random);
        let end = regions.last().map_or(FIRST, |last| last.end);
        let looks = count.clamp(LOOKS[0], LOOKS[1]);
        let mut hits = Vec::new();
        let mut holes = Vec::new();
        let mut found = 0u64;
        while hits.len() < looks {
            let at = random.below(count);
            let region = regions[at];
            hits.push(region.start + random.below((region.end - region.start) as usize) as u64);
            found = found.wrapping_add(region.value);
            let next = regions.get(at + 1).map_or(end + 64 * PAGE, |next| next.start);
            holes.push(region.end + random.below((next - region.end) as usize) as u64);
        }
        let near: Vec<_> = (0..looks / 4)
            .map(|_| Ask { len: 6 * PAGE, low: regions[random.below(count)].start, high: end })
            .collect();
        let far = (0..looks / 4)
            .map(|_| Ask { len: (100 + random.below(101) as u64) * PAGE, low: FIRST, high: end })
            .collect();
        let paired = (0..looks / 2).map(|_| regions[random.below(count)]).collect();
        let near_gaps = near.iter().map(|ask| lowest(&regions, ask)).collect();
        let mut inserted = regions;
        random.shuffle(&mut inserted);
        Self { inserted, hits, holes, near, far, paired, found, near_gaps, middle }
    }

    /// How often each act of a turn is done by a map of this kind.
    #[must_use]
    pub fn counts<M: Map>(&self) -> [usize; 7] {
        let n = self.inserted.len();
        let scans = |scanned: bool, all: usize| {
            if scanned { all.min((SCANNED / n).max(4)) } else { all }
        };
        let far = scans(M::GAPS_ARE_SCANNED, self.far.len());
        let pairs = scans(M::REMOVALS_ARE_SCANNED, self.paired.len());
        [n * self.maps(), self.hits.len(), self.holes.len(), self.near.len(), far, far, pairs]
    }

    /// How many maps are built.
    fn maps(&self) -> usize {
        LEAST.div_ceil(self.inserted.len())
    }

    /// One turn of a contender, `meter` being called once for each of [`Act::ALL`] but what it cannot
    /// do: whether it can search downwards.
    ///
    /// # Panics
    ///
    /// When the contender returns something wrong.
    pub fn turn<M: Map>(&self, meter: Meter<'_>) -> bool {
        let counts = self.counts::<M>();
        let mut maps: Vec<M> = (0..self.maps()).map(|_| M::new()).collect();
        let mut refused = 0;
        meter(&mut || {
            refused = maps.iter_mut().map(|map| map.insert(black_box(&self.inserted))).sum();
        });
        assert_eq!(refused, 0, "{} refused regions", M::NAME);
        maps.truncate(1);
        let Some(mut map) = maps.pop() else { return false };
        let mut sums = [0; 4];
        let [found, none, near, low] = &mut sums;
        meter(&mut || *found = black_box(&map).find(black_box(&self.hits)));
        meter(&mut || *none = black_box(&map).find(black_box(&self.holes)));
        meter(&mut || *near = black_box(&map).lowest(black_box(&self.near)));
        let far = self.far.get(..counts[4]).unwrap_or(&self.far);
        meter(&mut || *low = black_box(&map).lowest(black_box(far)));
        let sum = |each: &mut dyn Iterator<Item = u64>| each.fold(0, u64::wrapping_add);
        let near = sum(&mut self.near_gaps.iter().copied());
        let low = sum(&mut far.iter().map(|_| self.middle.0));
        assert_eq!(sums, [self.found, 0, near, low], "{} finds something else", M::NAME);
        let mut high = Some(0);
        meter(&mut || high = black_box(&map).highest(black_box(far)));
        let expected = sum(&mut far.iter().map(|ask| self.middle.1 - ask.len));
        assert!(high.is_none_or(|high| high == expected), "{} finds another gap", M::NAME);
        let paired = self.paired.get(..counts[6]).unwrap_or(&self.paired);
        let mut failed = 0;
        meter(&mut || failed = black_box(&mut map).pair(black_box(paired)));
        assert_eq!(failed, 0, "{} failed to change", M::NAME);
        assert_eq!(map.find(&self.hits), self.found, "{} lost something", M::NAME);
        high.is_some()
    }
}

/// The regions in order, and the gap in the middle.
fn layout(count: usize, random: &mut Random) -> (Vec<Span>, (u64, u64)) {
    let mut at = FIRST;
    let mut middle = (0, 0);
    let mut regions = Vec::with_capacity(count);
    for n in 0..count {
        let end = at + (1 + random.below(8) as u64) * PAGE;
        regions.push(Span { start: at, end, value: n as u64 + 1 });
        let gap = match n {
            _ if n == (count - 1) / 2 => LARGE,
            _ if random.below(16) == 0 => 8,
            _ => 1 + random.below(3) as u64,
        };
        at = end + gap * PAGE;
        if gap == LARGE {
            middle = (end, at);
        }
    }
    (regions, middle)
}

/// The lowest gap, from one region to the next.
fn lowest(regions: &[Span], ask: &Ask) -> u64 {
    let first = regions.partition_point(|region| region.end <= ask.low);
    let pairs = regions.get(first..).unwrap_or_default().windows(2);
    let gap = |pair: &[Span]| (pair[0].end, pair[1].start);
    pairs.map(gap).find(|(low, high)| high - low >= ask.len).map_or(0, |(low, _)| low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap_and_only_one_gap_is_large() {
        let (regions, middle) = layout(1000, &mut Random::new(1));
        let gaps: Vec<_> =
            regions.windows(2).map(|pair| (pair[1].start - pair[0].end) / PAGE).collect();
        assert_eq!(gaps.iter().filter(|&&gap| gap == LARGE).count(), 1);
        assert!(gaps.iter().all(|&gap| gap == LARGE || (1..=8).contains(&gap)));
        assert_eq!(middle.1 - middle.0, LARGE * PAGE);
    }

    #[test]
    fn hits_lie_in_regions_and_holes_do_not() {
        let regions = Regions::new(100);
        let inside = |va: &u64| regions.inserted.iter().any(|r| (r.start..r.end).contains(va));
        assert!(regions.hits.iter().all(inside));
        assert!(!regions.holes.iter().any(inside));
    }
}
