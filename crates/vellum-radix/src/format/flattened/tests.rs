//! That what is flattened is 4-level paging with fewer steps: shapes, entries, and whole walks.

use super::*;
use crate::Radix;
use crate::format::{laws, leaves, node_order};
use std::vec::Vec;
use vellum_core::{Direct, Gone, PAGE_SIZE, PageTable, Ref, Run, Soft, VirtAddr, Walk};
use vellum_testkit::Arena;

type Both = Flattened<true, true>;
type Upper = Flattened<true, false>;
type Lower = Flattened<false, true>;

fn leaf(pa: u64, attr: Attr) -> Entry {
    Entry::Leaf(PhysAddr::new(pa), attr)
}

#[test]
fn nodes_are_of_2_mib_and_leaves_are_what_is_left() {
    let orders = |f: fn(usize) -> u8, levels: usize| (0..levels).map(f).collect::<Vec<_>>();
    // 512 frames are 2^9. Counts behind a root of 2 MiB make it a block of 4 MiB.
    assert_eq!(orders(node_order::<Both>, 2), [10, 9]);
    assert_eq!(orders(node_order::<Upper>, 3), [9, 0, 0]);
    assert_eq!(orders(node_order::<Lower>, 3), [1, 1, 9]);
    assert_eq!(leaves::<Both>(), 1 << 30 | 1 << 12);
    assert_eq!(leaves::<Upper>(), 1 << 30 | 1 << 21 | 1 << 12);
    assert_eq!(leaves::<Lower>(), 1 << 30 | 1 << 12);
}

/// Bits by hand from the SDM, at the places that are left; one line a bit.
fn golden<F: Format>() {
    let xd = 1 << 63;
    for (entry, page, raw) in [
        // Table 5-20: P, R/W, U/S, A, D, G, soft, key, XD.
        (leaf(0x1234_5000, Attr::READ), 12, xd | 0x1234_5001),
        (leaf(0x1234_5000, Attr::RX), 12, 0x1234_5001),
        (leaf(0x1234_5000, Attr::RWX), 12, 0x1234_5003),
        (leaf(0x1234_5000, Attr::RX | Attr::USER), 12, 0x1234_5005),
        (leaf(0x1234_5000, Attr::RX | Attr::ACCESSED), 12, 0x1234_5021),
        (leaf(0x1234_5000, Attr::RWX | Attr::DIRTY), 12, 0x1234_5043),
        (leaf(0x1234_5000, Attr::RX | Attr::GLOBAL), 12, 0x1234_5101),
        (leaf(0x1234_5000, Attr::RX | Attr::SOFT[1]), 12, 0x1234_5401),
        (leaf(0x1234_5000, Attr::RX.with_key(9)), 12, 9 << 59 | 0x1234_5001),
        (leaf(0x1234_5000, Attr::NONE), 12, xd | 0x1234_5002),
        // Table 5-16: PS makes a leaf of 1 GiB.
        (leaf(0x4000_0000, Attr::RWX), 30, 0x4000_0083),
        (leaf(0x8_4000_0000, Attr::RX | Attr::STATUS), 30, 0x8_4000_00e1),
        (Entry::Soft(Soft::new(3).expect("3")), 12, 0xc),
        (Entry::Hole, 30, 0),
    ] {
        assert_eq!(F::encode(entry, page), Ok(raw), "{entry:?}");
        assert_eq!(F::decode(raw, page), Decoded::Entry(entry), "{raw:#x}");
    }
    // Table 5-17: P, R/W, U/S, A.
    let node = PhysAddr::new(0x20_0000);
    assert_eq!(F::table_entry(node, 30, true), 0x20_0027);
    assert_eq!(F::table_entry(node, 30, false), 0x20_0023);
    assert_eq!(F::decode(0x20_0027, 30), Decoded::Table(node));
}

#[test]
fn entries_are_as_the_manual_has_them() {
    golden::<Both>();
    golden::<Upper>();
    golden::<Lower>();
}

fn all_laws<F: Format>() {
    laws::leaves_survive::<F>(52);
    laws::soft_values_survive::<F>();
    laws::every_value_decodes::<F>();
    laws::status_is_only_status::<F>(52);
    laws::frames_follow_by_steps::<F>(52);
    laws::links_lead_to_their_nodes::<F>(52);
    laws::the_lowest_level_links_nothing::<F>();
    laws::bad_frames_are_refused::<F>(52);
}

#[test]
fn laws_hold() {
    all_laws::<Both>();
    all_laws::<Upper>();
    all_laws::<Lower>();
}

/// Maps the same in every table; what a walk reads and finds there.
fn walk<F: Format>(arena: &Arena) -> (Vec<u8>, Entry) {
    let mut table: Radix<F, _> = Radix::new(arena).expect("room for a root");
    let mut sink = |_: Gone| {};
    // SAFETY: no CPU walks the tables of this test.
    let mut gather = unsafe { Direct::new(&mut sink) };
    let va = VirtAddr::new(0x1234_5678_9000);
    let run = Run::new(va, PhysAddr::new(0x4_2000), 5 * PAGE_SIZE, Attr::RW);
    table.map(run, &mut gather).expect("a good run");
    let mut spans = Vec::new();
    let last = va.wrapping_add(4 * PAGE_SIZE);
    let found = table.walk(last, &mut |r: Ref| spans.push(r.span)).expect("canonical");
    table.retire(&mut gather);
    (spans, found.entry)
}

#[test]
fn walks_are_shorter_and_find_the_same() {
    let arena = Arena::new(1 << 12);
    let found = leaf(0x4_6000, Attr::RW);
    assert_eq!(walk::<X86_64<4>>(&arena), ([39, 30, 21, 12].to_vec(), found));
    assert_eq!(walk::<Upper>(&arena), ([30, 21, 12].to_vec(), found));
    assert_eq!(walk::<Lower>(&arena), ([39, 30, 12].to_vec(), found));
    assert_eq!(walk::<Both>(&arena), ([30, 12].to_vec(), found));
    assert_eq!(arena.frames_in_use(), 0);
}

/// A leaf of 1 GiB splits into 2^18 pages in one node, and those go one by one.
#[cfg(not(miri))] // a quarter of a million entries
#[test]
fn a_gib_splits_into_one_node_of_pages() {
    use vellum_core::Change;

    let arena = Arena::new(1 << 12);
    let mut table: Radix<Both, _> = Radix::new(&arena).expect("room for a root");
    let mut gone = Vec::new();
    let mut sink = |item: Gone| gone.push(item);
    // SAFETY: no CPU walks the tables of this test.
    let mut gather = unsafe { Direct::new(&mut sink) };
    let (va, pa, len) = (VirtAddr::new(3 << 30), PhysAddr::new(8 << 30), 1 << 30);
    let attr = Attr::RW | Attr::DIRTY;
    let run = Run::new(va, pa, len, attr).with_leaves_up_to(30);
    table.map(run, &mut gather).expect("a good run");
    let root = table.table_bytes();
    assert_eq!(table.walk(va, &mut ()).map(|span| span.len), Ok(len));
    let middle = va.wrapping_add(len / 2);
    let change = Change::clearing(Attr::WRITE);
    table.protect(middle, PAGE_SIZE, change, &mut gather).expect("a page");
    assert_eq!(table.table_bytes() - root, 2 << 20);
    let at = |offset| table.walk(va.wrapping_add(offset), &mut ()).map(|span| span.entry);
    assert_eq!(at(len / 2), Ok(leaf((8 << 30) + len / 2, attr - Attr::WRITE)));
    assert_eq!(at(len - PAGE_SIZE), Ok(leaf((9 << 30) - PAGE_SIZE, attr)));
    table.unmap(va, len / 2, &mut gather).expect("half of it");
    table.unmap(middle, len / 2, &mut gather).expect("the other half");
    assert_eq!(table.table_bytes(), root, "the emptied node went");
    table.retire(&mut gather);
    let bytes = |gone: &Gone| if let Gone::Run(run) = gone { run.len } else { 0 };
    assert_eq!(gone.iter().map(bytes).sum::<u64>(), len);
    assert_eq!(arena.frames_in_use(), 0);
}

/// A node needs a block of its own size; where there is none the table says so, and nothing leaks.
#[cfg(not(miri))] // two thousand frames, each found by looking through those before it
#[test]
fn scattered_frames_are_no_node() {
    use vellum_core::FrameSource;

    let arena = Arena::new(1 << 11);
    let (mut all, mut kept) = (Vec::new(), Vec::new());
    while let Ok(frame) = arena.alloc(0) {
        let list = if frame.is_aligned(21) { &mut kept } else { &mut all };
        list.push(frame);
    }
    let free = |frames: Vec<PhysAddr>| {
        for frame in frames {
            // SAFETY: taken above, each by itself, and reached by nobody.
            unsafe { arena.free(frame, 0) };
        }
    };
    // All but the first of every 2 MiB.
    free(all);
    let mut table: Radix<Lower, _> = Radix::new(&arena).expect("room for a root");
    let mut sink = |_: Gone| {};
    // SAFETY: no CPU walks the tables of this test.
    let mut gather = unsafe { Direct::new(&mut sink) };
    let run = Run::new(VirtAddr::new(0), PhysAddr::new(0), PAGE_SIZE, Attr::RW);
    let before = arena.frames_in_use();
    let refused = table.map(run, &mut gather).expect_err("no block of 2 MiB");
    assert!(matches!(refused.cause, Cause::OutOfFrames(out) if out.order == 9), "{refused}");
    assert_eq!(arena.frames_in_use(), before);
    free(kept);
    assert_eq!(table.map(run, &mut gather), Ok(()));
    table.retire(&mut gather);
    assert_eq!(arena.frames_in_use(), 0);
}
