//! What random sequences seldom come to: each of these is the one that notices when some call that
//! tells the gather of a flush is left out.

use super::{Seen, walk};
use vellum_core::{
    Attr, Change, Entry, Gather, Gone, PAGE_SIZE, PageTable, PhysAddr, RangeError, Run, VirtAddr,
    Walk as _,
};
use vellum_radix::format::{RiscV, X86Pae};
use vellum_radix::{AArch64, Format, LoongArch64, Radix, X86_64};
use vellum_testkit::checker::{Checker, Root, Watch};
use vellum_testkit::{Arena, Design as _};

const LARGE: u64 = 2 << 20;
const VA: VirtAddr = VirtAddr::new(1 << 23);
const FRAMES: PhysAddr = PhysAddr::new(1 << 24);

type Arm = AArch64<12, 48>;
type Table<'a, F> = Radix<F, &'a Arena>;
type Gathered<'c, 'a, F> = Watch<'c, 'a, <Table<'a, F> as PageTable>::Detached, 4>;

/// Has the checker look, after a step of this name.
type Look<'l, 'a, F> = &'l dyn Fn(&Table<'a, F>, &str);

/// Steps of one gather, after each of which the checker looks; then everything is given up.
fn looking<F: Format>(
    points: &[VirtAddr],
    steps: impl for<'a> FnOnce(&mut Table<'a, F>, &mut Gathered<'_, 'a, F>, Look<'_, 'a, F>),
) {
    let arena = Arena::new(Seen::<F>::FRAMES);
    let shared = &arena;
    let mut table = Seen::<F>::table(&shared, 1).expect("room");
    let checker = Checker::new(&table, &arena, points)
        .with_hardware(Seen::<F>::hardware(&shared, &table))
        .with_absence(Seen::<F>::absence)
        .with_breaks(F::BREAKS);
    // What is not there may be cached as well, from before the first step.
    assert_eq!(checker.check(&table), Ok(()));
    let mut gather = checker.gather(|_| {});
    steps(&mut table, &mut gather, &|table, step| {
        assert_eq!(checker.check(table), Ok(()), "{step}");
    });
    checker.unload();
    table.retire(&mut gather);
    gather.finish();
    assert_eq!(checker.finish(), Ok(()));
    assert_eq!(arena.frames_in_use(), 0);
}

fn page(n: u64, attr: Attr) -> Run {
    Run::new(VA, FRAMES.wrapping_add(n * PAGE_SIZE), PAGE_SIZE, attr)
}

fn replace<T: PageTable>(
    table: &T,
    va: VirtAddr,
    new: Entry,
    gather: &mut impl Gather<T::Detached>,
) {
    let old = table.walk(va, &mut ()).expect("canonical").entry;
    let mut stock = table.stock();
    table.replace_refilling(va, PAGE_SIZE, old, new, &mut stock, gather).expect("as it was");
}

/// Makes a page in some way, where its old translation is owed a flush by the same gather.
fn make_a_page_again(
    how: &str,
    make: impl for<'a> FnOnce(&mut Table<'a, Arm>, &mut Gathered<'_, 'a, Arm>) -> Result<(), RangeError>,
) {
    looking::<Arm>(&[VA], |table, gather, look| {
        table.map(page(0, Attr::RW), gather).expect("nothing is there");
        gather.drain();
        if how == "protect" {
            let none = Change::to(Attr::NONE, Attr::RWX);
            table.protect(VA, PAGE_SIZE, none, gather).expect("mapped");
        } else {
            table.unmap(VA, PAGE_SIZE, gather).expect("mapped");
        }
        look(table, how);
        make(table, gather).expect(how);
        look(table, how);
    });
}

#[test]
fn a_page_is_not_made_while_its_old_translation_is_about() {
    make_a_page_again("map", |table, gather| table.map(page(1, Attr::RW), gather));
    make_a_page_again("map of pages", |table, gather| {
        let mut frames = (0..2).map(|n| FRAMES.wrapping_add((1 + n) * PAGE_SIZE));
        table.map_frames(VA, 2 * PAGE_SIZE, Attr::RW, &mut frames, gather).map(drop)
    });
    make_a_page_again("replace", |table, gather| {
        replace(table, VA, Entry::Leaf(FRAMES, Attr::READ), gather);
        Ok(())
    });
    make_a_page_again("protect", |table, gather| {
        table.protect(VA, PAGE_SIZE, Change::setting(Attr::RW | Attr::GLOBAL), gather)
    });
}

#[test]
fn a_valid_leaf_changes_by_way_of_nothing_where_it_has_to() {
    let (group, second) = (VA.wrapping_add(1 << 16), VA.wrapping_add(2 << 16));
    let large = VA.wrapping_add(LARGE);
    let of = |va: VirtAddr, pages: [u64; 2]| pages.map(|n| va.wrapping_add(n * PAGE_SIZE));
    let points = [[VA; 2], of(group, [0, 1]), of(second, [0, 15]), of(large, [0, 511])].concat();
    looking::<Arm>(&points, |table, gather, look| {
        let fewer = Change::clearing(Attr::GLOBAL);
        table.map(page(0, Attr::RW | Attr::GLOBAL), gather).expect("nothing is there");
        gather.drain();
        table.protect(VA, PAGE_SIZE, fewer, gather).expect("mapped");
        look(table, "a page is not global any more");
        replace(table, VA, Entry::Leaf(FRAMES.wrapping_add(PAGE_SIZE), Attr::RW), gather);
        look(table, "a page has another frame");
        for va in [group, second] {
            let frames = FRAMES.wrapping_add(va.as_u64() & (LARGE - 1));
            let run = Run::new(va, frames, 1 << 16, Attr::RW).with_leaves_up_to(16);
            table.map(run, gather).expect("nothing is there");
            gather.drain();
            look(table, "a leaf of several entries");
        }
        table.protect(group, 1 << 16, Change::clearing(Attr::WRITE), gather).expect("mapped");
        look(table, "all of a leaf of several entries");
        table.protect(group, PAGE_SIZE, Change::setting(Attr::WRITE), gather).expect("mapped");
        look(table, "one of them");
        table.unmap(second, 1 << 16, gather).expect("mapped");
        look(table, "a leaf of several entries goes");
        let run = Run::new(large, FRAMES, LARGE, Attr::RW).with_leaves_up_to(21);
        table.map(run, gather).expect("nothing is there");
        gather.drain();
        let part = Change::clearing(Attr::WRITE);
        table.protect(large, PAGE_SIZE, part, gather).expect("mapped");
        look(table, "a page of a large leaf");
    });
}

/// Two large leaves are mapped at once: where a node is that has been emptied, and where nothing was.
fn large_leaves_over_an_emptied_node<F: Format>() {
    let points = [0, 1, 511, 512, 1023].map(|n| VA.wrapping_add(n * PAGE_SIZE));
    looking::<F>(&points, |table, gather, look| {
        for new in [Entry::Leaf(FRAMES, Attr::RW), Entry::Hole] {
            replace(table, VA, new, gather);
            gather.drain();
            look(table, "a page, and none");
        }
        let run = Run::new(VA, FRAMES, 2 * LARGE, Attr::RW).with_leaves_up_to(21);
        table.map(run, gather).expect("nothing is there");
        look(table, "large leaves");
        assert_eq!(table.walk(VA, &mut ()).expect("canonical").len, LARGE);
    });
}

#[test]
fn large_leaves_take_the_place_of_an_emptied_node() {
    large_leaves_over_an_emptied_node::<AArch64<12, 48>>();
    large_leaves_over_an_emptied_node::<RiscV<3>>();
    large_leaves_over_an_emptied_node::<LoongArch64<12>>();
    large_leaves_over_an_emptied_node::<X86_64<4>>();
}

#[test]
fn a_fault_that_links_a_node_into_a_root_kept_in_registers_has_it_loaded_again() {
    looking::<X86Pae>(&[VA, VA.wrapping_add(LARGE)], |table, gather, look| {
        replace(table, VA, Entry::Leaf(FRAMES, Attr::RW), gather);
        look(table, "the first page below an entry of the root");
    });
}

#[test]
fn a_leaf_of_several_entries_comes_out_when_it_goes() {
    let mut bytes = 0;
    let arena = Arena::new(64);
    let mut table = Radix::<AArch64<12, 48>, _>::new(&arena).expect("room");
    let checker = Checker::new(&table, &arena, &[VA]);
    let mut gather = checker.gather::<_, 4>(|gone| {
        if let Gone::Run(run) = gone {
            bytes += run.len;
        }
    });
    let run = Run::new(VA, FRAMES, 1 << 16, Attr::RW).with_leaves_up_to(16);
    // A neighbour keeps the node, so that the group is cleared and not the node detached.
    let beside = Run::new(VA.wrapping_add(1 << 16), FRAMES, PAGE_SIZE, Attr::RW);
    table.map(beside, &mut gather).expect("nothing is there");
    gather.drain();
    table.map(run, &mut gather).expect("nothing is there");
    table.unmap(VA, 1 << 16, &mut gather).expect("mapped");
    assert_eq!(checker.check(&table), Ok(()));
    table.retire(&mut gather);
    gather.finish();
    assert_eq!(bytes, (1 << 16) + PAGE_SIZE);
}

/// A CPU that has the second root loaded: what user mode runs on, with stubs of the kernel above.
#[test]
fn a_second_root_is_let_go_before_it_is_freed() {
    const KERNEL: VirtAddr = VirtAddr::new(0xffff_8000_0000_0000);
    type Four = X86_64<4>;
    let arena = Arena::new(1 << 11);
    let pinned = |attr| {
        let mut table = Radix::<Four, _>::new(&arena).expect("room");
        table.pin_from(KERNEL).expect("room");
        // SAFETY: no CPU has this table yet.
        let mut direct = unsafe { vellum_core::Direct::new(|_| {}) };
        let run = Run::new(KERNEL, FRAMES, PAGE_SIZE, attr);
        table.map(run, &mut direct).expect("nothing is there");
        table
    };
    let (kernel, stubs) = (pinned(Attr::RW), pinned(Attr::RX));
    // SAFETY: both are pinned, and given up last.
    let (mut process, user) = unsafe {
        let mut process = Radix::sharing(&kernel).expect("room");
        let user = process.add_user_root(&stubs).expect("room");
        (process, user)
    };
    let checker = Checker::new(&process, &arena, &[VA, KERNEL])
        .with_hardware(Some(Box::new(|va, sink| walk::<Four>(&arena, user, va, sink))))
        .with_cpus(1, |checker, flushes| checker.forget(0, flushes));
    checker.set_root(0, Root::Active);
    // Room for one item: everything that is unlinked drains what was unlinked before it.
    let mut gather = checker.gather::<_, 1>(|_| {});
    process.map(page(0, Attr::RW | Attr::USER), &mut gather).expect("nothing is there");
    assert_eq!(checker.check(&process), Ok(()));
    process.unmap(VA, PAGE_SIZE, &mut gather).expect("mapped");
    assert_eq!(checker.check(&process), Ok(()));
    process.map(page(1, Attr::RW | Attr::USER), &mut gather).expect("nothing is there");
    assert_eq!(checker.check(&process), Ok(()));
    checker.unload();
    process.retire(&mut gather);
    assert_eq!(checker.check_unloaded(), Ok(()));
    gather.finish();
    assert_eq!(checker.finish(), Ok(()));
    for table in [kernel, stubs] {
        // SAFETY: no CPU has it any more.
        table.retire(&mut unsafe { vellum_core::Direct::new(|_| {}) });
    }
    assert_eq!(arena.frames_in_use(), 0);
}
