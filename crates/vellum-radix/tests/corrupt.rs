//! Corrupt tables: a typed error or a bounded walk, never a hang, a panic or a foreign read.
//!
//! ```text
//!   Arena: frames of table words        the map panics outside; `is_memory` is asked, and counted
//!   +---+---+---+---+---+
//!   |???|???|???|???|   |  ...          ??? random words, links among themselves, loops, bad bits
//!   +---+---+---+---+---+
//! ```

use core::cell::Cell;
use core::ops::ControlFlow;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::*;
use vellum_core::{Attr, Entry, FrameSource, PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysMap, VirtAddr};
use vellum_radix::{
    AArch64, Corrupt, Flat, Flattened, Flaw, Format, Item, LoongArch64, RiscV, Sv32, WalkError,
    Walker, X86, X86_64, X86Pae,
};
use vellum_testkit::{Arena, suite};

/// Present and writable, for user mode, accessed.
const LINK: u64 = 0x27;
const LARGE: u64 = 1 << 7;

/// RAM that counts the reads of its words; reading outside of it panics.
struct Ram {
    arena: Arena,
    /// The first of `frames` frames, all handed out and zero.
    first: PhysAddr,
    frames: u64,
    reads: Cell<u64>,
}

// SAFETY: forwards to the arena, which keeps the contract.
unsafe impl PhysMap for Ram {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        assert!(self.has(pa), "{pa} was read");
        self.reads.set(self.reads.get() + 1);
        self.arena.with(pa, f)
    }
}

impl Ram {
    fn new(order: u8) -> Self {
        let arena = Arena::new(1 << order);
        let first = arena.alloc(order).expect("all of it");
        let ram = Self { arena, first, frames: 1 << order, reads: Cell::new(0) };
        for frame in 0..ram.frames {
            for slot in 0..512 {
                ram.set(frame, slot, 0);
            }
        }
        ram
    }

    fn has(&self, pa: PhysAddr) -> bool {
        pa.checked_sub(self.first).is_some_and(|at| at < self.frames << PAGE_SHIFT)
    }

    fn frame(&self, frame: u64) -> PhysAddr {
        self.first.wrapping_add(frame << PAGE_SHIFT)
    }

    /// Where entry `slot` of the node in `frame` lies.
    fn at(&self, frame: u64, slot: u64) -> PhysAddr {
        self.frame(frame).wrapping_add(slot << 3)
    }

    fn set(&self, frame: u64, slot: u64, raw: u64) {
        self.arena.with(self.at(frame, slot), |p| {
            // SAFETY: an aligned word of a frame that this test has.
            unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) }.store(raw, Ordering::Relaxed);
        });
    }

    /// Links the node in frame `to`.
    fn link(&self, frame: u64, slot: u64, to: u64) {
        self.set(frame, slot, self.frame(to).as_u64() | LINK);
    }

    fn walker<F: Format>(&self, root: PhysAddr) -> Walker<F, &Self, impl Fn(PhysAddr) -> bool> {
        // SAFETY: what `has` accepts is in the arena and was written; nobody else is here.
        unsafe { Walker::new(root, self, |pa| self.has(pa)) }
    }

    /// Reads since the last call.
    fn reads(&self) -> u64 {
        self.reads.replace(0)
    }
}

/// What a visit of both halves tells, at most `most`.
fn told<F: Format>(
    walker: &Walker<F, &Ram, impl Fn(PhysAddr) -> bool>,
    most: usize,
) -> Vec<Result<Item, Corrupt>> {
    let mut told = Vec::new();
    for (va, len) in F::CANONICAL.halves() {
        let each = &mut |it| {
            told.push(it);
            if told.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        walker.visit(va, len, each).expect("a half is canonical");
    }
    told
}

fn four(ram: &Ram) -> Walker<X86_64<4>, &Ram, impl Fn(PhysAddr) -> bool> {
    ram.walker(ram.frame(0))
}

#[test]
fn a_link_to_itself_is_a_loop() {
    let ram = Ram::new(2);
    for slot in [0, 3, 511] {
        ram.link(0, slot, 0);
    }
    let looped = |va, slot| {
        let raw = ram.frame(0).as_u64() | LINK;
        Err(Corrupt { va: VirtAddr::new(va), level: 0, at: ram.at(0, slot), raw, flaw: Flaw::Loop })
    };
    let walker = four(&ram);
    let expected = [looped(0, 0), looped(3 << 39, 3), looped(0xffff_ff80 << 32, 511)];
    assert_eq!(told(&walker, 100), expected);
    assert_eq!(ram.reads(), 512, "each entry of the one node is read once");
    // Hardware walks it like any other: the root is its own last level, and its leaves are nodes.
    let (pa, _) = walker.translate(VirtAddr::new(0x123)).unwrap().unwrap();
    assert_eq!((pa, ram.reads()), (ram.frame(0).wrapping_add(0x123), 4));
}

#[test]
fn a_link_to_an_ancestor_is_a_loop_at_any_distance() {
    for from in 0..3 {
        for to in 0..=from {
            let ram = Ram::new(2);
            // A chain of nodes, of which the last links one of them.
            for above in 0..from {
                ram.link(above, 1, above + 1);
            }
            ram.link(from, 7, to);
            let found = told(&four(&ram), 100);
            let [Err(corrupt)] = found[..] else { panic!("{found:?}") };
            assert_eq!((corrupt.flaw, corrupt.at), (Flaw::Loop, ram.at(from, 7)));
            assert_eq!(u64::from(corrupt.level), from);
        }
    }
}

#[test]
fn shared_nodes_are_visited_until_the_budget_is_spent() {
    let ram = Ram::new(2);
    // No loop: 512 links to one node at each of three levels, and 512 leaves: 512^4 pages.
    for slot in 0..512 {
        for level in 0..3 {
            ram.link(level, slot, level + 1);
        }
        ram.set(3, slot, (0x1000 * slot) | LINK);
    }
    for budget in [0, 1, 511, 5000] {
        let walker = four(&ram).with_budget(budget);
        let mut last = None;
        let half = 1 << 47;
        walker
            .visit(VirtAddr::new(0), half, &mut |it| {
                last = Some(it);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(ram.reads(), budget);
        let Some(Err(Corrupt { flaw, .. })) = last else { panic!("{last:?}") };
        assert_eq!(flaw, Flaw::TooLong);
    }
    let text = four(&ram).with_budget(5000).leaves().to_string();
    assert!(text.lines().count() < 2 * 5000 && ram.reads() == 2 * 5000);
}

#[test]
fn a_link_beyond_memory_is_named_and_not_followed() {
    let ram = Ram::new(3);
    ram.link(0, 2, 1);
    ram.link(1, 4, 2);
    let beyond = ram.frame(ram.frames).as_u64() | LINK;
    let below = (ram.first.as_u64() - PAGE_SIZE) | LINK;
    let far = 0x000f_ffff_ffff_f000 | LINK;
    for raw in [beyond, below, far, LINK] {
        for (level, va) in [(0, 6 << 39), (1, 2 << 39 | 6 << 30), (2, 2 << 39 | 4 << 30 | 6 << 21)]
        {
            ram.set(level, 6, raw);
            let flaw = Flaw::NotMemory;
            let level = u8::try_from(level).unwrap();
            let at = ram.at(u64::from(level), 6);
            let corrupt = Corrupt { va: VirtAddr::new(va), level, at, raw, flaw };
            assert_eq!(told(&four(&ram), 100), [Err(corrupt)]);
            let inside = VirtAddr::new(va + 0x12345);
            let walked = four(&ram).translate(inside);
            assert_eq!(walked, Err(WalkError::Corrupt(Corrupt { va: inside, ..corrupt })));
            ram.set(u64::from(level), 6, 0);
        }
    }
}

#[test]
fn a_root_that_cannot_be_one_is_named() {
    let ram = Ram::new(1);
    let outside = PhysAddr::new(1 << 60);
    let crooked = ram.first.wrapping_add(8);
    for (root, flaw) in [
        (outside, Flaw::NotMemory),
        (PhysAddr::new(0), Flaw::NotMemory),
        (crooked, Flaw::Misaligned),
        (PhysAddr::new(u64::MAX), Flaw::Misaligned),
    ] {
        let walker = ram.walker::<X86_64<4>>(root);
        let va = VirtAddr::new(0);
        let corrupt = Corrupt { va, level: 0, at: root, raw: root.as_u64(), flaw };
        assert_eq!(told(&walker, 100)[0], Err(corrupt));
        assert_eq!(walker.translate(va), Err(WalkError::Corrupt(corrupt)));
        assert_eq!(ram.reads(), 0);
    }
}

#[test]
fn a_link_to_a_node_that_is_not_aligned_is_named() {
    // Two levels of 512 entries above nodes of 2 MiB, which begin at 4 MiB and nowhere near.
    let ram = Ram::new(2);
    ram.link(0, 0, 1);
    ram.link(1, 3, 2);
    let walker = ram.walker::<Flattened<false, true>>(ram.first);
    let raw = ram.frame(2).as_u64() | LINK;
    let (va, flaw) = (VirtAddr::new(3 << 30), Flaw::Misaligned);
    let corrupt = Corrupt { va, level: 1, at: ram.at(1, 3), raw, flaw };
    assert_eq!(told(&walker, 100), [Err(corrupt)]);
    assert_eq!(walker.translate(va), Err(WalkError::Corrupt(corrupt)));
}

#[test]
fn a_node_that_ends_outside_of_memory_is_read_as_far_as_it_goes() {
    // A flat table of 16 frames, of which memory holds 8.
    let ram = Ram::new(4);
    for frame in 0..16 {
        ram.set(frame, 5, (0x1000 * (frame + 1)) | LINK);
    }
    // SAFETY: as in `Ram::walker`, of fewer frames.
    let walker: Walker<Flat<25>, _, _> =
        unsafe { Walker::new(ram.first, &ram, |pa| ram.has(pa) && pa < ram.frame(8)) };
    let (mut items, mut flaws) = (0, Vec::new());
    walker
        .visit(VirtAddr::new(0), 1 << 25, &mut |it| {
            match it {
                Ok(_) => items += 1,
                Err(Corrupt { flaw, va, .. }) => flaws.push((flaw, va)),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((items, flaws), (8, vec![(Flaw::NotMemory, VirtAddr::new(8 << 21))]));
    assert!(walker.translate(VirtAddr::new(9 << 21)).is_err());
}

#[test]
fn reserved_bits_and_misplaced_leaves_are_named() {
    let ram = Ram::new(2);
    for level in 0..3 {
        ram.link(level, 0, level + 1);
    }
    let leaf = 0x4000_0000 | LINK | LARGE;
    // SDM vol. 3A, tables 5-15 to 5-18: PS in the upper levels; bits 29:13, 20:13 of large leaves.
    let reserved = [(0, leaf), (1, leaf | 1 << 13), (1, leaf | 1 << 29), (2, leaf | 1 << 20)];
    for (level, raw) in reserved {
        ram.set(level, 9, raw);
        let found = told(&four(&ram), 100);
        let [Err(Corrupt { flaw, raw: seen, .. })] = found[..] else { panic!("{found:?}") };
        assert_eq!((flaw, seen), (Flaw::Reserved, raw));
        ram.set(level, 9, 0);
    }
    // PAT, in bit 12 of a large leaf, is none of them, and neither is what hardware ignores.
    for raw in [leaf | 1 << 12, leaf | 0x7ff << 52, leaf | 0xe00] {
        ram.set(1, 9, raw);
        assert!(matches!(told(&four(&ram), 100)[..], [Ok(_)]), "{raw:#x}");
    }
    // Not present, and by our conventions a leaf without access, where no leaf can be.
    ram.set(1, 9, 0);
    ram.set(0, 9, 0x4000_0002);
    let found = told(&four(&ram), 100);
    assert!(matches!(found[..], [Err(Corrupt { flaw: Flaw::Misplaced, .. })]), "{found:?}");
}

#[test]
fn leaves_are_held_to_the_width_of_physical_addresses() {
    let ram = Ram::new(2);
    for level in 0..3 {
        ram.link(level, 0, level + 1);
    }
    ram.set(3, 1, 0xff_ffff_f000 | LINK);
    ram.set(3, 2, 0x100_0000_0000 | LINK);
    ram.set(2, 3, 0xff_ffe0_0000 | LINK | LARGE);
    // Without access: hardware does not look at it.
    ram.set(3, 4, 0x100_0000_0000 | 2);
    let found = told(&four(&ram).with_physical_bits(40), 100);
    let flaws: Vec<_> = found.iter().map(|it| it.as_ref().err().map(|e| e.flaw)).collect();
    assert_eq!(flaws, [None, Some(Flaw::TooWide), None, None]);
    assert!(told(&four(&ram), 100).iter().all(Result::is_ok));
}

/// Words as a corrupt table may have them: anything, or a link or leaf among `frames` frames.
fn word(first: u64, frames: u64) -> impl Strategy<Value = u64> {
    let near = (0..frames + 1, any::<u8>(), prop::bool::weighted(0.1));
    prop_oneof![
        3 => any::<u64>(),
        3 => near.prop_map(move |(frame, low, no_execute)| {
            (first + (frame << PAGE_SHIFT)) | u64::from(low) | 1 | u64::from(no_execute) << 63
        }),
        1 => Just(0),
    ]
}

const FRAMES_ORDER: u8 = 3;
/// What `Ram` begins at.
const FIRST: u64 = 4 << 20;

/// Every way to look at a table, none of which may fail otherwise than by its type.
fn look_everywhere<F: Format>(ram: &Ram, root: PhysAddr, addresses: &[u64]) {
    const ENTRIES: u64 = if cfg!(miri) { 600 } else { 4_000 };
    let walker = ram.walker::<F>(root).with_budget(ENTRIES);
    for &low in addresses {
        ram.reads();
        let va = F::CANONICAL.extend(low);
        let walked = walker.walk(va, &mut ());
        assert!(ram.reads() <= F::LEVELS.len() as u64);
        // What a walk finds, a translation says too.
        let granted = walked.map(|item| item.span.entry);
        match walker.translate(va) {
            Ok(Some((_, attr))) => {
                assert!(matches!(granted, Ok(Entry::Leaf(_, a)) if a == attr));
                assert!(attr.intersects(Attr::RWX));
            }
            Ok(None) => assert!(granted.is_ok()),
            Err(e) => assert_eq!(walked, Err(e)),
        }
        // A visit of that byte alone says the same, unless the walk went through a loop.
        let mut seen = None;
        walker
            .visit(va, 1, &mut |it| {
                assert!(seen.replace(it).is_none(), "one byte, one answer");
                ControlFlow::Continue(())
            })
            .expect("one byte");
        match (seen, walked) {
            (Some(Ok(item)), Ok(walked)) => {
                assert_eq!((item.raw, item.own), (walked.raw, walked.own))
            }
            (Some(Err(Corrupt { flaw: Flaw::Loop, .. })), _) => {}
            (Some(Err(a)), Err(WalkError::Corrupt(b))) => assert_eq!(a, b),
            (None, Ok(item)) => assert_eq!(item.span.entry, Entry::Hole),
            other => panic!("{other:?}"),
        }
    }
    ram.reads();
    let told = told(&walker, usize::MAX);
    assert!(ram.reads() <= 2 * ENTRIES);
    let mut next = None;
    for it in &told {
        let va = match it {
            Ok(item) => item.span.va,
            Err(corrupt) => corrupt.va,
        };
        assert!(next <= Some(va), "{va} comes after {next:?}");
        next = Some(va);
    }
    let lines = walker.leaves().to_string().lines().count();
    assert_eq!(lines, told.len());
    let ranges = walker.ranges().to_string();
    assert!(ranges.lines().count() <= lines);
    assert!(ram.reads() <= 4 * ENTRIES);
}

proptest! {
    #![proptest_config(suite::config(32))]

    #[test]
    fn garbage_is_walked_within_bounds(
        words in prop::collection::vec(word(FIRST, 1 << FRAMES_ORDER), 512),
        root in 0_u64..9,
        addresses in prop::collection::vec(any::<u64>(), 1..40),
    ) {
        let ram = Ram::new(FRAMES_ORDER);
        prop_assert_eq!(ram.first.as_u64(), FIRST);
        for frame in 0..ram.frames {
            // The same words in all frames, each rotated: links differ from level to level.
            for (slot, raw) in (0..512).zip(words.iter().cycle().skip(61 * frame as usize)) {
                ram.set(frame, slot, *raw);
            }
        }
        let root = ram.frame(root);
        look_everywhere::<X86_64<4>>(&ram, root, &addresses);
        look_everywhere::<X86_64<5>>(&ram, root, &addresses);
        look_everywhere::<Flat<24>>(&ram, root, &addresses);
        look_everywhere::<Flattened<true, false>>(&ram, root, &addresses);
        look_everywhere::<X86>(&ram, root, &addresses);
        look_everywhere::<X86Pae>(&ram, root, &addresses);
        look_everywhere::<Sv32>(&ram, root, &addresses);
        look_everywhere::<RiscV<4>>(&ram, root, &addresses);
        look_everywhere::<AArch64<12, 48>>(&ram, root, &addresses);
        look_everywhere::<AArch64<14, 48>>(&ram, root, &addresses);
        look_everywhere::<LoongArch64<12>>(&ram, root, &addresses);
    }
}
