//! What is not the format's: which of the two answers, and stocks that are mixed up. (The promises of
//! page tables are in `tests/conformance.rs`, for both.)

use super::*;
use vellum_core::{Direct, PAGE_SIZE};
use vellum_testkit::{Arena, Checker};

/// A page that only 5 levels translate.
const HIGH: VirtAddr = VirtAddr::new(1 << 50);

fn leaf(pa: u64) -> Entry {
    Entry::Leaf(PhysAddr::new(pa), Attr::RW)
}

/// Gives a table back, of which no CPU knows.
fn retire<T: PageTable>(table: T) {
    let mut sink = |_: Gone| {};
    // SAFETY: no CPU walks the tables of this test.
    table.retire(&mut unsafe { Direct::new(&mut sink) });
}

fn replace<T: PageTable>(
    table: &T,
    va: VirtAddr,
    new: Entry,
    stock: &mut T::Stock,
) -> Result<(), ReplaceError> {
    let mut sink = |_: Gone| {};
    // SAFETY: no CPU walks the tables of this test.
    let mut gather = unsafe { Direct::new(&mut sink) };
    table.replace(va, PAGE_SIZE, Entry::Hole, new, stock, &mut gather)
}

#[test]
fn addresses_are_those_of_the_table_that_there_is() {
    let arena = Arena::new(64);
    let four = X86Any::four(&arena).expect("room");
    let five = X86Any::five(&arena).expect("room");
    assert_eq!(four.walk(HIGH, &mut ()), Err(Cause::NonCanonical(HIGH)));
    let found = five.walk(HIGH, &mut ()).map(|span| span.entry);
    assert_eq!(found, Ok(Entry::Hole));
    assert_eq!(four.canonical().bits() + 9, five.canonical().bits());
    assert_ne!(four.root(), five.root());
    assert!(arena.is_in_use(four.root()) && arena.is_in_use(five.root()));
    retire(four);
    retire(five);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn what_is_offered_is_what_both_have() {
    type Any<'a> = RiscVAny<&'a Arena>;
    let both = <Radix<RiscV<3>, &Arena> as PageTable>::LEAVES;
    assert_eq!(<Any<'_> as PageTable>::LEAVES, both, "no leaf of 512 GiB in Sv39");
    assert_eq!(
        <Any<'_> as PageTable>::REPLACEABLE,
        both & !(1 << 16),
        "a group is several entries"
    );
    assert_eq!(<Any<'_> as PageTable>::SOFT_BITS, 62);
    let arena = Arena::new(64);
    for (made, bits) in [(Any::sv39(&arena), 39), (Any::sv48(&arena), 48), (Any::sv57(&arena), 57)]
    {
        let table = made.expect("room");
        assert_eq!(table.canonical(), Canonical::signed(bits));
        assert!(arena.is_in_use(table.root()));
        retire(table);
    }
    assert_eq!(arena.frames_in_use(), 0);
}

/// A stock that the other variant filled counts as empty, is not emptied before the refill, and
/// serves after it.
#[test]
fn a_stock_of_the_other_variant_is_exchanged_by_a_refill() {
    let arena = Arena::new(64);
    let four = X86Any::four(&arena).expect("room");
    let five = X86Any::five(&arena).expect("room");
    let va = VirtAddr::new(0x5000);
    let mut stock = four.stock();
    let Err(ReplaceError::Need(need)) = replace(&four, va, leaf(0x6000), &mut stock) else {
        panic!("an empty table lacks nodes");
    };
    four.refill(&mut stock, need).expect("room");
    assert_eq!(arena.frames_in_use(), 2 + 3);
    let Err(ReplaceError::Need(need)) = replace(&five, va, leaf(0x6000), &mut stock) else {
        panic!("it took what is not its own");
    };
    assert!(matches!(stock, Either::Left(_)));
    assert_eq!(arena.frames_in_use(), 2 + 3);
    five.refill(&mut stock, need).expect("room");
    assert_eq!(arena.frames_in_use(), 2 + 4, "three went back, four were taken");
    assert_eq!(replace(&five, va, leaf(0x6000), &mut stock), Ok(()));
    assert_eq!(five.walk(va, &mut ()).map(|span| span.entry), Ok(leaf(0x6000)));
    assert_eq!(five.translate(va.wrapping_add(7)), Some(PhysAddr::new(0x6007)));
    // What needs no node needs no stock, whosever it is.
    let mut other = four.stock();
    assert_eq!(replace(&five, va.wrapping_add(PAGE_SIZE), leaf(0x7000), &mut other), Ok(()));
    drop(stock);
    retire(four);
    retire(five);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn what_the_table_inside_owes_reaches_the_gather_outside() {
    let arena = Arena::new(64);
    let mut table = X86Any::five(&arena).expect("room");
    let pages = [0, 2, 512].map(|n| HIGH.wrapping_add(n * PAGE_SIZE));
    let checker = Checker::new(&table, &arena, &pages);
    // Room for one item: it has to be drained before the next.
    let mut gather = checker.gather::<_, 1>(|_| {});
    let checked = |table: &X86Any<_>, step| assert_eq!(checker.check(table), Ok(()), "{step}");
    for (va, frame) in pages.into_iter().zip([0x1000, 0x3000, 0x5000]) {
        let run = Run::new(va, PhysAddr::new(frame), PAGE_SIZE, Attr::RW);
        table.map(run, &mut gather).expect("nothing is there");
        checked(&table, "map");
    }
    let change = Change::clearing(Attr::WRITE);
    table.protect(pages[0], PAGE_SIZE, change, &mut gather).expect("mapped");
    checked(&table, "protect");
    // By itself: each flush would cover what the next one should.
    gather.drain();
    checked(&table, "drain");
    // The last of a node takes the node along.
    for va in pages {
        table.unmap(va, PAGE_SIZE, &mut gather).expect("mapped");
        checked(&table, "unmap");
    }
    checker.unload();
    table.retire(&mut gather);
    assert_eq!(checker.check_unloaded(), Ok(()));
    gather.finish();
    assert_eq!((checker.finish(), arena.frames_in_use()), (Ok(()), 0));
}
