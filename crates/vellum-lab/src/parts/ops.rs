//! What each operation of a page table costs, in lines, accesses and nanoseconds.
//!
//! ```text
//!   space 0: 16,384 pages in one piece, each in a frame of its own, in random order
//!     unmap, map, fault, protect     one page a call, 256 random ones
//!     unmap_1000, map_1000, protect_1000     8 ranges; mapped as one run of frames
//!     fork    share all with space 1, writable no more        one call
//!     cow     in space 1, a frame of its own again            256 random pages
//!     exit    retire space 1                                  one call
//! ```
//!
//! The counts come from comparing table memory before and after (see `ram/recorder.rs`); times from a
//! second pass without that, the best of several.
//!
//! # Invariants
//!
//! - Every pass does the same operations on the same pages, so the counts are reproducible.

use crate::clock::Stopwatch;
use crate::designs::Design;
use crate::experiment::{
    ATTR, DesignError, Experiment, Random, Scene, exchange, gathered, install,
};
use crate::histogram::mean;
use crate::ram::Changes;
use crate::replay::ReplayError;
use serde::{Deserialize, Serialize};
use vellum_core::{
    Attr, Change, Entry, PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, Run, VirtAddr, Vpn,
};

/// Pages of the space; its first one, low enough for a flat table.
const PAGES: u64 = 1 << 14;
const FIRST: u64 = 1 << 18;

/// Calls of an operation on one page.
const CALLS: usize = 256;

/// Calls of one on a range, and its pages.
const RANGES: u64 = 8;
const RANGE: u64 = 1000;

/// Passes for the times.
const PASSES: usize = 5;

/// What the operations of one design cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpsReport {
    /// The design's name.
    pub design: String,
    /// Pages of the space that they were done in.
    pub pages: u64,
    /// log2 of the bytes of each leaf size that the design has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaf_shifts: Vec<u8>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// What the table grew by in a fork, for each page shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_bytes_per_page: Option<f64>,
    /// What it costs a walk that a frame is mapped twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_refs: Option<AliasRefs>,
    /// One for each operation.
    pub operations: Vec<Operation>,
}

/// Entries that the walk of a page reads, without walk caches: means of all pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AliasRefs {
    /// Before the fork.
    pub alone: f64,
    /// After it, in the parent.
    pub parent: f64,
    /// After it, in the child.
    pub child: f64,
}

/// One operation: means of its calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// What it is called.
    pub name: String,
    /// Pages of each call.
    pub pages: u64,
    /// Calls.
    pub calls: u64,
    /// Lines that were changed.
    pub lines_written: f64,
    /// Of the call that changed most.
    pub lines_written_max: u64,
    /// Lines that were reached.
    pub lines_touched: f64,
    /// How often memory was reached.
    pub accesses: f64,
    /// Frames taken for tables.
    pub frames_taken: f64,
    /// Frames given back.
    pub frames_given: f64,
}

/// The report of a design, and the nanoseconds of each operation, which no report has.
///
/// # Errors
///
/// [`ReplayError`], if an operation failed.
pub fn measure(design: &Design) -> Result<(OpsReport, Vec<f64>), ReplayError> {
    let empty = OpsReport {
        design: design.name.to_owned(),
        pages: PAGES,
        leaf_shifts: Vec::new(),
        unsupported: None,
        fork_bytes_per_page: None,
        alias_refs: None,
        operations: Vec::new(),
    };
    match design.measure(&Ops) {
        Ok((pass, nanos)) => {
            let bytes = Some(mean(pass.fork_bytes, PAGES));
            let Pass { operations, leaves, alias_refs, .. } = pass;
            let leaf_shifts = (0..64).filter(|shift| leaves >> shift & 1 != 0).collect();
            let report = OpsReport {
                fork_bytes_per_page: bytes,
                leaf_shifts,
                alias_refs: Some(alias_refs),
                operations,
                ..empty
            };
            Ok((report, nanos))
        }
        Err(DesignError::Unsupported { reason, .. }) => {
            Ok((OpsReport { unsupported: Some(reason), ..empty }, Vec::new()))
        }
        Err(DesignError::Failed(e)) => Err(e),
    }
}

struct Ops;

impl Experiment for Ops {
    type Out = (Pass, Vec<f64>);

    fn count_pages(&self) -> u64 {
        2 * PAGES
    }

    fn count_frames(&self) -> u64 {
        PAGES + RANGES * RANGE + CALLS as u64
    }

    fn highest(&self) -> Vpn {
        Vpn::new(FIRST + PAGES - 1).unwrap_or_default()
    }

    fn run<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
    ) -> Result<Self::Out, DesignError> {
        let plan = Plan::new(scene.data.first());
        let mut counted = Pass { leaves: T::LEAVES, ..Pass::default() };
        plan.pass(scene, make, &mut counted)?;
        let mut best = vec![f64::INFINITY; counted.operations.len()];
        for _ in 0..PASSES {
            let mut timed = Pass { nanos: Some(Vec::new()), ..Pass::default() };
            plan.pass(scene, make, &mut timed)?;
            for (best, nanos) in best.iter_mut().zip(timed.nanos.into_iter().flatten()) {
                *best = best.min(nanos);
            }
        }
        Ok((counted, best))
    }
}

/// One pass through all operations: counts, or times.
#[derive(Debug, Default)]
struct Pass {
    operations: Vec<Operation>,
    fork_bytes: u64,
    alias_refs: AliasRefs,
    leaves: u64,
    nanos: Option<Vec<f64>>,
}

impl Pass {
    /// Does `f` for each of `calls` calls of `pages` pages.
    fn each(
        &mut self,
        scene: Scene<'_, '_, '_>,
        (name, pages): (&str, u64),
        calls: usize,
        mut f: impl FnMut(usize) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        if let Some(nanos) = &mut self.nanos {
            let watch = Stopwatch::start();
            (0..calls).try_for_each(f)?;
            nanos.push(watch.elapsed().as_nanos() as f64 / calls as f64);
            return Ok(());
        }
        let (mut sum, mut most) = (Changes::default(), 0);
        for call in 0..calls {
            scene.ram.record();
            f(call)?;
            let changes = scene.ram.recorded();
            most = changes.lines_written.max(most);
            sum = sum + changes;
        }
        let calls = calls as u64;
        self.operations.push(Operation {
            name: name.to_owned(),
            pages,
            calls,
            lines_written: mean(sum.lines_written, calls),
            lines_written_max: most,
            lines_touched: mean(sum.lines_touched, calls),
            accesses: mean(sum.accesses, calls),
            frames_taken: mean(sum.frames_taken, calls),
            frames_given: mean(sum.frames_given, calls),
        });
        Ok(())
    }
}

/// Which pages and frames each call takes.
struct Plan {
    /// Of each page, in the order of pages.
    frames: Vec<PhysAddr>,
    /// Page numbers within the space.
    picks: Vec<usize>,
    /// Frames that no page has at first.
    spare: PhysAddr,
}

fn page(n: usize) -> VirtAddr {
    VirtAddr::new((FIRST + n as u64) << PAGE_SHIFT)
}

impl Plan {
    fn new(first: PhysAddr) -> Self {
        let frame = |n: u64| first.wrapping_add(n << PAGE_SHIFT);
        let mut random = Random::new(1);
        let mut frames: Vec<_> = (0..PAGES).map(frame).collect();
        random.shuffle(&mut frames);
        let mut picks: Vec<_> = (0..PAGES as usize).collect();
        random.shuffle(&mut picks);
        picks.truncate(CALLS);
        Self { frames, picks, spare: frame(PAGES) }
    }

    fn spare(&self, n: u64) -> PhysAddr {
        self.spare.wrapping_add(n << PAGE_SHIFT)
    }

    fn leaf(&self, n: usize) -> Entry {
        Entry::Leaf(self.frames[n], ATTR)
    }

    fn pass<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
        pass: &mut Pass,
    ) -> Result<(), ReplayError> {
        let mut parent = make(0)?;
        let mut stock = parent.stock();
        for n in 0..self.frames.len() {
            install(&parent, page(n), self.leaf(n), &mut stock)?;
        }
        drop(stock);
        self.single(scene, &mut parent, pass)?;
        self.ranges(scene, &mut parent, pass)?;
        self.fork(scene, &mut parent, make(1)?, pass)?;
        gathered::<T, _>(|gather| parent.retire(gather));
        Ok(())
    }

    /// Operations on one page.
    fn single<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        table: &mut T,
        pass: &mut Pass,
    ) -> Result<(), ReplayError> {
        let unmap = |table: &mut T, call: usize| {
            gathered::<T, _>(|g| table.unmap(page(self.picks[call]), PAGE_SIZE, g))
                .map_err(ReplayError::from)
        };
        pass.each(scene, ("unmap", 1), CALLS, |call| unmap(table, call))?;
        pass.each(scene, ("map", 1), CALLS, |call| {
            let n = self.picks[call];
            let run = Run::new(page(n), self.frames[n], PAGE_SIZE, ATTR);
            Ok(gathered::<T, _>(|g| table.map(run, g))?)
        })?;
        (0..CALLS).try_for_each(|call| unmap(table, call))?;
        let mut stock = table.stock();
        pass.each(scene, ("fault", 1), CALLS, |call| {
            let n = self.picks[call];
            install(table, page(n), self.leaf(n), &mut stock)
        })?;
        drop(stock);
        pass.each(scene, ("protect", 1), CALLS, |call| {
            let va = page(self.picks[call]);
            Ok(gathered::<T, _>(|g| table.protect(va, PAGE_SIZE, READ_ONLY, g))?)
        })
    }

    /// Operations on 1,000 pages.
    fn ranges<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        table: &mut T,
        pass: &mut Pass,
    ) -> Result<(), ReplayError> {
        const BYTES: u64 = RANGE << PAGE_SHIFT;
        // Apart from each other, and aligned to nothing.
        let start = |call: usize| page(call * (PAGES / RANGES) as usize + 17);
        pass.each(scene, ("unmap_1000", RANGE), RANGES as usize, |call| {
            Ok(gathered::<T, _>(|g| table.unmap(start(call), BYTES, g))?)
        })?;
        pass.each(scene, ("map_1000", RANGE), RANGES as usize, |call| {
            let run = Run::new(start(call), self.spare(call as u64 * RANGE), BYTES, ATTR);
            Ok(gathered::<T, _>(|g| table.map(run.with_leaves_up_to(PAGE_SHIFT), g))?)
        })?;
        pass.each(scene, ("protect_1000", RANGE), RANGES as usize, |call| {
            Ok(gathered::<T, _>(|g| table.protect(start(call), BYTES, READ_ONLY, g))?)
        })
    }

    /// Fork, what the child then writes, and its end.
    fn fork<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        parent: &mut T,
        mut child: T,
        pass: &mut Pass,
    ) -> Result<(), ReplayError> {
        let (first, bytes) = (page(0), PAGES << PAGE_SHIFT);
        let before = scene.ram.meter().now;
        let alone = walk_refs(parent)?;
        pass.each(scene, ("fork", PAGES), 1, |_| {
            let shared = gathered::<T, _>(|g| {
                gathered::<T, _>(|h| {
                    parent.share(first, bytes, READ_ONLY, g, (&mut child, h), &mut |_| {})
                })
            });
            Ok(shared?)
        })?;
        pass.fork_bytes = scene.ram.meter().now.saturating_sub(before);
        let (parent, child_refs) = (walk_refs(parent)?, walk_refs(&child)?);
        pass.alias_refs = AliasRefs { alone, parent, child: child_refs };
        let mut stock = child.stock();
        pass.each(scene, ("cow", 1), CALLS, |call| {
            let va = page(self.picks[call]);
            let shared = child.walk(va, &mut ()).map_err(ReplayError::Walk)?;
            let own = self.spare(RANGES * RANGE + call as u64);
            exchange(&child, va, shared.entry, Entry::Leaf(own, ATTR), &mut stock)
        })?;
        drop(stock);
        let mut child = Some(child);
        pass.each(scene, ("exit", PAGES), 1, |_| {
            gathered::<T, _>(|g| child.take().map(|child| child.retire(g)));
            Ok(())
        })
    }
}

/// Entries that a walk reads: mean of all pages.
fn walk_refs<T: PageTable>(table: &T) -> Result<f64, ReplayError> {
    let mut refs = 0;
    for n in 0..PAGES as usize {
        table.walk(page(n), &mut |_| refs += 1).map_err(ReplayError::Walk)?;
    }
    Ok(mean(refs, PAGES))
}

const READ_ONLY: Change = Change { set: Attr::NONE, clear: Attr::WRITE };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::designs::{DESIGNS, by_name};

    fn operation(report: &OpsReport, name: &str) -> Operation {
        report.operations.iter().find(|op| op.name == name).unwrap().clone()
    }

    #[test]
    fn a_radix_table_changes_the_lines_that_its_layout_says() {
        let (report, nanos) = measure(by_name("radix4").unwrap()).unwrap();
        assert_eq!(report.leaf_shifts, [12, 21, 30]);
        assert_eq!(nanos.len(), report.operations.len());
        assert!(nanos.iter().all(|&n| n > 0.0 && n.is_finite()));
        // The entry, and the count in the entry above it.
        assert_eq!(operation(&report, "unmap").lines_written_max, 2);
        assert_eq!(operation(&report, "map").lines_written_max, 2);
        assert_eq!(operation(&report, "fault").lines_written_max, 2);
        assert_eq!(operation(&report, "protect").lines_written_max, 1);
        // 1,000 entries of 8 bytes from an odd one on lie in 126 lines, mostly.
        let protect = operation(&report, "protect_1000");
        assert!((125.0..=126.0).contains(&protect.lines_written), "{protect:?}");
        // The child's tables: 32 of 512 entries, and one on each level above.
        let fork = operation(&report, "fork");
        assert_eq!((fork.frames_taken, fork.frames_given), (34.0, 0.0));
        assert_eq!(operation(&report, "exit").frames_given, 35.0, "its root too");
        assert_eq!(report.fork_bytes_per_page, Some(34.0 * 4096.0 / 16384.0));
    }

    #[test]
    fn every_design_does_every_operation_and_the_counts_are_reproducible() {
        for design in DESIGNS {
            let (first, _) = measure(design).unwrap();
            let (second, _) = measure(design).unwrap();
            assert_eq!(first, second);
            let names: Vec<_> = first.operations.iter().map(|op| op.name.as_str()).collect();
            let expected = [
                "unmap",
                "map",
                "fault",
                "protect",
                "unmap_1000",
                "map_1000",
                "protect_1000",
                "fork",
                "cow",
                "exit",
            ];
            assert_eq!(names, expected, "{}", design.name);
            for op in &first.operations {
                // Whatever an operation does shows in memory; giving up a tree may change nothing in it.
                let shows = op.lines_written + op.frames_given >= 1.0;
                assert!(shows && op.lines_touched >= op.lines_written, "{}: {op:?}", design.name);
                assert!(op.accesses >= 1.0, "{}: {op:?}", design.name);
            }
        }
    }
}
