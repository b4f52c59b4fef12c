use super::*;
use proptest::prelude::*;
use std::vec::Vec;
use vellum_core::{Attr, FrameSource, MemoryType};
use vellum_global::{Asid, Size};
use vellum_testkit::Arena;

/// A frame whose first node is looked at.
struct Yard {
    arena: Arena,
    frame: PhysAddr,
}

impl Yard {
    fn new() -> Self {
        let arena = Arena::new(1);
        let frame = arena.alloc(0).unwrap();
        Self { arena, frame }
    }

    fn block<const PAGES: usize>(&self) -> Block<'_, Arena, PAGES> {
        // SAFETY: the frame is the yard's, which outlives the block.
        unsafe { Block::new(&self.arena, self.frame.wrapping_add(64)) }
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; blocks borrow the yard.
        unsafe { self.arena.free(self.frame, 0) };
    }
}

fn first_page() -> Key {
    Key::new(Asid::new(1).unwrap(), vellum_core::VirtAddr::new(0))
}

/// A leaf of page `i`, placed as the block is, or by `off` frames beside that.
fn leaf(i: usize, off: u64, flags: u64) -> u64 {
    (0x700 + i as u64 + off) << PAGE_SHIFT | flags | 1
}

/// Whether one word could say all of these, by the definition.
fn agree(entries: &[u64]) -> bool {
    let used: Vec<_> = (0u64..).zip(entries).filter(|&(_, &raw)| raw != 0).collect();
    used.iter().all(|&(i, &raw)| {
        let (first, &of_first) = used[0];
        let leaf = raw & 3 != 0;
        let frame = raw >> PAGE_SHIFT & 0xff_ffff_ffff;
        let same = (raw ^ of_first) & !pte::FRAME & !STATUS == 0;
        leaf && frame % 16 == i
            && same
            && frame - i == (of_first >> PAGE_SHIFT & 0xff_ffff_ffff) - first
    })
}

#[test]
fn a_run_of_pages_is_one_word_and_keeps_each_status() {
    let yard = Yard::new();
    let block = yard.block::<16>();
    block.begin(first_page(), 0x123_4568, 5, leaf(5, 0, pte::DIRTY));
    for i in 0..16 {
        assert_eq!(block.set(i, leaf(i, 0, [0, pte::ACCESSED, STATUS][i % 3])), Left::Entries);
        assert_eq!(block.next(), (0x123_4568, Kind::Partial));
    }
    for i in 0..16 {
        assert_eq!(block.entry(i), leaf(i, 0, [0, pte::ACCESSED, STATUS][i % 3]));
    }
    assert_eq!(block.tag(), first_page().tag());
}

#[test]
fn one_page_that_differs_makes_a_base_node_until_it_agrees_again() {
    let yard = Yard::new();
    let block = yard.block::<16>();
    block.begin(first_page(), 0, 0, leaf(0, 0, 2));
    (1..16).for_each(|i| _ = block.set(i, leaf(i, 0, 2)));
    assert_eq!(block.next().1, Kind::Partial);
    let other = [leaf(7, 0, 0), leaf(7, 1, 2), 0x40, 1 << 63 | leaf(7, 0, 2)];
    for raw in other {
        assert_eq!(block.set(7, raw), Left::Entries);
        assert_eq!((block.next().1, block.entry(7)), (Kind::Base, raw));
        assert_eq!(block.entry(15), leaf(15, 0, 2));
        assert_eq!(block.set(7, 0), Left::Entries);
        assert_eq!((block.next().1, block.entry(7)), (Kind::Partial, 0));
    }
    // All of them change, one by one.
    (0..16).for_each(|i| _ = block.set(i, leaf(i, 16, 0)));
    assert_eq!(block.next().1, Kind::Partial);
}

#[test]
fn large_leaves_agree_by_their_own_size() {
    let yard = Yard::new();
    for size in [Size::Large, Size::Huge] {
        let block = yard.block::<16>();
        let key = Key::of(Asid::new(1).unwrap(), vellum_core::VirtAddr::new(0), size);
        let leaf = |i: u64, attr| {
            let pa = PhysAddr::new((0x30 + i) << size.page());
            pte::encode(vellum_core::Entry::Leaf(pa, attr), size.page()).unwrap()
        };
        let attr = Attr::RW.with_memory(MemoryType::WriteCombining);
        block.begin(key, 0, 0, leaf(0, attr));
        (1..16).for_each(|i| _ = block.set(i as usize, leaf(i, attr)));
        assert_eq!(block.next().1, Kind::Partial);
        assert!((0..16).all(|i| block.entry(i as usize) == leaf(i, attr)));
        let _ = block.set(9, leaf(9, Attr::RW));
        assert_eq!((block.next().1, block.entry(9)), (Kind::Base, leaf(9, Attr::RW)));
        assert_eq!(block.entry(10), leaf(10, attr));
    }
}

#[test]
fn a_line_has_one_kind() {
    let yard = Yard::new();
    let block = yard.block::<6>();
    block.begin(first_page(), 8, 0, leaf(0, 0, 2));
    (1..6).for_each(|i| _ = block.set(i, leaf(i, 0, 2)));
    assert_eq!(block.next(), (8, Kind::Base));
    assert_eq!((Block::<Arena, 6>::BYTES, Block::<Arena, 16>::BYTES), (64, 144));
}

fn raw_entry() -> impl Strategy<Value = (usize, u64)> {
    let flags = prop::sample::select(std::vec![2, 2 | pte::ACCESSED, 2 | pte::DIRTY, 0, 1 << 63]);
    let raw = prop_oneof![
        8 => (Just(true), 0..1u64, flags.clone()),
        2 => (Just(true), 0..20u64, flags),
        1 => (Just(false), 0..3u64, Just(0)),
    ];
    (0..16usize, raw)
        .prop_map(|(i, (is_leaf, n, flags))| (i, if is_leaf { leaf(i, n, flags) } else { n << 2 }))
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(256))]

    #[test]
    fn a_block_is_an_array_of_entries(
        steps in prop::collection::vec(raw_entry(), 1..if cfg!(miri) { 12 } else { 120 }),
    ) {
        let yard = Yard::new();
        let (big, small) = (yard.block::<16>(), Yard::new());
        let small = small.block::<6>();
        let mut model = [0; 16];
        let mut six = [0; 6];
        for (n, (i, raw)) in steps.into_iter().enumerate() {
            model[i] = raw;
            six[i % 6] = raw;
            let left = |all: &[u64]| {
                if all.iter().any(|&raw| raw != 0) { Left::Entries } else { Left::Nothing }
            };
            if n == 0 {
                big.begin(first_page(), 0x1000, i, raw);
                small.begin(first_page(), 0x1000, i % 6, raw);
            } else {
                prop_assert_eq!(big.set(i, raw), left(&model));
                prop_assert_eq!(small.set(i % 6, raw), left(&six));
            }
            prop_assert_eq!(big.entries(), model);
            if n % 5 == 4 {
                // All at once comes to the same.
                let (other, before) = (Yard::new(), big.next().1);
                let other = other.block::<16>();
                other.begin(first_page(), 0, 3, leaf(3, 1, 2));
                prop_assert_eq!(other.set_all(&model), left(&model));
                prop_assert_eq!((other.entries(), big.set_all(&model)), (model, left(&model)));
                prop_assert!(model == [0; 16] || (other.next().1, big.next().1) == (before, before));
            }
            prop_assert_eq!(small.entries(), six);
            prop_assert_eq!(big.next().0, 0x1000);
            if model != [0; 16] {
                prop_assert_eq!(big.next().1 == Kind::Partial, agree(&model), "{:x?}", model);
            }
        }
    }
}
