//! `copy_from`: a table that somebody else made, through the crate's own mapper, in ours.

use crate::machines::{Frames, Mapping, Ram, frame, page, peer_root, retire};
use vellum_core::{Attr, Cause, Entry, PhysAddr, VirtAddr as Va, Walk};
use vellum_radix::x86_64::{CopyError, copy_from};
use vellum_radix::{Corrupt, Flaw, Radix, Walker, X86_64};
use vellum_testkit::Arena;
use x86_64::structures::paging::mapper::{MappedPageTable, Mapper};
use x86_64::structures::paging::{
    PageTable, PageTableFlags as Flags, PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};

const RW: Flags = Flags::PRESENT.union(Flags::WRITABLE);
const LOW: u64 = 0x20_0000;
const HIGH: u64 = 0xffff_8000_0000_0000;

/// A boot loader's table, which `change` has the last word on, and the copy of it in another arena.
fn copied<R>(
    change: impl FnOnce(&mut PageTable, PhysFrame),
    look: impl FnOnce(Result<Radix<X86_64<4>, &Arena>, CopyError>, &Arena) -> R,
    budget: Option<u64>,
) -> R {
    let (boot, ours) = (Arena::new(64), Arena::new(64));
    let root = peer_root(&boot);
    let mut frames = Frames(Ram(&boot));
    let user = RW | Flags::USER_ACCESSIBLE;
    {
        // SAFETY: a fresh table, and a mapping of the arena that it is in.
        let mut peer = unsafe { MappedPageTable::new(&mut *root, Mapping(Ram(&boot))) };
        // SAFETY: no CPU uses the table.
        unsafe {
            let small = page::<Size4KiB>(LOW);
            // Its parents keep user mode out, and its leaf does not.
            peer.map_to_with_table_flags(small, frame(1), user, RW, &mut frames)
                .expect("a hole")
                .ignore();
            let (large, used) = (page::<Size2MiB>(HIGH), RW | Flags::ACCESSED | Flags::DIRTY);
            peer.map_to(large, frame(2), used | Flags::GLOBAL, &mut frames)
                .expect("a hole")
                .ignore();
            let huge = page::<Size1GiB>(HIGH + (1 << 30));
            let odd = RW | Flags::NO_CACHE | Flags::NO_EXECUTE | Flags::BIT_11 | Flags::BIT_60;
            peer.map_to(huge, frame(3), odd, &mut frames).expect("a hole").ignore();
        }
    }
    let pa = boot.first().addr();
    // SAFETY: no mapper uses the table any more.
    let table = unsafe { &mut *root };
    change(table, PhysFrame::containing_address(x86_64::PhysAddr::new(pa.as_u64())));
    // SAFETY: frames in use are in the arena and initialised, and nobody writes to them now.
    let walker: Walker<X86_64<4>, _, _> =
        unsafe { Walker::new(pa, &boot, |pa| boot.is_in_use(pa)) };
    ours.limit_allocations(budget);
    look(copy_from(&walker, &ours), &ours)
}

fn entry(table: &Radix<X86_64<4>, &Arena>, va: u64) -> (Entry, u64) {
    let span = table.walk(Va::new(va), &mut ()).expect("canonical");
    (span.entry, span.len)
}

#[test]
fn a_copy_maps_the_same_with_the_rights_that_all_levels_leave() {
    let recursive = |root: &mut PageTable, frame| root[510].set_frame(frame, RW);
    copied(
        recursive,
        |copy, ours| {
            let table = copy.expect("a table in order, and room");
            let base = frame::<Size4KiB>(0).start_address().as_u64();
            let pa = |n: u64| PhysAddr::new(base + n);
            assert_eq!(entry(&table, LOW), (Entry::Leaf(pa(0x1000), Attr::RWX), 0x1000));
            let global = Attr::RWX | Attr::STATUS | Attr::GLOBAL;
            assert_eq!(entry(&table, HIGH), (Entry::Leaf(pa(4 << 20), global), 2 << 20));
            let odd = Attr::RW.with_memory(vellum_core::MemoryType::UncachedMinus).with_key(2);
            let huge = Entry::Leaf(pa(3 << 30), odd | Attr::SOFT[2]);
            assert_eq!(entry(&table, HIGH + (1 << 30)), (huge, 1 << 30));
            let recursion = 0xffff_ff00_0000_0000;
            assert_eq!(entry(&table, recursion).0, Entry::Hole, "a window to the old tables");
            assert_eq!(
                ours.frames_in_use(),
                6,
                "a root, three nodes for a page, two for the others"
            );
            retire(table);
            assert_eq!(ours.frames_in_use(), 0);
        },
        None,
    );
}

#[test]
fn what_would_be_lost_is_refused_and_what_is_corrupt_too() {
    // Under Miri a copy takes seconds.
    let step = if cfg!(miri) { 4 } else { 1 };
    for budget in (0..5).step_by(step) {
        copied(
            |_, _| {},
            |copy, ours| {
                let e = copy.expect_err("not enough frames");
                assert!(matches!(e, CopyError::Refused(Cause::OutOfFrames(_))), "{e}");
                assert_eq!(ours.frames_in_use(), 0, "nothing is leaked");
            },
            Some(budget),
        );
    }
    let nowhere = PhysFrame::containing_address(x86_64::PhysAddr::new(1 << 50));
    copied(
        |root, _| root[7].set_frame(nowhere, RW),
        |copy, ours| {
            let e = copy.expect_err("a link to what is not memory");
            assert!(matches!(e, CopyError::Corrupt(Corrupt { flaw: Flaw::NotMemory, .. })), "{e}");
            assert_eq!(ours.frames_in_use(), 0);
        },
        None,
    );
}

#[test]
fn software_bits_that_ours_lack_are_not_dropped() {
    let (boot, ours) = (Arena::new(8), Arena::new(8));
    let root = peer_root(&boot);
    let at = page::<Size4KiB>(LOW);
    // SAFETY: a fresh table, and a mapping of the arena that it is in; no CPU uses it.
    unsafe {
        let mut peer = MappedPageTable::new(&mut *root, Mapping(Ram(&boot)));
        let mut frames = Frames(Ram(&boot));
        peer.map_to(at, frame(1), RW | Flags::BIT_55, &mut frames).expect("a hole").ignore();
    }
    let pa = boot.first().addr();
    // SAFETY: frames in use are in the arena and initialised, and nobody writes to them now.
    let walker: Walker<X86_64<4>, _, _> =
        unsafe { Walker::new(pa, &boot, |pa| boot.is_in_use(pa)) };
    let e = copy_from(&walker, &ours).expect_err("a bit that would be lost");
    assert!(
        matches!(e, CopyError::SoftwareBits { va, raw } if va == Va::new(LOW) && raw >> 55 & 1 == 1)
    );
    assert_eq!(ours.frames_in_use(), 0);
}
