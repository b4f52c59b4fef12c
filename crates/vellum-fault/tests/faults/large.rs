//! Leaves of 2 MiB: zero fill, forks and copies of them, and parts that go, change or move. On designs
//! without such leaves the same is done by pages.

use crate::common::{self, Host, Spaces, anon, audit, get, page, put};
use vellum_core::{PAGE_SIZE, PageTable, VirtAddr, Walk};
use vellum_fault::{Access, Cost, Engine, FaultError, Mmu, Region, Rights, RssKind, Sharing};

/// Pages of a large leaf.
const BLOCK: u64 = 512;

const fn has_large<T: PageTable>() -> bool {
    T::REPLACEABLE >> 21 & 1 != 0
}

fn huge(pages: u64) -> Region {
    Region { huge: true, ..anon(pages) }
}

/// A fault of who takes the space for himself where he has to.
fn write<T: PageTable>(mmu: &mut Mmu<'_, Host<'_, T>>, region: &Region, n: u64, byte: u8) {
    let cost = match mmu.fault(region, page(n), Access::Write) {
        Err(FaultError::Exclusive) => mmu.fault_exclusive(region, page(n), Access::Write),
        done => done,
    };
    assert_eq!(cost, Ok(Cost::Minor));
    put(mmu, page(n), byte);
}

fn leaf<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, va: VirtAddr) -> u64 {
    mmu.table().walk(va, &mut ()).unwrap().len
}

fn zeros_come_in_one_leaf_where_it_fits<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = huge(3 * BLOCK - 1);
    write(&mut mmu, &region, 3, 1);
    write(&mut mmu, &region, 2 * BLOCK + 5, 2);
    let many = if has_large::<T>() { BLOCK } else { 1 };
    assert_eq!(leaf(&mmu, page(3)), many * PAGE_SIZE);
    assert_eq!(leaf(&mmu, page(2 * BLOCK + 5)), PAGE_SIZE, "the region ends before the block");
    assert_eq!(mmu.rss().pages(RssKind::Anon), many + 1);
    mmu.fault(&region, page(BLOCK), Access::Read).unwrap();
    write(&mut mmu, &region, BLOCK + 9, 3);
    assert_eq!(leaf(&mmu, page(BLOCK + 9)), PAGE_SIZE, "something is there");
    assert_eq!(mmu.rss().pages(RssKind::Anon), many + 2);
    assert_eq!((get(&mmu, page(3)), get(&mmu, page(BLOCK + 9))), (1, 3));
    audit(engine, &[&mmu]);
}

fn a_store_after_a_fork_copies_one_page_of_it<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let region = huge(BLOCK);
    write(&mut mmu, &region, 0, 10);
    write(&mut mmu, &region, 100, 11);
    mmu.copy_to(&mut child, &region).unwrap();
    audit(engine, &[&mmu, &child]);
    write(&mut child, &region, 100, 99);
    assert_eq!((get(&mmu, page(100)), get(&child, page(100)), get(&child, page(0))), (11, 99, 10));
    audit(engine, &[&mmu, &child]);
    let before = mmu.table().translate(page(0));
    drop(child);
    write(&mut mmu, &region, 0, 12);
    assert_eq!(mmu.table().translate(page(0)), before, "alone with it: no copy");
    assert_eq!(get(&mmu, page(100)), 11);
    audit(engine, &[&mmu]);
}

fn a_part_of_it_goes_and_comes_back_empty<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = huge(BLOCK);
    for n in [0, 7, 8, BLOCK - 1] {
        write(&mut mmu, &region, n, (n % 251) as u8 + 1);
    }
    let resident = mmu.rss().resident();
    mmu.zap_pages(page(8), 8 * PAGE_SIZE).unwrap();
    assert_eq!(mmu.rss().resident(), resident - if has_large::<T>() { 8 } else { 1 });
    audit(engine, &[&mmu]);
    write(&mut mmu, &region, 9, 1);
    assert_eq!((get(&mmu, page(7)), get(&mmu, page(9)), get(&mmu, page(BLOCK - 1))), (8, 1, 10));
    mmu.fault(&region, page(8), Access::Read).unwrap();
    assert_eq!(get(&mmu, page(8)), 0);
    mmu.guard(page(0), PAGE_SIZE).unwrap();
    audit(engine, &[&mmu]);
}

fn rights_of_a_part_change<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = huge(BLOCK);
    write(&mut mmu, &region, 20, 5);
    mmu.protect(page(16), 16 * PAGE_SIZE, Rights::READ, Sharing::Private).unwrap();
    let middle = Region { rights: Rights::READ, huge: false, ..region };
    assert!(mmu.fault(&middle, page(20), Access::Write).is_err());
    assert_eq!(get(&mmu, page(20)), 5);
    write(&mut mmu, &region, 15, 6);
    write(&mut mmu, &region, 32, 7);
    mmu.protect(page(16), 16 * PAGE_SIZE, Rights::RW, Sharing::Private).unwrap();
    let before = mmu.table().translate(page(20));
    write(&mut mmu, &region, 20, 8);
    assert_eq!(mmu.table().translate(page(20)), before);
    audit(engine, &[&mmu]);
}

fn a_part_of_it_moves_with_its_contents<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = huge(2 * BLOCK);
    for n in [0, 3, 4, BLOCK - 1, BLOCK, BLOCK + 5, BLOCK + 6] {
        write(&mut mmu, &region, n, (n % 251) as u8 + 1);
    }
    // Both ends lie in a large leaf.
    let (first, pages, far) = (4, BLOCK + 2, 8 * BLOCK + 1);
    mmu.relocate(page(first), page(far), pages * PAGE_SIZE).unwrap();
    audit(engine, &[&mmu]);
    for n in [0, 3, BLOCK + 6] {
        assert_eq!(get(&mmu, page(n)), (n % 251) as u8 + 1);
    }
    for n in [4, BLOCK - 1, BLOCK, BLOCK + 5] {
        assert_eq!(get(&mmu, page(far + n - first)), (n % 251) as u8 + 1);
        assert_eq!(mmu.table().translate(page(n)), None);
    }
}

fn two_regions_may_have_a_part_each<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let region = huge(BLOCK);
    write(&mut mmu, &region, 0, 1);
    mmu.copy_to(&mut child, &region).unwrap();
    drop(child);
    // The space has noted two regions since, and rights that the table does not have yet of one.
    let lower = Region { len: 100 * PAGE_SIZE, ..region };
    write(&mut mmu, &lower, 0, 2);
    let entry = mmu.table().walk(page(100), &mut ()).unwrap().entry;
    if let vellum_core::Entry::Leaf(_, attr) = entry {
        assert!(
            !attr.contains(vellum_core::Attr::WRITE),
            "the other region's part was not asked for"
        );
    }
    audit(engine, &[&mmu]);
}

common::on_every_design! {
    zeros_come_in_one_leaf_where_it_fits,
    a_store_after_a_fork_copies_one_page_of_it,
    a_part_of_it_goes_and_comes_back_empty,
    rights_of_a_part_change,
    a_part_of_it_moves_with_its_contents,
    two_regions_may_have_a_part_each,
}
