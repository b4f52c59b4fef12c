//! Lowest nodes shared copy-on-write: who may change what, what is flushed, and who gives a node back.

use core::ops::ControlFlow;
use std::collections::BTreeMap;
use std::thread;

use vellum_core::{
    Attr, Cause, Change, Direct, Entry, Given, Gone, PageTable, PhysAddr, RangeError, Reap,
    ReplaceError, Run, Soft, Span, VirtAddr, Walk,
};
use vellum_radix::{Format, Policy, Radix, Walker, WriteXorExecute, X86, X86_64, X86Any};
use vellum_testkit::Arena;
use vellum_testkit::suite::{Recorder, Recording, recording};

#[path = "shared_nodes/edges.rs"]
mod edges;
#[path = "shared_nodes/families.rs"]
mod families;

type X64<'a> = Radix<X86_64<4>, &'a Arena>;

const PAGE: u64 = 0x1000;
const MIB2: u64 = 2 << 20;
/// Two nodes of 2 MiB before a border of 1 GiB, which is also one of nodes of 4 MiB.
const BASE: u64 = (1 << 30) - 2 * MIB2;
/// Pages in which the tables differ.
const PAGES: u64 = 4 * 512;
const COW: Change = Change::clearing(Attr::WRITE);

fn live<D: Reap, R>(op: impl FnOnce(&mut Recording<'_, D>) -> R) -> R {
    recording(&Recorder::default(), op)
}

fn va(page: u64) -> VirtAddr {
    VirtAddr::new(BASE + page * PAGE)
}

/// Soft values are counted among the frames, far away from them.
const SOFT: u64 = 1 << 40;

/// What each page is, by its number: the frame, or the soft value, and the attributes.
fn contents<F: Format>(table: &Radix<F, &Arena>) -> BTreeMap<u64, (u64, Attr)> {
    let mut pages = BTreeMap::new();
    let mut note = |span: Span| {
        let first = (span.va.as_u64() - BASE) / PAGE;
        for i in 0..span.len / PAGE {
            match span.entry {
                Entry::Leaf(pa, attr) => pages.insert(first + i, (pa.number().as_u64() + i, attr)),
                Entry::Soft(soft) => pages.insert(first + i, (SOFT + soft.get(), Attr::NONE)),
                Entry::Hole => panic!("a hole was told"),
            };
        }
        ControlFlow::Continue(())
    };
    table.visit(va(0), PAGES * PAGE, &mut note).expect("canonical");
    pages
}

/// A table with `pages` pages from [`BASE`] on, writable, whose frames follow each other.
fn with_pages(arena: &Arena, pages: u64) -> X64<'_> {
    let mut table = X64::new(arena).expect("room");
    let run = Run::new(va(0), PhysAddr::new(1 << 30), pages * PAGE, Attr::RW | Attr::USER);
    assert_eq!(live(|g| table.map(run, g)), Ok(()));
    table
}

/// Forks all of it; what was told.
fn fork<'a>(parent: &mut X64<'a>, child: &mut X64<'a>, recorder: &Recorder) -> Vec<Span> {
    let mut told = Vec::new();
    let shared = live(|childs| {
        recording(recorder, |g| {
            parent.share_nodes(va(0), PAGES * PAGE, g, (child, childs), &mut |span| told.push(span))
        })
    });
    assert_eq!(shared, Ok(()));
    told
}

fn retire<F: Format>(table: Radix<F, &Arena>) -> u64 {
    let recorder = Recorder::default();
    recording(&recorder, |g| table.retire(g));
    let gone = recorder.take_gone().into_iter();
    gone.map(|gone| if let Gone::Run(run) = gone { run.len / PAGE } else { 0 }).sum()
}

fn rights_at(table: &X64<'_>, page: u64) -> Attr {
    match table.walk(va(page), &mut ()).expect("canonical").entry {
        Entry::Leaf(_, attr) => attr & (Attr::RWX | Attr::USER),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fork_takes_no_node_a_page_and_one_flush() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, PAGES);
    let mut child = X64::new(&arena).expect("room");
    let (before, recorder) = (arena.frames_in_use(), Recorder::default());
    assert_eq!(fork(&mut parent, &mut child, &recorder), [], "no frame is mapped once more");
    // One node of 512 GiB, and two of 1 GiB, since there is a border between.
    assert_eq!(arena.frames_in_use() - before, 3);
    let flushes = recorder.take_flushes();
    for page in 0..PAGES {
        assert!(flushes.iter().any(|f| f.covers(va(page)) && f.has_tables()), "page {page}");
        assert_eq!(rights_at(&parent, page), Attr::READ | Attr::USER);
        assert_eq!(rights_at(&child, page), Attr::READ | Attr::USER);
    }
    // What is read-only already owes nothing.
    let mut second = X64::new(&arena).expect("room");
    fork(&mut parent, &mut second, &recorder);
    assert_eq!(recorder.take_flushes(), []);
    assert_eq!(retire(child) + retire(parent), 0, "the second has all of it still");
    assert_eq!(retire(second), PAGES);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_node_stays_with_the_others_when_one_table_drops_it_unread() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, PAGES);
    let [mut child, mut second] = [(); 2].map(|()| X64::new(&arena).expect("room"));
    fork(&mut parent, &mut child, &Recorder::default());
    fork(&mut parent, &mut second, &Recorder::default());
    // SAFETY: no CPU has these tables.
    let mut nobody = unsafe { Direct::discarding() };
    // One node by itself, then the nodes that are left below others.
    assert_eq!(child.unmap(va(0), MIB2, &mut nobody), Ok(()));
    child.retire(&mut nobody);
    second.retire(&mut nobody);
    assert_eq!(rights_at(&parent, 0), Attr::READ | Attr::USER);
    assert_eq!(retire(parent), PAGES);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn the_last_that_links_a_node_gets_it_back_with_its_rights() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 512);
    let mut child = X64::new(&arena).expect("room");
    fork(&mut parent, &mut child, &Recorder::default());
    assert_eq!(retire(child), 0);
    let (in_use, recorder) = (arena.frames_in_use(), Recorder::default());
    let unshared = recording(&recorder, |g| {
        parent.unshare(va(7), 1, g, &mut |span| panic!("{span:?} was copied"))
    });
    // The range is of whole pages.
    assert!(matches!(unshared, Err(RangeError { cause: Cause::Misaligned { .. }, done: 0 })));
    let unshared = recording(&recorder, |g| {
        parent.unshare(va(7), PAGE, g, &mut |span| panic!("{span:?} was copied"))
    });
    assert_eq!(unshared, Ok(()));
    assert_eq!((recorder.take_flushes(), arena.frames_in_use()), (vec![], in_use));
    assert_eq!(rights_at(&parent, 500), Attr::RW | Attr::USER);
    assert_eq!(retire(parent), 512);
}

#[test]
fn a_copy_takes_the_right_to_write_from_both() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 512);
    let mut child = X64::new(&arena).expect("room");
    fork(&mut parent, &mut child, &Recorder::default());
    let (recorder, mut told) = (Recorder::default(), Vec::new());
    let unshared =
        recording(&recorder, |g| child.unshare(va(7), PAGE, g, &mut |span| told.push(span)));
    assert_eq!(unshared, Ok(()));
    let run = Entry::Leaf(PhysAddr::new(1 << 30), Attr::READ | Attr::USER);
    assert_eq!(told, [Span { va: va(0), len: 512 * PAGE, entry: run }]);
    let flushes = recorder.take_flushes();
    assert!(flushes.iter().any(|f| f.covers(va(0)) && f.covers(va(511)) && f.has_tables()));
    // The parent is alone with its node, and its frames are not its own.
    let unshared = live(|g| parent.unshare(va(7), PAGE, g, &mut |span| panic!("{span:?}")));
    assert_eq!(unshared, Ok(()));
    for page in [0, 7, 511] {
        assert_eq!(rights_at(&parent, page), Attr::READ | Attr::USER);
        assert_eq!(rights_at(&child, page), Attr::READ | Attr::USER);
    }
    assert_eq!((retire(parent), retire(child)), (512, 512));
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn what_is_shared_is_changed_by_nobody() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 511);
    let mut child = X64::new(&arena).expect("room");
    fork(&mut parent, &mut child, &Recorder::default());
    let (before, len) = (contents(&parent), 512 * PAGE);
    let fails_at = |result: Result<(), RangeError>, page: u64| {
        assert_eq!(result, Err(RangeError { cause: Cause::Shared(va(page)), done: 0 }));
    };
    let run = |page, pages| Run::new(va(page), PhysAddr::new(2 << 30), pages * PAGE, Attr::READ);
    fails_at(live(|g| parent.map(run(511, 1), g)), 511);
    fails_at(live(|g| parent.map(run(511, 2), g)), 511);
    fails_at(live(|g| parent.map(run(510, 1), g)), 510);
    let mut frames = [PhysAddr::new(2 << 30)].into_iter();
    let mapped = live(|g| parent.map_frames(va(511), PAGE, Attr::READ, &mut frames, g));
    fails_at(mapped.map(drop), 511);
    assert_eq!(frames.len(), 1, "no frame was taken");
    let whole = run(0, 512).with_leaves_up_to(21);
    assert!(
        matches!(live(|g| parent.map(whole, g)), Err(e) if matches!(e.cause, Cause::Mapped(_)))
    );
    fails_at(live(|g| parent.unmap(va(3), PAGE, g)), 3);
    fails_at(live(|g| parent.protect(va(0), len, COW, g)), 0);
    fails_at(live(|g| parent.protect(va(5), PAGE, Change::setting(Attr::EXEC), g)), 5);
    assert_eq!(live(|g| parent.collapse(va(0), 21, g)), Err(Cause::Shared(va(0))));
    assert_eq!(live(|g| parent.split(va(0), 12, g)), Ok(()), "it is of pages");
    assert_eq!(live(|g| parent.unmap(va(511), PAGE, g)), Ok(()), "nothing is there");
    for (expect, new) in [
        (Entry::Hole, Entry::Leaf(PhysAddr::new(0), Attr::READ)),
        (before_leaf(&parent, 3), Entry::Hole),
    ] {
        let mut stock = parent.stock();
        let replaced = live(|g| parent.replace(va(3), PAGE, expect, new, &mut stock, g));
        assert_eq!(replaced, Err(ReplaceError::Invalid(Cause::Shared(va(3)))));
    }
    let part = live(|childs| {
        live(|g| parent.share(va(0), len, COW, g, (&mut child, childs), &mut |_| {}))
    });
    fails_at(part, 0);
    assert_eq!(contents(&parent), before);
    assert_eq!(contents(&child), before);
    assert_eq!(live(|g| parent.unmap(va(0), len, g)), Ok(()), "the whole node");
    assert_eq!((contents(&parent).len(), contents(&child).len()), (0, 511));
    assert_eq!((retire(parent), retire(child)), (0, 511));
    assert_eq!(arena.frames_in_use(), 0);
}

fn before_leaf(table: &X64<'_>, page: u64) -> Entry {
    table.walk(va(page), &mut ()).expect("canonical").entry
}

#[test]
fn ends_that_lie_within_nodes_and_large_leaves_are_given_one_by_one() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 1024);
    let large = Run::new(va(1024), PhysAddr::new(4 << 30), MIB2, Attr::RW).with_leaves_up_to(21);
    assert_eq!(live(|g| parent.map(large, g)), Ok(()));
    let mut child = X64::new(&arena).expect("room");
    let mut told = Vec::new();
    let (first, len) = (va(10), 1526 * PAGE);
    let shared = live(|childs| {
        live(|g| {
            let child = (&mut child, childs);
            parent.share_nodes(first, len, g, child, &mut |span| told.push((span.va, span.len)))
        })
    });
    assert_eq!(shared, Ok(()));
    assert_eq!(told, [(va(10), 502 * PAGE), (va(1024), MIB2)]);
    assert_eq!(rights_at(&parent, 9), Attr::RW | Attr::USER, "before the range");
    assert_eq!(child.walk(va(1024), &mut ()).expect("canonical").len, MIB2);
    assert_eq!(contents(&child).len(), 1526);
    assert_eq!((retire(child), retire(parent)), (1526 - 512, 1536));
}

#[test]
fn tables_of_other_policies_and_other_memories_share_no_node() {
    let (arena, other) = (Arena::new(64), Arena::new(64));
    let refuse = Policy { write_xor_execute: WriteXorExecute::Refuse, ..Policy::default() };
    let children = [X64::with_policy(&arena, refuse), X64::new(&other)];
    for child in children {
        let mut child = child.expect("room");
        let mut parent = with_pages(&arena, 512);
        let told = fork(&mut parent, &mut child, &Recorder::default());
        assert_eq!(told.iter().map(|span| span.len).sum::<u64>(), 512 * PAGE);
        assert_eq!(live(|g| parent.unmap(va(0), PAGE, g)), Ok(()), "it is the parent's alone");
        assert_eq!((retire(parent), retire(child)), (511, 512));
    }
    assert_eq!((arena.frames_in_use(), other.frames_in_use()), (0, 0));
}

/// Soft values whose entries happen to differ as those of neighbouring frames do are no run.
#[test]
fn soft_entries_are_given_one_by_one() {
    let arena = Arena::new(64);
    let (mut parent, mut child) =
        (X64::new(&arena).expect("room"), X64::new(&arena).expect("room"));
    let step = 1 << 10;
    let softs: Vec<_> =
        (0..3).map(|i| (va(i), PAGE, Soft::new(9 + i * step).expect("not 0"))).collect();
    for &(va, len, soft) in &softs {
        let mut stock = parent.stock();
        let put = live(|g| {
            parent.replace_refilling(va, len, Entry::Hole, Entry::Soft(soft), &mut stock, g)
        });
        assert_eq!(put, Ok(()));
    }
    let mut told = Vec::new();
    let shared = live(|childs| {
        live(|g| {
            let child = (&mut child, childs);
            parent.share(va(0), MIB2, COW, g, child, &mut |span| told.push(span))
        })
    });
    assert_eq!(shared, Ok(()));
    let expected: Vec<_> =
        softs.iter().map(|&(va, len, soft)| Span { va, len, entry: Entry::Soft(soft) }).collect();
    assert_eq!(told, expected);
    assert_eq!(contents(&child), contents(&parent));
    retire(child);
    retire(parent);
}

/// In a table of two levels the root links lowest nodes, and a second root has to follow.
#[test]
fn a_root_for_user_mode_loses_the_right_too() {
    let arena = Arena::new(1024);
    let kernel_from = VirtAddr::new(0xc000_0000);
    let mut kernel: Radix<X86, &Arena> = Radix::new(&arena).expect("room");
    kernel.pin_from(kernel_from).expect("room");
    let mut stubs: Radix<X86, &Arena> = Radix::new(&arena).expect("room");
    stubs.pin_from(kernel_from).expect("room");
    // SAFETY: both live as long as what shares them, and nobody changes them.
    let mut parent = unsafe { Radix::sharing(&kernel) }.expect("room");
    // SAFETY: as above.
    let user_root = unsafe { parent.add_user_root(&stubs) }.expect("room");
    // SAFETY: as above.
    let mut child = unsafe { Radix::sharing(&kernel) }.expect("room");
    let run = Run::new(va(0), PhysAddr::new(1 << 30), 4 << 20, Attr::RWX | Attr::USER);
    assert_eq!(live(|g| parent.map(run, g)), Ok(()));
    let rights = |root| {
        // SAFETY: the arena is memory wherever it says that a frame is in use.
        let walker = unsafe { Walker::<X86, _, _>::new(root, &arena, |pa| arena.is_in_use(pa)) };
        walker.translate(va(3)).expect("a good table").expect("mapped").1 & Attr::RWX
    };
    assert_eq!(rights(user_root), Attr::RWX);
    let shared = live(|childs| {
        live(|g| parent.share_nodes(va(0), 4 << 20, g, (&mut child, childs), &mut |_| {}))
    });
    assert_eq!(shared, Ok(()));
    assert_eq!((rights(user_root), rights(parent.root())), (Attr::RX, Attr::RX));
    // The kernel's part is nobody's to share.
    let top = (VirtAddr::new(0xffc0_0000), 4 << 20);
    let shared = live(|childs| {
        live(|g| parent.share_nodes(top.0, top.1, g, (&mut child, childs), &mut |_| {}))
    });
    assert!(matches!(shared, Err(e) if matches!(e.cause, Cause::Shared(_))));
    assert_eq!(retire(child), 0);
    let unshared = live(|g| parent.unshare(va(0), PAGE, g, &mut |_| {}));
    assert_eq!((unshared, rights(user_root)), (Ok(()), Attr::RWX));
    for table in [parent, kernel, stubs] {
        retire(table);
    }
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn four_or_five_levels_share_as_they_are() {
    let arena = Arena::new(64);
    for make in [X86Any::four, X86Any::five] {
        let (mut parent, mut child) = (make(&arena).expect("room"), make(&arena).expect("room"));
        let run = Run::new(va(0), PhysAddr::new(1 << 30), MIB2, Attr::RW);
        assert_eq!(live(|g| parent.map(run, g)), Ok(()));
        let shared = live(|childs| {
            live(|g| {
                let told = &mut |given| assert!(matches!(given, Given::Linked(_)), "{given:?}");
                parent.fork(va(0), MIB2, g, (&mut child, childs), told)
            })
        });
        assert_eq!(shared, Ok(()));
        let mut told = 0;
        let unshared = live(|g| child.unshare(va(0), PAGE, g, &mut |span| told += span.len));
        assert_eq!((unshared, told), (Ok(()), MIB2));
        live(|g| parent.retire(g));
        live(|g| child.retire(g));
    }
    // Of two kinds, nothing is done.
    let (mut four, mut five) =
        (X86Any::four(&arena).expect("room"), X86Any::five(&arena).expect("room"));
    let run = Run::new(va(0), PhysAddr::new(1 << 30), MIB2, Attr::RW);
    assert_eq!(live(|g| four.map(run, g)), Ok(()));
    let mut told = 0;
    let shared = live(|childs| {
        live(|g| {
            four.fork(va(0), MIB2, g, (&mut five, childs), &mut |given| match given {
                Given::Own(span) => told += span.len,
                Given::Linked(span) => panic!("{span:?} is linked"),
            })
        })
    });
    assert_eq!((shared, told), (Ok(()), MIB2), "entry by entry");
    live(|g| four.retire(g));
    live(|g| five.retire(g));
    assert_eq!(arena.frames_in_use(), 0);
}

/// Parent and children, each on a processor of its own, take their copies at the same time, while a
/// reader sets accessed in the node that all of them link.
#[test]
fn tables_of_one_family_unshare_on_several_processors() {
    const TABLES: usize = 3;
    let rounds = if cfg!(miri) { 2 } else { 300 };
    let pages = if cfg!(miri) { 16 } else { 512 };
    for _ in 0..rounds {
        let arena = Arena::new(64);
        let mut parent = with_pages(&arena, pages);
        let mut reader = X64::new(&arena).expect("room");
        fork(&mut parent, &mut reader, &Recorder::default());
        let mut family = vec![parent];
        for _ in 1..TABLES {
            let mut child = X64::new(&arena).expect("room");
            fork(&mut family[0], &mut child, &Recorder::default());
            family.push(child);
        }
        let results: Vec<(i64, i64)> = thread::scope(|scope| {
            let accessed = scope.spawn(|| {
                for page in 0..pages {
                    let entry = reader.touch(va(page), Attr::READ, Attr::ACCESSED);
                    assert!(matches!(entry, Entry::Leaf(_, attr) if !attr.contains(Attr::WRITE)));
                }
            });
            let writers = family.into_iter().map(|mut table| {
                scope.spawn(move || {
                    let mut told = 0;
                    let count = &mut |span: Span| told += (span.len / PAGE).cast_signed();
                    assert_eq!(live(|g| table.unshare(va(1), PAGE, g, count)), Ok(()));
                    assert!(!rights_at(&table, 2).contains(Attr::WRITE), "others map this frame");
                    let gone = retire(table).cast_signed();
                    (told, gone)
                })
            });
            let writers: Vec<_> = writers.collect();
            let results = writers.into_iter().map(|w| w.join().expect("no panic")).collect();
            accessed.join().expect("no panic");
            results
        });
        let raised: i64 = results.iter().map(|&(told, _)| told).sum();
        let lowered: i64 = results.iter().map(|&(_, gone)| gone).sum();
        let left = retire(reader).cast_signed();
        assert_eq!(pages.cast_signed() + raised - lowered - left, 0);
        assert_eq!(arena.frames_in_use(), 0);
    }
}
