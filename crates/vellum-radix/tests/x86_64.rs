//! What only a table of levels promises: splits of 1 GiB, nodes given back, hardware beside us.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use vellum_core::{
    Attr, Change, Direct, Entry, Flush, FrameSource, Gather, Gone, PAGE_SIZE, PageTable, PhysAddr,
    PhysMap, Reap, Ref, Run, Span, VirtAddr, Walk, pte,
};
use vellum_radix::{Flat, Radix, X86_64};
use vellum_testkit::Arena;
use vellum_testkit::oracle::pages_of;
use vellum_testkit::suite::{Recorder, Recording, recording};

type Radix4<'a> = Radix<X86_64<4>, &'a Arena>;

// Several CPUs fault on one table, and a table may be given up on another CPU than it was made on.
static_assertions::assert_impl_all!(Radix4<'static>: Send, Sync);
static_assertions::assert_impl_all!(<Radix4<'static> as PageTable>::Detached: Send);
static_assertions::assert_impl_all!(<Radix4<'static> as PageTable>::Stock: Send);

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;

/// Runs `op` on a table as if it were live; the flushes, and the bytes that left the table.
fn live<D: Reap, R>(op: impl FnOnce(&mut Recording<'_, D>) -> R) -> (R, Vec<Flush>, u64) {
    let recorder = Recorder::default();
    let result = recording(&recorder, op);
    let bytes = recorder.take_gone().into_iter().map(|gone| match gone {
        Gone::Run(run) => run.len,
        Gone::Soft(..) => 0,
    });
    (result, recorder.take_flushes(), bytes.sum())
}

fn map_gib(table: &mut Radix4<'_>) {
    let run =
        Run::new(VirtAddr::new(GIB), PhysAddr::new(4 * GIB), GIB, Attr::RW).with_leaves_up_to(30);
    live(|g| table.map(run, g)).0.expect("nothing is there");
}

fn spans(table: &Radix4<'_>) -> Vec<Span> {
    let mut spans = Vec::new();
    table
        .visit(VirtAddr::new(0), 1 << 47, &mut |span| {
            spans.push(span);
            ControlFlow::Continue(())
        })
        .expect("the lower half");
    spans
}

#[test]
fn one_page_out_of_a_gib_splits_two_levels_and_keeps_the_rest() {
    let arena = Arena::new(64);
    let mut table = Radix4::new(&arena).expect("room");
    map_gib(&mut table);
    assert_eq!(table.table_bytes(), 2 * PAGE_SIZE, "one leaf in the page-directory-pointer table");
    let hole = VirtAddr::new(GIB + 5 * MIB2 + 7 * PAGE_SIZE);
    let (result, flushes, gone) = live(|g| table.unmap(hole, PAGE_SIZE, g));
    assert_eq!((result, gone), (Ok(()), PAGE_SIZE));
    let whole = VirtAddr::new(GIB);
    assert!(
        flushes.iter().any(|f| f.covers(whole) && f.covers(whole.wrapping_add(GIB - 1))),
        "the large leaf itself is flushed, or two sizes of one address could be cached"
    );
    assert_eq!(table.table_bytes(), 4 * PAGE_SIZE);
    let rest = spans(&table);
    let lengths: Vec<_> = rest.iter().map(|span| span.len).collect();
    let (before, after) = (7 * PAGE_SIZE, MIB2 - 8 * PAGE_SIZE);
    assert_eq!(lengths, [5 * MIB2, before, after, GIB - 6 * MIB2], "leaves of one size a span");
    assert_eq!(rest[2].va, hole.wrapping_add(PAGE_SIZE));
    let (result, _, gone) = live(|g| table.unmap(whole, GIB, g));
    assert_eq!((result, gone), (Ok(()), GIB - PAGE_SIZE));
    assert_eq!(table.table_bytes(), PAGE_SIZE, "only the root is left");
    live(|g| table.retire(g));
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_change_that_changes_nothing_splits_nothing() {
    let arena = Arena::new(64);
    let mut table = Radix4::new(&arena).expect("room");
    map_gib(&mut table);
    let part = VirtAddr::new(GIB + PAGE_SIZE);
    let change = Change::to(Attr::RW, Attr::RWX);
    let (result, flushes, _) = live(|g| table.protect(part, PAGE_SIZE, change, g));
    assert_eq!((result, flushes), (Ok(()), vec![]));
    assert_eq!(table.table_bytes(), 2 * PAGE_SIZE);
    live(|g| table.retire(g));
}

#[test]
fn pages_that_went_one_by_one_do_not_keep_their_node() {
    let arena = Arena::new(64);
    let mut table = Radix4::new(&arena).expect("room");
    let (va, frame) = (VirtAddr::new(MIB2), PhysAddr::new(MIB2));
    live(|g| table.map(Run::new(va, frame, 3 * PAGE_SIZE, Attr::RW), g)).0.expect("room");
    for n in [0, 2] {
        let (va, old) = (va.wrapping_add(n * PAGE_SIZE), frame.wrapping_add(n * PAGE_SIZE));
        let (result, ..) = live(|g| {
            let old = Entry::Leaf(old, Attr::RW);
            table.replace(va, PAGE_SIZE, old, Entry::Hole, &mut table.stock(), g)
        });
        result.expect("it is there");
    }
    assert_eq!(table.table_bytes(), 4 * PAGE_SIZE, "`&self` frees no node");
    live(|g| table.unmap(va.wrapping_add(PAGE_SIZE), PAGE_SIZE, g)).0.expect("a good range");
    assert_eq!(table.table_bytes(), PAGE_SIZE, "the last page took the nodes with it");
    live(|g| table.retire(g));
}

#[test]
fn a_large_leaf_over_an_emptied_node_is_counted_once() {
    let arena = Arena::new(64);
    let mut table = Radix4::new(&arena).expect("room");
    let (va, frame) = (VirtAddr::new(MIB2), PhysAddr::new(MIB2));
    let page = Entry::Leaf(frame, Attr::RW);
    let mut stock = table.stock();
    for (expect, new) in [(Entry::Hole, page), (page, Entry::Hole)] {
        live(|g| table.replace_refilling(va, PAGE_SIZE, expect, new, &mut stock, g))
            .0
            .expect("room");
    }
    let run = Run::new(va, frame, 2 * MIB2, Attr::RW).with_leaves_up_to(21);
    live(|g| table.map(run, g)).0.expect("the node is empty");
    assert_eq!(table.table_bytes(), 3 * PAGE_SIZE, "the emptied node is gone");
    // In two pieces, so that only the count can tell that nothing is left.
    for n in 0..2 {
        live(|g| table.unmap(va.wrapping_add(n * MIB2), MIB2, g)).0.expect("a good range");
    }
    assert_eq!(table.table_bytes(), PAGE_SIZE);
    drop(stock);
    live(|g| table.retire(g));
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_walk_reads_one_entry_a_level_and_says_what_each_spans() {
    let arena = Arena::new(64);
    let mut table = Radix::<X86_64<5>, _>::new(&arena).expect("room");
    let va = VirtAddr::new(0xff12_3456_789a_b000);
    let run = Run::new(va, PhysAddr::new(0x1000), PAGE_SIZE, Attr::READ);
    live(|g| table.map(run, g)).0.expect("nothing is there");
    let mut refs: Vec<Ref> = Vec::new();
    table.walk(va, &mut |r| refs.push(r)).expect("canonical");
    assert_eq!(refs.iter().map(|r| r.span).collect::<Vec<_>>(), [48, 39, 30, 21, 12]);
    for r in &refs {
        let index = va.as_u64() >> r.span & 511;
        assert_eq!(r.pa.as_u64() & 0xfff, index * 8, "{r:?}");
    }
    assert_eq!(refs[0].pa.align_down(12), table.root());
    live(|g| table.retire(g));
}

#[test]
fn a_flat_table_of_32_bits_is_eight_mib_and_one_reference() {
    let arena = Arena::new(if cfg!(miri) { 1 } else { 1 << 12 });
    if cfg!(miri) {
        return; // two thousand frames are more than the interpreter has time for
    }
    let mut table = Radix::<Flat<32>, _>::new(&arena).expect("room");
    assert_eq!(table.table_bytes(), 8 << 20);
    let last = VirtAddr::new(0xffff_f000);
    let run = Run::new(last, PhysAddr::new(0x1000), PAGE_SIZE, Attr::READ);
    live(|g| table.map(run, g)).0.expect("nothing is there");
    let mut refs = Vec::new();
    table.walk(last, &mut |r: Ref| refs.push(r)).expect("canonical");
    assert_eq!(refs.len(), 1);
    assert_eq!(refs[0].pa, table.root().wrapping_add((8 << 20) - 8));
    live(|g| table.retire(g));
    assert_eq!(arena.frames_in_use(), 0);
}

/// Hardware's part, on a thread of its own: sets accessed and dirty in every entry that is present
/// and writable, whatever the table is doing, and notes the frames for which it did.
struct Hardware<'a> {
    arena: &'a Arena,
    entries: Vec<PhysAddr>,
    dirtied: Vec<AtomicU64>,
    rounds: AtomicU64,
    stop: AtomicBool,
}

impl Hardware<'_> {
    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            for (&pa, dirtied) in self.entries.iter().zip(&self.dirtied) {
                self.arena.with(pa, |p| {
                    // SAFETY: an entry of a node that stays in use for the whole test.
                    let entry = unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) };
                    let raw = entry.load(Ordering::Relaxed);
                    let set = raw | pte::ACCESSED | pte::DIRTY;
                    let writable = raw & 0b11 == 0b11 && raw != set;
                    if writable
                        && entry
                            .compare_exchange(raw, set, Ordering::AcqRel, Ordering::Relaxed)
                            .is_ok()
                    {
                        dirtied.store(raw & pte::FRAME, Ordering::Release);
                    }
                });
            }
            self.rounds.fetch_add(1, Ordering::AcqRel);
            thread::yield_now();
        }
    }

    /// Waits until whatever it was in the middle of is noted.
    fn settle(&self) {
        let seen = self.rounds.load(Ordering::Acquire);
        while self.rounds.load(Ordering::Acquire) < seen + 2 {
            thread::yield_now();
        }
    }
}

/// Stops the hardware's thread when the test ends, also where it fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_dirty_bit_that_hardware_sets_while_a_page_goes_is_not_lost() {
    let (pages, rounds) = if cfg!(miri) { (4, 6) } else { (64, 3_000) };
    let arena = Arena::new(64);
    let mut table = Radix4::new(&arena).expect("room");
    // A neighbour that stays keeps the node in use while its other entries come and go.
    let base = VirtAddr::new(MIB2);
    let stays = Run::new(base, PhysAddr::new(0x1000), PAGE_SIZE, Attr::READ | Attr::STATUS);
    live(|g| table.map(stays, g)).0.expect("nothing is there");
    let va = base.wrapping_add(PAGE_SIZE);
    let entry_of = |n: u64| {
        let mut last = None;
        table.walk(va.wrapping_add(n * PAGE_SIZE), &mut |r: Ref| last = Some(r.pa)).expect("low");
        last.expect("a walk reads something")
    };
    let hardware = Hardware {
        arena: &arena,
        entries: (0..pages).map(entry_of).collect(),
        dirtied: (0..pages).map(|_| AtomicU64::new(0)).collect(),
        rounds: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let _stop = Stop(&hardware.stop);
        scope.spawn(|| hardware.run());
        for round in 0..rounds {
            let frames = PhysAddr::new(GIB + round * pages * PAGE_SIZE);
            let run = Run::new(va, frames, pages * PAGE_SIZE, Attr::RW);
            live(|g| table.map(run, g)).0.expect("nothing is there");
            let recorder = Recorder::default();
            let touched = Change::setting(Attr::SOFT[0]);
            recording(&recorder, |g| table.protect(va, run.len / 2, touched, g)).expect("a range");
            recording(&recorder, |g| table.unmap(va, run.len, g)).expect("a range");
            hardware.settle();
            let gone = pages_of(&recorder.take_gone());
            assert_eq!(gone.len() as u64, pages, "round {round}: a page that changed as it went");
            for (_, entry) in gone {
                let Entry::Leaf(pa, attr) = entry else { panic!("{entry:?} was never there") };
                let n = (pa.as_u64() - frames.as_u64()) / PAGE_SIZE;
                let noted = hardware.dirtied[n as usize].load(Ordering::Acquire);
                assert!(noted != pa.as_u64() || attr.contains(Attr::DIRTY), "round {round}: {pa}");
            }
        }
    });
    live(|g| table.retire(g));
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn exclusive_use_delivers_at_once_and_flushes_nothing() {
    let arena = Arena::new(64);
    let mut table = Radix4::new(&arena).expect("room");
    let frame = arena.alloc(0).expect("room");
    let mut gone = Vec::new();
    // SAFETY: no CPU walks this table.
    let mut direct = unsafe { Direct::new(|item| gone.push(item)) };
    let run = Run::new(VirtAddr::new(0x1000), frame, PAGE_SIZE, Attr::RW);
    table.map(run, &mut direct).expect("nothing is there");
    table.unmap(run.va, run.len, &mut direct).expect("a good range");
    table.retire(&mut direct);
    assert!(!is_live(&direct));
    assert_eq!(gone, [Gone::Run(run)]);
    // SAFETY: it has left the table, and the table is gone.
    unsafe { arena.free(frame, 0) };
    assert_eq!(arena.frames_in_use(), 0);
}

fn is_live<S: FnMut(Gone)>(_: &Direct<S>) -> bool {
    <Direct<S> as Gather<core::convert::Infallible>>::LIVE
}
