//! What a table takes for each mapped page, from dense to sparse.
//!
//! ```text
//!   512 of 2 MiB   |################|################|      everything
//!    64 of 2 MiB   |     ##         |         ##     |      a small mapping here and there
//!     8 of 2 MiB   |   #            |      #         |
//!     1 of 2 MiB   |          .     | .              |      one page
//!     1 of 1 GiB   |       .                                 and nothing near it
//! ```
//!
//! The pages of a region are next to each other and begin at a random place in it, since a mapping
//! begins at any page. A table that grows by doubling is emptier after it than before: so the bytes
//! are taken at eight sizes from half of the pages to all of them, too, and their mean told.

use crate::designs::Design;
use crate::experiment::{ATTR, DesignError, Experiment, Random, Scene, install};
use crate::histogram::mean;
use crate::replay::ReplayError;
use serde::{Deserialize, Serialize};
use vellum_core::{Entry, PAGE_SHIFT, PageTable, VirtAddr, Vpn};

/// Pages that are mapped in all.
const PAGES: u64 = 24_576;

/// Sizes at which bytes are taken, from half of all pages to all.
const SIZES: u64 = 8;

/// How pages are spread: so many in each region of 2^shift bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Pages in a region.
    pub pages: u64,
    /// log2 of the bytes of a region.
    pub region_shift: u8,
}

/// The five spreads of the report.
pub const SPREADS: [Spread; 5] = [
    Spread { pages: 512, region_shift: 21 },
    Spread { pages: 64, region_shift: 21 },
    Spread { pages: 8, region_shift: 21 },
    Spread { pages: 1, region_shift: 21 },
    Spread { pages: 1, region_shift: 30 },
];

/// One design with one spread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SparsityReport {
    /// The design's name.
    pub design: String,
    /// Pages in each region.
    pub pages_per_region: u64,
    /// Bytes of a region.
    pub region_bytes: u64,
    /// Pages in all.
    pub pages: u64,
    /// Why the design was not filled; `bytes` is then what it would take, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// What the table takes with all pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The same for each page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_page: Option<f64>,
    /// The mean of that over eight sizes from half of all pages to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_page_mean: Option<f64>,
}

/// The row of one design and spread.
///
/// # Errors
///
/// [`ReplayError`].
pub fn measure(design: &Design, spread: Spread) -> Result<SparsityReport, ReplayError> {
    let named = SparsityReport {
        design: design.name.to_owned(),
        pages_per_region: spread.pages,
        region_bytes: 1 << spread.region_shift,
        pages: PAGES,
        unsupported: None,
        bytes: None,
        bytes_per_page: None,
        bytes_per_page_mean: None,
    };
    match design.measure(&spread) {
        Ok((bytes, mean_of_sizes)) => Ok(SparsityReport {
            bytes: Some(bytes),
            bytes_per_page: Some(mean(bytes, PAGES)),
            bytes_per_page_mean: Some(mean_of_sizes),
            ..named
        }),
        Err(DesignError::Unsupported { reason, bytes }) => Ok(SparsityReport {
            unsupported: Some(reason),
            bytes,
            bytes_per_page: bytes.map(|bytes| mean(bytes, PAGES)),
            ..named
        }),
        Err(DesignError::Failed(e)) => Err(e),
    }
}

impl Spread {
    fn pages_per_region(self) -> u64 {
        1 << (self.region_shift - PAGE_SHIFT)
    }

    /// The pages, in ascending order.
    fn iter(self) -> impl Iterator<Item = u64> {
        let mut random = Random::new(2);
        (0..PAGES / self.pages).flat_map(move |region| {
            let free = self.pages_per_region() - self.pages;
            let first = region * self.pages_per_region() + random.below(free + 1);
            first..first + self.pages
        })
    }
}

impl Experiment for Spread {
    type Out = (u64, f64);

    fn count_pages(&self) -> u64 {
        PAGES
    }

    fn highest(&self) -> Vpn {
        Vpn::new(PAGES / self.pages * self.pages_per_region() - 1).unwrap_or_default()
    }

    fn run<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
    ) -> Result<Self::Out, DesignError> {
        let table = make(0)?;
        let mut stock = table.stock();
        let mut sum = 0.0;
        for (done, page) in (1..).zip(self.iter()) {
            let leaf = Entry::Leaf(scene.data.alloc().map_err(ReplayError::OutOfData)?, ATTR);
            install(&table, VirtAddr::new(page << PAGE_SHIFT), leaf, &mut stock)?;
            if done * 2 > PAGES && (done * 2 - PAGES).is_multiple_of(PAGES / SIZES) {
                sum += mean(scene.ram.meter().now, done);
            }
        }
        Ok((scene.ram.meter().now, sum / SIZES as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::designs::by_name;
    use std::collections::HashSet;

    #[test]
    fn each_spread_has_its_pages_where_it_says() {
        for spread in SPREADS {
            let pages: Vec<u64> = spread.iter().collect();
            assert_eq!(pages.len() as u64, PAGES);
            assert!(pages.is_sorted_by(|a, b| a < b));
            assert!(pages.last().is_some_and(|&page| page <= spread.highest().as_u64()));
            let regions: HashSet<_> =
                pages.iter().map(|page| page >> (spread.region_shift - PAGE_SHIFT)).collect();
            assert_eq!(regions.len() as u64, PAGES / spread.pages);
        }
    }

    /// Theory: a frame for each touched region of every level.
    #[test]
    fn radix_bytes_are_those_of_the_touched_regions() {
        for spread in SPREADS {
            let touched = |shift: u32| {
                spread.iter().map(|page| page >> shift).collect::<HashSet<_>>().len() as u64
            };
            let expected = 4096 * (1 + touched(9) + touched(18) + touched(27));
            let report = measure(by_name("radix4").unwrap(), spread).unwrap();
            assert_eq!(report.bytes, Some(expected), "{spread:?}");
        }
    }

    #[test]
    fn a_chained_hash_does_not_care() {
        let row = |spread| measure(by_name("hashed-chained").unwrap(), spread).unwrap();
        let bytes = SPREADS.map(row).map(|row| row.bytes.unwrap());
        // Which pages share a bucket is chance: some nodes more or less.
        let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
        assert!(most - least <= least / 50, "{bytes:?}");
    }

    #[test]
    fn a_space_too_wide_for_one_block_is_sized() {
        let flat = measure(by_name("flat").unwrap(), SPREADS[3]).unwrap();
        assert!(flat.unsupported.is_some());
        assert_eq!(flat.bytes, Some(256 << 30));
    }
}
