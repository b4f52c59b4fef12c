//! Pages that are out: coming back, forks and moves of them, and a device that fails.

use crate::common::{self, Host, Spaces, anon, audit, get, page, put};
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, Walk};
use vellum_fault::{Access, Cost, Deny, Engine, FaultError, Mmu, Region, RssKind, Signal, System};

/// Writes `byte` to page `n`, and takes it out.
fn write_out<T: PageTable>(mmu: &mut Mmu<'_, Host<'_, T>>, region: &Region, n: u64, byte: u8) {
    mmu.fault(region, page(n), Access::Write).unwrap();
    put(mmu, page(n), byte);
    let engine = mmu.engine();
    let went = mmu.page_out(page(n), |bytes| Some(engine.system().swap().store(bytes)));
    assert_eq!(went, Ok(true));
}

fn a_page_comes_back_as_it_went<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = anon(4);
    write_out(&mut mmu, &region, 1, 77);
    assert_eq!((mmu.rss().pages(RssKind::Anon), mmu.rss().pages(RssKind::Swap)), (0, 1));
    assert_eq!(mmu.table().translate(page(1)), None);
    assert_eq!(mmu.fault(&region, page(1), Access::Read), Ok(Cost::Major));
    assert_eq!(get(&mmu, page(1)), 77);
    let Entry::Leaf(_, attr) = mmu.table().walk(page(1), &mut ()).unwrap().entry else { panic!() };
    assert!(attr.contains(Attr::RW), "it is alone with it");
    assert_eq!((mmu.rss().pages(RssKind::Anon), mmu.rss().pages(RssKind::Swap)), (1, 0));
    assert_eq!(engine.system().swap().count_used(), 0);
    write_out(&mut mmu, &region, 2, 5);
    mmu.zap(page(2), PAGE_SIZE).unwrap();
    assert_eq!(engine.system().swap().count_used(), 0, "what is unmapped needs no place");
    audit(engine, &[&mmu]);
}

fn a_fork_shares_what_is_out_and_each_side_gets_its_own<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let region = anon(8);
    write_out(&mut mmu, &region, 3, 30);
    mmu.copy_to(&mut child, &region).unwrap();
    assert_eq!((child.rss().pages(RssKind::Swap), engine.system().swap().count_used()), (1, 1));
    assert_eq!(child.fault(&region, page(3), Access::Write), Ok(Cost::Major));
    put(&child, page(3), 31);
    audit(engine, &[&mmu, &child]);
    mmu.relocate(page(3), page(100), PAGE_SIZE).unwrap();
    let moved = Region { start: page(97), ..region };
    assert_eq!(mmu.fault(&moved, page(100), Access::Read), Ok(Cost::Major));
    assert_eq!((get(&mmu, page(100)), get(&child, page(3))), (30, 31));
    audit(engine, &[&mmu, &child]);
}

fn a_failing_device_is_sigbus_and_a_busy_one_is_tried_again<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let (region, swap) = (anon(4), engine.system().swap());
    write_out(&mut mmu, &region, 0, 9);
    let byte = page(0).wrapping_add(17);
    swap.set_busy(true);
    assert_eq!(mmu.fault(&region, byte, Access::Read), Err(FaultError::Retry));
    swap.set_busy(false);
    swap.set_broken(true);
    let denied = mmu.fault(&region, byte, Access::Read);
    assert_eq!(denied, Err(FaultError::Deny(Deny::NoPage(byte))));
    let Err(FaultError::Deny(deny)) = denied else { panic!() };
    assert_eq!((deny.signal(), deny.code(), deny.addr()), (Signal::Bus, 2, byte));
    audit(engine, &[&mmu]);
    swap.set_broken(false);
    assert_eq!(mmu.fault(&region, byte, Access::Read), Ok(Cost::Major));
    assert_eq!(get(&mmu, page(0)), 9);
}

fn only_what_is_one_tables_alone_goes_out<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let region = anon(4);
    mmu.fault(&region, page(0), Access::Write).unwrap();
    mmu.fault(&region, page(1), Access::Read).unwrap();
    mmu.fault(&region, page(2), Access::Write).unwrap();
    mmu.copy_to(&mut child, &anon(1)).unwrap();
    let store = |bytes: vellum_core::FrameBytes<'_>| Some(engine.system().swap().store(bytes));
    assert_eq!(mmu.page_out(page(0), store), Ok(false), "the child has it too");
    assert_eq!(mmu.page_out(page(1), store), Ok(false), "the page of zeros");
    assert_eq!(mmu.page_out(page(3), store), Ok(false), "a hole");
    assert_eq!(mmu.page_out(page(2), |_| None), Ok(false), "no place for it");
    mmu.fault(&region, page(2), Access::Write).unwrap();
    put(&mmu, page(2), 1);
    assert_eq!(get(&mmu, page(2)), 1);
    audit(engine, &[&mmu, &child]);
}

common::on_every_design! {
    a_page_comes_back_as_it_went,
    a_fork_shares_what_is_out_and_each_side_gets_its_own,
    a_failing_device_is_sigbus_and_a_busy_one_is_tried_again,
    only_what_is_one_tables_alone_goes_out,
}
