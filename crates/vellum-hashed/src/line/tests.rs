//! The layout of a line, bit by bit.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use vellum_core::{Attr, Entry, FrameSource, PAGE_SHIFT, Soft, pte};
use vellum_testkit::Arena;

fn key(asid: u16, page: u64) -> Key {
    Key::new(Asid::new(asid).unwrap(), VirtAddr::new(page << PAGE_SHIFT))
}

/// Calls `f` with a line in a frame that held something else before.
fn on_a_line<R>(f: impl FnOnce(&Line) -> R) -> R {
    let arena = Arena::new(2);
    let frame = arena.alloc(0).unwrap();
    // SAFETY: line 3 of a frame that was allocated just now, and that nobody else knows of.
    let result = unsafe {
        with_line(&arena, frame.wrapping_add(3 * LINE_BYTES), |line| {
            line.clear();
            f(line)
        })
    };
    // SAFETY: allocated above; nothing has kept its address.
    unsafe { arena.free(frame, 0) };
    result
}

fn leaf(frame: u64, attr: Attr) -> u64 {
    pte::encode(Entry::Leaf(PhysAddr::new(frame << PAGE_SHIFT), attr), PAGE_SHIFT).unwrap()
}

#[test]
fn the_tag_lies_where_it_is_drawn() {
    let (asid, page) = (0xabc, 0x1555_5555_5555);
    let tag = Tag::of(key(asid, page));
    assert_eq!(tag.bits(), 1 << 54 | 0xabc << 42 | page >> 3);
    on_a_line(|line| {
        line.claim(tag);
        line.set_entry(5, !PIECE);
        let words = line.words();
        assert_eq!(words[0], (page >> 3 & 0x7f) << 52, "entry 0 has tag bits 6:0");
        assert_eq!(words[7] >> 52, tag.bits() >> 49, "entry 7 has tag bits 55:49");
        assert_eq!(words[5] & !PIECE, !PIECE, "and entries keep every other bit");
    });
}

#[test]
fn zeros_are_an_unused_line() {
    on_a_line(|line| {
        assert_eq!((line.tag(), line.is_used(), line.count()), (None, false, 0));
        let first = Tag::of(key(0, 0));
        assert!(!line.is(first), "the very first pages have a tag that is not 0");
        line.claim(first);
        assert!(line.is(first) && line.is_used());
        line.clear();
        assert_eq!(line.tag(), None);
    });
    assert_eq!(Tag::from_bits(0), None);
    assert_eq!(Tag::from_bits((1 << 54) - 1), None, "not in use");
    assert_eq!(Tag::from_bits(1 << 54 | 1 << 56), None, "56 bits are all there are");
}

#[test]
fn the_hashes_of_neighbours_have_nothing_in_common() {
    let ways = 3;
    let hashes: BTreeSet<u64> = (0..1000)
        .flat_map(|group| (0..ways).map(move |way| Tag::of(key(1, group << 3)).hash(way)))
        .collect();
    assert_eq!(
        hashes.len(),
        1000 * usize::from(ways),
        "one way of a tag is another's of its neighbour"
    );
}

#[test]
fn each_piece_of_the_tag_is_compared() {
    on_a_line(|line| {
        let tag = Tag::of(key(0x123, 0x0765_4321_0123));
        line.claim(tag);
        for bit in 0..54 {
            let other = Tag::from_bits(tag.bits() ^ 1 << bit).unwrap();
            assert!(!line.is(other), "bit {bit} makes no difference");
        }
    });
}

#[test]
fn the_widest_soft_value_survives() {
    let widest = (1 << SOFT_BITS) - 1;
    let raw = pte::encode(Entry::Soft(Soft::new(widest).unwrap()), PAGE_SHIFT).unwrap();
    assert_eq!(decode(encode(raw)), raw);
    assert_eq!(encode(raw) & PIECE, 0);
    // One bit more would be lost.
    assert_ne!(decode(encode(raw | 1 << 57)), raw | 1 << 57);
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(256))]

    #[test]
    fn a_tag_and_a_slot_are_the_key(
        asid in 0..4096u16,
        page in 0..1u64 << 45,
        size in prop::sample::select(Size::ALL.to_vec()),
    ) {
        let key = key(asid, page).sized(size);
        let tag = Tag::of(key);
        prop_assert_eq!(tag.key(slot(key)), key);
        prop_assert_eq!(slot(key) as u64, key.number() % 8);
        prop_assert_eq!(tag.size(), size);
        prop_assert_eq!(Tag::from_bits(tag.bits()), Some(tag));
    }

    #[test]
    fn entries_and_tag_do_not_disturb_each_other(
        asid in 0..4096u16,
        page in 0..1u64 << 45,
        values in prop::array::uniform8((0..1u64 << 40, 0..1u64 << SOFT_BITS, any::<bool>())),
    ) {
        let tag = Tag::of(key(asid, page));
        on_a_line(|line| {
            line.claim(tag);
            let raws = values.map(|(frame, value, soft)| match Soft::new(value) {
                Some(soft_value) if soft => {
                    pte::encode(Entry::Soft(soft_value), PAGE_SHIFT).unwrap()
                }
                _ => leaf(frame, Attr::RW.with_key(0xf) - Attr::EXEC),
            });
            for (slot, &raw) in raws.iter().enumerate() {
                line.set_entry(slot, raw);
                assert!(line.is(tag));
                assert_eq!((line.tag(), line.count()), (Some(tag), slot + 1));
            }
            let copied = line.copy();
            line.clear();
            line.paste(copied);
            for (slot, &raw) in raws.iter().enumerate() {
                assert_eq!(line.entry(slot), raw);
                line.set_entry(slot, 0);
            }
            assert_eq!((line.tag(), line.count()), (Some(tag), 0));
        });
    }
}
