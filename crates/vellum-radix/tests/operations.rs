//! What only a hierarchical table offers: splitting and collapsing, frames from anywhere, parts that
//! several tables share, a root for user mode, and policies.

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU32, Ordering};
use proptest::prelude::*;
use std::collections::BTreeMap;

use vellum_core::{
    Attr, Batch, Cause, Change, Direct, Entry, Flush, Gone, OutOfFrames, PageTable, PhysAddr,
    RangeError, Reap, ReplaceError, Run, Scope, Soft, Span, VirtAddr, Walk,
};
use vellum_radix::{AArch64, Format, Policy, Radix, RiscV, WriteXorExecute, X86_64};
use vellum_testkit::Arena;
use vellum_testkit::suite::{Recorder, Recording, recording};

type X86<'a> = Radix<X86_64<4>, &'a Arena>;
type Arm<'a> = Radix<AArch64<12, 48>, &'a Arena>;
type Sv39<'a> = Radix<RiscV<3>, &'a Arena>;

const PAGE: u64 = 0x1000;
const MIB2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
const KERNEL: VirtAddr = VirtAddr::new(0xffff_8000_0000_0000);

/// Runs an operation as if the table were live.
fn live<D: Reap, R>(op: impl FnOnce(&mut Recording<'_, D>) -> R) -> R {
    recording(&Recorder::default(), op)
}

/// The same, and what was flushed.
fn flushes<D: Reap, R>(op: impl FnOnce(&mut Recording<'_, D>) -> R) -> (R, Vec<Flush>) {
    let recorder = Recorder::default();
    let result = recording(&recorder, op);
    (result, recorder.take_flushes())
}

fn run(va: u64, pa: u64, len: u64, attr: Attr) -> Run {
    Run::new(VirtAddr::new(va), PhysAddr::new(pa), len, attr)
}

/// What each page of a range maps to.
fn pages<T: PageTable>(table: &T, va: u64, len: u64) -> Vec<(u64, Entry)> {
    let mut all = Vec::new();
    let mut note = |span: Span| {
        for at in (0..span.len).step_by(PAGE as usize) {
            let entry = match span.entry {
                Entry::Leaf(pa, attr) => Entry::Leaf(pa.wrapping_add(at), attr),
                other => other,
            };
            all.push((span.va.as_u64() + at, entry));
        }
        ControlFlow::Continue(())
    };
    table.visit(VirtAddr::new(va), len, &mut note).expect("a good range");
    all
}

fn leaf_at<T: Walk>(table: &T, va: u64) -> u64 {
    table.walk(VirtAddr::new(va), &mut ()).expect("canonical").len
}

/// Gives a table up; all frames must be back.
fn end<F: Format>(arena: &Arena, table: Radix<F, &Arena>) {
    live(|g| table.retire(g));
    assert_eq!(arena.frames_in_use(), 0, "frames were leaked");
}

fn split_and_collapse_keep_what_is_mapped<F: Format>(large: u8, small: u8) {
    let arena = Arena::new(256);
    let mut table = Radix::<F, _>::new(&arena).expect("room");
    let (va, len) = (4 * GIB, 2 << large);
    let whole = run(va, 8 * GIB, len, Attr::RW | Attr::USER).with_leaves_up_to(large);
    live(|g| table.map(whole, g)).expect("nothing is there");
    assert_eq!(leaf_at(&table, va), 1 << large);
    let before = pages(&table, va, len);
    let inside = VirtAddr::new(va + (1 << large) + 5 * PAGE);
    let (result, owed) = flushes(|g| table.split(inside, small, g));
    assert_eq!(result, Ok(()));
    assert!(owed.iter().any(|f| f.covers(inside) && f.scope >= Scope::Leaves), "{owed:?}");
    assert_eq!(leaf_at(&table, inside.as_u64()), 1 << small);
    assert_eq!(leaf_at(&table, va), 1 << large, "the neighbour stays");
    assert_eq!(pages(&table, va, len), before);
    assert_eq!(live(|g| table.split(inside, small, g)), Ok(()), "it is small already");
    let (result, owed) = flushes(|g| table.collapse(inside.align_down(large), large, g));
    assert_eq!(result, Ok(()));
    let unlinked = |f: &Flush| f.covers(inside) && f.scope == Scope::Tables;
    assert!(owed.iter().any(unlinked), "the node was reachable: {owed:?}");
    assert_eq!(leaf_at(&table, inside.as_u64()), 1 << large);
    assert_eq!(pages(&table, va, len), before);
    end(&arena, table);
}

#[test]
fn splitting_and_collapsing_keep_what_is_mapped() {
    split_and_collapse_keep_what_is_mapped::<X86_64<4>>(21, 12);
    split_and_collapse_keep_what_is_mapped::<X86_64<5>>(30, 21);
    split_and_collapse_keep_what_is_mapped::<X86_64<4>>(30, 12);
    split_and_collapse_keep_what_is_mapped::<AArch64<12, 48>>(21, 12);
    split_and_collapse_keep_what_is_mapped::<RiscV<3>>(30, 12);
}

#[test]
fn a_page_beside_others_whose_nodes_are_gone_gets_nodes_of_its_own() {
    let arena = Arena::new(64);
    let mut table = X86::new(&arena).expect("room");
    let (here, there) = (4 * GIB, 8 * GIB);
    let leaf = |va| (va, Entry::Leaf(PhysAddr::new(va), Attr::RW));
    let map = |table: &mut X86<'_>, va| {
        live(|g| table.map(run(va, va, PAGE, Attr::RW), g)).expect("nothing is there");
    };
    for i in 0..3 {
        map(&mut table, here + i * PAGE);
    }
    live(|g| table.unmap(VirtAddr::new(here), GIB, g)).expect("a good range");
    // The nodes come back, for other addresses.
    map(&mut table, there);
    map(&mut table, here + 5 * PAGE);
    assert_eq!(pages(&table, here, GIB), [leaf(here + 5 * PAGE)]);
    assert_eq!(pages(&table, there, GIB), [leaf(there)]);
    end(&arena, table);
}

#[test]
fn what_follows_each_other_in_a_node_comes_back_as_one_run() {
    let arena = Arena::new(64);
    let mut table = Arm::new(&arena).expect("room");
    let group = |va, pa, len| run(va, pa, len, Attr::RW).with_leaves_up_to(16);
    // Two groups that go on, one elsewhere, pages in no order, and three that follow each other.
    let runs = [
        group(GIB, GIB, 0x2_0000),
        group(GIB + 0x2_0000, 4 * GIB, 0x1_0000),
        run(GIB + 0x3_0000, 9 * PAGE, PAGE, Attr::RW),
        run(GIB + 0x3_1000, 7 * PAGE, PAGE, Attr::RW),
        run(GIB + 0x3_2000, 8 * PAGE, PAGE, Attr::READ),
        run(GIB + 0x3_4000, 9 * PAGE, 3 * PAGE, Attr::RW),
    ];
    for run in runs {
        live(|g| table.map(run, g)).expect("nothing is there");
    }
    let recorder = Recorder::default();
    recording(&recorder, |g| table.unmap(VirtAddr::new(GIB), GIB, g)).expect("a good range");
    assert_eq!(recorder.take_gone(), runs.map(Gone::Run));
    end(&arena, table);
}

/// A table with pages, a large leaf and a swap entry, in several nodes.
fn mixed(arena: &Arena) -> X86<'_> {
    let mut table = X86::new(arena).expect("room");
    let leaves = run(GIB - MIB2, 0, 3 * MIB2, Attr::RW).with_leaves_up_to(21);
    live(|g| table.map(leaves, g)).expect("nothing is there");
    live(|g| table.map(run(GIB + 2 * MIB2 + 5 * PAGE, 0, MIB2, Attr::RW), g)).expect("nor there");
    let (va, soft) = (VirtAddr::new(GIB + 4 * MIB2), Soft::new(9).expect("not 0"));
    let mut stock = table.stock();
    live(|g| table.replace_refilling(va, PAGE, Entry::Hole, Entry::Soft(soft), &mut stock, g))
        .expect("room");
    table
}

#[test]
fn where_nobody_listens_all_nodes_come_back_after_the_flush() {
    let arena = Arena::new(64);
    let mut table = mixed(&arena);
    let recorder = Recorder::default();
    // SAFETY: no CPU has this table.
    let mut batch = unsafe { Batch::<_, _, _, 8>::discarding(&recorder) };
    let before = arena.frames_in_use();
    table.unmap(VirtAddr::new(0), 512 * GIB, &mut batch).expect("a good range");
    assert_eq!(arena.frames_in_use(), before, "nothing was flushed yet");
    batch.finish();
    assert_eq!(arena.frames_in_use(), 1, "the root");
    assert!(recorder.take_flushes().iter().any(|f| f.scope == Scope::Tables));
    end(&arena, table);
    // SAFETY: as above.
    let mut direct = unsafe { Direct::discarding() };
    mixed(&arena).retire(&mut direct);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_group_is_taken_apart_and_its_neighbour_is_not() {
    let arena = Arena::new(64);
    let mut table = Arm::new(&arena).expect("room");
    let both = run(GIB, GIB, 0x2_0000, Attr::RW).with_leaves_up_to(16);
    live(|g| table.map(both, g)).expect("nothing is there");
    assert_eq!((leaf_at(&table, GIB), leaf_at(&table, GIB + 0x1_f000)), (0x1_0000, 0x1_0000));
    let before = pages(&table, GIB, 0x2_0000);
    live(|g| table.split(VirtAddr::new(GIB + 0x3000), 12, g)).expect("no memory is needed");
    assert_eq!((leaf_at(&table, GIB), leaf_at(&table, GIB + 0x1_f000)), (PAGE, 0x1_0000));
    assert_eq!(pages(&table, GIB, 0x2_0000), before);
    let (va, len) = (VirtAddr::new(GIB + 0x1_4000), PAGE);
    let (leaf, hole) = (table.walk(va, &mut ()).expect("canonical").entry, Entry::Hole);
    let refused = live(|g| table.replace(va, len, leaf, hole, &mut table.stock(), g));
    assert_eq!(refused, Err(ReplaceError::Structure), "one of sixteen is not changed alone");
    end(&arena, table);
}

#[test]
fn what_is_not_one_leaf_is_not_collapsed_and_stays() {
    let arena = Arena::new(64);
    let mut table = X86::new(&arena).expect("room");
    let va = VirtAddr::new(GIB);
    live(|g| table.map(run(GIB, 2 * GIB, MIB2, Attr::RW), g)).expect("nothing is there");
    let middle = VirtAddr::new(GIB + 7 * PAGE);
    let uneven = |table: &mut X86<'_>| live(|g| table.collapse(va, 21, g));
    live(|g| table.protect(middle, PAGE, Change::clearing(Attr::WRITE), g)).expect("mapped");
    let before = pages(&table, GIB, MIB2);
    assert_eq!(uneven(&mut table), Err(Cause::Uneven(middle)), "another right");
    live(|g| table.unmap(middle, PAGE, g)).expect("mapped");
    assert_eq!(uneven(&mut table), Err(Cause::Uneven(middle)), "a hole");
    live(|g| table.map(run(middle.as_u64(), GIB, PAGE, Attr::RW), g)).expect("a hole");
    assert_eq!(uneven(&mut table), Err(Cause::Uneven(middle)), "another frame");
    live(|g| table.unmap(middle, PAGE, g)).expect("mapped");
    live(|g| table.map(run(middle.as_u64(), 2 * GIB + 7 * PAGE, PAGE, Attr::READ), g))
        .expect("hole");
    assert_eq!(pages(&table, GIB, MIB2), before);
    live(|g| table.protect(middle, PAGE, Change::setting(Attr::WRITE), g)).expect("mapped");
    table.touch(middle, Attr::WRITE, Attr::STATUS);
    assert_eq!(uneven(&mut table), Ok(()));
    let now = table.walk(middle, &mut ()).expect("canonical");
    let expected = Entry::Leaf(PhysAddr::new(2 * GIB), Attr::RW | Attr::STATUS);
    assert_eq!((now.len, now.entry), (MIB2, expected), "dirty if any of them was");
    assert_eq!(table.table_bytes(), 3 * PAGE, "the node is gone");
    assert_eq!(live(|g| table.collapse(va, 13, g)), Err(Cause::NoLeaf { page: 13 }));
    assert_eq!(live(|g| table.split(va, 63, g)), Err(Cause::NoLeaf { page: 63 }));
    assert_eq!(
        live(|g| table.collapse(middle, 21, g)),
        Err(Cause::Misaligned { value: middle.as_u64(), page: 21 })
    );
    let hole = VirtAddr::new(1 << 47);
    assert_eq!(live(|g| table.split(hole, 12, g)), Err(Cause::NonCanonical(hole)));
    end(&arena, table);
}

#[test]
fn a_split_without_memory_changes_nothing() {
    let arena = Arena::new(64);
    let mut table = X86::new(&arena).expect("room");
    live(|g| table.map(run(GIB, GIB, GIB, Attr::RW).with_leaves_up_to(30), g)).expect("room");
    let before = pages(&table, GIB, GIB);
    for budget in 0..2 {
        arena.limit_allocations(Some(budget));
        let result = live(|g| table.split(VirtAddr::new(GIB), 12, g));
        assert_eq!(result, Err(Cause::OutOfFrames(OutOfFrames { order: 0 })));
        assert_eq!(pages(&table, GIB, GIB), before);
    }
    arena.limit_allocations(None);
    end(&arena, table);
}

/// Frames in no order, as an allocator hands them out late.
fn scattered(count: u64) -> Vec<PhysAddr> {
    (0..count).map(|i| PhysAddr::new((i * 7919 % 10_007 + 1) * PAGE)).collect()
}

#[test]
fn frames_are_taken_only_for_pages_that_get_them() {
    let arena = Arena::new(64);
    let mut table = X86::new(&arena).expect("room");
    // Across the end of a node, so that a second one has to be made.
    let (va, frames) = (VirtAddr::new(MIB2 - 3 * PAGE), scattered(10));
    for budget in 0..6 {
        arena.limit_allocations(Some(budget));
        let mut left = frames.iter().copied();
        let result = live(|g| table.map_frames(va, 10 * PAGE, Attr::RW, &mut left, g));
        let done = match result {
            Ok(done) => done,
            Err(RangeError { cause, done }) => {
                assert_eq!(cause, Cause::OutOfFrames(OutOfFrames { order: 0 }));
                done
            }
        };
        assert_eq!(left.len() as u64, 10 - done / PAGE, "one frame a page, budget {budget}");
        let mapped: Vec<_> =
            pages(&table, va.as_u64(), 10 * PAGE).into_iter().map(|p| p.1).collect();
        let expected: Vec<_> =
            frames[..(done / PAGE) as usize].iter().map(|&pa| Entry::Leaf(pa, Attr::RW)).collect();
        assert_eq!(mapped, expected);
        assert!(budget < 4 || done == 10 * PAGE, "three nodes, and one more, are enough");
        live(|g| table.unmap(va, 10 * PAGE, g)).expect("a good range");
        assert_eq!(table.table_bytes(), PAGE, "nothing stays behind");
    }
    arena.limit_allocations(None);
    end(&arena, table);
}

#[test]
fn frames_end_where_the_iterator_or_the_range_does() {
    let arena = Arena::new(64);
    let mut table = X86::new(&arena).expect("room");
    let va = VirtAddr::new(GIB);
    let mut few = scattered(2).into_iter();
    assert_eq!(live(|g| table.map_frames(va, 8 * PAGE, Attr::RW, &mut few, g)), Ok(2 * PAGE));
    let mut more = scattered(9).into_iter();
    let conflict = live(|g| table.map_frames(va, 8 * PAGE, Attr::RW, &mut more, g));
    assert!(matches!(conflict, Err(RangeError { cause: Cause::Mapped(_), done: 0 })));
    assert_eq!(more.len(), 9, "a page that is taken takes no frame");
    let bad = [PhysAddr::new(PAGE), PhysAddr::new(PAGE + 1)];
    let mut bad = bad.into_iter();
    let refused = live(|g| table.map_frames(VirtAddr::new(2 * GIB), MIB2, Attr::RW, &mut bad, g));
    let cause = Cause::Misaligned { value: PAGE + 1, page: 12 };
    assert_eq!(refused, Err(RangeError { cause, done: PAGE }));
    assert_eq!(live(|g| table.map_frames(va, 0, Attr::RW, &mut more, g)), Ok(0));
    end(&arena, table);
}

/// A kernel's table with its upper half pinned, and a page mapped there.
fn kernel(arena: &Arena) -> X86<'_> {
    let mut kernel = X86::new(arena).expect("room");
    kernel.pin_from(KERNEL).expect("room for 256 nodes");
    live(|g| kernel.map(run(KERNEL.as_u64(), GIB, PAGE, Attr::RW | Attr::GLOBAL), g))
        .expect("room");
    kernel
}

#[test]
fn what_the_kernel_maps_later_is_in_every_space() {
    let arena = Arena::new(1 << 10);
    let mut kernel = kernel(&arena);
    // SAFETY: the kernel's table is pinned, and given up last.
    let mut process = unsafe { X86::sharing(&kernel) }.expect("room");
    let later = KERNEL.wrapping_add(5 << 39);
    live(|g| kernel.map(run(later.as_u64(), 2 * GIB, MIB2, Attr::RW), g)).expect("room");
    assert_eq!(process.translate(later), Some(PhysAddr::new(2 * GIB)));
    live(|g| kernel.unmap(later, MIB2, g)).expect("mapped");
    assert_eq!(process.translate(later), None);
    let whole = VirtAddr::new(KERNEL.as_u64());
    let (_, owed) = flushes(|g| kernel.unmap(whole, 1 << 47, g));
    assert!(owed.iter().any(|f| f.global), "a global page is flushed as one: {owed:?}");
    live(|g| kernel.map(run(later.as_u64(), 3 * GIB, PAGE, Attr::RW), g)).expect("room");
    assert_eq!(process.translate(later), Some(PhysAddr::new(3 * GIB)), "the nodes stayed");
    assert_eq!(process.table_bytes(), PAGE, "the kernel's nodes are the kernel's");
    live(|g| process.map(run(GIB, GIB, PAGE, Attr::RW), g)).expect("its own half");
    assert_eq!(kernel.translate(VirtAddr::new(GIB)), None);
    live(|g| process.retire(g));
    assert_eq!(kernel.translate(later), Some(PhysAddr::new(3 * GIB)), "retiring took only its own");
    end(&arena, kernel);
}

#[test]
fn a_shared_half_is_not_changed_through_a_sharer() {
    let arena = Arena::new(1 << 10);
    let kernel = kernel(&arena);
    // SAFETY: the kernel's table is pinned, and given up last.
    let mut process = unsafe { X86::sharing(&kernel) }.expect("room");
    let there = Err(RangeError { cause: Cause::Shared(KERNEL), done: 0 });
    let gib = VirtAddr::new(KERNEL.as_u64());
    assert_eq!(live(|g| process.map(run(gib.as_u64(), 0, PAGE, Attr::RW), g)), there);
    assert_eq!(live(|g| process.unmap(KERNEL, PAGE, g)), there);
    let change = Change::clearing(Attr::WRITE);
    assert_eq!(live(|g| process.protect(KERNEL, PAGE, change, g)), there);
    assert_eq!(live(|g| process.split(KERNEL, 12, g)), Err(Cause::Shared(KERNEL)));
    assert_eq!(live(|g| process.collapse(KERNEL, 21, g)), Err(Cause::Shared(KERNEL)));
    let harvest = live(|g| process.harvest(KERNEL, PAGE, Attr::ACCESSED, g, &mut |_| {}));
    assert_eq!(harvest, Err(Cause::Shared(KERNEL)));
    let (old, mut stock) =
        (process.walk(KERNEL, &mut ()).expect("canonical").entry, process.stock());
    let replaced = live(|g| process.replace(KERNEL, PAGE, old, Entry::Hole, &mut stock, g));
    assert_eq!(replaced, Err(ReplaceError::Invalid(Cause::Shared(KERNEL))));
    let mut frames = scattered(1).into_iter();
    assert_eq!(
        live(|g| process.map_frames(KERNEL, PAGE, Attr::RW, &mut frames, g)).err(),
        there.err()
    );
    assert_eq!(frames.len(), 1);
    assert_eq!(process.pin_from(KERNEL), Err(Cause::Shared(KERNEL)));
    assert_eq!(kernel.translate(KERNEL), Some(PhysAddr::new(GIB)));
    live(|g| process.retire(g));
    end(&arena, kernel);
}

#[test]
fn a_root_for_user_mode_follows_the_process_and_sees_only_stubs() {
    let arena = Arena::new(1 << 11);
    let kernel = kernel(&arena);
    let mut stubs = X86::new(&arena).expect("room");
    stubs.pin_from(KERNEL).expect("room");
    let entry = KERNEL.wrapping_add(7 << 39);
    live(|g| stubs.map(run(entry.as_u64(), 5 * GIB, PAGE, Attr::RX), g)).expect("room");
    // SAFETY: both are pinned, and given up after the process.
    let mut process = unsafe { X86::sharing(&kernel) }.expect("room");
    let early = VirtAddr::new(GIB);
    live(|g| process.map(run(early.as_u64(), GIB, PAGE, Attr::RW), g)).expect("room");
    // SAFETY: as above.
    let user = unsafe { process.add_user_root(&stubs) }.expect("room");
    assert_eq!(process.user_root(), Some(user));
    let slot = |root: PhysAddr, va: VirtAddr| entry_of(&arena, root, va);
    let same = |process: &X86<'_>, va: VirtAddr| {
        let count = 0x3ff << 52;
        slot(process.root(), va) & !count == slot(user, va) & !count
    };
    let (late, replaced) = (VirtAddr::new(3 << 39), VirtAddr::new(9 << 39));
    live(|g| process.map(run(late.as_u64(), GIB, PAGE, Attr::RW), g)).expect("room");
    let page = Entry::Leaf(PhysAddr::new(GIB), Attr::RW);
    let mut stock = process.stock();
    live(|g| process.replace_refilling(replaced, PAGE, Entry::Hole, page, &mut stock, g))
        .expect("hole");
    for va in [early, late, replaced] {
        assert!(slot(user, va) != 0 && same(&process, va), "{va}");
    }
    assert_eq!(
        (slot(user, KERNEL), slot(process.root(), KERNEL) != 0),
        (slot(stubs.root(), KERNEL), true)
    );
    assert_eq!(slot(user, entry) & !0xfff, slot(stubs.root(), entry) & 0x000f_ffff_ffff_f000);
    live(|g| process.unmap(late, PAGE, g)).expect("mapped");
    assert_eq!(
        (slot(user, late), slot(process.root(), late)),
        (0, 0),
        "gone from both before the flush"
    );
    drop(stock);
    live(|g| process.retire(g));
    live(|g| stubs.retire(g));
    end(&arena, kernel);
}

/// The entry of a root of 512 that translates `va`.
fn entry_of(arena: &Arena, root: PhysAddr, va: VirtAddr) -> u64 {
    use vellum_core::PhysMap;
    let at = root.wrapping_add((va.as_u64() >> 39 & 511) * 8);
    // SAFETY: an entry of a node in use, which nobody writes now.
    arena.with(at, |p| unsafe { p.cast::<u64>().read() })
}

#[test]
fn pinning_without_memory_leaves_a_table_that_works() {
    let arena = Arena::new(1 << 10);
    let mut table = Sv39::new(&arena).expect("room");
    let upper = VirtAddr::new(0xffff_ffc0_0000_0000);
    arena.limit_allocations(Some(3));
    assert!(matches!(table.pin_from(upper), Err(Cause::OutOfFrames(_))));
    arena.limit_allocations(None);
    let inside = VirtAddr::new(upper.as_u64() + PAGE);
    assert_eq!(table.pin_from(inside), Err(Cause::Misaligned { value: inside.as_u64(), page: 30 }));
    assert_eq!(table.pin_from(upper), Ok(()));
    // A leaf of the root would take the place of a node that others link.
    let gib = Run::new(upper, PhysAddr::new(GIB), GIB, Attr::RW).with_leaves_up_to(30);
    live(|g| table.map(gib, g)).expect("room");
    assert_eq!(leaf_at(&table, upper.as_u64()), MIB2);
    end(&arena, table);
}

static REPORTED: AtomicU32 = AtomicU32::new(0);

#[test]
fn writable_and_executable_is_allowed_reported_or_refused() {
    let arena = Arena::new(64);
    let (va, page) = (VirtAddr::new(GIB), PAGE);
    let report = |_, attr: Attr| {
        REPORTED.fetch_add(attr.contains(Attr::RWX).into(), Ordering::Relaxed);
    };
    for (write_xor_execute, fails, reports) in [
        (WriteXorExecute::Allow, false, 0),
        (WriteXorExecute::Report(report), false, 3),
        (WriteXorExecute::Refuse, true, 0),
    ] {
        REPORTED.store(0, Ordering::Relaxed);
        let policy = Policy { write_xor_execute, kernel_from: None };
        let mut table = X86::with_policy(&arena, policy).expect("room");
        let refused = Cause::WriteAndExecute(Attr::RWX);
        let expect = if fails { Err(refused) } else { Ok(()) };
        let mapped = live(|g| table.map(run(GIB, GIB, page, Attr::RWX), g));
        assert_eq!(mapped.map_err(|e| e.cause), expect);
        live(|g| table.map(run(2 * GIB, GIB, page, Attr::RW), g)).expect("no rule against it");
        let second = VirtAddr::new(2 * GIB);
        let changed = live(|g| table.protect(second, page, Change::setting(Attr::EXEC), g));
        assert_eq!(changed.map_err(|e| e.cause), expect);
        let (third, mut stock) = (VirtAddr::new(3 * GIB), table.stock());
        let leaf = Entry::Leaf(PhysAddr::new(GIB), Attr::RWX);
        let faulted =
            live(|g| table.replace_refilling(third, page, Entry::Hole, leaf, &mut stock, g));
        assert_eq!(faulted.is_err(), fails);
        assert_eq!(REPORTED.load(Ordering::Relaxed), reports);
        assert_eq!(table.translate(va).is_some(), !fails);
        drop(stock);
        end(&arena, table);
    }
}

#[test]
fn where_only_the_kernel_is_nothing_is_for_users() {
    let arena = Arena::new(64);
    let policy = Policy { kernel_from: Some(KERNEL), ..Policy::default() };
    let mut table = X86::with_policy(&arena, policy).expect("room");
    let attr = Attr::READ | Attr::USER;
    let refused = live(|g| table.map(run(KERNEL.as_u64(), GIB, PAGE, attr), g));
    assert_eq!(refused.map_err(|e| e.cause), Err(Cause::Unencodable(attr)));
    live(|g| table.map(run(KERNEL.as_u64(), GIB, PAGE, Attr::READ), g)).expect("the kernel's");
    live(|g| table.map(run(GIB, GIB, PAGE, attr), g)).expect("the user's");
    let user = 1 << 2;
    assert_eq!(entry_of(&arena, table.root(), KERNEL) & user, 0, "the table says it too");
    assert_eq!(entry_of(&arena, table.root(), VirtAddr::new(GIB)) & user, user);
    let change = Change::setting(Attr::USER);
    assert!(live(|g| table.protect(KERNEL, PAGE, change, g)).is_err());
    end(&arena, table);
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(64))]

    /// Splits and collapses anywhere, between other operations, never change what is mapped.
    #[test]
    fn sizes_change_and_mappings_do_not(
        ops in prop::collection::vec((0u8..4, 0u64..3 * 512, 0u64..600), 1..24),
    ) {
        let arena = Arena::new(1 << 10);
        let mut table = X86::new(&arena).expect("room");
        let base = 4 * GIB - MIB2;
        let mut model = BTreeMap::new();
        for (op, first, count) in ops {
            let (va, len) = (VirtAddr::new(base + first * PAGE), count.min(3 * 512 - first) * PAGE);
            let before = pages(&table, base, 3 * MIB2);
            match op {
                0 => {
                    let new = run(va.as_u64(), 16 * GIB + first * PAGE, len, Attr::RW);
                    let result = live(|g| table.map(new.with_leaves_up_to(21), g));
                    let done = result.map_or_else(|e| e.done, |()| len);
                    for at in (0..done).step_by(PAGE as usize) {
                        let pa = PhysAddr::new(new.pa.as_u64() + at);
                        model.insert(va.as_u64() + at, Entry::Leaf(pa, Attr::RW));
                    }
                }
                1 => {
                    live(|g| table.unmap(va, len, g)).expect("a good range");
                    model.retain(|&at, _| at < va.as_u64() || at >= va.as_u64() + len);
                }
                2 => {
                    live(|g| table.split(va, 12, g)).expect("room");
                    prop_assert_eq!(pages(&table, base, 3 * MIB2), before);
                }
                _ => {
                    let start = va.align_down(21);
                    let result = live(|g| table.collapse(start, 21, g));
                    prop_assert_eq!(pages(&table, base, 3 * MIB2), before);
                    if result.is_ok() {
                        prop_assert_eq!(leaf_at(&table, start.as_u64()), MIB2);
                    }
                }
            }
            let now: BTreeMap<_, _> = pages(&table, base, 3 * MIB2).into_iter().collect();
            prop_assert_eq!(&now, &model);
        }
        live(|g| table.retire(g));
        prop_assert_eq!(arena.frames_in_use(), 0);
    }
}

#[test]
fn exclusive_operations_owe_nothing() {
    let arena = Arena::new(64);
    let mut table = Arm::new(&arena).expect("room");
    let mut gone = 0;
    // SAFETY: no CPU has this table.
    let mut direct = unsafe {
        Direct::new(|item| {
            if let Gone::Run(run) = item {
                gone += run.len
            }
        })
    };
    let large = run(GIB, GIB, MIB2, Attr::RW).with_leaves_up_to(21);
    table.map(large, &mut direct).expect("room");
    table.split(VirtAddr::new(GIB), 12, &mut direct).expect("room");
    table.collapse(VirtAddr::new(GIB), 21, &mut direct).expect("even");
    table.unmap(VirtAddr::new(GIB), MIB2, &mut direct).expect("mapped");
    table.retire(&mut direct);
    assert_eq!((gone, arena.frames_in_use()), (MIB2, 0));
}
