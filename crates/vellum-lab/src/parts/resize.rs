//! Fills a table page by page and empties it again, watching each single call.
//!
//! ```text
//!   lines written
//!      |          .            |        a table that moves itself in one go
//!      |__________|____________|___     has such spikes; one that grows by steps has none
//!      +---------------------------> calls
//! ```
//!
//! Of each call it is counted how many lines of table memory it wrote, as a comparison before and
//! after shows it (`ram/recorder.rs`). What it zeroes of a block that it takes is among them, so a
//! table that zeroes a large block at once has a pause of that many lines, and one that does it line by
//! line, as it comes to need them, has none.

use crate::designs::Design;
use crate::designs::structure::StructureReport;
use crate::experiment::{ATTR, DesignError, Experiment, Random, Scene, gathered, install};
use crate::histogram::Histogram;
use crate::ram::Changes;
use crate::replay::ReplayError;
use serde::{Deserialize, Serialize};
use vellum_core::{Entry, PAGE_SHIFT, PAGE_SIZE, PageTable, VirtAddr, Vpn};

/// Pages that come and go, in one piece, in random order.
const PAGES: u64 = 1 << 16;
const FIRST: u64 = 1 << 18;

/// Filling and emptying one design's table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResizeReport {
    /// The design's name.
    pub design: String,
    /// Pages that came and went.
    pub pages: u64,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Pages faulted in one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Phase>,
    /// Pages unmapped one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Phase>,
    /// Bytes of the table before anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_before: Option<u64>,
    /// Bytes of the table with all pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_full: Option<u64>,
    /// How the table is filled with all pages, where it is one for all spaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<StructureReport>,
    /// Bytes of the table after all have gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_after: Option<u64>,
}

/// What the calls of one direction cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Lines changed by a call: mean.
    pub lines_written_mean: f64,
    /// Half of the calls change no more.
    pub lines_written_p50: u64,
    /// 99 of 100 change no more.
    pub lines_written_p99: u64,
    /// The most that one changed: the worst pause.
    pub lines_written_max: u64,
    /// Of all calls.
    pub lines_written_total: u64,
    /// What calls changed beyond the median, in all: what growing and shrinking has moved.
    pub lines_moved_total: u64,
    /// Most accesses to table memory of one call.
    pub accesses_max: u64,
    /// Most frames that one call took.
    pub frames_taken_max: u64,
}

/// The row of a design.
///
/// # Errors
///
/// [`ReplayError`].
pub fn measure(design: &Design) -> Result<ResizeReport, ReplayError> {
    let named = ResizeReport {
        design: design.name.to_owned(),
        pages: PAGES,
        unsupported: None,
        fill: None,
        drain: None,
        bytes_before: None,
        bytes_full: None,
        structure: None,
        bytes_after: None,
    };
    match design.measure(&Resize) {
        Ok(Resized { fill, drain, structure, bytes: [before, full, after] }) => Ok(ResizeReport {
            structure,
            fill: Some(fill),
            drain: Some(drain),
            bytes_before: Some(before),
            bytes_full: Some(full),
            bytes_after: Some(after),
            ..named
        }),
        Err(DesignError::Unsupported { reason, .. }) => {
            Ok(ResizeReport { unsupported: Some(reason), ..named })
        }
        Err(DesignError::Failed(e)) => Err(e),
    }
}

struct Resize;

struct Resized {
    fill: Phase,
    drain: Phase,
    structure: Option<StructureReport>,
    bytes: [u64; 3],
}

impl Experiment for Resize {
    type Out = Resized;

    fn count_pages(&self) -> u64 {
        PAGES
    }

    fn highest(&self) -> Vpn {
        Vpn::new(FIRST + PAGES - 1).unwrap_or_default()
    }

    fn run<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
    ) -> Result<Resized, DesignError> {
        let mut table = make(0)?;
        let mut pages: Vec<_> = (FIRST..FIRST + PAGES).collect();
        let mut random = Random::new(3);
        random.shuffle(&mut pages);
        let mut bytes = [scene.ram.meter().now, 0, 0];
        let mut fill = Calls::default();
        let mut stock = table.stock();
        for page in &pages {
            let leaf = Entry::Leaf(scene.data.alloc().map_err(ReplayError::OutOfData)?, ATTR);
            scene.ram.record();
            install(&table, VirtAddr::new(page << PAGE_SHIFT), leaf, &mut stock)?;
            fill.add(scene.ram.recorded());
        }
        drop(stock);
        bytes[1] = scene.ram.meter().now;
        let structure = scene.structure();
        random.shuffle(&mut pages);
        let mut drain = Calls::default();
        for page in &pages {
            let va = VirtAddr::new(page << PAGE_SHIFT);
            scene.ram.record();
            gathered::<T, _>(|g| table.unmap(va, PAGE_SIZE, g)).map_err(ReplayError::from)?;
            drain.add(scene.ram.recorded());
        }
        bytes[2] = scene.ram.meter().now;
        Ok(Resized { fill: fill.phase(), drain: drain.phase(), structure, bytes })
    }
}

/// What the calls so far have done.
#[derive(Default)]
struct Calls {
    written: Histogram,
    accesses: u64,
    frames: u64,
}

impl Calls {
    fn add(&mut self, changes: Changes) {
        self.written.record(changes.lines_written as usize);
        self.accesses = self.accesses.max(changes.accesses);
        self.frames = self.frames.max(changes.frames_taken);
    }

    fn phase(&self) -> Phase {
        let median = self.written.percentile(50);
        Phase {
            lines_written_mean: self.written.mean(),
            lines_written_p50: median,
            lines_written_p99: self.written.percentile(99),
            lines_written_max: self.written.max(),
            lines_written_total: self.written.sum(),
            lines_moved_total: self.written.sum_beyond(median),
            accesses_max: self.accesses,
            frames_taken_max: self.frames,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::designs::by_name;

    #[test]
    fn a_radix_table_never_moves_anything() {
        let report = measure(by_name("radix4").unwrap()).unwrap();
        let fill = report.fill.unwrap();
        // An entry, and the count above it; at worst a node on three levels, each with its link.
        assert_eq!((fill.lines_written_p50, fill.lines_written_p99), (2, 2));
        assert_eq!((fill.frames_taken_max, fill.lines_written_max), (3, 64 * 3 + 1), "{fill:?}");
        assert_eq!(report.bytes_before, Some(4096));
        assert_eq!(report.bytes_full, Some(4096 * (3 + (PAGES >> 9))));
    }

    #[test]
    fn a_chained_hash_grows_by_steps() {
        let report = measure(by_name("hashed-chained").unwrap()).unwrap();
        let fill = report.fill.unwrap();
        // Moving everything at once would be all nodes and buckets, and zeroing a new segment of the
        // directory at once all its lines: thousands.
        assert!(fill.lines_written_max < 128, "{fill:?}");
        // It has grown from 128 buckets to one for each page, less what the last step leaves to do.
        let structure = report.structure.unwrap();
        assert!((PAGES - 64..=PAGES).contains(&structure.places), "{structure:?}");
        assert_eq!(structure.rehashes, 9);
        // At a load of 1 a bucket is empty with 1/e, within four standard deviations.
        let used = structure.used.unwrap() as f64 / PAGES as f64;
        assert!((used - (1.0 - (-1.0f64).exp())).abs() < 0.005, "{used}");
        assert_eq!(structure.overflow, Some(PAGES - structure.used.unwrap()));
        assert!(fill.lines_moved_total > 0 && fill.lines_moved_total < 8 * PAGES, "{fill:?}");
    }
}
