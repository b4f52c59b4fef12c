//! The conformance suite: what every page table promises, as properties that every design runs.
//!
//! ```text
//!   impl Design for Radix4 { .. }            what is tested, and how one is made
//!   conformance!(radix4: Radix4);            a module with one #[test] a property
//!
//!                 +-- random    sequences of operations against the oracle
//!                 +-- edges     bad ranges, first and last page, attributes, visits, walks
//!      Design --> +-- replace   compare-and-set, soft entries, faults on several threads
//!                 +-- exhaust   out of frames at every allocation: exact, and nothing leaked
//!                 +-- huge      large leaves: chosen, split, and not blocked by empty tables
//!                 +-- fork      share, and spaces that do not see each other
//!                 +-- linked    fork and unshare, and filling holes
//!                 +-- flushes   a model of every TLB there could be, and flushes left out
//! ```
//!
//! Every property runs on an [`Arena`] of its own, and ends by looking that all frames are back.
//! Flushes are checked throughout: no frame is delivered before a flush that covers it, and no
//! page loses a right without one.
//!
//! A page here is the design's smallest one, whatever its size, and the attributes that properties
//! map with go through [`Design::portable`]: a format that has fewer of them is held to the same.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a property panics exactly when it does not hold"
)]

pub mod edges;
pub mod exhaust;
pub mod flushes;
pub mod fork;
pub mod huge;
pub mod linked;
pub mod random;
pub mod replace;

use crate::Arena;
use crate::checker::Hardware;
use crate::oracle::Oracle;
use core::cell::RefCell;
use core::mem::forget;
use core::ops::ControlFlow;
use core::panic::AssertUnwindSafe;
use proptest::test_runner::Config;
use std::panic::{catch_unwind, resume_unwind};
use vellum_core::{
    Attr, Batch, Canonical, Entry, Flush, Gone, Invalidate, OutOfFrames, PageTable, PhysAddr, Reap,
    Ref, Scope, VirtAddr,
};

pub use crate::oracle::base_page;

/// A design under test.
///
/// For a design with a table a space, `Shared` is just the arena; for a global one it is the table
/// of all spaces, and `Table` is the handle of one space.
pub trait Design {
    /// What the spaces have in common.
    type Shared<'a>;
    /// One space.
    type Table<'s>: PageTable + Sync;

    /// RAM for a test, in frames.
    const FRAMES: usize = 1 << 12;

    /// What the spaces have in common, in an empty arena.
    ///
    /// # Errors
    ///
    /// When the arena fails an allocation.
    fn shared(arena: &Arena) -> Result<Self::Shared<'_>, OutOfFrames>;

    /// An empty space, the only one with this number.
    ///
    /// # Errors
    ///
    /// When the arena fails an allocation.
    fn table<'s>(shared: &'s Self::Shared<'_>, space: u16) -> Result<Self::Table<'s>, OutOfFrames>;

    /// A walk of the table's memory as the processor does it, for [`checker`](crate::checker) to
    /// look on while the table changes; without one, it looks between operations only.
    #[must_use]
    fn hardware<'s>(shared: &'s Self::Shared<'_>, table: &Self::Table<'s>) -> Option<Hardware<'s>> {
        let _ = (shared, table);
        None
    }

    /// What makes a processor forget that an entry which spans 2<sup>`page`</sup> bytes was empty;
    /// `None` if it does not remember that.
    #[must_use]
    fn absence(page: u8) -> Option<Scope> {
        let _ = page;
        None
    }

    /// Whether entries of this format that clash must never be met together, so that a valid one
    /// changes by way of an invalid one that was flushed.
    #[must_use]
    fn breaks() -> bool {
        false
    }

    /// Whether the format can express these attributes; x86-64's rule unless a design says other.
    #[must_use]
    fn encodes(attr: Attr) -> bool {
        let rights = attr.contains(Attr::READ) || !attr.intersects(Attr::WRITE | Attr::EXEC);
        rights && attr.memory().is_some()
    }

    /// What the format has that comes closest to `attr`: what it lacks is left out or replaced by
    /// something similar, as little of it as possible. Of attributes with [`Attr::READ`] and a
    /// memory type, and of [`Attr::NONE`], it makes something that [`encodes`](Self::encodes).
    /// Unless a design says other, it has all of that.
    #[must_use]
    fn portable(attr: Attr) -> Attr {
        attr
    }
}

/// Makes a module of tests: every property of the suite for one [`Design`].
#[macro_export]
macro_rules! conformance {
    ($module:ident: $design:ty) => {
        mod $module {
            #[allow(unused_imports, clippy::wildcard_imports, reason = "the design is named outside")]
            use super::*;
            $crate::conformance!(@tests $design;
                random::operations_match_the_oracle
                random::operations_far_apart_match_the_oracle
                edges::bad_ranges_are_refused_untouched
                edges::an_empty_range_changes_nothing
                edges::retiring_flushes_the_whole_space
                edges::the_first_and_the_last_page_are_pages
                edges::conflicts_name_what_is_there
                edges::unencodable_attributes_are_refused
                edges::protect_keeps_what_it_does_not_name
                edges::no_access_is_still_a_mapping
                edges::visits_ascend_are_cut_and_stop
                edges::walks_report_what_they_read
                edges::touch_grants_only_what_the_entry_does
                replace::compares_and_sets
                replace::keeps_status_with_the_frame
                replace::refuses_what_is_no_leaf
                replace::soft_entries_live_where_leaves_do
                replace::parallel_faults_install_each_page_once
                replace::parallel_changes_of_one_page_lose_nothing
                exhaust::running_out_leaves_an_exact_prefix_and_no_leak
                exhaust::a_stock_gives_back_what_it_holds
                exhaust::a_stock_of_another_memory_is_not_used
                huge::large_leaves_are_used_where_they_fit
                huge::part_of_a_large_leaf_can_go
                huge::a_large_leaf_keeps_its_memory_type_when_it_splits
                huge::a_large_leaf_is_replaced_whole
                huge::a_leaf_of_several_entries_is_not_replaced
                huge::a_large_leaf_is_harvested_whole_and_told_cut
                huge::emptied_structure_does_not_block_a_large_leaf
                huge::emptied_structure_is_given_back
                huge::operations_with_large_leaves_match_the_oracle
                fork::share_gives_the_child_the_same_pages
                fork::share_stops_where_the_child_has_something
                fork::share_gives_exactly_what_it_says_when_frames_run_out
                fork::share_keeps_the_size_of_leaves
                fork::spaces_do_not_see_each_other
                linked::fork_gives_the_child_the_same_pages
                linked::changes_after_a_fork_stay_with_the_table
                linked::fork_gives_exactly_what_it_says_when_frames_run_out
                linked::parts_move_whole_or_not_at_all
                linked::holes_are_filled_where_there_are_some
                flushes::no_flush_is_missed
                flushes::every_spoilt_flush_is_noticed
            );
        }
    };
    (@tests $design:ty; $($file:ident :: $property:ident)*) => {
        $(
            #[test]
            fn $property() {
                $crate::suite::$file::$property::<$design>();
            }
        )*
    };
}

/// Runs `f` on an arena and what the design shares, and looks that all frames are back.
pub fn on<D: Design>(f: impl for<'s, 'a> FnOnce(&'a Arena, &'s D::Shared<'a>)) {
    let arena = Arena::new(D::FRAMES);
    let shared = D::shared(&arena).expect("an empty arena has room");
    f(&arena, &shared);
    drop(shared);
    assert_eq!(arena.frames_in_use(), 0, "frames were leaked");
}

/// Space 1 of the design, for tests that need one.
pub fn table<'s, D: Design>(shared: &'s D::Shared<'_>) -> D::Table<'s> {
    D::table(shared, 1).expect("an empty arena has room")
}

/// proptest's settings: few cases under Miri, which is a thousand times slower.
#[must_use]
pub fn config(cases: u32) -> Config {
    let cases = if cfg!(miri) { 2 } else { cases };
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Records flushes and deliveries, and checks that no delivery comes before its flush.
#[derive(Debug, Default)]
pub struct Recorder {
    flushes: RefCell<Vec<Flush>>,
    gone: RefCell<Vec<Gone>>,
}

// SAFETY: nothing walks a table of the suite but the test's own thread, through `walk`.
unsafe impl Invalidate for Recorder {
    fn flush(&self, flushes: &[Flush]) {
        self.flushes.borrow_mut().extend_from_slice(flushes);
    }
}

/// A gather of a [`Recorder`], with little room, so that operations have to drain it.
pub type Recording<'r, D> = Batch<&'r Recorder, Box<dyn FnMut(Gone) + 'r>, D, 3>;

/// Runs one operation with a gather of the recorder, and finishes that.
pub fn recording<'r, D: Reap, R>(
    recorder: &'r Recorder,
    op: impl FnOnce(&mut Recording<'r, D>) -> R,
) -> R {
    // SAFETY: nothing walks the tables of the suite but walks of the test's own, which cache nothing.
    let mut gather = unsafe { Batch::new(recorder, recorder.sink()) };
    match catch_unwind(AssertUnwindSafe(|| op(&mut gather))) {
        Ok(result) => {
            gather.finish();
            result
        }
        Err(panic) => {
            // Its drop would panic as well, and hide the first.
            forget(gather);
            resume_unwind(panic)
        }
    }
}

impl Recorder {
    fn sink(&self) -> Box<dyn FnMut(Gone) + '_> {
        Box::new(|gone| {
            if let Gone::Run(run) = gone {
                let last = run.va.wrapping_add(run.len - 1);
                let flushed = |f: &Flush| drops_leaves(f) && f.covers(run.va) && f.covers(last);
                assert!(self.flushes.borrow().iter().any(flushed), "{run:?} not flushed");
            }
            self.gone.borrow_mut().push(gone);
        })
    }

    /// What was delivered since the last call.
    pub fn take_gone(&self) -> Vec<Gone> {
        self.gone.take()
    }

    /// What was flushed since the last call.
    pub fn take_flushes(&self) -> Vec<Flush> {
        self.flushes.take()
    }
}

/// Whether a flush makes CPUs forget leaves, and not only that there were none.
#[must_use]
pub fn drops_leaves(flush: &Flush) -> bool {
    flush.scope >= Scope::Leaves
}

/// Looks that every page whose cached translation is wrong now was flushed.
pub fn check_flushes(before: &Oracle, after: &Oracle, flushes: &[Flush]) {
    for (va, old) in before.iter() {
        let Entry::Leaf(pa, attr) = old else { continue };
        let stale = match after.get(va) {
            Entry::Leaf(new, _) if new != pa => attr.intersects(Attr::READ | Attr::EXEC),
            Entry::Leaf(_, new) => attr.narrows_to(new),
            _ => attr.intersects(Attr::READ | Attr::EXEC),
        };
        let flushed = flushes.iter().any(|flush| drops_leaves(flush) && flush.covers(va));
        assert!(!stale || flushed, "page {va}: {old:?} became {:?}, unflushed", after.get(va));
    }
}

/// The nodes that walks pass through, and what of them a walk cache may hold.
#[derive(Debug, Default)]
pub struct Nodes {
    /// An entry of the node, and the block of addresses whose walks pass through it.
    entries: Vec<(PhysAddr, VirtAddr, u8)>,
}

impl Nodes {
    /// The nodes on the way to some of the oracle's pages.
    pub fn on_the_way<T: PageTable>(table: &T, oracle: &Oracle) -> Self {
        let mut entries = Vec::new();
        for (va, _) in oracle.iter().step_by(7) {
            let mut reached_by: Option<u8> = None;
            let mut note = |r: Ref| {
                // Reached by an entry that covers more than what it leads to: an interior one.
                if let Some(span) = reached_by.filter(|&span| span > r.span) {
                    entries.push((r.pa, va.align_down(span), span));
                }
                reached_by = Some(r.span);
            };
            table.walk(va, &mut note).expect("it is mapped");
        }
        Self { entries }
    }

    /// Looks that nodes which are gone were flushed out of walk caches first, for every address
    /// whose walk passed through them.
    pub fn check(&self, arena: &Arena, flushes: &[Flush]) {
        for &(pa, first, span) in &self.entries {
            let last = first.wrapping_add((1 << span) - 1);
            let covers = |f: &Flush| f.has_tables() && f.covers(first) && f.covers(last);
            let flushed = flushes.iter().any(covers);
            assert!(arena.is_in_use(pa) || flushed, "node of {pa}, for 2^{span} from {first}");
        }
    }
}

/// How many allocations to grant, from none on: every number, but under Miri only powers of two.
pub fn grants() -> impl Iterator<Item = u64> {
    let step = |&n: &u64| Some(if cfg!(miri) { (2 * n).max(1) } else { n + 1 });
    core::iter::successors(Some(0), step).take_while(|&n| n < 1 << 14)
}

/// The halves of what a table translates, each as its first address and length.
#[must_use]
pub fn halves(canonical: Canonical) -> Vec<(VirtAddr, u64)> {
    if canonical.is_signed() {
        canonical.halves().to_vec()
    } else {
        vec![(VirtAddr::new(0), 1 << canonical.bits())]
    }
}

/// Everything that the table holds, page by page, as `visit` tells it.
pub fn contents<T: PageTable>(table: &T) -> Vec<(VirtAddr, Entry)> {
    let oracle = Oracle::of(table);
    let mut pages: Vec<(VirtAddr, Entry)> = Vec::new();
    for (va, len) in halves(table.canonical()) {
        table
            .visit(va, len, &mut |span| {
                assert!(span.entry != Entry::Hole, "a visit tells of no holes");
                pages.extend(oracle.pages_of_span(span.va, span.len, span.entry));
                ControlFlow::Continue(())
            })
            .expect("a half is canonical");
    }
    assert!(pages.is_sorted_by(|a, b| a.0 < b.0), "a visit ascends");
    pages
}

/// Compares the table with the oracle, by visit and by walk.
pub fn check_contents<T: PageTable>(table: &T, oracle: &Oracle) {
    assert_eq!(contents(table), oracle.iter().collect::<Vec<_>>());
    // Every page, but under Miri, where a walk takes a hundredth of a second.
    let stride = if cfg!(miri) { 61 } else { 1 };
    for (va, entry) in oracle.iter().step_by(stride) {
        assert_eq!(entry_at(table, va), entry, "walk to {va}");
    }
}

/// What a walk finds for the page at `va`, with that page's own physical address.
pub fn entry_at<T: PageTable>(table: &T, va: VirtAddr) -> Entry {
    let span = table.walk(va, &mut ()).expect("a canonical address");
    let offset = va.checked_sub(span.va).expect("the span starts at or below the address");
    assert!(offset < span.len, "{span:?} does not contain {va}");
    match span.entry {
        Entry::Leaf(pa, attr) => Entry::Leaf(pa.wrapping_add(offset), attr),
        other => other,
    }
}

/// First pages of stretches where something goes on: both ends of the space and of its halves, and
/// the middle of each half, where every level of a radix table changes at once. Each has
/// [`WINDOW`] pages.
#[must_use]
pub fn windows<T: PageTable>(table: &T) -> Vec<VirtAddr> {
    let unit = page_bytes::<T>();
    let mut windows = Vec::new();
    for (va, len) in halves(table.canonical()) {
        for offset in [0, len / 2 - 40 * unit, len - WINDOW * unit] {
            windows.push(va.wrapping_add(offset));
        }
    }
    if cfg!(miri) {
        // The middle of the lower half, and the last pages of all.
        windows = windows.into_iter().skip(1).step_by(4).collect();
    }
    windows
}

/// Pages of a window.
pub const WINDOW: u64 = 96;

/// Bytes of the design's smallest page.
#[must_use]
pub fn page_bytes<T: PageTable>() -> u64 {
    1 << base_page::<T>()
}

/// log2 of the bytes of the design's leaves of more than one and at most 2<sup>`pages`</sup>
/// smallest pages; of fewer sizes under Miri.
#[must_use]
pub fn large_leaves<T: PageTable>(pages: u8) -> Vec<u8> {
    let base = base_page::<T>();
    let most = base + if cfg!(miri) { pages.min(9) } else { pages };
    (base + 1..=most).filter(|&n| T::LEAVES >> n & 1 == 1).collect()
}

/// The same, or a stretch of 2<sup>9</sup> pages for a design that has only those.
#[must_use]
pub fn large_leaves_or_pages<T: PageTable>(pages: u8) -> Vec<u8> {
    let leaves = large_leaves::<T>(pages);
    if leaves.is_empty() { vec![base_page::<T>() + 9] } else { leaves }
}
