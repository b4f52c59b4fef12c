//! Large leaves that calls cut, with memory and without.

use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::Engine;
use vellum_fault::host::designs::mmu;
use vellum_fault::host::{HostSystem, Ram};
use vellum_radix::{Radix, X86_64};
use vellum_space::abi::{madv, map, mremap, prot};
use vellum_space::{AddressSpace, Errno, Layout, Limits, Rules};

type Table<'r> = Radix<X86_64<4>, &'r Ram>;
type Space<'e, 'r> = AddressSpace<'e, HostSystem<'r, Table<'r>>, spin::RwLock<()>>;

const LARGE: u64 = 2 << 20;
const BASE: u64 = 0x7000_0000_0000;
const RW: u64 = prot::READ | prot::WRITE;
const FIXED: u64 = map::PRIVATE | map::ANONYMOUS | map::FIXED;
/// In the second of two large leaves, at no end of it.
const CUT: u64 = BASE + LARGE + 5 * PAGE_SIZE;

/// A space with one region of two large leaves, each of which has its number in its first byte.
fn run(test: impl for<'e, 'r> FnOnce(&Space<'e, 'r>, &'r Ram)) {
    let ram = Ram::new(1 << 13);
    let before = ram.frames_in_use();
    {
        let rules = Rules::new(ram.count_frames());
        let engine = Engine::new(HostSystem::new(&ram), 0).unwrap();
        let table = mmu(&engine, Table::new(&ram).unwrap());
        let space = Space::new(table, &rules, Layout::default(), Limits::default());
        space.mmap(BASE, 2 * LARGE, RW, FIXED, None).unwrap();
        space.madvise(BASE, 2 * LARGE, madv::HUGEPAGE).unwrap();
        space.write(VirtAddr::new(BASE), &[1]).unwrap();
        space.write(VirtAddr::new(BASE + LARGE), &[2]).unwrap();
        assert_eq!(space.usage().rss, 2 * LARGE, "two large leaves");
        test(&space, &ram);
        drop(space);
        assert_eq!(rules.committed(), 0);
    }
    assert_eq!(ram.frames_in_use(), before);
}

fn byte(space: &Space<'_, '_>, va: u64) -> u8 {
    let mut byte = [0];
    space.read(VirtAddr::new(va), &mut byte).unwrap();
    byte[0]
}

/// Whatever was refused: both leaves are there, with their contents and rights.
fn refused_leaves_all(call: impl FnOnce(&Space<'_, '_>) -> Result<(), Errno>) {
    run(|space, ram| {
        // The map of regions has room, so that the table is what has none.
        space.mmap(BASE + 16 * LARGE, PAGE_SIZE, prot::READ, FIXED, None).unwrap();
        let mut before = String::new();
        space.write_maps(&mut before).unwrap();
        ram.limit(Some(0));
        assert_eq!(call(space), Err(Errno::Enomem));
        ram.limit(None);
        let mut after = String::new();
        space.write_maps(&mut after).unwrap();
        assert_eq!(after, before);
        assert_eq!((byte(space, BASE), byte(space, BASE + LARGE)), (1, 2));
        space.write(VirtAddr::new(CUT), &[3]).unwrap();
    });
}

#[test]
fn munmap_without_memory_to_split_a_leaf_takes_nothing() {
    refused_leaves_all(|space| space.munmap(BASE, CUT - BASE));
}

#[test]
fn mmap_without_memory_to_split_a_leaf_takes_nothing() {
    refused_leaves_all(|space| space.mmap(BASE, CUT - BASE, RW, FIXED, None).map(drop));
}

#[test]
fn mremap_onto_a_leaf_that_cannot_be_split_takes_nothing() {
    refused_leaves_all(|space| {
        let (from, flags) = (BASE + 16 * LARGE, mremap::MAYMOVE | mremap::FIXED);
        space.mremap(from, PAGE_SIZE, PAGE_SIZE, flags, CUT).map(drop)
    });
}

#[test]
fn mprotect_without_memory_to_split_a_leaf_changes_no_region() {
    refused_leaves_all(|space| space.mprotect(BASE, CUT - BASE, prot::READ));
}

#[test]
fn dontneed_without_memory_to_split_a_leaf_takes_nothing() {
    refused_leaves_all(|space| space.madvise(BASE, CUT - BASE, madv::DONTNEED));
}

#[test]
fn anonymous_memory_in_large_leaves_is_counted_as_such() {
    run(|space, _| {
        assert_eq!(space.usage().anon_huge, 2 * LARGE);
        space.munmap(CUT, PAGE_SIZE).unwrap();
        assert_eq!(space.usage().anon_huge, LARGE, "the second one is pages now");
        let mut text = String::new();
        space.write_smaps_rollup(&mut text).unwrap();
        assert!(text.contains("AnonHugePages:      2048 kB\n"), "{text}");
    });
}

#[test]
fn a_child_splits_what_it_inherits_before_anything_goes() {
    run(|space, ram| {
        let engine = space.with_mmu(|mmu| mmu.engine());
        let child = space.fork(mmu(engine, Table::new(ram).unwrap())).unwrap();
        ram.limit(Some(0));
        assert_eq!(child.munmap(BASE, CUT - BASE), Err(Errno::Enomem));
        ram.limit(None);
        assert_eq!((byte(&child, BASE), byte(&child, BASE + LARGE)), (1, 2));
        child.munmap(BASE, CUT - BASE).unwrap();
        assert_eq!(child.usage().rss, BASE + 2 * LARGE - CUT);
    });
}
