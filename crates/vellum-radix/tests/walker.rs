//! The walker reports what the table does, with the rights that hardware would grant.
//!
//! ```text
//!   Radix --map--> Arena <--atomic reads-- Walker        the two must agree
//!                    ^
//!               raw words: what somebody else's tables hold and ours never do
//! ```

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::*;
use vellum_core::{
    Attr, Direct, Entry, MemoryType, PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, PhysMap, Ref, Run,
    Soft, Span, VirtAddr, Walk,
};
use vellum_radix::{
    AArch64, Corrupt, Flat, Flattened, Flaw, Format, Item, LoongArch64, Radix, RiscV, Sv32,
    WalkError, Walker, X86, X86_64, X86Pae,
};
use vellum_testkit::{Arena, suite};

/// A walker of a table in an arena, of which every frame in use is memory.
fn walker<F: Format>(
    root: PhysAddr,
    arena: &Arena,
) -> Walker<F, &Arena, impl Fn(PhysAddr) -> bool> {
    // SAFETY: frames in use are in the arena, initialised when handed out, and nobody writes to
    // them while a test walks.
    unsafe { Walker::new(root, arena, |pa| arena.is_in_use(pa)) }
}

/// Maps a run that nothing is in the way of.
fn map<T: PageTable>(table: &mut T, run: Run) {
    // SAFETY: no CPU has loaded this table.
    let mut gather = unsafe { Direct::new(|_| {}) };
    table.map(run, &mut gather).expect("nothing is in the way");
}

/// Gives a table's nodes back.
fn retire<T: PageTable>(table: T) {
    // SAFETY: no CPU has loaded this table.
    table.retire(&mut unsafe { Direct::new(|_| {}) });
}

/// The word at `pa`, changed by `f`.
fn change(arena: &Arena, pa: PhysAddr, f: impl Fn(u64) -> u64) {
    arena.with(pa, |p| {
        // SAFETY: a word of a frame in use, aligned, and good to the frame's end.
        let word = unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) };
        word.store(f(word.load(Ordering::Relaxed)), Ordering::Relaxed);
    });
}

/// Where the entries of a walk lie, root first.
fn path<T: Walk>(table: &T, va: VirtAddr) -> Vec<PhysAddr> {
    let mut path = Vec::new();
    table.walk(va, &mut |r: Ref| path.push(r.pa)).expect("canonical");
    path
}

/// Everything in both halves, as visited.
fn everything<F: Format>(
    walker: &Walker<F, &Arena, impl Fn(PhysAddr) -> bool>,
) -> Vec<Result<Item, Corrupt>> {
    let mut told = Vec::new();
    for (va, len) in F::CANONICAL.halves() {
        let each = &mut |it| {
            told.push(it);
            ControlFlow::Continue(())
        };
        walker.visit(va, len, each).expect("a half is canonical");
    }
    told
}

const RWXU: Attr = Attr::from_bits(Attr::RWX.bits() | Attr::USER.bits());

#[test]
fn a_walk_reads_the_entries_that_the_table_reads() {
    let arena = Arena::new(64);
    let mut table: Radix<X86_64<5>, _> = Radix::new(&arena).unwrap();
    let va = VirtAddr::new(0xff12_3456_789a_b000);
    map(&mut table, Run::new(va, PhysAddr::new(0x7000), PAGE_SIZE, Attr::RW));
    let seen = walker::<X86_64<5>>(table.root(), &arena);
    for at in [va, va.wrapping_add(0x123), va.wrapping_add(PAGE_SIZE), VirtAddr::new(0)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let item = seen.walk(at, &mut |r: Ref| theirs.push(r)).unwrap();
        assert_eq!(item.span, table.walk(at, &mut |r: Ref| ours.push(r)).unwrap());
        assert_eq!(ours, theirs);
    }
    let found = seen.translate(va.wrapping_add(0x123));
    assert_eq!(found, Ok(Some((PhysAddr::new(0x7123), Attr::RW))));
    assert_eq!(seen.translate(VirtAddr::new(0)), Ok(None));
    let bad = VirtAddr::new(1 << 56);
    assert_eq!(seen.translate(bad), Err(WalkError::NonCanonical(bad)));
    retire(table);
}

#[test]
fn rights_are_those_that_every_level_grants() {
    let arena = Arena::new(64);
    let mut table: Radix<X86_64<4>, _> = Radix::new(&arena).unwrap();
    let va = VirtAddr::new(0x1234_5678_9000);
    map(&mut table, Run::new(va, PhysAddr::new(0x7000), PAGE_SIZE, RWXU));
    let seen = walker::<X86_64<4>>(table.root(), &arena);
    let rights = || seen.translate(va).unwrap().unwrap().1;
    assert_eq!(rights(), RWXU);
    let (writable, user, no_execute) = (1 << 1, 1 << 2, 1 << 63);
    let entries = path(&table, va);
    for at in &entries[..3] {
        for (bit, lost) in [(writable, Attr::WRITE), (user, Attr::USER), (no_execute, Attr::EXEC)] {
            change(&arena, *at, |raw| raw ^ bit);
            assert_eq!(rights(), RWXU - lost, "{at}");
            let item = seen.walk(va, &mut ()).unwrap();
            assert_eq!(item.own, RWXU, "what the leaf itself says stays");
            assert_eq!(everything(&seen), [Ok(item)]);
            change(&arena, *at, |raw| raw ^ bit);
        }
    }
    change(&arena, entries[0], |raw| raw & !writable);
    change(&arena, entries[2], |raw| raw | no_execute);
    assert_eq!(rights(), Attr::READ | Attr::USER);
    retire(table);
}

#[test]
fn a_recursive_mapping_is_walked_and_not_visited() {
    let arena = Arena::new(64);
    let mut table: Radix<X86_64<4>, _> = Radix::new(&arena).unwrap();
    let va = VirtAddr::new(0x40_0000);
    map(&mut table, Run::new(va, PhysAddr::new(0x7000), PAGE_SIZE, Attr::RW));
    let [_, _, _, leaf] = path(&table, va)[..] else { panic!("four levels") };
    let root = table.root();
    let slot = root.wrapping_add(8 * 510);
    change(&arena, slot, |_| root.as_u64() | 0x23);
    let seen = walker::<X86_64<4>>(root, &arena);
    // Entry 510 once: the tables of the lowest level are an array in the address space.
    let window = VirtAddr::new(0xffff_ff00_0000_0000);
    let at = window.wrapping_add(va.as_u64() >> PAGE_SHIFT << 3);
    assert_eq!(seen.translate(at).unwrap().unwrap().0, leaf);
    // Four times: the root itself.
    let at = VirtAddr::new(0xffff_ff7f_bfdf_e000);
    assert_eq!(seen.translate(at).unwrap().unwrap().0, root);
    let raw = root.as_u64() | 0x23;
    let looped = Corrupt { va: window, level: 0, at: slot, raw, flaw: Flaw::Loop };
    let leaf = seen.walk(va, &mut ()).unwrap();
    assert_eq!(everything(&seen), [Ok(leaf), Err(looped)]);
    change(&arena, slot, |_| 0);
    retire(table);
}

#[test]
fn soft_entries_and_no_access_are_told_and_not_translated() {
    let arena = Arena::new(64);
    let mut table: Radix<X86_64<4>, _> = Radix::new(&arena).unwrap();
    let (none, soft) = (VirtAddr::new(0x1000), VirtAddr::new(0x2000));
    map(&mut table, Run::new(none, PhysAddr::new(0x7000), 2 * PAGE_SIZE, Attr::NONE));
    let note = Soft::new(77).unwrap();
    change(&arena, path(&table, soft)[3], |_| 77 << 2);
    let seen = walker::<X86_64<4>>(table.root(), &arena);
    let spans: Vec<_> = everything(&seen).into_iter().map(|told| told.unwrap().span).collect();
    let leaf = Entry::Leaf(PhysAddr::new(0x7000), Attr::NONE);
    assert_eq!(
        spans,
        [
            Span { va: none, len: PAGE_SIZE, entry: leaf },
            Span { va: soft, len: PAGE_SIZE, entry: Entry::Soft(note) },
        ]
    );
    assert_eq!((seen.translate(none), seen.translate(soft)), (Ok(None), Ok(None)));
    let text = seen.ranges().to_string();
    assert!(text.contains(" -----") && text.contains(" soft 0x4d\n"), "{text}");
    retire(table);
}

#[test]
fn a_visit_is_cut_to_its_range_and_ends_when_told() {
    let arena = Arena::new(64);
    let mut table: Radix<X86_64<4>, _> = Radix::new(&arena).unwrap();
    let (va, huge) = (VirtAddr::new(1 << 30), 2 << 20);
    let run = Run::new(va, PhysAddr::new(8 << 30), 3 * huge, Attr::RW);
    map(&mut table, run.with_leaves_up_to(21));
    let seen = walker::<X86_64<4>>(table.root(), &arena);
    // From the middle of the first leaf to the middle of the last, bytes and not pages.
    let (from, len) = (va.wrapping_add(huge / 2 + 5), 2 * huge);
    let mut spans = Vec::new();
    seen.visit(from, len, &mut |told| {
        spans.push(told.unwrap().span);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(spans.len(), 3);
    assert_eq!((spans[0].va, spans[0].len), (from, huge / 2 - 5));
    let entry = Entry::Leaf(run.pa.wrapping_add(huge / 2 + 5), Attr::RW);
    assert_eq!(spans[0].entry, entry);
    assert_eq!(spans.iter().map(|span| span.len).sum::<u64>(), len);
    let mut runs = Vec::new();
    seen.visit_runs(from, len, &mut |told| {
        runs.push(told.unwrap().span);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(runs, [Span { va: from, len, entry }]);
    let soft = va.wrapping_add(3 * huge);
    map(&mut table, Run::new(soft, PhysAddr::new(0), PAGE_SIZE, Attr::NONE));
    let mut told = [0, 0];
    let [each, runs] = &mut told;
    let count = |n: &mut u32| {
        *n += 1;
        ControlFlow::Break(())
    };
    seen.visit(va, 4 * huge, &mut |_| count(each)).unwrap();
    seen.visit_runs(va, 4 * huge, &mut |_| count(runs)).unwrap();
    assert_eq!(told, [1, 1]);
    assert!(seen.visit(VirtAddr::new(1 << 46), 1 << 47, &mut |_| ControlFlow::Break(())).is_err());
    retire(table);
}

#[test]
fn dumps_read_as_drawn() {
    let arena = Arena::new(64);
    let mut table: Radix<X86_64<4>, _> = Radix::new(&arena).unwrap();
    let data = Attr::RW | Attr::USER | Attr::ACCESSED | Attr::SOFT[1];
    let data = data.with_key(5).with_memory(MemoryType::WriteCombining);
    map(&mut table, Run::new(VirtAddr::new(0x40_0000), PhysAddr::new(0x7000), 0x3000, data));
    let high = VirtAddr::new(0xffff_ffff_c000_0000);
    let image = Attr::RX | Attr::GLOBAL | Attr::STATUS;
    let run = Run::new(high, PhysAddr::new(0x3f_c000_0000), 1 << 30, image);
    map(&mut table, run.with_leaves_up_to(30));
    let device = VirtAddr::new(0xffff_8000_0000_0000);
    let attr = Attr::RW.with_memory(MemoryType::Uncached);
    map(
        &mut table,
        Run::new(device, PhysAddr::new(0xfee0_0000), 2 << 20, attr).with_leaves_up_to(21),
    );
    let seen = walker::<X86_64<4>>(table.root(), &arena);
    let ranges = "\
0000000000400000-0000000000402fff      12K 0000000007000-0000000009fff   4K rw-u- WC  a- -1- k5
ffff800000000000-ffff8000001fffff       2M 00000fee00000-00000feffffff   2M rw--- UC  -- ---
ffffffffc0000000-ffffffffffffffff       1G 0003fc0000000-0003fffffffff   1G r-x-g WB  ad ---
";
    assert_eq!(seen.ranges().to_string(), ranges);
    let leaves = "\
0000000000400000: 0000000000007000 X---A--UW   4K rw-u- WC
0000000000401000: 0000000000008000 X---A--UW   4K rw-u- WC
0000000000402000: 0000000000009000 X---A--UW   4K rw-u- WC
ffff800000000000: 00000000fee00000 X-P--CT-W   2M rw--- UC
ffffffffc0000000: 0000003fc0000000 -GPDA----   1G r-x-g WB
";
    assert_eq!(seen.leaves().to_string(), leaves);
    // A parent that denies writing and user mode: the leaf's own flags stay, the rights do not.
    let va = VirtAddr::new(0x40_0000);
    change(&arena, path(&table, va)[1], |raw| raw & !0b110);
    let first = |text: String| text.lines().next().map(str::to_owned).unwrap();
    assert!(first(seen.leaves().to_string()).ends_with(" X---A--UW   4K r---- WC"));
    assert!(first(seen.ranges().to_string()).ends_with("   4K r---- WC  a- -1- k5"));
    // And a corrupt place has its line.
    let at = table.root().wrapping_add(8 * 7);
    change(&arena, at, |_| 0xdead_b003);
    let line = format!(
        "! at 0x38000000000: entry 0x00000000deadb003 of level 0, at {at}, links what is not memory"
    );
    assert_eq!(seen.ranges().to_string().lines().nth(1), Some(line.as_str()));
    change(&arena, at, |_| 0);
    retire(table);
}

/// A run in units of the format's smallest page: page, pages, frame; attributes, and whether leaves
/// may be large.
type Pages = (u64, u64, u64, u32, bool);

/// Runs somewhere in a small stretch.
fn runs() -> impl Strategy<Value = Vec<Pages>> {
    // Frames as far from a multiple of 512 as their pages half of the time: large leaves.
    let frame = (0_u64..1 << 16, any::<bool>());
    let one = (0_u64..4096, 1_u64..1600, frame, any::<u32>(), any::<bool>()).prop_map(
        |(page, pages, (frame, is_even), bits, is_large)| {
            let frame = if is_even { frame & !511 | page & 511 } else { frame };
            (page, pages, frame, bits, is_large)
        },
    );
    prop::collection::vec(one, 1..12)
}

/// Builds a table of random runs from `base` on, and compares what walker and table say, in every
/// way.
fn agree<F: Format>(base: u64, runs: &[Pages]) {
    let levels = F::LEVELS;
    let smallest = levels[levels.len() - 1].shift;
    // Every format of the crate has these.
    let known = Attr::RWX | Attr::STATUS;
    let arena = Arena::new(1 << 11);
    let mut table: Radix<F, _> = Radix::new(&arena).expect("an empty arena");
    let mut mapped = 0;
    for &(page, pages, frame, bits, is_large) in runs {
        let va = F::CANONICAL.extend(base + (page << smallest));
        // Without no-execute, what is readable is executable.
        let attr = (Attr::from_bits(bits) & known) | Attr::READ;
        let leaf = |attr| F::encode(Entry::Leaf(PhysAddr::new(0), attr), smallest);
        let attr = if leaf(attr).is_ok() { attr } else { attr | Attr::EXEC };
        let run = Run::new(va, PhysAddr::new(frame << smallest), pages << smallest, attr);
        let largest = if is_large { 63 } else { smallest };
        // SAFETY: no CPU has loaded this table. What is in the way stays there.
        let mut gather = unsafe { Direct::new(|_| {}) };
        mapped += u64::from(table.map(run.with_leaves_up_to(largest), &mut gather).is_ok());
    }
    assert!(mapped > 0, "at least the first one");
    let seen = walker::<F>(table.root(), &arena);
    for (va, len) in F::CANONICAL.halves() {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        table
            .visit(va, len, &mut |span| {
                ours.push(span);
                ControlFlow::Continue(())
            })
            .expect("canonical");
        seen.visit_runs(va, len, &mut |told| {
            let item = told.expect("a sound table");
            let walked = seen.walk(item.span.va, &mut ()).expect("a sound table");
            assert_eq!((item.span.entry, item.page), (walked.entry_at(&item), walked.page));
            theirs.push(item.span);
            ControlFlow::Continue(())
        })
        .expect("canonical");
        assert_eq!(ours, theirs);
    }
    for page in (0..6000).step_by(if cfg!(miri) { 197 } else { 7 }) {
        let va = F::CANONICAL.extend(base + (page << smallest) + 5);
        if F::CANONICAL.contains(va) {
            let span = table.walk(va, &mut ()).expect("canonical");
            assert_eq!(seen.walk(va, &mut ()).map(|item| item.span), Ok(span));
        }
    }
    retire(table);
}

/// What a leaf that was walked to says about the start of an item within it.
trait EntryAt {
    fn entry_at(&self, item: &Item) -> Entry;
}

impl EntryAt for Item {
    fn entry_at(&self, item: &Item) -> Entry {
        match self.span.entry {
            Entry::Leaf(pa, attr) => {
                let within = item.span.va.as_u64() - self.span.va.as_u64();
                Entry::Leaf(pa.wrapping_add(within), attr)
            }
            entry => entry,
        }
    }
}

proptest! {
    #![proptest_config(suite::config(24))]

    #[test]
    fn walker_and_table_agree_in_the_lower_half(runs in runs()) {
        agree::<X86_64<4>>(0x1234_0000_0000, &runs);
    }

    #[test]
    fn walker_and_table_agree_in_the_upper_half(runs in runs()) {
        agree::<X86_64<5>>(0x1ff_ffff_fe00_0000 & !0xff_ffff, &runs);
    }

    #[test]
    fn walker_and_table_agree_on_one_level_and_on_large_nodes(runs in runs()) {
        agree::<Flat<25>>(0, &runs);
        agree::<Flattened<false, true>>(0x1234_0000_0000, &runs);
    }

    #[test]
    fn walker_and_table_agree_on_entries_of_32_bits(runs in runs()) {
        agree::<X86>(0xf000_0000, &runs);
        agree::<Sv32>(0x7fc0_0000, &runs);
    }

    #[test]
    fn walker_and_table_agree_on_small_roots(runs in runs()) {
        agree::<X86Pae>(0xbf00_0000, &runs);
    }

    #[test]
    fn walker_and_table_agree_on_groups(runs in runs()) {
        agree::<RiscV<3>>(0x20_0000_0000, &runs);
        agree::<AArch64<12, 48>>(0x1234_0000_0000, &runs);
        agree::<AArch64<14, 48>>(0x1234_0000_0000, &runs);
        agree::<AArch64<16, 48>>(0x1234_0000_0000, &runs);
    }

    #[test]
    fn walker_and_table_agree_on_loongarch(runs in runs()) {
        agree::<LoongArch64<12>>(0x1234_0000_0000, &runs);
        agree::<LoongArch64<14>>(0x1234_0000_0000, &runs);
    }
}
