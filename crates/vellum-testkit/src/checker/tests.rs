//! The checker against tables that do one thing wrong, and one thing right.

use super::{Cached, Checker, Harmless, Missed, Sabotage};
use crate::Arena;
use core::cell::Cell;
use core::convert::Infallible;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Flush, FrameSource, Gather, Need, OutOfFrames,
    PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, RangeError, Ref, ReplaceError, Run, Scope, Sink,
    Span, VirtAddr, Walk,
};

mod cpus;
mod together;

const VA: VirtAddr = VirtAddr::new(0x20_0000);
const FRAME: PhysAddr = PhysAddr::new(0x70_0000);

/// What the test says that it says: one leaf, or nothing, below a node.
struct Says {
    span: Cell<Span>,
    node: Cell<PhysAddr>,
}

impl Says {
    fn leaf(attr: Attr) -> Self {
        let says = Self { span: Cell::new(hole()), node: Cell::new(PhysAddr::new(4 << 20)) };
        says.now(PAGE_SHIFT, Entry::Leaf(FRAME, attr));
        says
    }

    fn now(&self, page: u8, entry: Entry) {
        self.span.set(Span { va: VA, len: 1 << page, entry });
    }
}

fn hole() -> Span {
    Span { va: VA, len: PAGE_SIZE, entry: Entry::Hole }
}

impl Walk for Says {
    fn walk<S: Sink>(&self, _: VirtAddr, sink: &mut S) -> Result<Span, Cause> {
        let root = PhysAddr::new(0);
        for (pa, span) in [(root, 21), (self.node.get(), PAGE_SHIFT)] {
            // A large leaf is in the root.
            if span == 21 || self.span.get().len < 1 << 21 {
                sink.reference(Ref { pa, bytes: 8, span, parallel: false });
            }
        }
        Ok(self.span.get())
    }

    fn touch(&self, _: VirtAddr, _: Attr, _: Attr) -> Entry {
        Entry::Hole
    }
}

/// Only its constants are asked for.
impl PageTable for Says {
    type Stock = ();
    type Detached = Infallible;
    const LEAVES: u64 = 1 << PAGE_SHIFT | 1 << 16 | 1 << 21;
    const REPLACEABLE: u64 = 1 << PAGE_SHIFT | 1 << 21;
    const SOFT_BITS: u8 = 1;

    fn canonical(&self) -> Canonical {
        Canonical::signed(48)
    }

    fn table_bytes(&self) -> u64 {
        0
    }

    fn stock(&self) {}

    fn refill(&self, (): &mut (), _: Need) -> Result<(), OutOfFrames> {
        Ok(())
    }

    fn replace<G: Gather<Infallible>>(
        &self,
        _: VirtAddr,
        _: u64,
        _: Entry,
        _: Entry,
        (): &mut (),
        _: &mut G,
    ) -> Result<(), ReplaceError> {
        Err(ReplaceError::Structure)
    }

    fn map<G: Gather<Infallible>>(&mut self, run: Run, _: &mut G) -> Result<(), RangeError> {
        Err(Cause::NonCanonical(run.va).into())
    }

    fn unmap<G: Gather<Infallible>>(
        &mut self,
        va: VirtAddr,
        _: u64,
        _: &mut G,
    ) -> Result<(), RangeError> {
        Err(Cause::NonCanonical(va).into())
    }

    fn protect<G: Gather<Infallible>>(
        &mut self,
        va: VirtAddr,
        _: u64,
        _: Change,
        _: &mut G,
    ) -> Result<(), RangeError> {
        Err(Cause::NonCanonical(va).into())
    }

    fn visit(
        &self,
        va: VirtAddr,
        _: u64,
        _: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        Err(Cause::NonCanonical(va))
    }

    fn harvest<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        _: u64,
        _: Attr,
        _: &mut G,
        _: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        Err(Cause::NonCanonical(va))
    }

    fn retire<G: Gather<Infallible>>(self, _: &mut G) {}
}

fn page(attr: Attr) -> Flush {
    Flush::new(VA, PAGE_SIZE, PAGE_SHIFT, attr)
}

/// Whether a page that becomes `after` may owe just `flush`.
fn suffices(before: Attr, after: Entry, flush: Option<Flush>) -> bool {
    let (arena, table) = (Arena::new(4), Says::leaf(before));
    let checker = Checker::new(&table, &arena, &[VA]);
    let mut gather = checker.gather::<Infallible, 4>(|_| {});
    table.now(PAGE_SHIFT, after);
    if let Some(flush) = flush {
        gather.stale(flush);
    }
    let owed = checker.check(&table).is_ok();
    gather.finish();
    assert_eq!(owed, checker.check(&table).is_ok(), "what is owed is what is flushed");
    owed
}

#[test]
fn what_a_leaf_loses_is_owed_and_what_it_gains_is_not() {
    let leaf = |attr| Entry::Leaf(FRAME, attr);
    let rw = Attr::RW | Attr::USER;
    for (before, after, needs) in [
        (rw, leaf(rw - Attr::WRITE), true),
        (Attr::READ, leaf(Attr::RW), false),
        (rw, leaf(Attr::RW), true),
        (Attr::RW, leaf(rw), true),
        (rw | Attr::DIRTY, leaf(rw), true),
        (rw, leaf(rw | Attr::STATUS | Attr::SOFT[2]), false),
        (rw, leaf(rw.with_key(1)), true),
        (Attr::EXEC, leaf(Attr::NONE), true),
        (Attr::USER, Entry::Hole, false),
        (rw, Entry::Hole, true),
        (rw, Entry::Leaf(PhysAddr::new(0), rw), true),
    ] {
        assert_eq!(suffices(before, after, None), !needs, "{before:?} to {after:?}");
        assert!(suffices(before, after, Some(page(before))), "{before:?} to {after:?}, flushed");
    }
}

#[test]
fn a_flush_reaches_what_it_says_and_no_more() {
    let global = Attr::RW | Attr::GLOBAL;
    let whole = page(global);
    assert!(suffices(global, Entry::Hole, Some(whole)));
    for spoilt in [
        Flush { global: false, ..whole },
        whole.with_scope(Scope::Fresh),
        Flush { first: VA.wrapping_add(PAGE_SIZE), last: VA.wrapping_add(2 * PAGE_SIZE), ..whole },
        Flush { last: VA.wrapping_add(PAGE_SIZE - 2), ..whole },
        Flush { page: PAGE_SHIFT + 1, ..whole },
    ] {
        assert!(!suffices(global, Entry::Hole, Some(spoilt)), "{spoilt:?}");
    }
}

#[test]
fn a_leaf_of_several_entries_is_flushed_in_steps_of_one() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::RW));
    table.now(16, Entry::Leaf(FRAME, Attr::RW));
    let checker = Checker::new(&table, &arena, &[VA]);
    table.now(PAGE_SHIFT, Entry::Hole);
    let mut gather = checker.gather::<Infallible, 4>(|_| {});
    // 4 KiB pages were cached as well, from before the group.
    gather.stale(Flush::new(VA, 1 << 16, 16, Attr::RW));
    assert!(checker.check(&table).is_err());
    gather.finish();
    let checker = Checker::new(&Says::leaf(Attr::RW), &arena, &[VA]);
    let mut gather = checker.gather::<Infallible, 4>(|_| {});
    gather.stale(Flush::new(VA, 1 << 16, PAGE_SHIFT, Attr::RW));
    assert_eq!(checker.check(&table), Ok(()));
    gather.finish();
}

#[test]
fn a_large_leaf_that_was_split_is_flushed_in_steps_of_its_parts() {
    for (stride, enough) in [(21, false), (PAGE_SHIFT, true)] {
        let (arena, table) = (Arena::new(4), Says::leaf(Attr::RW));
        table.now(21, Entry::Leaf(FRAME, Attr::RW));
        let checker = Checker::new(&table, &arena, &[VA]);
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW));
        assert!(checker.check(&table).is_err(), "two sizes of one address");
        let checker = {
            table.now(21, Entry::Leaf(FRAME, Attr::RW));
            Checker::new(&table, &arena, &[VA])
        };
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW));
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        gather.stale(Flush::new(VA, 1 << 21, stride, Attr::RW));
        assert_eq!(checker.check(&table).is_ok(), enough, "in steps of 2^{stride}");
        gather.finish();
    }
}

#[test]
fn a_frame_is_not_delivered_before_its_flush() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::RW));
    let run = Run::new(VA, FRAME, PAGE_SIZE, Attr::RW);
    for sabotage in [None, Some(Sabotage::Drop)] {
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW));
        let mut checker = Checker::new(&table, &arena, &[VA]);
        if let Some(sabotage) = sabotage {
            checker = checker.with_sabotage(0, sabotage);
        }
        table.now(PAGE_SHIFT, Entry::Hole);
        let delivered = Cell::new(0);
        let mut gather = checker.gather::<Infallible, 4>(|_| delivered.set(delivered.get() + 1));
        gather.leaf(run);
        gather.finish();
        assert_eq!(delivered.get(), 1);
        let missed = matches!(checker.check(&table), Err(Missed::FrameInUse { va: VA, .. }));
        assert_eq!(missed, sabotage.is_some());
    }
}

#[test]
fn a_node_is_flushed_whole_before_it_is_freed_and_even_if_it_comes_back() {
    let arena = Arena::new(4);
    let (from, end) = (VA, VA.wrapping_add((1 << 21) - 1));
    let all = Flush { last: end, ..Flush::tables(from, PAGE_SIZE, false) };
    for (flush, before) in [(all, true), (Flush { scope: Scope::Leaves, ..all }, false)] {
        let table = Says::leaf(Attr::NONE);
        let node = arena.alloc(0).expect("room");
        table.node.set(node);
        let checker = Checker::new(&table, &arena, &[VA]);
        assert!(checker.has_links());
        table.node.set(PhysAddr::new(0));
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        gather.stale(flush);
        assert_eq!(checker.check(&table).is_ok(), before);
        gather.finish();
        // SAFETY: allocated above; nothing but the model knows it.
        unsafe { arena.free(node, 0) };
        assert_eq!(arena.alloc(0), Ok(node), "in use again");
        assert_eq!(checker.check(&table).is_ok(), before);
        // SAFETY: allocated just now.
        unsafe { arena.free(node, 0) };
    }
}

#[test]
fn absence_is_remembered_where_processors_do() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::NONE));
    for remembers in [false, true] {
        table.now(PAGE_SHIFT, Entry::Hole);
        let absence = if remembers { |_| Some(Scope::Fresh) } else { |_| None };
        let checker = Checker::new(&table, &arena, &[VA]).with_absence(absence);
        assert_eq!(checker.check(&table), Ok(()));
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::READ));
        let missed = checker.check(&table);
        let absent = |m| matches!(m, Missed::Unowed { cached: Cached::Absence(_), .. });
        assert_eq!(missed.is_err_and(absent), remembers);
    }
}

#[test]
fn a_walker_sees_what_comes_between_two_operations() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::RW));
    let eye = |va, sink: &mut dyn FnMut(Ref)| {
        table.walk(va, &mut |r| sink(r)).expect("a table that says so")
    };
    // The flush comes first and the store after it: as a table would do that has them exchanged.
    for hardware in [false, true] {
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW));
        let checker = Checker::new(&table, &arena, &[VA])
            .with_hardware(hardware.then(|| Box::new(eye) as super::Hardware<'_>));
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        gather.stale(page(Attr::RW));
        gather.drain();
        table.now(PAGE_SHIFT, Entry::Hole);
        assert_eq!(checker.check(&table).is_err(), hardware, "cached again after the flush");
        gather.finish();
    }
}

#[test]
fn harmless_is_what_made_no_difference() {
    let (arena, table) = (Arena::new(4), Says::leaf(Attr::RW));
    for (others, entry, why) in [
        (0, Entry::Hole, None),
        (1, Entry::Hole, Some(Harmless::OwedAnyway)),
        (0, Entry::Leaf(FRAME, Attr::RW), Some(Harmless::NothingWrong)),
    ] {
        table.now(PAGE_SHIFT, Entry::Leaf(FRAME, Attr::RW));
        let checker = Checker::new(&table, &arena, &[VA]).with_sabotage(0, Sabotage::Drop);
        table.now(PAGE_SHIFT, entry);
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        for _ in 0..=others {
            gather.stale(page(Attr::RW));
        }
        assert_eq!(checker.check(&table).is_ok(), why.is_some());
        assert_eq!(checker.harmless(), why);
        gather.finish();
    }
}
