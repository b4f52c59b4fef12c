//! Faults that were reproduced in other page-table crates, each as the behaviour that ours has.
//!
//! ```text
//!   x86_64 0.15                dirty lost, PAT panics, rights left behind, empty tables in the way
//!   page_table_multiarch 0.6   addresses cut, half a conflict, PROT_NONE unseen, large pages destroyed
//!   aarch64-paging 0.12        subtrees dropped without their frames
//!   issue trackers             what users asked those crates for
//! ```
//!
//! What only the mapper traits can show is in `x86_64_crate/differences.rs`.

use core::cell::{Cell, RefCell};
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{
    Attr, Batch, Cause, Change, Entry, Flush, FrameSource, Gone, Invalidate, MemoryType, PAGE_SIZE,
    PageTable, PhysAddr, PhysMap, RangeError, Reap, Ref, ReplaceError, Run, Span, VirtAddr, Walk,
    pte,
};
use vellum_radix::{AArch64, Format, Policy, Radix, X86_64};
use vellum_testkit::Arena;
use vellum_testkit::suite::{Recorder, Recording, recording};

type Table<'a> = Radix<X86_64<4>, &'a Arena>;

const MIB2: u64 = 2 << 20;
const VA: VirtAddr = VirtAddr::new(0x1234_5660_0000);
const PA: PhysAddr = PhysAddr::new(0x4000_0000);
const USER_RW: Attr = Attr::from_bits(Attr::RW.bits() | Attr::USER.bits());

/// Runs `f` with an empty table, and looks that all of its nodes come back.
fn with_table<F: Format>(policy: Policy, f: impl FnOnce(&Arena, &mut Radix<F, &Arena>)) {
    let arena = Arena::new(128);
    let mut table = Radix::with_policy(&arena, policy).expect("room");
    f(&arena, &mut table);
    live(|g| table.retire(g));
    assert_eq!(arena.frames_in_use(), 0, "nodes were leaked");
}

fn with_x86(f: impl FnOnce(&Arena, &mut Table<'_>)) {
    with_table(Policy::default(), f);
}

/// Runs `op` on a table as if it were live; its result, and what left the table.
fn live<D: Reap, R>(op: impl FnOnce(&mut Recording<'_, D>) -> R) -> (R, Vec<Gone>) {
    let recorder = Recorder::default();
    let result = recording(&recorder, op);
    (result, recorder.take_gone())
}

fn map<F: Format>(table: &mut Radix<F, &Arena>, run: Run) -> Result<(), RangeError> {
    live(|g| table.map(run, g)).0
}

fn entry<F: Format>(table: &Radix<F, &Arena>, va: VirtAddr) -> Entry {
    table.walk(va, &mut ()).expect("canonical").entry
}

/// The raw entries that a walk reads, root first.
fn raw_entries(arena: &Arena, table: &Table<'_>, va: VirtAddr) -> Vec<u64> {
    let mut raw = Vec::new();
    let mut read = |r: Ref| {
        arena.with(r.pa, |p| {
            // SAFETY: an entry of a node in use, aligned, and written by atomics alone.
            let entry = unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) };
            raw.push(entry.load(Ordering::Relaxed));
        });
    };
    table.walk(va, &mut read).expect("canonical");
    raw
}

/// Bytes of runs.
fn bytes(gone: &[Gone]) -> u64 {
    gone.iter().map(|gone| if let Gone::Run(run) = gone { run.len } else { 0 }).sum()
}

// x86_64 0.15

/// There, `update_flags` stores the flags it is given over those that hardware has set.
#[test]
fn a_dirty_bit_survives_a_change_of_rights() {
    with_x86(|_, table| {
        map(table, Run::new(VA, PA, PAGE_SIZE, Attr::RW)).expect("a hole");
        table.touch(VA, Attr::WRITE, Attr::STATUS);
        live(|g| table.protect(VA, PAGE_SIZE, Change::clearing(Attr::WRITE), g)).0.expect("range");
        assert_eq!(entry(table, VA), Entry::Leaf(PA, Attr::READ | Attr::STATUS));
        let (result, gone) = live(|g| table.unmap(VA, PAGE_SIZE, g));
        let last = Run::new(VA, PA, PAGE_SIZE, Attr::READ | Attr::STATUS);
        assert_eq!((result, gone), (Ok(()), vec![Gone::Run(last)]), "the last owner learns of it");
    });
}

/// There, bit 7 is "huge page" at every level, and a small page that has it panics.
#[test]
fn a_small_page_can_have_the_pat_bit() {
    with_x86(|arena, table| {
        let attr = Attr::RW.with_memory(MemoryType::WriteCombining);
        map(table, Run::new(VA, PA, PAGE_SIZE, attr)).expect("a hole");
        assert_eq!(entry(table, VA), Entry::Leaf(PA, attr));
        // SDM vol. 3A, table 5-20: P, R/W, PAT (bit 7), XD.
        let raw = raw_entries(arena, table, VA);
        assert_eq!(raw.last(), Some(&(PA.as_u64() | 1 << 63 | 0x83)));
    });
}

/// There, what a mapping has added to its parents stays when it has gone.
#[test]
fn what_a_page_granted_goes_with_it() {
    with_x86(|arena, table| {
        map(table, Run::new(VA, PA, PAGE_SIZE, USER_RW)).expect("a hole");
        live(|g| table.unmap(VA, PAGE_SIZE, g)).0.expect("a range");
        assert_eq!(raw_entries(arena, table, VA), [0], "the root links nothing any more");
        assert_eq!(arena.frames_in_use(), 1);
    });
}

/// And where the kernel is, parents never let user mode in.
#[test]
fn parents_of_the_kernel_keep_user_mode_out() {
    let high = VirtAddr::new(0xffff_8000_0000_0000);
    let policy = Policy { kernel_from: Some(high), ..Policy::default() };
    with_table(policy, |arena, table: &mut Table<'_>| {
        let refused = map(table, Run::new(high, PA, PAGE_SIZE, USER_RW));
        assert_eq!(refused, Err(Cause::Unencodable(USER_RW).into()));
        map(table, Run::new(high, PA, PAGE_SIZE, Attr::RW)).expect("a hole");
        map(table, Run::new(VA, PA, PAGE_SIZE, USER_RW)).expect("a hole");
        let user = 1 << 2;
        assert!(raw_entries(arena, table, high).iter().all(|raw| raw & user == 0));
        assert!(raw_entries(arena, table, VA).iter().all(|raw| raw & user != 0));
        let grant = Change::setting(Attr::USER);
        let refused = live(|g| table.protect(high, PAGE_SIZE, grant, g)).0;
        assert!(refused.is_err(), "nor afterwards");
    });
}

/// There, an empty leaf table is "already mapped" to a large page.
#[test]
fn an_emptied_leaf_table_is_not_in_the_way_of_a_large_page() {
    with_x86(|arena, table| {
        map(table, Run::new(VA, PA, PAGE_SIZE, Attr::RW)).expect("a hole");
        let page = Entry::Leaf(PA, Attr::RW);
        live(|g| table.replace(VA, PAGE_SIZE, page, Entry::Hole, &mut table.stock(), g))
            .0
            .expect("it is there");
        assert_eq!(arena.frames_in_use(), 4, "a fault leaves the empty table");
        let large = Run::new(VA, PA, MIB2, Attr::RW).with_leaves_up_to(21);
        map(table, large).expect("there is nothing");
        assert_eq!(table.walk(VA, &mut ()).map(|span| span.len), Ok(MIB2));
        assert_eq!(arena.frames_in_use(), 3, "and the empty table came back");
    });
}

// page_table_multiarch 0.6

/// There, the bits above the root's index are dropped, and 2^48 is 0.
#[test]
fn an_address_that_no_table_translates_is_refused() {
    with_x86(|arena, table| {
        let bad = VirtAddr::new(1 << 48);
        let refused = Err(RangeError::from(Cause::NonCanonical(bad)));
        assert_eq!(map(table, Run::new(bad, PA, PAGE_SIZE, Attr::RW)), refused);
        assert_eq!(table.walk(bad, &mut ()), Err(Cause::NonCanonical(bad)));
        assert_eq!(live(|g| table.unmap(bad, PAGE_SIZE, g)).0, refused);
        assert_eq!(entry(table, VirtAddr::new(0)), Entry::Hole);
        assert_eq!(arena.frames_in_use(), 1);
    });
}

/// There, what was mapped before the conflict stays, and nobody is told how much that is.
#[test]
fn a_conflict_says_exactly_how_far_it_came() {
    with_x86(|arena, table| {
        let taken = VA.wrapping_add(MIB2 + 5 * PAGE_SIZE);
        map(table, Run::new(taken, PA, PAGE_SIZE, Attr::READ)).expect("a hole");
        let before = arena.frames_in_use();
        let run = Run::new(VA, PA, 2 * MIB2, Attr::RW);
        let error = map(table, run).expect_err("a page is taken");
        let there = Span { va: taken, len: PAGE_SIZE, entry: Entry::Leaf(PA, Attr::READ) };
        assert_eq!(error.cause, Cause::Mapped(there));
        let mut mapped = Vec::new();
        let each = &mut |span: Span| {
            mapped.push((span.va, span.len));
            ControlFlow::Continue(())
        };
        table.visit(VA, 2 * MIB2, each).expect("a range");
        assert_eq!(error.done, MIB2, "the table of the conflict is as it was");
        assert_eq!(mapped, [(VA, error.done), (taken, PAGE_SIZE)]);
        live(|g| table.unmap(VA, error.done, g)).0.expect("a range");
        assert_eq!(arena.frames_in_use(), before, "and it can be taken back");
        assert_eq!(entry(table, taken), there.entry);
    });
}

/// There, a mapping without rights looks like none, and its frame is forgotten.
#[test]
fn a_page_without_access_is_mapped() {
    with_x86(|arena, table| {
        map(table, Run::new(VA, PA, PAGE_SIZE, Attr::NONE)).expect("a hole");
        assert_eq!(entry(table, VA), Entry::Leaf(PA, Attr::NONE));
        let raw = raw_entries(arena, table, VA);
        assert_eq!(raw.last().map(|raw| raw & pte::PRESENT), Some(0), "hardware has no access");
        let again = map(table, Run::new(VA, PA, PAGE_SIZE, Attr::RW));
        assert!(matches!(again, Err(RangeError { cause: Cause::Mapped(_), done: 0 })));
        let (result, gone) = live(|g| table.unmap(VA, PAGE_SIZE, g));
        assert_eq!((result, bytes(&gone)), (Ok(()), PAGE_SIZE));
    });
}

/// There, the large mapping is destroyed, and the call panics.
#[test]
fn a_small_page_can_go_out_of_a_large_one() {
    with_x86(|_, table| {
        let large = Run::new(VA, PA, MIB2, Attr::RW | Attr::DIRTY).with_leaves_up_to(21);
        map(table, large).expect("a hole");
        let hole = VA.wrapping_add(3 * PAGE_SIZE);
        let (result, gone) = live(|g| table.unmap(hole, PAGE_SIZE, g));
        let page = Run::new(hole, PA.wrapping_add(3 * PAGE_SIZE), PAGE_SIZE, large.attr);
        assert_eq!((result, gone), (Ok(()), vec![Gone::Run(page)]));
        for n in 0..512 {
            let offset = n * PAGE_SIZE;
            let expected = match n {
                3 => Entry::Hole,
                _ => Entry::Leaf(PA.wrapping_add(offset), large.attr),
            };
            assert_eq!(entry(table, VA.wrapping_add(offset)), expected);
        }
    });
}

/// There, there is no call that gives an empty table back.
#[test]
fn emptied_tables_come_back() {
    with_x86(|arena, table| {
        // Pages far apart, each with three nodes of its own, in both halves.
        let places: Vec<_> = (0..8).map(|n| X86_64::<4>::CANONICAL.extend(n << 45)).collect();
        for &va in &places {
            map(table, Run::new(va, PA, PAGE_SIZE, Attr::RW)).expect("a hole");
        }
        assert_eq!(arena.frames_in_use(), 1 + 3 * 8);
        for (n, &va) in (0..).zip(&places) {
            assert_eq!(arena.frames_in_use(), 1 + 3 * (8 - n));
            live(|g| table.unmap(va, PAGE_SIZE, g)).0.expect("a range");
        }
        assert_eq!(arena.frames_in_use(), 1, "only the root is left");
    });
}

// aarch64-paging 0.12

/// There, unmapping whole subtrees drops them, and says nothing of what they mapped.
fn whole_subtrees_report_their_frames<F: Format>() {
    with_table(Policy::default(), |arena, table: &mut Radix<F, &Arena>| {
        let (va, len) = (VirtAddr::new(0x40_0000_0000), 24 * PAGE_SIZE);
        let attr = Attr::RW | Attr::ACCESSED;
        map(table, Run::new(va, PA, len, attr)).expect("a hole");
        let far = va.wrapping_add(500 * MIB2);
        map(table, Run::new(far, PA, 2 * PAGE_SIZE, attr)).expect("a hole");
        let (result, gone) = live(|g| table.unmap(va, 512 * MIB2, g));
        assert_eq!(result, Ok(()));
        let mut frames = Vec::new();
        for gone in &gone {
            let Gone::Run(run) = *gone else { panic!("{gone:?} was never mapped") };
            assert_eq!(run.attr, attr);
            for offset in (0..run.len).step_by(4096) {
                frames.push((run.va.wrapping_add(offset), run.pa.wrapping_add(offset)));
            }
        }
        let pages = |va: VirtAddr, len: u64| {
            (0..len / PAGE_SIZE)
                .map(move |n| (va.wrapping_add(n * PAGE_SIZE), PA.wrapping_add(n * PAGE_SIZE)))
        };
        assert_eq!(frames, pages(va, len).chain(pages(far, 2 * PAGE_SIZE)).collect::<Vec<_>>());
        assert_eq!(arena.frames_in_use(), 1);
    });
}

#[test]
fn unmapping_whole_subtrees_reports_every_frame() {
    whole_subtrees_report_their_frames::<X86_64<4>>();
    whole_subtrees_report_their_frames::<AArch64<12, 48>>();
}

// What users ask for

/// Errors that return the frame and the flags.
#[test]
fn errors_tell_what_is_there_instead() {
    with_x86(|_, table| {
        let attr = USER_RW | Attr::SOFT[1];
        let large = Run::new(VA, PA, MIB2, attr).with_leaves_up_to(21);
        map(table, large).expect("a hole");
        let there = Span { va: VA, len: MIB2, entry: Entry::Leaf(PA, attr) };
        let inside = VA.wrapping_add(7 * PAGE_SIZE);
        let refused = map(table, Run::new(inside, PhysAddr::new(0), PAGE_SIZE, Attr::READ));
        assert_eq!(refused, Err(Cause::Mapped(there).into()));
        let mut stock = table.stock();
        let new = Entry::Leaf(PhysAddr::new(0), Attr::READ);
        let replaced = live(|g| table.replace(VA, MIB2, Entry::Hole, new, &mut stock, g)).0;
        assert_eq!(replaced, Err(ReplaceError::Changed(there.entry)));
    });
}

/// Accessed and dirty set beforehand, so that hardware need not write.
#[test]
fn accessed_and_dirty_can_be_preset() {
    with_x86(|arena, table| {
        map(table, Run::new(VA, PA, PAGE_SIZE, Attr::RW | Attr::STATUS)).expect("a hole");
        let raw = raw_entries(arena, table, VA);
        let preset = pte::ACCESSED | pte::DIRTY;
        assert_eq!(raw.last().map(|raw| raw & preset), Some(preset));
        assert!(raw[..3].iter().all(|raw| raw & pte::ACCESSED != 0), "of tables as well");
    });
}

/// A shootdown during which another CPU still reads what is being unmapped.
struct Shootdown<'a> {
    arena: &'a Arena,
    /// What must not have been given back when the flush begins.
    held: RefCell<Vec<PhysAddr>>,
    flushes: Cell<u32>,
}

// SAFETY: no CPU but this test walks the table.
unsafe impl Invalidate for Shootdown<'_> {
    fn flush(&self, _: &[Flush]) {
        for &pa in &*self.held.borrow() {
            assert_eq!((self.arena.is_in_use(pa), self.arena.times_freed(pa)), (true, 0), "{pa}");
        }
        self.flushes.set(self.flushes.get() + 1);
    }
}

/// Frames and nodes are free only after the shootdown.
#[test]
fn nothing_is_free_before_the_shootdown() {
    with_x86(|arena, table| {
        let frame = arena.alloc(0).expect("room");
        map(table, Run::new(VA, frame, PAGE_SIZE, Attr::RW)).expect("a hole");
        let mut held = vec![frame];
        let mut note = |r: Ref| held.push(r.pa.align_down(12));
        table.walk(VA, &mut note).expect("canonical");
        let nodes = held[2..].to_vec();
        let cpus = Shootdown { arena, held: RefCell::new(held), flushes: Cell::new(0) };
        // SAFETY: the sink is given what no TLB has; it was allocated above.
        let sink = |gone| {
            assert!(cpus.flushes.get() > 0, "{gone:?} before any flush");
            let Gone::Run(run) = gone else { panic!("{gone:?} was never mapped") };
            // SAFETY: allocated above with order 0, and out of every TLB.
            unsafe { arena.free(run.pa, 0) };
        };
        // SAFETY: no CPU but this test walks the table.
        let mut gather: Batch<_, _, _, 8> = unsafe { Batch::new(&cpus, sink) };
        table.unmap(VA, PAGE_SIZE, &mut gather).expect("a range");
        assert!(nodes.iter().all(|&pa| arena.is_in_use(pa)), "unlinked, and kept");
        gather.finish();
        assert_eq!(cpus.flushes.get(), 1, "one round for the page and its nodes");
        assert!(nodes.iter().all(|&pa| arena.times_freed(pa) == 1));
        assert_eq!(arena.times_freed(frame), 1);
    });
}

/// Splitting on request, and back.
#[test]
fn a_large_page_can_be_split_and_put_together_again() {
    with_x86(|arena, table| {
        let large = Run::new(VA, PA, MIB2, Attr::RX).with_leaves_up_to(21);
        map(table, large).expect("a hole");
        table.touch(VA, Attr::READ, Attr::ACCESSED);
        let before = arena.frames_in_use();
        live(|g| table.split(VA.wrapping_add(0x5000), 12, g)).0.expect("room");
        let last = VA.wrapping_add(MIB2 - PAGE_SIZE);
        let page = Entry::Leaf(PA.wrapping_add(MIB2 - PAGE_SIZE), Attr::RX | Attr::ACCESSED);
        let span = Span { va: last, len: PAGE_SIZE, entry: page };
        assert_eq!(table.walk(last, &mut ()), Ok(span), "the same, in small");
        assert_eq!(arena.frames_in_use(), before + 1);
        live(|g| table.collapse(VA, 21, g)).0.expect("even");
        let whole = Entry::Leaf(PA, Attr::RX | Attr::ACCESSED);
        assert_eq!(table.walk(last, &mut ()), Ok(Span { va: VA, len: MIB2, entry: whole }));
        assert_eq!(arena.frames_in_use(), before);
    });
}

/// Five levels: addresses that four do not reach.
#[test]
fn five_levels_reach_57_bits() {
    with_table(Policy::default(), |_, table: &mut Radix<X86_64<5>, &Arena>| {
        let high = VirtAddr::new(0x00ff_ffff_ffff_f000);
        map(table, Run::new(high, PA, PAGE_SIZE, Attr::RW)).expect("a hole");
        assert_eq!(entry(table, high), Entry::Leaf(PA, Attr::RW));
        let low = VirtAddr::new(high.as_u64() & ((1 << 48) - 1));
        assert_eq!(entry(table, low), Entry::Hole, "no bit is dropped");
    });
}
